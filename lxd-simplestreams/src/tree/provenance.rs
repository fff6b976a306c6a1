//! Which documents a listing was made from, and when the server was asked about them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lxd_proto::arch::Architecture;
use lxd_proto::net::KnownVersion;
use serde::{Deserialize, Serialize};

use super::trust::{About, Stamp};
use crate::cache::Key;
use crate::path::TreePath;

/// The list of catalogs is asked for this often; LXD does the same.
const INDEX_EVERY: Duration = Duration::from_hours(1);
/// The longest version that is remembered, in bytes.
const MAX_VERSION: usize = 1024;

/// A document that has been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// From the root of the tree.
    pub(super) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_modified: Option<String>,
    /// Of the document, in hex; empty while it has not been read.
    pub(super) sha256: String,
    /// What its signature says, in a signed tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stamp: Option<Stamp>,
    /// What the index says about it, in a signed tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) listed: Option<About>,
}

impl Known {
    /// A document that has not been read.
    pub(super) fn unseen(path: &TreePath) -> Self {
        Self {
            path: path.as_str().to_owned(),
            etag: None,
            last_modified: None,
            sha256: String::new(),
            stamp: None,
            listed: None,
        }
    }

    pub(super) fn of(path: &TreePath, version: KnownVersion, body: &[u8]) -> Self {
        let short = |text: Option<String>| text.filter(|text| text.len() <= MAX_VERSION);
        Self {
            path: path.as_str().to_owned(),
            etag: short(version.etag),
            last_modified: short(version.last_modified),
            sha256: super::sha256(body),
            stamp: None,
            listed: None,
        }
    }

    pub(super) fn version(&self) -> KnownVersion {
        KnownVersion { etag: self.etag.clone(), last_modified: self.last_modified.clone() }
    }
}

/// Which documents a listing was made from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Provenance {
    /// Of which tree, as seen by whom.
    key: String,
    /// For which machine names were given out.
    native: Option<Architecture>,
    pub(super) index: Known,
    pub(super) catalogs: Vec<Known>,
    /// When the server was asked for the list of catalogs, in seconds since 1970.
    index_checked: u64,
    /// When something was new for the last time, in seconds since 1970.
    changed: u64,
}

impl Provenance {
    pub(super) fn new(key: Key, index: Known, catalogs: Vec<Known>) -> Self {
        let native = Architecture::host();
        Self { key: key.hex(), native, index, catalogs, index_checked: now(), changed: now() }
    }

    /// What a stored listing says, if it is of this tree and for this machine.
    pub(super) fn read(header: &[u8], key: Key) -> Option<Self> {
        let provenance: Self = serde_json::from_slice(header).ok()?;
        let ours = provenance.key == key.hex() && provenance.native == Architecture::host();
        (ours && provenance.catalogs.len() <= super::MAX_CATALOGS).then_some(provenance)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Texts and numbers always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether it is time to ask for the list of catalogs again; also when clocks were moved.
    pub(super) fn index_is_due(&self) -> bool {
        now().checked_sub(self.index_checked).is_none_or(|age| age >= INDEX_EVERY.as_secs())
    }

    pub(super) fn with_index_checked(&self) -> Self {
        Self { index_checked: now(), ..self.clone() }
    }

    pub(super) fn touch(&mut self) {
        self.changed = now();
    }

    /// How long ago something was new.
    pub(super) fn age(&self) -> Duration {
        Duration::from_secs(now().saturating_sub(self.changed))
    }

    /// Whether nothing is worth storing again: the documents are the same, and so are their
    /// versions and the last look at the index.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.index == other.index
            && self.catalogs == other.catalogs
            && self.index_checked == other.index_checked
    }

    /// All documents.
    pub(super) fn documents(&self) -> impl Iterator<Item = &Known> {
        std::iter::once(&self.index).chain(&self.catalogs)
    }

    /// Whether the same catalogs come in the same order.
    pub(super) fn has_same_catalogs(&self, other: &Self) -> bool {
        let paths =
            |of: &Self| of.catalogs.iter().map(|known| known.path.clone()).collect::<Vec<_>>();
        paths(self) == paths(other)
    }

    /// Which number a catalog has in the listing.
    pub(super) fn number(&self, path: &str) -> Option<u16> {
        let place = self.catalogs.iter().position(|known| known.path == path)?;
        u16::try_from(place).ok()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
