//! Hashes of files, and what tells that a file is still the one that was hashed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::{Checker, FormatError, Limits, Role};
use lxd_proto::remote::Progress;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::disk;

/// Bytes that are read at once.
const STEP: usize = 1 << 20;

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    size: u64,
    modified: i128,
    changed: i128,
    inode: u64,
}

impl Stamp {
    /// Of the file at `path`, which must be a regular one and no link.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let nanoseconds =
            |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Ok(Self {
            size: found.len(),
            modified: nanoseconds(found.mtime(), found.mtime_nsec()),
            changed: nanoseconds(found.ctime(), found.ctime_nsec()),
            inode: found.ino(),
        })
    }

    /// When its bytes were written.
    pub(super) const fn modified(&self) -> i128 {
        self.modified
    }

    /// Bytes of the file.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }
}

/// The hash of a file, and those of other files with this one behind them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Digests {
    pub(super) sha256: Fingerprint,
    /// Fingerprints of images, by the hash of their metadata file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) behind: BTreeMap<Fingerprint, Fingerprint>,
}

/// The beginning of a split image.
#[derive(Debug, Clone)]
pub(super) struct Front {
    pub(super) sha256: Fingerprint,
    pub(super) state: Sha256,
}

/// What came of reading a file.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) stamp: Stamp,
    pub(super) digests: Digests,
    /// Whether servers would take it.
    pub(super) check: Result<(), FormatError>,
}

/// Reads files with one buffer.
#[derive(Debug)]
pub(super) struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; STEP] }
    }

    /// Hashes a small file, so that others can be hashed behind it.
    pub(super) fn front(&mut self, path: &Path, progress: &Progress) -> io::Result<(Stamp, Front)> {
        let mut state = Sha256::new();
        let stamp = self.read(path, progress, |bytes| state.update(bytes))?;
        let sha256 = finish(state.clone());
        Ok((stamp, Front { sha256, state }))
    }

    /// Hashes a file alone, and behind each of `fronts`; with a role it is checked as servers
    /// check what is imported, in the same pass.
    pub(super) fn digest(
        &mut self,
        path: &Path,
        fronts: &[&Front],
        role: Option<Role>,
        progress: &Progress,
    ) -> io::Result<Read> {
        let mut alone = Sha256::new();
        let mut behind: Vec<(Fingerprint, Sha256)> =
            fronts.iter().map(|front| (front.sha256, front.state.clone())).collect();
        let mut check = role.map(|role| Ok(Checker::new(role, Limits::default())));
        let stamp = self.read(path, progress, |bytes| {
            alone.update(bytes);
            for (_, state) in &mut behind {
                state.update(bytes);
            }
            // The hash is wanted even of a file that no server takes.
            if let Some(Ok(checker)) = &mut check
                && let Err(error) = checker.feed(bytes)
            {
                check = Some(Err(error));
            }
        })?;
        let check = match check {
            None => Ok(()),
            Some(Err(error)) => Err(error),
            // A squashfs is looked at now.
            Some(Ok(checker)) => checker.finish(&disk::open(path)?).map(drop),
        };
        if Stamp::of(path)? != stamp {
            return Err(changed());
        }
        let behind = behind.into_iter().map(|(front, state)| (front, finish(state))).collect();
        Ok(Read { stamp, digests: Digests { sha256: finish(alone), behind }, check })
    }

    /// Reads a file to its end; fails when it is another one afterwards.
    fn read(
        &mut self,
        path: &Path,
        progress: &Progress,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<Stamp> {
        let stamp = Stamp::of(path)?;
        let mut file = disk::open(path)?;
        let mut size = 0;
        loop {
            let count = match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            take(&self.buffer[..count]);
            size += count as u64;
            progress.add(count);
        }
        if size != stamp.size || Stamp::of(path)? != stamp {
            return Err(changed());
        }
        Ok(stamp)
    }
}

fn changed() -> io::Error {
    io::Error::other("it was changed while it was read")
}

pub(super) fn finish(state: Sha256) -> Fingerprint {
    Fingerprint::from_bytes(state.finalize().into())
}
