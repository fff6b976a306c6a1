//! What is remembered about a tree: hashes of files that have not changed, names that images
//! brought along, deltas that were not worth it, what has left the catalog but not the disk, and
//! what has left both.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::InstanceType;
use serde::{Deserialize, Serialize};

use super::digest::{Digests, Stamp};
use super::disk;
use super::error::{Result, TreeError};
use super::recognize::Kind;
use crate::publish::PublishedImage;

/// The directory of the state, in the tree. Its loss costs time, and names from elsewhere.
pub const STATE: &str = ".lxd-streams";
const FILE: &str = "state.json";
const FORMAT: u32 = 1;

/// The state of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    format: u32,
    /// By the path from the root of the tree.
    #[serde(default)]
    pub(super) files: BTreeMap<String, Known>,
    #[serde(default)]
    pub(super) aliases: BTreeMap<String, Borrowed>,
    /// By the hashes of the older and the newer file.
    #[serde(default)]
    pub(super) deltas: BTreeMap<String, Tried>,
    #[serde(default)]
    pub(super) withdrawals: Vec<Withdrawal>,
    /// Images that did not stay, or would not have: they do not come again by themselves.
    #[serde(default)]
    pub(super) old: BTreeMap<Fingerprint, Old>,
    /// Which server an image was fetched from.
    #[serde(default)]
    pub(super) origins: BTreeMap<Fingerprint, String>,
}

/// A file that was read once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) stamp: Stamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<Kind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digests: Option<Digests>,
}

/// A name that an image brought from another server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Borrowed {
    pub(super) fingerprint: Fingerprint,
    /// Whose name it is: that server may give it to another image.
    pub(super) source: String,
}

/// A delta that was made or looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Tried {
    /// It makes the newer file, and has this hash.
    Good(Fingerprint),
    /// Why there is none.
    Useless(String),
}

/// An image that is older than what stays: what it is, so that nobody has to fetch it to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Old {
    pub(super) product: String,
    pub(super) serial: String,
    pub(super) kind: InstanceType,
    /// Whether it was here and was removed; else it was left where it is.
    pub(super) was_here: bool,
}

/// A version, or a delta, that is in no catalog any more and whose files will be removed.
///
/// It is known by its images, not by its place: whatever comes to lie there later is something
/// else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Withdrawal {
    /// What it is called in reports: a directory or a file.
    pub(super) path: String,
    pub(super) since: Timestamp,
    pub(super) reason: String,
    /// The name of the version, which it has again when it comes back.
    pub(super) serial: String,
    pub(super) product: String,
    /// None of a delta.
    pub(super) images: BTreeMap<Fingerprint, InstanceType>,
    /// What goes, by its path; only while it is the same file.
    pub(super) files: BTreeMap<String, Stamp>,
}

impl Withdrawal {
    /// Those of its files that are still there as they were.
    pub(super) fn current_files(&self, root: &Path) -> impl Iterator<Item = &String> {
        let is_same = |path: &str, stamp: Stamp| {
            Stamp::of(&root.join(path)).is_ok_and(|current| current == stamp)
        };
        let files = self.files.iter().filter(move |(path, stamp)| is_same(path, **stamp));
        files.map(|(path, _)| path)
    }
}

impl State {
    /// What is remembered of the tree at `root`; nothing when that cannot be read.
    pub(super) fn load(root: &Path) -> Result<Self> {
        let path = file(root);
        let bytes = match disk::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(TreeError::io("read", &path)(error)),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(state) if state.format == FORMAT => Ok(state),
            Ok(_) => Ok(Self::default()),
            Err(error) => {
                let path = path.display();
                tracing::warn!(
                    "what is remembered of the tree cannot be read and is left: {path}: {error}"
                );
                Ok(Self::default())
            }
        }
    }

    /// Remembers it, in one step.
    pub(super) fn store(&mut self, root: &Path) -> Result<()> {
        self.format = FORMAT;
        // Text and numbers: this cannot fail.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        disk::replace(&file(root), &bytes).map(drop)
    }

    /// What is known of a file that has not changed.
    pub(super) fn known(&self, path: &str, stamp: Stamp) -> Option<&Known> {
        self.files.get(path).filter(|known| known.stamp == stamp)
    }

    /// Only which names images have.
    pub(super) fn names(&self) -> Self {
        Self { aliases: self.aliases.clone(), ..Self::default() }
    }

    /// Whether a file has left the catalog.
    pub(super) fn is_withdrawn(&self, path: &str) -> bool {
        self.withdrawals.iter().any(|withdrawal| withdrawal.files.contains_key(path))
    }

    /// The withdrawal that a version with these images belongs to, by its number.
    pub(super) fn withdrawal_of(&self, images: &[PublishedImage]) -> Option<usize> {
        self.withdrawals.iter().position(|withdrawal| {
            images.iter().all(|image| withdrawal.images.contains_key(&image.fingerprint))
        })
    }

    /// Whether an image has left the catalog.
    pub(super) fn is_out(&self, fingerprint: &Fingerprint) -> bool {
        self.withdrawals.iter().any(|withdrawal| withdrawal.images.contains_key(fingerprint))
    }

    /// Notes what came of deltas, and forgets those of files that are gone.
    pub(super) fn remember_deltas(&mut self, tried: BTreeMap<String, Tried>) {
        let digests = self.files.values().filter_map(|known| known.digests.as_ref());
        let here: BTreeSet<String> = digests.map(|digests| digests.sha256.to_string()).collect();
        let is_here = |key: &str| key.split('-').all(|hash| here.contains(hash));
        self.deltas.retain(|key, _| is_here(key));
        self.deltas.extend(tried);
    }

    /// Names of an image that it brought along.
    pub(super) fn aliases_of(&self, fingerprint: &Fingerprint) -> impl Iterator<Item = &str> {
        let of = |borrowed: &Borrowed| borrowed.fingerprint == *fingerprint;
        let names = self.aliases.iter().filter(move |(_, borrowed)| of(borrowed));
        names.map(|(name, _)| name.as_str())
    }
}

/// The name of what is remembered about a delta.
pub(super) fn delta_key(base: &Fingerprint, target: &Fingerprint) -> String {
    format!("{base}-{target}")
}

fn file(root: &Path) -> PathBuf {
    root.join(STATE).join(FILE)
}
