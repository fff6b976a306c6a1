//! A simplestreams tree on disk: built of image files, checked, and pruned.
//!
//! The tree is a directory that any static web server can hand out: images below `images/`, the
//! catalog and the index below `streams/v1/`. Every change is made in an order in which a reader
//! sees the old tree or the new one, and one program at a time makes changes. What is wrong with
//! one image never keeps the others.

mod deltas;
mod digest;
pub(crate) mod disk;
mod documents;
mod error;
mod groups;
mod intake;
mod names;
mod parallel;
mod place;
mod recognize;
mod remote;
mod report;
mod retention;
mod scan;
mod state;
mod sums;
#[cfg(test)]
mod tests;
mod vcdiff;
mod verify;
mod withdraw;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use lxd_proto::remote::Progress;

use crate::publish::{Products, PublishedImage};
use crate::sign_tree;
use crate::signed::Signer;
use scan::{Scan, Scanning, Version};
use state::State;

pub use deltas::{DeltaReport, Deltas};
pub use error::{Broken, Result, TreeError};
pub use intake::{Means, Taken};
pub use parallel::default_jobs;
pub use place::IMAGES;
pub use report::{BuildReport, TakenReport};
pub use retention::{GRACE, KEEP, Retention};
pub use state::STATE;
pub use verify::{Fault, FaultKind, VerifyReport, verify, verify_signed};
pub use withdraw::Removal;

/// The lock of a tree.
pub const LOCK: &str = ".lock";

/// A tree that nobody else changes meanwhile.
#[derive(Debug)]
pub struct LocalTree {
    root: PathBuf,
    _lock: File,
    state: State,
    jobs: NonZeroUsize,
    progress: Progress,
    signer: Option<Signer>,
}

/// What a build does beside publishing what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BuildOptions {
    /// Which deltas are made.
    pub deltas: Deltas,
    /// Which versions stay; all where there is none.
    pub retention: Option<Retention>,
    /// How long files stay that have left the catalog; with a retention only.
    pub grace: SignedDuration,
    /// Only tells what would be done.
    pub dry_run: bool,
}

