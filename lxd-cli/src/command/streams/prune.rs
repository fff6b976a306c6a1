//! `streams prune`: old versions out of a tree.

use std::path::PathBuf;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use lxd_proto::remote::Progress;
use lxd_simplestreams::builder::{BuildOptions, Deltas, KEEP, LocalTree, Retention};

use super::sign::SignKeyFlag;
use super::{JobsFlag, report};
use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::editor::blocking;
use crate::failure::Outcome;
use crate::progress::show;

/// Take old versions out of a tree.
#[derive(Debug, Args)]
#[command(after_help = "\
A version stays if any rule keeps it: it is one of the newest N of its product, or no older than D
days by its serial. Containers and virtual machines are counted apart. The newest of a product
always stays. Without rules the newest three stay.

What goes leaves the catalog at once. Its files are removed by a later run, when they have been out
of the catalog for the grace time: clients go on with a catalog that they have for an hour and more.
Deltas go with the version that they start from. Each removal is told with its reason. Only the files
of a version go, never what else lies beside or below them. A version whose files are still there
comes back when the rules keep it, or when nothing else of its product can be published.

Examples:
  lxd-cli streams prune /srv/images --dry-run
  lxd-cli streams prune /srv/images --keep 5 --days 30
  lxd-cli streams prune /srv/images --keep 1 --grace 0")]
pub(crate) struct Prune {
    /// The tree
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Keep so many versions of each product
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Keep versions of so many days
    #[arg(long, value_name = "D")]
    days: Option<u32>,
    /// Remove files that have been out of the catalog for so many hours
    #[arg(long, value_name = "HOURS", default_value_t = 48)]
    grace: u32,
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    sign_key: SignKeyFlag,
    #[command(flatten)]
    jobs: JobsFlag,
    #[command(flatten)]
    format: ResultFormat,
}

impl Prune {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let mut retention = Retention {
            keep: self.keep.and_then(|keep| usize::try_from(keep).ok()),
            days: self.days,
        };
        if (retention.keep, retention.days) == (None, None) {
            retention.keep = Some(KEEP);
        }
        let options = BuildOptions {
            deltas: Deltas::Existing,
            retention: Some(retention),
            grace: SignedDuration::from_hours(i64::from(self.grace)),
            dry_run: self.dry_run,
            force: false,
        };
        let progress = Progress::default();
        let (directory, jobs, counted) =
            (self.directory.clone(), self.jobs.get(), progress.clone());
        let shown = show(context.progress, "Reading the tree", &progress);
        let signer = self.sign_key.load()?;
        let pruned = blocking(move || {
            let tree = if options.dry_run {
                LocalTree::open_unchanged(&directory, jobs, counted)
            } else {
                LocalTree::open(&directory, false, jobs, counted)
            };
            tree?.signed_by(signer).build(&options, Timestamp::now())
        });
        let pruned = pruned.await??;
        shown.done();
        report::tell(context, &self.format, &pruned, self.dry_run)
    }
}
