//! Out of the catalog first, off the disk when no reader can know of it any more.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use lxd_proto::fingerprint::Fingerprint;
use serde::Serialize;

use super::LocalTree;
use super::deltas::{in_name, parse_name};
use super::disk;
use super::error::{Broken, Result, TreeError};
use super::place::IMAGES;
use super::report::BuildReport;
use super::retention::Dropped;
use super::scan::{DeltaFile, Version, base_name, join};
use super::state::Withdrawn;
use super::sums::{self, SHA256SUMS};
use crate::path::TreePath;
use crate::publish::Products;

/// Something that leaves a tree, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// A directory or a file, from the root of the tree.
    pub path: String,
    /// Why it goes.
    pub reason: String,
}

impl LocalTree {
    /// Takes versions out of what is published, and the deltas that start from what is not there.
    pub(super) fn withdraw(
        &mut self,
        versions: &mut Vec<Version>,
        deltas: &[DeltaFile],
        products: &Products,
        dropped: &[Dropped],
        now: Timestamp,
        report: &mut BuildReport,
    ) {
        for one in dropped {
            let gone = fingerprints(products, one);
            let is_gone = |version: &Version| {
                version.images.iter().any(|image| gone.contains(&image.fingerprint))
            };
            for version in versions.iter().filter(|version| is_gone(version)) {
                let reason = format!("{} {}: {}", one.product, one.serial, one.reason);
                let paths = if version.is_alone {
                    vec![version.directory.clone()]
                } else {
                    version.files.iter().map(|file| join(&version.directory, file)).collect()
                };
                for path in paths {
                    self.note_withdrawn(path, &reason, now, report);
                }
            }
            versions.retain(|version| !is_gone(version));
        }
        let here = |directory: &str| versions.iter().find(|version| version.directory == directory);
        for delta in deltas {
            let (Some(home), Some((_, base))) = (here(&delta.directory), parse_name(&delta.name))
            else {
                continue;
            };
            let product = home.coordinates.product();
            let starts = versions.iter().any(|version| {
                version.coordinates.product() == product
                    && in_name(&version.coordinates.serial) == in_name(base)
            });
            if !starts {
                let reason = format!("the version {base} that it starts from is not published");
                self.note_withdrawn(delta.file.path.clone(), &reason, now, report);
            }
        }
    }

    fn note_withdrawn(
        &mut self,
        path: String,
        reason: &str,
        since: Timestamp,
        report: &mut BuildReport,
    ) {
        let reason = reason.to_owned();
        report.withdrawn.push(Removal { path: path.clone(), reason: reason.clone() });
        self.state.withdrawn.insert(path, Withdrawn { since, reason });
    }

    /// What has waited for long enough.
    pub(super) fn expired(&self, grace: SignedDuration, now: Timestamp) -> Vec<Removal> {
        let old = |withdrawn: &Withdrawn| now.duration_since(withdrawn.since) >= grace;
        let expired = self.state.withdrawn.iter().filter(|(_, withdrawn)| old(withdrawn));
        expired
            .map(|(path, withdrawn)| Removal {
                path: path.clone(),
                reason: withdrawn.reason.clone(),
            })
            .collect()
    }

    /// Removes it, with the directories that become empty.
    pub(super) fn remove_expired(
        &mut self,
        grace: SignedDuration,
        now: Timestamp,
        broken: &mut Vec<Broken>,
    ) -> Vec<Removal> {
        let mut removed = Vec::new();
        for removal in self.expired(grace, now) {
            let inside = TreePath::parse(&removal.path)
                .filter(|path| path.as_str().starts_with(&format!("{IMAGES}/")));
            if let Some(inside) = inside {
                match self.remove(inside.as_str()) {
                    Ok(true) => removed.push(removal.clone()),
                    Ok(false) => {}
                    Err(error) => {
                        broken.push(Broken::new(&removal.path, error));
                        continue;
                    }
                }
            }
            self.state.withdrawn.remove(&removal.path);
        }
        removed
    }

    /// Removes a file or a directory of the tree; whether it was there.
    fn remove(&self, path: &str) -> Result<bool> {
        let full = self.root.join(path);
        let kind = match fs::symlink_metadata(&full) {
            Ok(found) => found.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(TreeError::io("look at", &full)(error)),
        };
        if kind.is_dir() {
            fs::remove_dir_all(&full).map_err(TreeError::io("remove", &full))?;
        } else {
            // First the list, which must not name what is gone.
            self.forget_sum(path)?;
            disk::remove_if_there(&full).map_err(TreeError::io("remove", &full))?;
        }
        self.remove_empty(disk::parent_of(&full));
        Ok(true)
    }

    /// Takes a file out of the hashes beside it; with the last one the list goes.
    fn forget_sum(&self, path: &str) -> Result<()> {
        let full = self.root.join(path);
        let list = disk::parent_of(&full).join(SHA256SUMS);
        let text = match fs::read_to_string(&list) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(TreeError::io("read", &list)(error)),
        };
        let Some(text) = sums::without(&text, base_name(path)) else { return Ok(()) };
        if sums::parse(&text).is_empty() {
            return disk::remove_if_there(&list).map(drop).map_err(TreeError::io("remove", &list));
        }
        disk::replace(&list, text.as_bytes()).map(drop)
    }

    /// Removes empty directories upwards, as far as the images go.
    fn remove_empty(&self, mut directory: &Path) {
        let top = self.root.join(IMAGES);
        while directory != top && directory.starts_with(&top) {
            // One that has something in it stays, and with it all above.
            if fs::remove_dir(directory).is_err() {
                return;
            }
            directory = disk::parent_of(directory);
        }
    }
}

/// The images of a version.
fn fingerprints(products: &Products, dropped: &Dropped) -> BTreeSet<Fingerprint> {
    let product = products.products().find(|(name, _)| *name == dropped.product);
    let versions = product.into_iter().flat_map(|(_, product)| product.versions());
    let version = versions.filter(|(serial, _)| *serial == dropped.serial);
    version.flat_map(|(_, images)| images.iter().map(|image| image.fingerprint)).collect()
}
