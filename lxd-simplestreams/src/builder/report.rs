//! What a build did, for whoever shows it.

use serde::Serialize;

use super::deltas::DeltaReport;
use super::error::Broken;
use super::intake::Taken;
use super::scan::{Double, Scan};
use super::withdraw::Removal;
use crate::publish::Products;

/// What was published, and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct BuildReport {
    /// Whether a document is another one than before.
    pub changed: bool,
    /// Whether there are signed documents.
    #[serde(rename = "signed")]
    pub is_signed: bool,
    /// Whether those say something else than the catalog does now; then no files are removed.
    #[serde(rename = "signatures_are_old")]
    pub is_signature_old: bool,
    /// What the catalog lists.
    pub products: usize,
    /// Of all products together.
    pub versions: usize,
    /// Of all versions together.
    pub images: usize,
    /// Files whose bytes were read; all others were known.
    pub hashed_files: usize,
    /// The bytes of those.
    pub hashed_bytes: u64,
    /// Versions that came into the tree.
    pub taken: Vec<Taken>,
    /// How many images were in the tree already that could have come.
    pub present: usize,
    /// How many were not taken since they would not have stayed.
    pub older: usize,
    /// Deltas: made, found, and given up.
    pub deltas: Vec<DeltaReport>,
    /// Images that lie there more than once; each is published once.
    pub doubles: Vec<Double>,
    /// Images of a server that are there and that it does not publish any more.
    pub gone: Vec<Removal>,
    /// What had left the catalog and is in it again.
    pub restored: Vec<Removal>,
    /// What left the catalog; its files stay for a while.
    pub withdrawn: Vec<Removal>,
    /// Files that were removed, or would be.
    pub removed: Vec<Removal>,
    /// What is not published, and why.
    pub broken: Vec<Broken>,
    /// What was passed over, or could trouble some clients.
    pub warnings: Vec<Broken>,
}

impl BuildReport {
    pub(super) fn read(&mut self, scan: &Scan) {
        (self.hashed_files, self.hashed_bytes) = scan.read;
        self.warnings.extend(scan.warnings.iter().cloned());
    }

    pub(super) fn count(&mut self, products: &Products) {
        self.products = products.len();
        let versions = || products.products().flat_map(|(_, product)| product.versions());
        self.versions = versions().count();
        self.images = versions().map(|(_, images)| images.len()).sum();
    }

    /// With what came into the tree before it was built.
    #[must_use]
    pub fn with_taken(mut self, taken: TakenReport) -> Self {
        self.taken = taken.taken;
        self.present = taken.present;
        self.older = taken.older;
        self.gone = taken.gone;
        self.broken.extend(taken.broken);
        self.warnings.extend(taken.warnings);
        self
    }
}

/// What came into a tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TakenReport {
    /// New versions.
    pub taken: Vec<Taken>,
    /// Images that were there already.
    pub present: usize,
    /// Images that are older than what would stay.
    pub older: usize,
    /// Images of the tree that came from there and are not there any more.
    pub gone: Vec<Removal>,
    /// What could not be taken.
    pub broken: Vec<Broken>,
    /// What was passed over.
    pub warnings: Vec<Broken>,
}

impl TakenReport {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.taken.extend(other.taken);
        self.present += other.present;
        self.older += other.older;
        self.gone.extend(other.gone);
        self.broken.extend(other.broken);
        self.warnings.extend(other.warnings);
    }
}
