//! `image import`: files, a directory or a stream become an image.

mod aliases;
mod source;
mod words;

use clap::Args;
use lxd_proto::alias::AliasName;
use lxd_proto::client::{LxdClient, UploadOptions};
use lxd_proto::config::CompressionAlgorithm;
use lxd_proto::extensions;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::operation::Operation;
use lxd_proto::remote::{Error, Progress};
use serde::Serialize;

use crate::command::flags::ResultFormat;
use crate::command::image::alias::moved;
use crate::command::image::edit::overlay;
use crate::command::image::update::update;
use crate::command::operation::server_progress;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::interrupt::interrupted;
use crate::output::{Shape, emit, print_result};
use crate::progress::{Shown, show};

use aliases::Claim;
use source::Source;
use words::Words;

/// Files larger than this are hashed with progress shown.
const SLOW_TO_HASH: u64 = 256 << 20;

/// Add an image.
#[derive(Debug, Args)]
#[command(
    override_usage = "lxd-cli image import [OPTIONS] FILE [ROOTFS] [REMOTE:] [KEY=VALUE]...",
    after_help = "\
One file is a whole image; two are its metadata tarball and its root file system, in either order.
A directory holds metadata.yaml and rootfs/, and templates/ if there are any. \"-\" is standard
input, for a whole image or for the root file system. The same content is never sent twice: an
image that the server has already only gets the aliases, properties and flags.

Examples:
  lxd-cli image import debian.tar.xz --alias debian/12 --public
  lxd-cli image import meta.tar.xz rootfs.squashfs --alias debian/12 --reuse
  lxd-cli image import ./tree local: os=debian release=12
  zcat backup.tar.gz | lxd-cli image import -"
)]
pub(crate) struct Import {
    /// One or two files, a directory or "-"; a remote ("NAME:"); properties
    #[arg(value_name = "FILE", required = true)]
    words: Vec<String>,
    /// A name for the image; may be repeated
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Show the image to strangers
    #[arg(long)]
    public: bool,
    /// Take the names from other images if they have them
    #[arg(long)]
    reuse: bool,
    /// Return only when the whole archive has been checked, also one that is slow to check
    #[arg(long)]
    verify: bool,
    /// How a directory is packed: none, gzip, bzip2, xz, lzma or zstd, with a level if wanted ("xz -9")
    #[arg(long, value_name = "ALGORITHM", allow_hyphen_values = true)]
    compression: Option<String>,
    #[command(flatten)]
    format: ResultFormat,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    fingerprint: Fingerprint,
    /// `imported` or `present`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    aliases: Vec<Claim>,
}

impl Import {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let words = Words::sort(&context.remotes, &self.words)?;
        for alias in &self.aliases {
            alias.parse::<AliasName>().map_err(|error| Failure::usage(error.to_string()))?;
        }
        let compression = self.compression()?;
        let server = context.remotes.server(&words.remote)?;
        // Ask before reading gigabytes: a daemon that is not there is noticed at once.
        let known = server.server().await?.value.api_extensions;
        let source = Source::open(&words.files, compression).await?;
        let fingerprint = self.hash(context, &source).await?;
        let claims = aliases::look_up(&server, &self.aliases).await?;
        if !self.reuse {
            aliases::refuse_taken(&claims, fingerprint)?;
        }
        let options = UploadOptions {
            public: self.public,
            properties: words.properties,
            fingerprint,
            aliases: self.aliases.clone(),
            alias_reuse: self.reuse,
            verify: self.verify,
        };
        let job = Job { server, claims, options, reuse: self.reuse };
        let report = match fingerprint {
            Some(fingerprint) if job.is_present(fingerprint).await? => {
                job.apply(fingerprint).await?
            }
            _ => {
                let with_aliases = known.iter().any(|name| name == extensions::ALIAS_REUSE);
                job.send(context, source, with_aliases).await?
            }
        };
        self.tell(context, &report)
    }

    fn compression(&self) -> Outcome<Option<CompressionAlgorithm>> {
        let Some(text) = &self.compression else { return Ok(None) };
        text.parse().map(Some).map_err(|error| Failure::usage(format!("--compression: {error}")))
    }

    /// The fingerprint, where the bytes can be read twice.
    async fn hash(&self, context: &Context, source: &Source) -> Outcome<Option<Fingerprint>> {
        let progress = Progress::default();
        let shown = source.size().filter(|size| *size > SLOW_TO_HASH).map(|size| {
            progress.set_total(size);
            show(context.progress, "Reading the image", &progress)
        });
        let fingerprint = source.hash(&progress).await?;
        shown.map(Shown::done).unwrap_or_default();
        Ok(fingerprint)
    }

    fn tell(&self, context: &Context, report: &Report) -> Outcome {
        let fingerprint = report.fingerprint;
        if context.quiet && self.format.format.shape == Shape::Table {
            return emit(&format!("{fingerprint}\n"));
        }
        let mut text = match report.status {
            "present" => format!("Image already present with fingerprint: {fingerprint}\n"),
            _ => format!("Image imported with fingerprint: {fingerprint}\n"),
        };
        for claim in &report.aliases {
            if let Some(old) = claim.was.filter(|old| *old != fingerprint) {
                text.push_str(&moved(&claim.name, old, fingerprint));
            }
        }
        print_result(self.format.format, report, &text)
    }
}

