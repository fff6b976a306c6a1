//! Images that come into a tree: from directories as image builders and exports leave them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::Properties;
use serde::Serialize;

use super::LocalTree;
use super::before::Before;
use super::digest::{Digests, Stamp};
use super::disk;
use super::error::{Broken, Result, TreeError};
use super::naming::{self, group};
use super::parallel;
use super::place::Coordinates;
use super::recognize::{Content, Kind};
use super::report::TakenReport;
use super::retention::{Retention, dropped};
use super::scan::{Scan, Scanning, Version, join};
use super::state::{Known, Old, STATE, State};
use super::sums::{self, SHA256SUMS, Sums};
use crate::publish::{PublishedFile, PublishedImage, metadata_name, root_name};

/// How files come into a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Means {
    /// They are copied; where the file system can, by reference.
    #[default]
    Copy,
    /// They get a second name, where that is possible. Whoever writes into such a file later
    /// breaks what is published.
    Link,
}

/// A version that came into a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Its product.
    pub product: String,
    /// Its name.
    pub serial: String,
    /// Its directory.
    pub path: String,
    /// Where it came from.
    pub from: String,
}

/// What a tree has.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// By their images.
    images: BTreeMap<Fingerprint, String>,
    versions: Vec<Version>,
    before: Before,
}

impl Inventory {
    pub(super) fn has(&self, fingerprint: &Fingerprint) -> bool {
        self.images.contains_key(fingerprint)
    }

    /// Images with the directories that they are in.
    pub(super) fn images(&self) -> impl Iterator<Item = (&Fingerprint, &str)> {
        self.images.iter().map(|(image, directory)| (image, directory.as_str()))
    }

    fn add(&mut self, version: Version) {
        let images = version.images.iter();
        self.images.extend(images.map(|image| (image.fingerprint, version.directory.clone())));
        self.versions.push(version);
    }

    /// Whether an image is known to be older than the newest `keep` of its product. When in doubt
    /// it is not: then it has to come to be judged.
    pub(super) fn knows_as_old(
        &self,
        image: &Fingerprint,
        keep: Option<usize>,
        state: &State,
    ) -> bool {
        let Some(old) = state.old.get(image).filter(|old| keep.is_some() || old.was_here) else {
            return false;
        };
        let of_product =
            || self.versions.iter().filter(|it| it.coordinates.product() == old.product);
        let newest = of_product().map(|version| &version.coordinates.serial).max();
        // An older one with a name of its own is a product of its own.
        let counts = |version: &&Version| {
            let usual = version.coordinates.aliases();
            let mut names = version.images.iter().flat_map(|image| &image.aliases);
            version.coordinates.serial > old.serial
                && version.images.iter().any(|image| image.kind == old.kind)
                && (newest == Some(&version.coordinates.serial)
                    || names.all(|name| usual.contains(name)))
        };
        let has_name = state.aliases_of(image).next().is_some();
        !has_name && of_product().filter(counts).count() >= keep.unwrap_or(1).max(1)
    }

    /// Gives those that come the names that they will have. Which of their images would leave the
    /// tree again, if the newest `keep` versions of each product stay.
    fn judge(
        &self,
        coming: &mut Vec<Version>,
        keep: usize,
        tree: &LocalTree,
    ) -> BTreeSet<Fingerprint> {
        let mut versions = self.versions.clone();
        versions.append(coming);
        tree.name(&mut versions, &self.before);
        let rules = Retention::newest(keep);
        let dropped = dropped(Some(&rules), &group(&versions), |_| false, Timestamp::UNIX_EPOCH);
        *coming = versions.split_off(self.versions.len());
        dropped.into_keys().collect()
    }
}

/// Where files lie until they are complete.
pub(super) fn incoming(root: &Path) -> PathBuf {
    root.join(STATE).join("incoming")
}

/// Removes what an earlier program has left half done.
pub(super) fn clear(root: &Path) -> Result<()> {
    let directory = incoming(root);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(TreeError::io("remove", &directory)(error))
        }
        _ => Ok(()),
    }
}

/// One version on its way.
struct Job {
    version: Version,
    coordinates: Coordinates,
    /// Its directory in the tree.
    directory: String,
    aside: PathBuf,
}

