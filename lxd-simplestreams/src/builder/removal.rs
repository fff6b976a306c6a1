//! Off the disk, when no reader can know of it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use lxd_proto::fingerprint::Fingerprint;

use super::LocalTree;
use super::disk;
use super::error::{Broken, Result, TreeError};
use super::place::IMAGES;
use super::scan::base_name;
use super::state::{Old, Withdrawal};
use super::sums::{self, SHA256SUMS};
use super::withdraw::Removal;
use crate::path::TreePath;

/// What may not go, whatever has been withdrawn.
#[derive(Debug, Default)]
pub(super) struct InUse {
    /// Files that a catalog lists, or should.
    pub(super) paths: BTreeSet<String>,
    /// Images that lie elsewhere, too: there they are still withdrawn.
    pub(super) doubles: BTreeSet<Fingerprint>,
}

impl LocalTree {
    /// What has waited for long enough.
    pub(super) fn expired(&self, grace: SignedDuration, now: Timestamp) -> Vec<Removal> {
        let expired = self.state.withdrawals.iter().filter(|one| is_old(one, grace, now));
        let removal = |one: &Withdrawal| {
            let (path, reason) = (one.path.clone(), one.reason.clone());
            Removal { path, reason }
        };
        let mut removals: Vec<Removal> = expired.map(removal).collect();
        removals.sort_by(|a, b| a.path.cmp(&b.path));
        removals
    }

    /// Removes it, with the directories that become empty. Nothing else goes: others may lie in or
    /// below the same directory.
    pub(super) fn remove_expired(
        &mut self,
        grace: SignedDuration,
        now: Timestamp,
        in_use: &InUse,
        broken: &mut Vec<Broken>,
    ) -> Vec<Removal> {
        let mut removed = Vec::new();
        let mut left = Vec::new();
        for one in std::mem::take(&mut self.state.withdrawals) {
            let is_used = one.files.keys().any(|path| in_use.paths.contains(path));
            if is_used || !is_old(&one, grace, now) {
                left.push(one);
                continue;
            }
            match self.remove(&one) {
                Ok(false) => {}
                Ok(true) => {
                    let (path, reason) = (one.path.clone(), one.reason.clone());
                    removed.push(Removal { path, reason });
                }
                Err(error) => {
                    broken.push(Broken::new(&one.path, error));
                    left.push(one);
                    continue;
                }
            }
            for (image, kind) in &one.images {
                let (product, serial) = (one.product.clone(), one.serial.clone());
                let old = Old { product, serial, kind: *kind, was_here: true };
                self.state.old.insert(*image, old);
            }
            if one.images.keys().any(|image| in_use.doubles.contains(image)) {
                left.push(one);
            }
        }
        self.state.withdrawals = left;
        removed.sort_by(|a, b| a.path.cmp(&b.path));
        removed
    }

    /// Removes the files of a withdrawal that are still the same; whether there were any.
    fn remove(&self, withdrawal: &Withdrawal) -> Result<bool> {
        let inside = format!("{IMAGES}/");
        let is_inside = |path: &&String| {
            let clean = TreePath::parse(path);
            path.starts_with(&inside) && clean.is_some_and(|clean| clean.as_str() == **path)
        };
        let mut directories: BTreeMap<&Path, Vec<&str>> = BTreeMap::new();
        for path in withdrawal.current_files(&self.root).filter(is_inside) {
            directories.entry(disk::parent_of(Path::new(path))).or_default().push(path);
        }
        let found = !directories.is_empty();
        for (directory, paths) in directories {
            let directory = self.root.join(directory);
            // First the list, which must not name what is gone.
            forget_sums(&directory, &paths)?;
            for path in paths {
                let full = self.root.join(path);
                disk::remove_if_there(&full).map_err(TreeError::io("remove", &full))?;
            }
            self.remove_empty(&directory);
        }
        Ok(found)
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

fn is_old(withdrawal: &Withdrawal, grace: SignedDuration, now: Timestamp) -> bool {
    now.duration_since(withdrawal.since) >= grace
}

/// Takes files out of the hashes beside them; with the last one the list goes.
fn forget_sums(directory: &Path, paths: &[&str]) -> Result<()> {
    let list = directory.join(SHA256SUMS);
    let before = match fs::read_to_string(&list) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(TreeError::io("read", &list)(error)),
    };
    let mut text = before.clone();
    for path in paths {
        if let Some(less) = sums::without(&text, base_name(path)) {
            text = less;
        }
    }
    if text == before {
        return Ok(());
    }
    // Without a new file: there may be no space for one.
    if sums::parse(&text).is_empty() {
        return disk::remove_if_there(&list).map(drop).map_err(TreeError::io("remove", &list));
    }
    disk::replace(&list, text.as_bytes()).map(drop)
}
