//! What lies in a tree: every directory with an image in it, read, hashed and checked.

mod reading;
mod walk;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::Properties;
use lxd_proto::remote::Progress;
use serde::Serialize;

use super::aliases;
use super::digest::Reader;
use super::error::{Broken, Result};
use super::parallel;
use super::place::Coordinates;
use super::state::{Known, State};
use super::sums::SHA256SUMS;
use crate::publish::{PublishedFile, PublishedImage};
use reading::Reading;
pub(super) use walk::{Directory, Walked, walk};

/// One build, with all that is published of it.
#[derive(Debug, Clone)]
pub(super) struct Version {
    /// From the root of the tree.
    pub(super) directory: String,
    /// Whether no other version is in its directory.
    pub(super) is_alone: bool,
    /// The names of its files, also of metadata that is not published.
    pub(super) files: Vec<String>,
    pub(super) coordinates: Coordinates,
    pub(super) images: Vec<PublishedImage>,
}

/// A VCDIFF file.
#[derive(Debug, Clone)]
pub(super) struct DeltaFile {
    pub(super) directory: String,
    pub(super) name: String,
    pub(super) file: PublishedFile,
}

/// An image that lies in the tree more than once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Double {
    /// The directory that is not needed.
    pub path: String,
    /// The one that counts.
    pub first: String,
    /// The image.
    pub fingerprint: Fingerprint,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) versions: Vec<Version>,
    pub(super) deltas: Vec<DeltaFile>,
    pub(super) doubles: Vec<Double>,
    pub(super) broken: Vec<Broken>,
    /// What was passed over, or could trouble somebody; the images are published.
    pub(super) warnings: Vec<Broken>,
    /// By path; what was read of the files that are there.
    pub(super) files: BTreeMap<String, Known>,
    /// Files that had to be read, and their bytes.
    pub(super) read: (usize, u64),
}

/// What a scan may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scanning<'a> {
    pub(super) root: &'a Path,
    pub(super) state: &'a State,
    pub(super) jobs: NonZeroUsize,
    pub(super) progress: &'a Progress,
    /// Whether hashes are written beside files that have none.
    pub(super) writes: bool,
    /// What the root is in: its directories may tell where an image belongs.
    pub(super) above: &'a Path,
    /// What others say about images.
    pub(super) hints: &'a BTreeMap<Fingerprint, Properties>,
}

pub(super) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

impl Scanning<'_> {
    /// Reads everything below `top`.
    pub(super) fn scan(&self, top: &str) -> Result<Scan> {
        let Walked { directories, broken, passed } = walk(self.root, top)?;
        let unread = directories.iter().flat_map(|directory| {
            let path = &directory.path;
            directory.files.iter().filter_map(move |(name, stamp)| {
                let known = self.state.known(&join(path, name), *stamp);
                let is_read = known.is_some_and(|known| known.digests.is_some());
                (!is_read && name != SHA256SUMS).then_some(stamp.size())
            })
        });
        self.progress.set_total(self.progress.done() + unread.sum::<u64>());
        let found = parallel::each(self.jobs, &directories, Reader::new, |reader, directory| {
            let mut reading = Reading { scanning: self, directory, reader, scan: Scan::default() };
            reading.run();
            reading.scan
        });
        let mut scan = Scan { broken, warnings: passed, ..Scan::default() };
        for one in found {
            scan.versions.extend(one.versions);
            scan.deltas.extend(one.deltas);
            scan.broken.extend(one.broken);
            scan.warnings.extend(one.warnings);
            scan.files.extend(one.files);
            scan.read = (scan.read.0 + one.read.0, scan.read.1 + one.read.1);
        }
        scan.drop_doubles();
        aliases::settle(&mut scan.versions, self.state);
        Ok(scan)
    }
}

impl Scan {
    /// An image is published once, however often it lies there.
    fn drop_doubles(&mut self) {
        let mut seen: BTreeMap<Fingerprint, String> = BTreeMap::new();
        for version in &mut self.versions {
            let directory = &version.directory;
            version.images.retain(|image| {
                let Some(first) = seen.get(&image.fingerprint) else {
                    seen.insert(image.fingerprint, directory.clone());
                    return true;
                };
                self.doubles.push(Double {
                    path: directory.clone(),
                    first: first.clone(),
                    fingerprint: image.fingerprint,
                });
                false
            });
        }
        self.versions.retain(|version| !version.images.is_empty());
    }
}

/// The last name of a path.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
