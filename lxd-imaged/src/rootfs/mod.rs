//! Root file systems: unpacked from images, copied between instances, packed into images.

mod copy;
mod ids;
mod pack;
mod remove;
mod squashfs;
pub mod templates;
mod tree;
mod unpack;
mod walk;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use lxd_proto::format::FormatError;
use rustix::fs::{Mode, OFlags};

pub use copy::{Copied, copy};
pub use pack::{Packed, pack};
pub use remove::remove;
pub use squashfs::pack_squashfs;
pub use unpack::{Source, Unpacked, unpack};

/// Why a root file system can't be unpacked, copied or packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image file is not one that can be unpacked.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The image makes a virtual machine.
    #[error("the image holds the disk of a virtual machine; only containers can be made here")]
    VirtualMachine,
    /// Something that is ours can't be opened or read.
    #[error("reading {}: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in the new tree can't be made.
    #[error("writing {name}: {source}{}", advice(source))]
    Write {
        /// Its quoted name in the tree.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Something in a tree can't be read.
    #[error("reading {name}: {source}")]
    Look {
        /// Its quoted name in the tree.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A file was written to while it was read.
    #[error("{name} changed while it was read; stop the instance, or use a snapshot of it")]
    Changed {
        /// Its quoted name in the tree.
        name: String,
    },
    /// What was packed can't be written.
    #[error("writing the image: {source}{}", advice(source))]
    Output {
        /// Why.
        source: io::Error,
    },
    /// A program that was called has failed.
    #[error("{name}: {reason}")]
    Program {
        /// Which.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// The work was called off.
    #[error("cancelled")]
    Cancelled,
    /// A thread ended early.
    #[error("a thread that should have helped ended early; this is a fault in lxd-imaged")]
    Thread,
}

/// What can be done about an error of the kernel.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull => "; free some space in the file system of the state directory",
        io::ErrorKind::QuotaExceeded => "; the quota of the file system is used up",
        io::ErrorKind::PermissionDenied => "; the daemon must run as root to make containers",
        _ => "",
    }
}

impl Error {
    fn read(path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Read { path: path.to_owned(), source: source.into() }
    }

    fn look(name: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Look { name: quoted(name), source: source.into() }
    }

    fn write(name: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Write { name: quoted(name), source: source.into() }
    }
}

/// Opens a directory of ours.
fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// A name that a stranger chose, fit to be shown: quoted, control characters escaped, cut.
fn quoted(name: &[u8]) -> String {
    const SHOWN: usize = 200;
    let more = if name.len() > SHOWN { "…" } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(&name[..name.len().min(SHOWN)]))
}

#[cfg(test)]
mod tests;