/// An import once its source and its server are known.
struct Job {
    server: LxdClient,
    claims: Vec<Claim>,
    options: UploadOptions,
    reuse: bool,
}

impl Job {
    async fn is_present(&self, fingerprint: Fingerprint) -> Outcome<bool> {
        match self.server.get_image(&Prefix::from(fingerprint), None).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives an image that is there already what was asked for.
    async fn apply(self, fingerprint: Fingerprint) -> Outcome<Report> {
        let options = &self.options;
        update(&self.server, fingerprint, |image| {
            image.public |= options.public;
            for (key, value) in &options.properties {
                overlay(&mut image.properties, key, value);
            }
        })
        .await?;
        aliases::set(&self.server, &self.claims, fingerprint, self.reuse).await?;
        Ok(Report { fingerprint, status: "present", size: None, aliases: self.claims })
    }

    /// Sends the image; `with_aliases` when the server sets them in the same step.
    async fn send(
        mut self,
        context: &Context,
        source: Source,
        with_aliases: bool,
    ) -> Outcome<Report> {
        let names = std::mem::take(&mut self.options.aliases);
        if with_aliases {
            self.options.aliases = names;
        }
        let progress = Progress::default();
        if let Some(size) = source.size() {
            progress.set_total(size);
        }
        let shown = show(context.progress, "Transferring image", &progress);
        let body = source.into_body();
        let operation = self.server.upload(body, &self.options, &progress).await?;
        let ended = wait(context, &self.server, operation, &shown).await?;
        let operation = match ended {
            Ended::Success(operation) => operation,
            Ended::Present(fingerprint) => {
                drop(shown);
                return self.apply(fingerprint).await;
            }
        };
        shown.done();
        let metadata = operation.metadata.unwrap_or_default();
        let text = metadata.get("fingerprint").and_then(|value| value.as_str());
        let fingerprint = text.and_then(|text| text.parse().ok()).ok_or_else(|| {
            Failure::new("the server has taken the image, but does not say its fingerprint")
        })?;
        if !with_aliases {
            aliases::set(&self.server, &self.claims, fingerprint, self.reuse).await?;
        }
        let size = Some(progress.done());
        Ok(Report { fingerprint, status: "imported", size, aliases: self.claims })
    }
}

enum Ended {
    Success(Operation),
    /// The server has this image already, as it found when it had read all of it.
    Present(Fingerprint),
}

/// Waits for the server to finish; an interrupt cancels its work.
async fn wait(
    context: &Context,
    server: &LxdClient,
    operation: Operation,
    shown: &Shown,
) -> Outcome<Ended> {
    context.interrupt.handle();
    let id = operation.id.clone();
    let ended = tokio::select! {
        ended = server.finish(operation, |now| shown.note(&server_progress(now))) => ended,
        () = context.interrupt.happened() => {
            return Err(match server.cancel_operation(&id).await {
                Ok(()) => interrupted("the import was cancelled"),
                Err(_) => interrupted("the server has all bytes and goes on with the import")
                    .hint(format!("`lxd-cli operation wait {id}` waits for it.")),
            });
        }
    };
    match ended {
        Ok(operation) => Ok(Ended::Success(operation)),
        Err(Error::Operation(operation)) if operation.err.contains("already exists") => {
            let metadata = operation.metadata.iter().flatten();
            let mut values = metadata.filter(|(key, _)| *key == "fingerprint");
            let text = values.find_map(|(_, value)| value.as_str());
            match text.and_then(|text| text.parse().ok()) {
                Some(fingerprint) if !operation.err.starts_with("Alias") => {
                    Ok(Ended::Present(fingerprint))
                }
                _ => Err(Error::Operation(operation).into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}
