//! `mirror import`: takes a bundle in. Each file is compared with the manifest before it is sent, and
//! the daemon hashes and checks it again before the image appears.

use std::collections::{BTreeMap, HashSet};
use std::io::SeekFrom;
use std::path::PathBuf;

use clap::Args;
use lxd_proto::client::{FilePart, ListOptions, LxdClient, Mirrored, UploadBody, UploadOptions};
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::mirror::bundle::{BundledImage, MirrorImportPost};
use lxd_proto::mirror::{MirrorAction, MirrorConfig, MirrorReport, MirrorsPost};
use lxd_proto::remote::Progress;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::archive::Bundle;
use crate::command::flags::ResultFormat;
use crate::command::mirror::{report, run};
use crate::command::operation::follow;
use crate::context::Context;
use crate::editor::blocking;
use crate::failure::{Failure, Outcome};
use crate::output::note;
use crate::progress::{Shown, show};

/// Bytes read at a time.
const READ: usize = 256 << 10;

/// Take a bundle in.
#[derive(Debug, Args)]
#[command(after_help = "\
The images become those of a mirror, which is made if there is none of that name. What is here
already is not sent again, so an import that was cut off goes on when it is repeated. A damaged file
costs its image only. Names move and old versions go when everything has arrived, as in a run; what is
newer here than in the bundle stays. A mirror with a keyring takes no bundles: they are not signed.

Examples:
  lxd-cli mirror import /media/usb/debian.bundle
  lxd-cli mirror import debian.bundle --name airgap --public")]
pub(crate) struct Import {
    /// The bundle
    file: PathBuf,
    /// Which server; the default remote if not given
    #[arg(long, value_name = "REMOTE:")]
    to: Option<String>,
    /// The mirror that the images become part of, instead of the one they come from
    #[arg(long, value_name = "MIRROR")]
    name: Option<String>,
    /// Show the images to everybody
    #[arg(long)]
    public: bool,
    #[command(flatten)]
    format: ResultFormat,
}

