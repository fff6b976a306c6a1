//! `image import`: files, a directory or a stream become an image.

mod source;
mod web;
mod words;

use std::time::Duration;

use clap::Args;
use lxd_proto::client::{LxdClient, UploadOptions};
use lxd_proto::config::CompressionAlgorithm;
use lxd_proto::extensions;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::image::Verified;
use lxd_proto::operation::Operation;
use lxd_proto::remote::{Error, Progress};
use lxd_proto::routes;
use serde::Serialize;

use crate::command::flags::ResultFormat;
use crate::command::image::alias::moved;
use crate::command::image::claims::{self, Claim};
use crate::command::image::edit::overlay;
use crate::command::image::update::update;
use crate::command::operation::follow;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Shape, emit};
use crate::progress::{Shown, show};

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
input, for a whole image or for the root file system. For an https:// address the server asks that
web server where the image is (LXD-Image-URL, LXD-Image-Hash), and fetches it from there.

A file that the server has already is not sent: the image only gets the aliases, properties and
flags. (A stream is sent, and then found to be there.) The check of an .xz image goes on after the
import, unless --verify waits for it; `lxd-cli image info` tells what came of it.

Examples:
  lxd-cli image import debian.tar.xz --alias debian/12 --public
  lxd-cli image import meta.tar.xz rootfs.squashfs --alias debian/12 --reuse
  lxd-cli image import https://images.example.org/debian --alias debian/12
  lxd-cli image import ./tree local: os=debian release=12
  zcat backup.tar.gz | lxd-cli image import -"
)]
pub(crate) struct Import {
    /// One or two files, a directory, a URL or "-"; a remote ("NAME:"); properties
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
    /// `imported`, `present`, or `restored` when the server had lost its file.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    aliases: Vec<Claim>,
}

impl Import {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let words = Words::sort(&context.remotes, &self.words)?;
        let names = claims::typed(&self.aliases)?;
        let compression = self.compression()?;
        let server = context.remotes.server(&words.remote)?;
        // Ask before reading gigabytes: a daemon that is not there is noticed at once.
        let known = server.server().await?.value.api_extensions;
        let has = |name: &str| known.iter().any(|known| known == name);
        let checks = has(extensions::VERIFIED);
        if self.verify && !checks {
            return Err(Failure::new(format!("{}: does not check images", words.remote)).hint(
                "Leave out --verify; after the import `lxd-cli image verify` checks the image here.",
            ));
        }
        if let Some(url) = words.url() {
            let report = self.web(context, &server, url, &words, &names).await?;
            return self.tell(context, &report);
        }
        let source = Source::open(&words.files, compression).await;
        let source =
            source.map_err(
                |failure| if words.files.len() == 1 { other_file(failure) } else { failure },
            )?;
        let fingerprint = self.hash(context, &source).await?;
        let claims = claims::look_up(&server, &names).await?;
        if !self.reuse {
            claims::refuse_taken(&claims, fingerprint)?;
        }
        let options = UploadOptions {
            public: self.public,
            properties: words.properties,
            fingerprint,
            aliases: self.aliases.clone(),
            alias_reuse: self.reuse,
            verify: self.verify,
            ..UploadOptions::default()
        };
        let alone = words.files.len() == 1;
        let job = Job { server, claims, options, reuse: self.reuse };
        let present = match fingerprint {
            Some(fingerprint) => job.presence(fingerprint, checks).await?,
            None => Presence::Absent,
        };
        let report = match (fingerprint, present) {
            (Some(fingerprint), Presence::Whole) => job.apply(fingerprint, "present").await?,
            (_, present) => {
                let sent = job.send(context, source, has(extensions::ALIAS_REUSE), present).await;
                sent.map_err(|failure| if alone { other_file(failure) } else { failure })?
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
            "restored" => format!("Image restored with fingerprint: {fingerprint}\n"),
            _ => format!("Image imported with fingerprint: {fingerprint}\n"),
        };
        for claim in &report.aliases {
            if let Some(old) = claim.was.filter(|old| *old != fingerprint) {
                text.push_str(&moved(&claim.name, old, fingerprint));
            }
        }
        self.format.print(report, &text)
    }
}