/// Where images come from, and how.
pub(super) struct Source<'a> {
    pub(super) directory: &'a Path,
    /// What it is called in reports; its files are named after it.
    pub(super) shown: &'a str,
    pub(super) means: Means,
    /// What others say about images.
    pub(super) hints: &'a BTreeMap<Fingerprint, Properties>,
    /// What is older than so many versions does not come.
    pub(super) keep: Option<usize>,
}

impl LocalTree {
    /// Takes every image below `directory` that the tree does not have. With `keep` those stay
    /// away that have so many newer versions; without it what such a rule has removed before,
    /// unless it is the newest of its product.
    ///
    /// # Errors
    /// When the tree or the directory cannot be read at all.
    pub fn take(
        &mut self,
        directory: &Path,
        means: Means,
        keep: Option<usize>,
    ) -> Result<TakenReport> {
        if !directory.is_dir() {
            return Err(TreeError::NoDirectory(directory.to_owned()));
        }
        let mut inventory = self.inventory()?;
        let shown = directory.display().to_string();
        let source = Source { directory, shown: &shown, means, hints: &BTreeMap::new(), keep };
        let report = self.take_from(&source, &mut inventory)?;
        self.state.store(&self.root)?;
        Ok(report)
    }

    /// What is there, also what has been withdrawn: it does not come back by itself.
    pub(super) fn inventory(&mut self) -> Result<Inventory> {
        let Scan { versions, files, .. } = self.scan(false)?;
        self.state.files = files;
        let before = Before::read(&self.root)?;
        let mut inventory = Inventory { before, ..Inventory::default() };
        versions.into_iter().for_each(|version| inventory.add(version));
        Ok(inventory)
    }

    pub(super) fn take_from(
        &mut self,
        source: &Source<'_>,
        inventory: &mut Inventory,
    ) -> Result<TakenReport> {
        let above =
            fs::canonicalize(source.directory).map_err(TreeError::io("read", source.directory))?;
        // Names of images count: one that is the newest of its name stays.
        let state = self.state.names();
        let progress = &self.progress;
        let (root, jobs, hints) = (source.directory, self.jobs, source.hints);
        let scanning =
            Scanning { root, state: &state, jobs, progress, writes: false, above: &above, hints };
        let Scan { versions, broken, warnings, files, .. } = scanning.scan("")?;
        let mut report = TakenReport::default();
        let shown = |path: &str| match path {
            "" => source.shown.to_owned(),
            path => join(source.shown.trim_end_matches('/'), path),
        };
        report.broken =
            broken.into_iter().map(|one| Broken { path: shown(&one.path), ..one }).collect();
        let warnings = warnings.into_iter();
        report.warnings = warnings.map(|one| Broken { path: shown(&one.path), ..one }).collect();
        let mut coming = Vec::new();
        for mut version in versions {
            let all = version.images.len();
            // Of a build that has got a file more only that one comes.
            version.images.retain(|image| !inventory.has(&image.fingerprint));
            report.present += all - version.images.len();
            coming.extend((!version.images.is_empty()).then_some(version));
        }
        let outdated = inventory.judge(&mut coming, source.keep.unwrap_or(1), self);
        let mut jobs = Vec::new();
        for version in coming {
            let mut images = version.images.iter().map(|image| &image.fingerprint);
            // Without a rule only what was removed by one stays away.
            let was_here = |image| self.state.old.get(image).is_some_and(|old| old.was_here);
            let counts = |image| source.keep.is_some() || was_here(image);
            if images.all(|image| outdated.contains(image) && counts(image)) {
                report.older += version.images.len();
                self.note_old(&version);
            } else {
                jobs.push(self.job(version, &jobs));
            }
        }
        let taken = parallel::each(
            self.jobs,
            &jobs,
            || (),
            |(), job| job.carry(&self.root, source, &files),
        );
        for (job, outcome) in jobs.into_iter().zip(taken) {
            let from = shown(&job.version.directory);
            match outcome {
                Ok(known) => {
                    self.state.files.extend(known);
                    report.taken.push(Taken {
                        product: job.coordinates.product(),
                        serial: job.coordinates.serial.clone(),
                        path: job.directory.clone(),
                        from,
                    });
                    let Job { version, coordinates, directory, .. } = job;
                    inventory.add(Version { directory, coordinates, ..version });
                }
                Err(error) => report.broken.push(Broken::new(from, error)),
            }
        }
        Ok(report)
    }

