//! What is measured: one file for each scenario.

mod alias;
mod compressed;
mod copy;
mod export;
mod https;
mod import;
mod large;
mod launch;
mod list;
mod publish;
mod publisher;
mod startup;
mod streams;
mod uploads;

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use crate::options::Options;
use crate::report::Report;
use large::Large;

/// The scenarios, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// One large plain tarball with everything in it
    ImportUnified,
    /// The same size as metadata and rootfs
    ImportSplit,
    /// A Debian root as .tar.gz, .tar.zst and .tar.xz
    ImportCompressed,
    /// Downloading the large image
    Export,
    /// Many small uploads at once
    Uploads,
    /// All images of a small and a large store
    List,
    /// Looking up aliases, alone, with others, and during lists
    Alias,
    /// From the start of the process to the first answer
    Startup,
    /// The large image from one daemon to another
    Copy,
    /// Large public images over HTTPS, beside nginx
    HttpsLarge,
    /// Small public images over HTTPS
    HttpsSmall,
    /// The clients on a large simplestreams catalog
    StreamsCatalog,
    /// Many clients that want one simplestreams image
    StreamsPull,
    /// Asking a simplestreams server about current images
    StreamsRefresh,
    /// Our own simplestreams server with 20,000 products, beside nginx
    StreamsServe,
    /// A simplestreams tree of 500 images, beside hashing alone
    StreamsBuild,
    /// Containers of a Debian image: first, further, many, deleted
    Launch,
    /// Images of a container, with gzip and zstd
    Publish,
}

/// A run: what was asked for, what came out, and the large store that some scenarios share.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) report: Report,
    large: Option<Large>,
}

impl Bench {
    pub(crate) fn new(options: Options) -> Self {
        let report = Report::new(&options);
        Self { options, report, large: None }
    }

    /// Measures one scenario and adds its rows to the report.
    pub(crate) fn run(&mut self, scenario: Scenario) -> Result<()> {
        match scenario {
            Scenario::ImportUnified => import::unified(self)?,
            Scenario::ImportSplit => import::split(self)?,
            Scenario::ImportCompressed => compressed::run(self)?,
            Scenario::Export => export::run(self)?,
            Scenario::Uploads => uploads::run(self)?,
            Scenario::List => list::run(self),
            Scenario::Alias => alias::run(self),
            Scenario::Startup => startup::run(self),
            Scenario::Copy => copy::run(self)?,
            Scenario::HttpsLarge => https::large(self)?,
            Scenario::HttpsSmall => https::small(self)?,
            Scenario::StreamsCatalog => streams::catalog(self)?,
            Scenario::StreamsPull => streams::pull(self)?,
            Scenario::StreamsRefresh => streams::refresh(self)?,
            Scenario::StreamsServe => publisher::serve(self)?,
            Scenario::StreamsBuild => publisher::build(self)?,
            Scenario::Launch => launch::run(self)?,
            Scenario::Publish => publish::run(self)?,
        }
        Ok(())
    }

    /// The store of many images with at least `images` in it.
    fn large(&mut self, images: usize) -> &mut Large {
        let large = match self.large.take() {
            Some(large) => large,
            None => Large::start(&self.options),
        };
        let large = self.large.insert(large);
        large.grow(images);
        large
    }
}

/// Whether a directory is on a disk or in memory, for the names of rows.
fn medium(dir: &Path) -> Result<&'static str> {
    /// `statfs` says so for a tmpfs.
    const TMPFS: i64 = 0x0102_1994;
    let kind = rustix::fs::statfs(dir)?.f_type;
    Ok(if kind == TMPFS { "tmpfs" } else { "disk" })
}

/// Bytes in a MiB, for figures.
const MIB: f64 = 1_048_576.0;

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}