/// An import once its source and its server are known.
struct Job {
    server: LxdClient,
    claims: Vec<Claim>,
    options: UploadOptions,
    reuse: bool,
}

/// What the server has of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Absent,
    /// It knows the image, but its file is not what it was.
    Damaged,
    Whole,
}

impl Job {
    /// What the server has of the image; one of ours says whether the file is there as well.
    async fn presence(&self, fingerprint: Fingerprint, ours: bool) -> Outcome<Presence> {
        match self.server.get_image(&Prefix::from(fingerprint), None).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(Presence::Absent),
            Err(error) => return Err(error.into()),
        }
        let path = routes::IMAGE_EXPORT.url(&[&fingerprint.to_string()]);
        let damaged = ours && self.server.query("HEAD", &path, None).await?.status == 500;
        Ok(if damaged { Presence::Damaged } else { Presence::Whole })
    }

    /// Fails when the server has found out that the image is bad. With `--verify` that is known
    /// only when the check has ended.
    async fn refuse_bad(&self, fingerprint: Fingerprint) -> Outcome {
        let mut pause = Duration::from_millis(50);
        loop {
            let image = self.server.get_image(&Prefix::from(fingerprint), None).await?.value;
            match image.verified {
                Verified::No(reason) => {
                    let what = format!(
                        "image {} is there already, but it is bad: {reason}",
                        fingerprint.short()
                    );
                    return Err(Failure::new(what).hint(format!(
                        "`lxd-cli image delete {}` removes it.",
                        fingerprint.short()
                    )));
                }
                Verified::Pending if self.options.verify => {}
                Verified::Pending | Verified::Yes => return Ok(()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Gives an image that is there already what was asked for.
    async fn apply(self, fingerprint: Fingerprint, status: &'static str) -> Outcome<Report> {
        self.refuse_bad(fingerprint).await?;
        let options = &self.options;
        update(&self.server, fingerprint, |image| {
            image.public |= options.public;
            for (key, value) in &options.properties {
                overlay(&mut image.properties, key, value);
            }
        })
        .await?;
        claims::set(&self.server, &self.claims, fingerprint, self.reuse).await?;
        Ok(Report { fingerprint, status, size: None, aliases: self.claims })
    }

    /// Sends the image; `with_aliases` when the server sets them in the same step.
    async fn send(
        mut self,
        context: &Context,
        source: Source,
        with_aliases: bool,
        present: Presence,
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
                let damaged = present == Presence::Damaged;
                let status = if damaged { "restored" } else { "present" };
                return self.apply(fingerprint, status).await;
            }
        };
        shown.done();
        let metadata = operation.metadata.unwrap_or_default();
        let text = metadata.get("fingerprint").and_then(|value| value.as_str());
        let fingerprint = text.and_then(|text| text.parse().ok()).ok_or_else(|| {
            Failure::new("the server has taken the image, but does not say its fingerprint")
        })?;
        if !with_aliases {
            claims::set(&self.server, &self.claims, fingerprint, self.reuse).await?;
        }
        let size = Some(progress.done());
        Ok(Report { fingerprint, status: "imported", size, aliases: self.claims })
    }
}

/// Says what is missing when one file alone is no image: it may be one of two.
fn other_file(failure: Failure) -> Failure {
    const SIGNS: &[&str] =
        &["doesn't belong there", "Invalid instance type", "missing metadata.yaml"];
    if SIGNS.iter().any(|sign| failure.error.contains(sign)) {
        failure.hint(
            "One file is a whole image: metadata.yaml and rootfs/. Is this only the metadata, or \
             only the root file system? Then give both: `lxd-cli image import METADATA ROOTFS`.",
        )
    } else {
        failure
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
    let ended = follow(context, server, operation, shown, "the import").await?;
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