    /// Notes images that are left where they are.
    fn note_old(&mut self, version: &Version) {
        for image in &version.images {
            let entry = self.state.old.entry(image.fingerprint);
            entry.or_insert_with(|| Old {
                product: version.coordinates.product(),
                serial: version.coordinates.serial.clone(),
                kind: image.kind,
                was_here: false,
            });
        }
    }

    /// Finds a place that nothing else has, by the name of the version. Where that is in use by
    /// something that is no version, it is the next one.
    fn job(&self, version: Version, others: &[Job]) -> Job {
        let mut coordinates = version.coordinates.clone();
        loop {
            let directory = coordinates.directory();
            let is_taken = others.iter().any(|other| other.directory == directory);
            if !is_taken && fs::symlink_metadata(self.root.join(&directory)).is_err() {
                break;
            }
            coordinates.serial = naming::next(&coordinates.serial);
        }
        let aside = incoming(&self.root).join(format!("version-{}", others.len()));
        let directory = coordinates.directory();
        Job { version, coordinates, directory, aside }
    }
}

impl Job {
    /// Puts the version together aside, and then into its place. What is known of its files.
    fn carry(
        &self,
        root: &Path,
        source: &Source<'_>,
        files: &BTreeMap<String, Known>,
    ) -> Result<Vec<(String, Known)>> {
        if self.aside.exists() {
            fs::remove_dir_all(&self.aside).map_err(TreeError::io("remove", &self.aside))?;
        }
        disk::create_directories(&self.aside)?;
        let mut sums = Sums::new();
        let mut names: BTreeMap<&'static str, (&PublishedFile, Option<Kind>)> = BTreeMap::new();
        for image in &self.version.images {
            for (name, file, kind) in parts(image) {
                names.insert(name, (file, kind));
            }
        }
        for (name, (file, _)) in &names {
            let from = source.directory.join(&file.path);
            let to = self.aside.join(name);
            place(&from, &to, source.means).map_err(TreeError::io("take", &from))?;
            let stamp = Stamp::of(&from).map_err(TreeError::io("read", &from))?;
            // A second name is a change, too.
            let is_same = files.get(&file.path).is_some_and(|known| known.stamp == stamp);
            let is_link = Stamp::of(&to).is_ok_and(|other| other == stamp);
            if !is_same && !is_link {
                let error = io::Error::other("it was changed while it was read");
                return Err(TreeError::io("take", &from)(error));
            }
            sums.insert((*name).to_owned(), file.sha256);
        }
        disk::replace(&self.aside.join(SHA256SUMS), sums::text(&sums).as_bytes())?;
        disk::flush_directory(&self.aside)?;
        let to = root.join(&self.directory);
        let parent = disk::parent_of(&to);
        disk::create_directories(parent)?;
        fs::rename(&self.aside, &to).map_err(TreeError::io("create", &to))?;
        disk::flush_directory(parent)?;
        let known = names.into_iter().map(|(name, (file, kind))| {
            let path = join(&self.directory, name);
            let behind = self.version.images.iter().filter_map(|image| {
                let (_, root) = image.root.as_ref()?;
                (root.path == file.path).then_some((image.metadata.sha256, image.fingerprint))
            });
            let digests = Digests { sha256: file.sha256, behind: behind.collect() };
            let full = root.join(&path);
            let stamp = Stamp::of(&full).map_err(TreeError::io("read", &full))?;
            Ok((path, Known { stamp, kind, digests: Some(digests) }))
        });
        known.collect()
    }
}

/// The files of an image, with the names that they have in a tree.
fn parts(image: &PublishedImage) -> Vec<(&'static str, &PublishedFile, Option<Kind>)> {
    // What metadata says is read again each time, but a whole image was checked.
    let kind = image.root.is_none().then_some(Kind::Unified);
    let mut parts = vec![(metadata_name(image.root.is_none()), &image.metadata, kind)];
    if let Some((kind, file)) = &image.root {
        parts.push((root_name(*kind), file, Content::Root(*kind).kind()));
    }
    parts
}

/// Gives a file a place in the tree.
fn place(from: &Path, to: &Path, means: Means) -> io::Result<()> {
    let readable = fs::metadata(from)?.permissions().mode() & 0o444 == 0o444;
    if means == Means::Link && readable && fs::hard_link(from, to).is_ok() {
        return File::open(to)?.sync_all();
    }
    // By reference where the file system can.
    fs::copy(from, to)?;
    fs::set_permissions(to, Permissions::from_mode(disk::FILE_MODE))?;
    File::open(to)?.sync_all()
}
