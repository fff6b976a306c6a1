//! A simplestreams tree on disk: built of image files, checked, and pruned.
//!
//! The tree is a directory that any static web server can hand out: images below `images/`, the
//! catalog and the index below `streams/v1/`. Every change is made in an order in which a reader
//! sees the old tree or the new one, and one program at a time makes changes. What is wrong with
//! one image never keeps the others.

mod aliases;
mod before;
mod deltas;
mod digest;
pub(crate) mod disk;
mod documents;
mod error;
mod groups;
mod intake;
mod lock;
mod naming;
mod parallel;
mod place;
mod recognize;
mod remote;
mod removal;
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
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::remote::Progress;

use crate::publish::{CATALOG, INDEX};
use crate::sign_tree;
use crate::signed::Signer;
use before::Before;
use lock::Lock;
use naming::group;
use removal::InUse;
use scan::{Scan, Scanning, Version, join};
use state::State;

pub use deltas::{DeltaReport, Deltas};
pub use error::{Broken, Result, TreeError};
pub use intake::{Means, Taken};
pub use parallel::default_jobs;
pub use place::IMAGES;
pub use report::{BuildReport, TakenReport};
pub use retention::{GRACE, KEEP, Retention};
pub use scan::Double;
pub use state::STATE;
pub use verify::{Fault, FaultKind, VerifyReport, verify, verify_signed};
pub use withdraw::Removal;

/// The lock of a tree.
pub const LOCK: &str = ".lock";

/// A tree that nobody else changes meanwhile.
#[derive(Debug)]
pub struct LocalTree {
    root: PathBuf,
    _lock: Option<Lock>,
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
    /// Replaces documents that others made, and lists nothing where something was listed.
    pub force: bool,
}

impl LocalTree {
    /// Opens the tree at `root` with at most `jobs` threads; `progress` counts bytes that are
    /// hashed. With `create` a directory is made a tree, and made if it is missing.
    ///
    /// # Errors
    /// [`TreeError::Locked`] at once when another program works on it.
    pub fn open(root: &Path, create: bool, jobs: NonZeroUsize, progress: Progress) -> Result<Self> {
        if create && !root.exists() {
            disk::create_directories(root)?;
        }
        must_be_tree(root, create)?;
        let lock = Some(lock::exclusive(root)?);
        let state = State::load(root)?;
        intake::clear(root)?;
        Ok(Self { root: root.to_owned(), _lock: lock, state, jobs, progress, signer: None })
    }