impl LocalTree {
    /// Opens the tree at `root` with at most `jobs` threads; `progress` counts bytes that are
    /// hashed. With `create` a directory that is missing is made.
    ///
    /// # Errors
    /// [`TreeError::Locked`] at once when another program works on it.
    pub fn open(root: &Path, create: bool, jobs: NonZeroUsize, progress: Progress) -> Result<Self> {
        if create && !root.exists() {
            disk::create_directories(root)?;
        }
        if !root.is_dir() {
            return Err(TreeError::NoDirectory(root.to_owned()));
        }
        let path = root.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let opened = disk::open_with(&mut options, &path);
        let lock = opened.map_err(TreeError::io("open", &path))?;
        disk::refuse_link(&root.join(STATE))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TreeError::Locked(root.to_owned())),
            Err(TryLockError::Error(error)) => return Err(TreeError::io("lock", &path)(error)),
        }
        let state = State::load(root)?;
        intake::clear(root)?;
        Ok(Self { root: root.to_owned(), _lock: lock, state, jobs, progress, signer: None })
    }

    /// The same tree, whose documents are signed whenever they are published.
    #[must_use]
    pub fn signed_by(mut self, signer: Option<Signer>) -> Self {
        self.signer = signer;
        self
    }

    /// Signs the documents as they are, with the key of [`LocalTree::signed_by`]. Returns the paths
    /// of the signed ones, the index last.
    ///
    /// # Errors
    /// When there is no index, a catalog is missing or outside of the tree, there is no key, or it
    /// cannot sign.
    pub fn sign(&self) -> Result<Vec<String>> {
        let signer = self.signer.as_ref().ok_or(TreeError::NoKey)?;
        Ok(sign_tree::sign_tree(&self.root, signer)?)
    }

    /// Publishes what lies in the tree.
    ///
    /// What was withdrawn and waits for its removal is not published again. A tree that says the
    /// same as before is left as it is, to the byte.
    ///
    /// # Errors
    /// What keeps the whole tree from being published; what keeps one image is in the report.
    pub fn build(&mut self, options: &BuildOptions, now: Timestamp) -> Result<BuildReport> {
        let mut report = BuildReport::default();
        let scan = self.scan(!options.dry_run, false)?;
        report.read(&scan);
        let Scan { mut versions, deltas, broken, files, .. } = scan;
        report.broken.extend(broken);
        self.state.replace_files(files);
        if !options.dry_run {
            // Whatever happens now, nothing is hashed twice.
            self.state.store(&self.root)?;
        }
        let mut products = group(&versions);
        if let Some(retention) = &options.retention {
            let dropped = retention.dropped(&products, now);
            self.withdraw(&mut versions, &deltas, &products, &dropped, now, &mut report);
            products = group(&versions);
        }
        let work = deltas::Work {
            root: &self.root,
            state: &self.state,
            jobs: self.jobs,
            wanted: if options.dry_run { Deltas::Existing } else { options.deltas },
            writes: !options.dry_run,
            versions: &versions,
            files: &deltas,
        };
        let mut done = work.run(&products)?;
        report.broken.append(&mut done.broken);
        report.deltas = done.reports;
        for image in versions.iter_mut().flat_map(|version| &mut version.images) {
            image.deltas = done.deltas.remove(&image.fingerprint).unwrap_or_default();
        }
        self.state.remember_deltas(done.tried);
        products = group(&versions);
        report.count(&products);
        if !options.dry_run {
            report.changed = documents::write(&self.root, &products, now)?;
            self.remember(&done.new)?;
            if self.signer.is_some() {
                self.sign()?;
            }
        }
        report.is_signed = self.is_signed();
        report.is_signature_old =
            report.is_signed && !sign_tree::is_current(&self.root).unwrap_or(false);
        // What readers of an old signed catalog are told of has to be there.
        if options.retention.is_some() && !report.is_signature_old {
            report.removed = if options.dry_run {
                self.expired(options.grace, now)
            } else {
                self.remove_expired(options.grace, now, &mut report.broken)
            };
        }
        if !options.dry_run {
            self.state.store(&self.root)?;
        }
        report.broken.sort();
        intake::clear(&self.root)?;
        Ok(report)
    }

    fn scan(&self, writes: bool, with_withdrawn: bool) -> Result<Scan> {
        let Self { root, state, jobs, progress, .. } = self;
        let (above, hints) = (Path::new(""), &BTreeMap::new());
        let scanning =
            Scanning { root, state, jobs: *jobs, progress, writes, with_withdrawn, above, hints };
        scanning.scan(IMAGES)
    }

    /// Notes the hashes of files that we have just written.
    fn remember(&mut self, new: &[crate::publish::PublishedFile]) -> Result<()> {
        for file in new {
            let path = self.root.join(&file.path);
            let stamp = digest::Stamp::of(&path).map_err(TreeError::io("read", &path))?;
            let digests = digest::Digests { sha256: file.sha256, behind: BTreeMap::new() };
            let known =
                state::Known { stamp, kind: Some(recognize::Kind::Delta), digests: Some(digests) };
            self.state.files.insert(file.path.clone(), known);
        }
        Ok(())
    }

    /// Whether there are signed documents.
    fn is_signed(&self) -> bool {
        std::fs::symlink_metadata(self.root.join(crate::publish::SIGNED_INDEX)).is_ok()
    }
}

/// Products of what was found. An image with a name that the newest of its product does not have is
/// a product of its own: the name leads to no other image.
fn group(versions: &[Version]) -> Products {
    let mut newest: BTreeMap<String, &str> = BTreeMap::new();
    for version in versions {
        let serial = version.coordinates.serial.as_str();
        let entry = newest.entry(version.coordinates.product()).or_insert(serial);
        *entry = (*entry).max(serial);
    }
    let is_newest = |version: &&Version| {
        newest.get(&version.coordinates.product()) == Some(&version.coordinates.serial.as_str())
    };
    let mut usual: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for version in versions.iter().filter(is_newest) {
        let names = usual.entry(version.coordinates.product()).or_default();
        names.extend(version.images.iter().flat_map(|image| &image.aliases).map(String::as_str));
    }
    let none = BTreeSet::new();
    let mut images: Vec<PublishedImage> = Vec::new();
    for version in versions {
        let product = version.coordinates.product();
        let is_newest = is_newest(&version);
        let usual = usual.get(&product).unwrap_or(&none);
        for image in &version.images {
            let mut image = image.clone();
            let own =
                image.aliases.iter().filter(|alias| !usual.contains(alias.as_str())).min().cloned();
            if let (Some(own), false, Some(place)) = (own, is_newest, &mut image.place) {
                place.product = format!("{product}:{own}");
                image.aliases.retain(|alias| !usual.contains(alias.as_str()));
            }
            images.push(image);
        }
    }
    Products::group(images)
}