impl Import {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let bundle = self.open().await?;
        let server = self.server(context)?;
        let name = self.name.clone().unwrap_or_else(|| bundle.manifest.mirror.to_string());
        let config = self.mirror(&server, &name, bundle.manifest.keep).await?;
        let options = ListOptions { all_versions: true, ..ListOptions::default() };
        let here: HashSet<Fingerprint> =
            server.list_images(&options).await?.iter().map(|image| image.fingerprint).collect();
        let is_wanted = |image: &&BundledImage| {
            !here.contains(&image.fingerprint) && config.selects(&image.described())
        };
        let missing: Vec<&BundledImage> = bundle.manifest.images.iter().filter(is_wanted).collect();
        let progress = Progress::default();
        progress.set_total(missing.iter().map(|image| image.size).sum());
        let shown = show(context.progress, &format!("Importing mirror {name}"), &progress);
        let mut job = Job {
            context,
            server: &server,
            import: self,
            bundle: &bundle,
            mirror: &name,
            public: config.public,
            shown: &shown,
            sent: HashSet::new(),
            faults: BTreeMap::new(),
        };
        for image in missing {
            job.image(image).await?;
        }
        let Job { sent, faults, .. } = job;
        let post = MirrorImportPost { images: bundle.manifest.images.clone() };
        let operation = server.import_mirror(&name, &post).await?;
        let ended = follow(context, &server, operation, &shown, "the import").await??;
        shown.done();
        let report = merged(run::told(&ended)?, &sent, &faults);
        if !context.quiet || !self.format.is_text() {
            self.format.print(&report, &report::text(&report))?;
        }
        run::incomplete(&report)
    }

    async fn open(&self) -> Outcome<Bundle> {
        let path = self.file.clone();
        let opened = blocking(move || {
            let mut file = std::fs::File::open(path)?;
            Bundle::open(&mut file)
        });
        opened.await?.map_err(|error| Failure::new(format!("{}: {error}", self.file.display())))
    }

    fn server(&self, context: &Context) -> Outcome<LxdClient> {
        let Some(word) = &self.to else {
            return context.remotes.server(&context.remotes.config.default_remote);
        };
        match context.remotes.parse_bare(word) {
            Some(remote) => context.remotes.server(&remote?),
            None => Err(Failure::usage(format!("\"{word}\" is no remote"))
                .hint("A remote ends with a colon, as in \"local:\".")),
        }
    }

    /// How the mirror is kept that the images become part of; it is made if it is missing.
    async fn mirror(&self, server: &LxdClient, name: &str, keep: u32) -> Outcome<MirrorConfig> {
        match server.get_mirror(name).await {
            Ok(known) if self.public && !known.value.config.public => {
                let config = Map::from_iter([("public".to_owned(), Value::Bool(true))]);
                let patch = lxd_proto::mirror::MirrorPatch { config };
                server.patch_mirror(name, &patch, None).await?;
                Ok(MirrorConfig { public: true, ..known.value.config })
            }
            Ok(known) => Ok(known.value.config),
            Err(error) if error.is_not_found() => {
                let config = MirrorConfig { keep, public: self.public, ..MirrorConfig::default() };
                let post = MirrorsPost { name: name.to_owned(), config };
                server.create_mirror(&post).await?;
                Ok(post.config)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// An import under way.
struct Job<'a> {
    context: &'a Context,
    server: &'a LxdClient,
    import: &'a Import,
    bundle: &'a Bundle,
    mirror: &'a str,
    public: bool,
    shown: &'a Shown,
    sent: HashSet<Fingerprint>,
    /// Why images could not be taken in.
    faults: BTreeMap<Fingerprint, String>,
}

impl Job<'_> {
    /// Sends one image; what is wrong with it is told at the end.
    async fn image(&mut self, image: &BundledImage) -> Outcome {
        let fault = match self.damage(image).await? {
            Some(damage) => Some(damage),
            None => self.send(image).await?,
        };
        match fault {
            None => drop(self.sent.insert(image.fingerprint)),
            Some(fault) => {
                note(&format!("Warning: image {}: {fault}", image.fingerprint.short()));
                self.faults.insert(image.fingerprint, fault);
            }
        }
        Ok(())
    }

    /// What is wrong with the files of an image, if anything is.
    async fn damage(&self, image: &BundledImage) -> Outcome<Option<String>> {
        for file in image.files() {
            let Some(place) = self.bundle.places.get(&file) else { continue };
            if let Some(damage) = place.damage {
                return Ok(Some(format!("file {file} in the bundle: {damage}")));
            }
            let mut reader = self.reader(&file).await?;
            let mut hash = Sha256::new();
            let mut buffer = vec![0; READ];
            loop {
                let read =
                    reader.read(&mut buffer).await.map_err(|error| self.unreadable(error))?;
                if read == 0 {
                    break;
                }
                hash.update(&buffer[..read]);
            }
            let got = Fingerprint::from_bytes(hash.finalize().into());
            if got != file {
                return Ok(Some(format!(
                    "file {file} in the bundle is damaged: its SHA-256 is {got}"
                )));
            }
        }
        Ok(None)
    }

    fn unreadable(&self, error: std::io::Error) -> Failure {
        Failure::new(format!("cannot read {}: {error}", self.import.file.display()))
    }

    /// The bytes of one file.
    async fn reader(&self, file: &Fingerprint) -> Outcome<tokio::io::Take<File>> {
        let place = self.bundle.places.get(file);
        let (offset, size) = place.map_or((0, 0), |place| (place.offset, place.size));
        let open = async {
            let mut file = File::open(&self.import.file).await?;
            file.seek(SeekFrom::Start(offset)).await?;
            Ok(file.take(size))
        };
        open.await.map_err(|error| self.unreadable(error))
    }

    async fn part(&self, file: &Fingerprint, filename: &str) -> Outcome<FilePart> {
        let length = self.bundle.places.get(file).map(|place| place.size);
        let reader = Box::pin(self.reader(file).await?);
        Ok(FilePart { filename: filename.to_owned(), length, reader })
    }

    /// Sends an image; the daemon's refusal is no failure of the import.
    async fn send(&self, image: &BundledImage) -> Outcome<Option<String>> {
        let metadata = self.part(&image.metadata, &image.filename).await?;
        let body = match &image.root {
            None => UploadBody::Unified(metadata),
            Some(root) => {
                let rootfs = self.part(root, &image.filename).await?;
                UploadBody::Split { metadata, rootfs, kind: image.kind }
            }
        };
        let options = UploadOptions {
            public: self.public,
            properties: image.properties.clone(),
            fingerprint: Some(image.fingerprint),
            verify: true,
            mirrored: Some(Mirrored {
                mirror: self.mirror.to_owned(),
                created_at: image.created_at,
                expires_at: image.expires_at,
            }),
            ..UploadOptions::default()
        };
        let operation = self.server.upload(body, &options, self.shown.progress()).await?;
        let ended = follow(self.context, self.server, operation, self.shown, "the import").await?;
        Ok(match ended {
            Ok(_) => None,
            // Somebody else was faster.
            Err(error) if error.to_string().contains("already exists") => None,
            Err(error) => Some(error.to_string()),
        })
    }
}

/// What the daemon has told, with what it cannot know: which images were sent just now, and why
/// others were not.
fn merged(
    told: MirrorReport,
    sent: &HashSet<Fingerprint>,
    faults: &BTreeMap<Fingerprint, String>,
) -> MirrorReport {
    let mut report = MirrorReport::new(told.conflicts);
    for mut item in told.items {
        match item.action {
            MirrorAction::Present | MirrorAction::Adopt if sent.contains(&item.fingerprint) => {
                item.action = MirrorAction::Download;
            }
            MirrorAction::Fail => {
                if let Some(fault) = faults.get(&item.fingerprint) {
                    item.reason.clone_from(fault);
                }
            }
            _ => {}
        }
        report.add(item);
    }
    report.omitted = told.omitted;
    report.counts.upstream = told.counts.upstream;
    report.counts.products = told.counts.products;
    report
}
