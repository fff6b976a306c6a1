//! `image verify`: reads a whole image and checks its hash and its archives.

use std::fs::File;
use std::io::{self, Write};

use async_trait::async_trait;
use bytes::Bytes;
use clap::Args;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::{Checker, Findings, Limits, Role};
use lxd_proto::remote::{Fetch, FileRole, IncomingFile, Sink, fetch as fetch_image};
use serde::Serialize;
use tokio::task::block_in_place;

use crate::command::flags::{ImageArg, ResultFormat};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::progress::show;

/// Read a whole image and check it.
#[derive(Debug, Args)]
#[command(after_help = "\
The image is read to its end here, on this machine: its hash is compared with the fingerprint, and
the archives are checked as the daemon checks them at import. Nothing is unpacked to disk, but each
file of the image lies in a temporary file ($TMPDIR, /tmp) meanwhile.

Example:
  lxd-cli image verify debian/12")]
pub(crate) struct Verify {
    #[command(flatten)]
    image: ImageArg,
    #[command(flatten)]
    format: ResultFormat,
}

#[derive(Debug, Serialize)]
struct Report {
    fingerprint: Fingerprint,
    verified: bool,
    entries: u64,
    unpacked_bytes: u64,
}

impl Verify {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let found = self.image.read(context).await?;
        let image = found.resolved.image;
        let fetch = Fetch::default();
        fetch.progress.set_total(image.size);
        let shown = show(context.progress, "Verifying the image", &fetch.progress);
        let mut check = Check::default();
        let fetched = fetch_image(&*found.server, &image, &fetch, &mut check).await;
        if let Some(reason) = check.refused.take() {
            return Err(bad(image.fingerprint, &reason));
        }
        fetched?;
        check.end().map_err(|error| match check.refused.take() {
            Some(reason) => bad(image.fingerprint, &reason),
            None => Failure::new(format!("cannot check the image: {error}")),
        })?;
        shown.done();
        let report = Report {
            fingerprint: image.fingerprint,
            verified: true,
            entries: check.findings.iter().map(|found| found.entries).sum(),
            unpacked_bytes: check.findings.iter().map(|found| found.unpacked_bytes).sum(),
        };
        let text = format!(
            "Image {} is sound: {} entries, {} bytes unpacked\n",
            report.fingerprint, report.entries, report.unpacked_bytes
        );
        if context.quiet { self.format.done(&report) } else { self.format.print(&report, &text) }
    }
}

fn bad(fingerprint: Fingerprint, reason: &str) -> Failure {
    Failure::new(format!("image {fingerprint} is bad: {reason}"))
}

/// Spools each file, for formats that can only be checked whole, and checks it.
#[derive(Debug, Default)]
struct Check {
    current: Option<(Checker, File)>,
    findings: Vec<Findings>,
    /// Why the image is bad.
    refused: Option<String>,
}

impl Check {
    fn end(&mut self) -> io::Result<()> {
        let Some((checker, file)) = self.current.take() else { return Ok(()) };
        let found = block_in_place(|| checker.finish(&file));
        match found {
            Ok(found) => {
                self.findings.push(found);
                Ok(())
            }
            Err(error) => Err(self.refuse(&error)),
        }
    }

    fn refuse(&mut self, error: &dyn std::fmt::Display) -> io::Error {
        self.refused = Some(error.to_string());
        io::Error::other(error.to_string())
    }
}

#[async_trait]
impl Sink for Check {
    async fn begin(&mut self, file: &IncomingFile) -> io::Result<u64> {
        self.end()?;
        let role = match file.role {
            FileRole::Unified => Role::Unified,
            FileRole::Metadata => Role::Metadata,
            FileRole::Rootfs(_) => Role::Rootfs,
        };
        self.current = Some((Checker::new(role, Limits::default()), tempfile::tempfile()?));
        Ok(0)
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let Some((checker, file)) = &mut self.current else { return Ok(()) };
        let fed = block_in_place(|| {
            file.write_all(&bytes)?;
            Ok::<_, io::Error>(checker.feed(&bytes))
        })?;
        fed.map_err(|error| self.refuse(&error))
    }
}
