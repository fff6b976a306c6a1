//! What a run of a mirror does, has done, or would do.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alias::AliasName;
use crate::fingerprint::Fingerprint;

/// Faults that are kept of the last run.
const MAX_FAULTS: usize = 100;
/// Bytes of a report on the wire, roughly: clients read no object of any size.
const MAX_BYTES: usize = 3 << 20;
/// Bytes of a line besides its texts, roughly.
const LINE: usize = 170;
/// Conflicts of a report.
const MAX_CONFLICTS: usize = 1000;

/// What became of one version, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MirrorAction {
    /// It is fetched.
    Download,
    /// It is here already, and becomes one of the mirror's.
    Adopt,
    /// It is here already.
    Present,
    /// It stays although a newer version has taken its place.
    Keep,
    /// It goes.
    Remove,
    /// It was not tried.
    Skip,
    /// It could not be fetched or removed.
    Fail,
}

impl MirrorAction {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Download => "download",
            Self::Adopt => "adopt",
            Self::Present => "present",
            Self::Keep => "keep",
            Self::Remove => "remove",
            Self::Skip => "skip",
            Self::Fail => "fail",
        }
    }
}

/// One version in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorItem {
    /// What becomes of it.
    pub action: MirrorAction,
    /// Its product.
    pub product: String,
    /// Which version of that.
    pub serial: String,
    /// The image.
    pub fingerprint: Fingerprint,
    /// Bytes of its files.
    pub size: u64,
    /// Why; empty where that is clear.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// An alias that stays with what somebody else has made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorConflict {
    /// Its name here.
    pub alias: AliasName,
    /// The product it would lead to.
    pub product: String,
    /// Who has it.
    pub reason: String,
}

/// How much of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MirrorCounts {
    /// Images that the server has.
    pub upstream: u64,
    /// Products that are selected.
    pub products: u64,
    /// Versions fetched.
    pub downloaded: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Versions that were here already.
    pub present: u64,
    /// Versions that stay for another reason.
    pub kept: u64,
    /// Versions removed.
    pub removed: u64,
    /// Versions not tried.
    pub skipped: u64,
    /// Versions that failed.
    pub failed: u64,
}

/// What a run has done, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MirrorReport {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// How much.
    pub counts: MirrorCounts,
    /// Version by version, as many as fit into 3 MiB.
    pub items: Vec<MirrorItem>,
    /// Lines that are left out.
    pub omitted: u64,
    /// Aliases that stay with somebody else.
    pub conflicts: Vec<MirrorConflict>,
    /// Bytes of the lines, roughly.
    #[serde(skip)]
    bytes: usize,
}

impl MirrorReport {
    /// A report without lines; of conflicts it has as many as it may.
    pub fn new(mut conflicts: Vec<MirrorConflict>) -> Self {
        conflicts.truncate(MAX_CONFLICTS);
        Self { conflicts, ..Self::default() }
    }

    /// Adds a line and counts it.
    pub fn add(&mut self, item: MirrorItem) {
        let counts = &mut self.counts;
        match item.action {
            MirrorAction::Download => {
                counts.downloaded += 1;
                counts.bytes += item.size;
            }
            MirrorAction::Adopt | MirrorAction::Present => counts.present += 1,
            MirrorAction::Keep => counts.kept += 1,
            MirrorAction::Remove => counts.removed += 1,
            MirrorAction::Skip => counts.skipped += 1,
            MirrorAction::Fail => counts.failed += 1,
        }
        let bytes = LINE + item.product.len() + item.serial.len() + item.reason.len();
        if self.bytes + bytes <= MAX_BYTES {
            self.bytes += bytes;
            self.items.push(item);
        } else {
            self.omitted += 1;
        }
    }

    /// Adds an alias that stays with somebody else, once.
    pub fn conflict(&mut self, conflict: MirrorConflict) {
        let known = self.conflicts.iter().any(|it| it.alias == conflict.alias);
        if !known && self.conflicts.len() < MAX_CONFLICTS {
            self.conflicts.push(conflict);
        }
    }

    /// Puts the lines in an order that does not depend on which download was faster.
    pub fn sort(&mut self) {
        self.items.sort_by(|a, b| {
            (&a.product, &b.serial, a.action, a.fingerprint).cmp(&(
                &b.product,
                &a.serial,
                b.action,
                b.fingerprint,
            ))
        });
        self.conflicts.sort_by(|a, b| a.alias.cmp(&b.alias));
    }

    /// What failed, as far as it is kept with the mirror.
    pub fn faults(&self) -> Vec<MirrorFault> {
        let failed = self.items.iter().filter(|item| item.action == MirrorAction::Fail);
        failed
            .take(MAX_FAULTS)
            .map(|item| MirrorFault {
                product: item.product.clone(),
                serial: item.serial.clone(),
                fingerprint: Some(item.fingerprint),
                error: item.reason.clone(),
            })
            .collect()
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunOutcome {
    /// It goes on.
    Running,
    /// Everything that is selected is here.
    Success,
    /// Some versions are not; the next run tries again.
    Partial,
    /// The server was of no use; nothing has changed.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// The daemon ended; what came is kept, the next run goes on.
    Interrupted,
}

impl RunOutcome {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Something that went wrong in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorFault {
    /// The product, if it was about one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub product: String,
    /// Which version of that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub serial: String,
    /// The image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// What, and why.
    pub error: String,
}

/// A run of a mirror, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRun {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// How.
    pub outcome: RunOutcome,
    /// How much.
    #[serde(default)]
    pub counts: MirrorCounts,
    /// What went wrong; at most 100.
    #[serde(default)]
    pub errors: Vec<MirrorFault>,
}
