//! What the documents of a tree said before: which names versions have, and whether they are ours
//! to replace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lxd_proto::fingerprint::Fingerprint;

use super::documents;
use super::error::{Result, TreeError};
use super::place::IMAGES;
use crate::document::{Catalog, Index, Item};
use crate::publish::{CATALOG, CONTENT_ID, INDEX};
use crate::root::{INCUS, LXD, RootKind};

/// The documents as they are; what cannot be read says nothing.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// How many products are listed.
    pub(super) products: usize,
    /// The names of versions, by their images.
    pub(super) names: BTreeMap<Fingerprint, String>,
    /// All that is listed.
    pub(super) paths: BTreeSet<String>,
    /// What a build would drop that it does not know how to make.
    foreign: Option<String>,
}

impl Before {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut before = Self::default();
        if let Some(index) = documents::read(&root.join(INDEX))? {
            let Ok(index) = Index::parse(&index) else {
                before.foreign = Some(format!("an index that cannot be read ({INDEX})"));
                return Ok(before);
            };
            let is_ours = |id: &str, path: &str| id == CONTENT_ID && path == CATALOG;
            let mut entries = index.index.iter();
            let other = entries.find(|(id, entry)| !is_ours(id, &entry.path));
            before.foreign = other.map(|(id, entry)| format!("the catalog {id} ({})", entry.path));
        }
        if let Some(catalog) = documents::read(&root.join(CATALOG))? {
            match Catalog::parse(&catalog) {
                Ok(catalog) => before.add(&catalog),
                Err(_) => {
                    before.foreign = Some(format!("a catalog that cannot be read ({CATALOG})"));
                }
            }
        }
        Ok(before)
    }

    fn add(&mut self, catalog: &Catalog) {
        self.products = catalog.products.len();
        let versions = catalog.products.values().flat_map(|product| &product.versions);
        for (serial, version) in versions {
            for item in version.items.values() {
                for image in images(item) {
                    self.names.insert(image, serial.clone());
                }
                self.paths.insert(item.path.clone());
            }
        }
        let inside = format!("{IMAGES}/");
        let other = self.paths.iter().find(|path| !path.starts_with(&inside));
        if let (None, Some(path)) = (&self.foreign, other) {
            self.foreign = Some(format!("files that are not below {IMAGES}/, such as {path:?}"));
        }
    }

    /// Whether the documents may be replaced.
    ///
    /// # Errors
    /// When others made them, and something would be lost.
    pub(super) fn must_be_ours(&self, root: &Path) -> Result<()> {
        match &self.foreign {
            None => Ok(()),
            Some(what) => Err(TreeError::Foreign { root: root.to_owned(), what: what.clone() }),
        }
    }
}

/// The images that a file of a catalog is metadata of, or is.
fn images(item: &Item) -> Vec<Fingerprint> {
    let texts: Vec<&str> = if [LXD.combined, INCUS.combined].contains(&&*item.ftype) {
        vec![&item.sha256]
    } else {
        RootKind::ALL.into_iter().map(|root| item.combined(root)).collect()
    };
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}
