//! The command line: which scenarios, how large, where the stores lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use crate::scenario::Scenario;

/// Measures lxd-imaged and a real LXD 5.0.2 in turn and prints medians and ratios.
///
/// The load comes from a small HTTP client of its own (threads, one unix socket connection each,
/// 256 KiB per write), the same for both. Run it as root, with the Debian package `lxd` installed.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// Only this scenario; may be repeated
    #[arg(long, value_enum, value_name = "NAME")]
    scenario: Vec<Scenario>,
    /// Size of the large image, in MiB [default: 512]
    #[arg(long, value_name = "MiB")]
    size: Option<usize>,
    /// Images in the large store; the small one has a fifth of them [default: 5000]
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// Rounds per scenario; who goes first alternates [default: 3]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Uploads at once [default: 200]
    #[arg(long, value_name = "N")]
    uploads: Option<usize>,
    /// Where both stores lie; may be repeated [default: target/bench, and /dev/shm for transfers]
    #[arg(long, value_name = "DIRECTORY")]
    dir: Vec<PathBuf>,
    /// How fast the throttled upload goes, in MB/s
    #[arg(long, value_name = "MB/s", default_value_t = 20.0)]
    pub(crate) throttle: f64,
    /// Also write the figures here
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Small sizes and one round: shows that everything runs, in under two minutes
    #[arg(long)]
    pub(crate) short: bool,
    /// Only lxd-imaged, for work on it
    #[arg(long)]
    pub(crate) ours_only: bool,
}

impl Options {
    /// Makes the directories.
    pub(crate) fn settled(mut self) -> Result<Self> {
        if self.dir.is_empty() {
            self.dir.push(cache_dir()?);
            let memory = PathBuf::from("/dev/shm");
            if memory.is_dir() {
                self.dir.push(memory);
            }
        }
        for dir in &mut self.dir {
            let made = std::fs::create_dir_all(&*dir).and_then(|()| dir.canonicalize());
            *dir = made.with_context(|| format!("cannot use {}", dir.display()))?;
        }
        Ok(self)
    }

    /// What to run, in order.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let all = Scenario::value_variants();
        let asked = |s: &Scenario| self.scenario.is_empty() || self.scenario.contains(s);
        all.iter().copied().filter(asked).collect()
    }

    fn pick(&self, asked: Option<usize>, full: usize, short: usize) -> usize {
        asked.unwrap_or(if self.short { short } else { full }).max(1)
    }

    /// Bytes of the large image.
    pub(crate) fn size(&self) -> usize {
        self.pick(self.size, 512, 64) << 20
    }

    /// Images in the large store.
    pub(crate) fn images(&self) -> usize {
        self.pick(self.images, 5000, 200)
    }

    /// Rounds per scenario.
    pub(crate) fn rounds(&self) -> usize {
        self.pick(self.rounds, 3, 1)
    }

    /// Uploads at once.
    pub(crate) fn uploads(&self) -> usize {
        self.pick(self.uploads, 200, 50)
    }

    /// Where the stores of transfer scenarios lie, one after the other.
    pub(crate) fn dirs(&self) -> &[PathBuf] {
        &self.dir
    }

    /// Where the stores of all other scenarios lie.
    pub(crate) fn first_dir(&self) -> &Path {
        self.dir.first().map_or(Path::new("/tmp"), PathBuf::as_path)
    }
}

/// `target/bench`: what one run leaves for the next.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let dir = lxd_tests::tool::target_dir().join("bench");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}