    /// Opens the tree at `root` for dry runs: nothing is changed, not even for a lock.
    ///
    /// # Errors
    /// As [`LocalTree::open`].
    pub fn open_unchanged(root: &Path, jobs: NonZeroUsize, progress: Progress) -> Result<Self> {
        must_be_tree(root, false)?;
        let lock = lock::shared(root)?;
        let state = State::load(root)?;
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
    /// What was withdrawn stays so, unless the rules of `options` keep it now or nothing else of
    /// its product is left. A tree that says the same as before is left as it is, to the byte.
    ///
    /// # Errors
    /// What keeps the whole tree from being published; what keeps one image is in the report.
    pub fn build(&mut self, options: &BuildOptions, now: Timestamp) -> Result<BuildReport> {
        let before = Before::read(&self.root)?;
        if !options.force {
            before.must_be_ours(&self.root)?;
        }
        let mut report = BuildReport::default();
        let scan = self.scan(!options.dry_run)?;
        report.read(&scan);
        let Scan { mut versions, deltas, doubles, mut broken, files, .. } = scan;
        self.state.files = files;
        broken.retain(|one| !self.is_leftover(&one.path));
        report.broken = broken;
        report.doubles = doubles;
        if !options.dry_run && !versions.is_empty() {
            // Whatever happens now, nothing is hashed twice. Where there is no space for this some
            // may come to be free below.
            let _ = self.state.store(&self.root);
        }
        self.name(&mut versions, &before);
        let gone = self.dropped(options, &versions, now);
        self.settle(&mut versions, &deltas, &gone, &before, now, &mut report);
        let mut products = group(&versions);
        report.count(&products);
        if products.is_empty() && before.products > 0 && !options.force {
            report.broken.push(would_be_empty(before.products));
            report.broken.sort();
            return Ok(report);
        }
        report.warnings.extend(self.vanished(&before, &versions));
        let mut in_use = InUse {
            paths: paths(&versions).chain(before.paths).collect(),
            doubles: report.doubles.iter().map(|double| double.fingerprint).collect(),
        };
        let removes = options.retention.is_some() && !options.dry_run;
        if removes && !self.is_signature_old() {
            // What left the catalog long ago: its space may be needed for what comes.
            let removed = self.remove_expired(options.grace, now, &in_use, &mut report.broken);
            report.removed = removed;
            let _ = self.state.store(&self.root);
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
        self.settle_deltas(&versions, &deltas, &done.used, now, &mut report);
        for image in versions.iter_mut().flat_map(|version| &mut version.images) {
            image.deltas = done.deltas.remove(&image.fingerprint).unwrap_or_default();
        }
        self.state.remember_deltas(done.tried);
        products = group(&versions);
        if !options.dry_run {
            report.changed = documents::write(&self.root, &products, now)?;
            self.remember(&done.new)?;
            if self.signer.is_some() {
                self.sign()?;
            }
        }
        report.is_signed = self.is_signed();
        // What readers of an old signed catalog are told of has to be there.
        report.is_signature_old = self.is_signature_old();
        if options.retention.is_some() && !report.is_signature_old {
            in_use.paths = paths(&versions).chain(done.used).collect();
            report.removed.extend(if options.dry_run {
                self.expired(options.grace, now)
            } else {
                self.remove_expired(options.grace, now, &in_use, &mut report.broken)
            });
        }
        report.broken.sort();
        if !options.dry_run {
            self.state.store(&self.root)?;
            intake::clear(&self.root)?;
        }
        Ok(report)
    }

    /// What the catalog listed that is neither here nor withdrawn: perhaps a part of the tree is not
    /// mounted, and nobody would notice.
    fn vanished(&self, before: &Before, versions: &[Version]) -> Option<Broken> {
        let images = versions.iter().flat_map(|version| &version.images).map(|it| it.fingerprint);
        let withdrawn = self.state.withdrawals.iter().flat_map(|it| it.images.keys().copied());
        let known: BTreeSet<Fingerprint> = images.chain(withdrawn).collect();
        let count = before.names.keys().filter(|image| !known.contains(image)).count();
        let what = if count == 1 { "image" } else { "images" };
        let reason =
            format!("{count} {what} that it listed left it, since the files are gone or broken");
        (count > 0).then(|| Broken::new(CATALOG, reason))
    }

    fn scan(&self, writes: bool) -> Result<Scan> {
        let Self { root, state, jobs, progress, .. } = self;
        let (above, hints) = (Path::new(""), &BTreeMap::new());
        Scanning { root, state, jobs: *jobs, progress, writes, above, hints }.scan(IMAGES)
    }

    /// The images that are not to be published, each with the reason.
    fn dropped(
        &self,
        options: &BuildOptions,
        versions: &[Version],
        now: Timestamp,
    ) -> BTreeMap<Fingerprint, String> {
        let is_out = |image: &_| self.state.is_out(image);
        retention::dropped(options.retention.as_ref(), &group(versions), is_out, now)
    }

    /// Gives versions the names that they have, or had when they were withdrawn.
    fn name(&self, versions: &mut [Version], before: &Before) {
        let withdrawn = self.state.withdrawals.iter();
        let mut names: BTreeMap<_, &str> = withdrawn
            .flat_map(|one| one.images.keys().map(|image| (*image, one.serial.as_str())))
            .collect();
        names.extend(before.names.iter().map(|(image, name)| (*image, name.as_str())));
        naming::assign(versions, |image| names.get(image).copied(), &self.state.files);
    }

    /// Whether a file is what is left of something that was withdrawn: that it is not whole any
    /// more is nobody's trouble.
    fn is_leftover(&self, path: &str) -> bool {
        let mut withdrawals = self.state.withdrawals.iter();
        withdrawals.any(|one| one.current_files(&self.root).any(|file| file == path))
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
        fs::symlink_metadata(self.root.join(crate::publish::SIGNED_INDEX)).is_ok()
    }

    /// Whether there are signed documents that say something else than the others do.
    fn is_signature_old(&self) -> bool {
        self.is_signed() && !sign_tree::is_current(&self.root).unwrap_or(false)
    }
}

/// The files of versions.
fn paths(versions: &[Version]) -> impl Iterator<Item = String> {
    let path = |version: &Version, name: &String| join(&version.directory, name);
    versions.iter().flat_map(move |it| it.files.iter().map(move |name| path(it, name)))
}

/// Holds a directory against what a tree is.
fn must_be_tree(root: &Path, may_become_one: bool) -> Result<()> {
    if !root.is_dir() {
        return Err(TreeError::NoDirectory(root.to_owned()));
    }
    if !may_become_one && fs::symlink_metadata(root.join(INDEX)).is_err() {
        return Err(TreeError::NoTree(root.to_owned()));
    }
    Ok(())
}

/// A catalog that loses all at once: more likely the images are not where they should be.
fn would_be_empty(products: usize) -> Broken {
    let reason = format!(
        "it lists products ({products}), and there is no image below {IMAGES}/ that could be \
         published; it is left as it is: see whether {IMAGES}/ is there and mounted, or have \
         streams build --force empty it"
    );
    Broken::new(CATALOG, reason)
}
