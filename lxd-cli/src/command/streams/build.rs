//! `streams build`: from image files to a tree that LXD, Incus and the simplestreams tools read.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use lxd_proto::remote::{Fetch, Progress};
use lxd_simplestreams::builder::{
    BuildOptions, Deltas, GRACE, LocalTree, Means, Retention, TakenReport,
};

use super::sign::SignKeyFlag;
use super::{JobsFlag, report};
use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::editor::blocking;
use crate::failure::{Failure, Outcome};
use crate::progress::show;

/// Make a directory of images a simplestreams tree, or bring one up to date.
#[derive(Debug, Args)]
#[command(after_help = "\
Every directory below DIR/images that holds a metadata file and a root file, or a whole image, is a
version; what files are is told by their content. Product, version and names come from the image's
metadata.yaml, or from directories of the shape images/OS/RELEASE/ARCH/VARIANT/SERIAL; the names that
images have at a remote come before those. Where several files could be the root of an image, it is
the one with a usual name (rootfs, root, disk) or with the name of the metadata file. Each new file is
read whole once and checked as a server checks what is imported. Names that begin with a dot, backup
copies (.bak, .old, .orig, .part, ~) and links are passed over. The documents are written below DIR/streams, the index last; a
reader sees the old tree or the new one. When nothing has changed, nothing is written.

With --from images come into the tree first: those below a directory, as image builders and `image
export` leave them, or the public ones of a remote. What is there already does not come again, nor
does what prune has removed, unless --keep covers it. Images of a remote that it does not publish
any more are told and stay: remove the directory of one and build again to take it out.

Of SHA256SUMS beside the files, what it says about them has to be right; where there is none, it is
written.

An image that is broken does not keep the others: it is told, and the exit status is 1. Documents
that others made are not replaced, and a catalog does not become empty, without --force.

Hashes of files that have not changed, and names that images have at a remote, are remembered in
DIR/.lxd-streams.

Examples:
  lxd-cli streams build /srv/images --from ./distrobuilder-output
  lxd-cli streams build /srv/images --from local: --deltas --keep 3
  lxd-cli streams build /srv/images --sign-key signer.key
  lxd-cli streams build /srv/images --format json")]
pub(crate) struct Build {
    /// The tree; made if it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Take images from here: a directory, or a remote with its colon
    #[arg(long, value_name = "PATH|REMOTE:")]
    from: Vec<String>,
    /// Link the files of --from instead of copying them; nobody may write into them later
    #[arg(long)]
    link: bool,
    /// Make deltas between versions, for containers (squashfs) or for all; needs xdelta3
    #[arg(
        long,
        value_enum,
        value_name = "WHICH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "squashfs"
    )]
    deltas: Option<WhichDeltas>,
    /// Take older versions than the newest N of each product out of the catalog, containers and
    /// virtual machines apart; their files are removed by a build with --keep, or by prune, two
    /// days later
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Replace documents that others made; list nothing where something was listed
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    sign_key: SignKeyFlag,
    #[command(flatten)]
    jobs: JobsFlag,
    #[command(flatten)]
    format: ResultFormat,
}

/// What deltas are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WhichDeltas {
    /// Root file systems of containers
    Squashfs,
    /// Disks of virtual machines, too
    All,
}

/// Where images come from.
enum Origin {
    Directory(PathBuf),
    Remote(String),
}

impl Build {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let origins: Vec<Origin> =
            self.from.iter().map(|word| origin(context, word)).collect::<Outcome<_>>()?;
        let keep = self.keep.and_then(|keep| usize::try_from(keep).ok());
        let deltas = match self.deltas {
            None => Deltas::Existing,
            Some(WhichDeltas::Squashfs) => Deltas::Squashfs,
            Some(WhichDeltas::All) => Deltas::All,
        };
        let progress = Progress::default();
        let (directory, jobs, counted) =
            (self.directory.clone(), self.jobs.get(), progress.clone());
        let signer = self.sign_key.load()?;
        // Before anything is taken, which may be much.
        deltas.check_program()?;
        let opened = move || LocalTree::open(&directory, true, jobs, counted);
        let mut tree = blocking(opened).await??.signed_by(signer);
        let mut taken = TakenReport::default();
        for origin in origins {
            let came;
            (tree, came) = self.take(context, tree, origin, keep, &progress).await?;
            taken.add(came);
        }
        let options = BuildOptions {
            deltas,
            retention: keep.map(|keep| Retention { keep: Some(keep), days: None }),
            grace: GRACE,
            dry_run: false,
            force: self.force,
        };
        let shown = show(context.progress, "Building the tree", &progress);
        let built = blocking(move || tree.build(&options, Timestamp::now())).await??;
        shown.done();
        report::tell(context, &self.format, &built.with_taken(taken), false)
    }

    async fn take(
        &self,
        context: &Context,
        mut tree: LocalTree,
        origin: Origin,
        keep: Option<usize>,
        progress: &Progress,
    ) -> Outcome<(LocalTree, TakenReport)> {
        match origin {
            Origin::Directory(path) => {
                let means = if self.link { Means::Link } else { Means::Copy };
                let label = format!("Reading {}", path.display());
                let shown = show(context.progress, &label, progress);
                let done = blocking(move || {
                    let taken = tree.take(&path, means, keep);
                    (tree, taken)
                });
                let (tree, taken) = done.await?;
                shown.done();
                Ok((tree, taken?))
            }
            Origin::Remote(name) => {
                let server = context.remotes.reader(&name)?;
                let fetch = Fetch::default();
                let label = format!("Fetching from {name}:");
                let shown = show(context.progress, &label, &fetch.progress);
                let done = tree.fetch(&*server, &name, &fetch, keep).await?;
                shown.done();
                Ok(done)
            }
        }
    }
}

fn origin(context: &Context, word: &str) -> Outcome<Origin> {
    if let Some(remote) = context.remotes.parse_bare(word) {
        return remote.map(Origin::Remote);
    }
    if Path::new(word).is_dir() {
        return Ok(Origin::Directory(word.into()));
    }
    Err(context.remotes.lacks_colon(word).unwrap_or_else(|| {
        Failure::new(format!("{word} is no directory"))
            .hint("Images come from a directory or, with its colon, from a remote.")
    }))
}
