//! What lies in a tree: every directory with an image in it, read, hashed and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use jiff::Timestamp;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{InstanceType, Properties};
use lxd_proto::remote::Progress;
use lxd_proto::time;

use super::digest::{Digests, Reader, Stamp};
use super::disk;
use super::error::{Broken, Result, TreeError};
use super::groups::{Group, Grouped, Parts, group};
use super::parallel;
use super::place::Coordinates;
use super::recognize::{Content, recognize};
use super::state::{Known, State};
use super::sums::{self, SHA256SUMS, Sums};
use crate::publish::{PublishedFile, PublishedImage};

/// Directories below each other; a tree has six.
const DEEPEST: usize = 16;
/// Files of a tree, at most.
const MOST_FILES: usize = 1_000_000;

/// A directory and the regular files in it, all names in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    /// From where the walk began; empty for the beginning itself.
    pub(super) path: String,
    pub(super) files: Vec<(String, Stamp)>,
}

/// One build, with all that is published of it.
#[derive(Debug, Clone)]
pub(super) struct Version {
    /// From the root of the tree.
    pub(super) directory: String,
    /// Whether nothing else is in its directory.
    pub(super) is_alone: bool,
    /// Its files.
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

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) versions: Vec<Version>,
    pub(super) deltas: Vec<DeltaFile>,
    pub(super) broken: Vec<Broken>,
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
    /// Whether what was withdrawn is read, too.
    pub(super) with_withdrawn: bool,
    /// What the root is in: its directories may tell where an image belongs.
    pub(super) above: &'a Path,
    /// What others say about images.
    pub(super) hints: &'a BTreeMap<Fingerprint, Properties>,
}

/// All directories below `top` of `root`, with their files. Names that begin with a dot and links
/// are passed over.
pub(super) fn walk(root: &Path, top: &str) -> Result<Vec<Directory>> {
    let mut found = Vec::new();
    let mut count = 0;
    let mut open = vec![(top.to_owned(), 0)];
    while let Some((path, depth)) = open.pop() {
        let full = root.join(&path);
        let list = match fs::read_dir(&full) {
            Ok(list) => list,
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth == 0 => break,
            Err(error) => return Err(TreeError::io("read", &full)(error)),
        };
        let mut files = Vec::new();
        for entry in list {
            let entry = entry.map_err(TreeError::io("read", &full))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = entry.file_type().map_err(TreeError::io("read", &full))?;
            if name.starts_with('.') || name.chars().any(char::is_control) {
                continue;
            }
            if kind.is_dir() && depth < DEEPEST {
                open.push((join(&path, &name), depth + 1));
            } else if kind.is_file() {
                // It may go while we look.
                if let Ok(stamp) = Stamp::of(&entry.path()) {
                    files.push((name, stamp));
                }
            }
        }
        count += files.len();
        if count > MOST_FILES {
            let error = io::Error::other(format!("it has more than {MOST_FILES} files"));
            return Err(TreeError::io("use", root)(error));
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        if !files.is_empty() {
            found.push(Directory { path, files });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

pub(super) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

impl Scanning<'_> {
    /// Reads everything below `top`.
    pub(super) fn scan(&self, top: &str) -> Result<Scan> {
        let mut directories = walk(self.root, top)?;
        if !self.with_withdrawn {
            directories.retain(|directory| !self.state.is_withdrawn(&directory.path));
            for directory in &mut directories {
                let path = directory.path.clone();
                directory.files.retain(|(name, _)| !self.state.is_withdrawn(&join(&path, name)));
            }
        }
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
        let mut scan = Scan::default();
        for one in found {
            scan.versions.extend(one.versions);
            scan.deltas.extend(one.deltas);
            scan.broken.extend(one.broken);
            scan.files.extend(one.files);
            scan.read = (scan.read.0 + one.read.0, scan.read.1 + one.read.1);
        }
        scan.drop_doubles();
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
                let reason = format!("it is the same image as {first}, which is published");
                self.broken.push(Broken::new(directory, reason));
                false
            });
        }
        self.versions.retain(|version| !version.images.is_empty());
    }
}

/// One directory being read.
struct Reading<'a, 's> {
    scanning: &'a Scanning<'s>,
    directory: &'a Directory,
    reader: &'a mut Reader,
    scan: Scan,
}

impl Reading<'_, '_> {
    fn run(&mut self) {
        let mut contents = Vec::new();
        for (name, stamp) in &self.directory.files {
            if name == SHA256SUMS {
                continue;
            }
            match self.content(name, *stamp) {
                Ok(Content::Other) => {}
                Ok(content) => contents.push((name.clone(), content)),
                Err(error) => self.broken(name, error),
            }
        }
        let deltas = contents.iter().filter(|(_, content)| *content == Content::Delta);
        let deltas: Vec<String> = deltas.map(|(name, _)| name.clone()).collect();
        let Grouped { groups, incomplete, spare: _ } = group(contents);
        // What is missing may be what is broken, which was told.
        let is_told = !self.scan.broken.is_empty();
        for (name, reason) in incomplete.into_iter().filter(|_| !is_told) {
            self.broken(&name, reason);
        }
        let sums = match self.sums() {
            Ok(sums) => sums,
            Err(reason) if groups.is_empty() => return self.broken(SHA256SUMS, reason),
            Err(reason) => return self.broken("", reason),
        };
        let is_alone = groups.len() == 1;
        let mut own = Sums::new();
        for group in groups {
            match self.version(&group, sums.as_ref(), is_alone, &mut own) {
                Ok(version) => self.scan.versions.push(version),
                Err(reason) => self.broken("", reason),
            }
        }
        for name in deltas {
            if let Err(reason) = self.delta(&name, sums.as_ref(), &mut own) {
                self.broken(&name, reason);
            }
        }
        if self.scanning.writes && sums.is_none() && !self.scan.versions.is_empty() {
            let path = self.scanning.root.join(&self.directory.path).join(SHA256SUMS);
            if let Err(error) = disk::replace(&path, sums::text(&own).as_bytes()) {
                self.broken(SHA256SUMS, error);
            }
        }
    }

    fn path(&self, name: &str) -> String {
        join(&self.directory.path, name)
    }

    fn broken(&mut self, name: &str, reason: impl ToString) {
        let path = if name.is_empty() { self.directory.path.clone() } else { self.path(name) };
        self.scan.broken.push(Broken::new(path, reason));
    }

    /// What a file is, without a look where it was looked at before.
    fn content(&mut self, name: &str, stamp: Stamp) -> Result<Content, String> {
        let path = self.path(name);
        let known = self.scanning.state.known(&path, stamp);
        if let Some(known) = known {
            self.scan.files.insert(path.clone(), known.clone());
            if let Some(kind) = known.kind {
                return Ok(kind.into());
            }
        }
        let content = recognize(&self.scanning.root.join(&path)).map_err(|e| e.to_string())?;
        let entry =
            self.scan.files.entry(path).or_insert(Known { stamp, kind: None, digests: None });
        entry.kind = content.kind();
        Ok(content)
    }

    /// The hashes that are written beside the files.
    fn sums(&self) -> Result<Option<Sums>, String> {
        let Some((_, stamp)) = self.directory.files.iter().find(|(name, _)| name == SHA256SUMS)
        else {
            return Ok(None);
        };
        if stamp.size() > sums::LARGEST {
            return Err(format!("{SHA256SUMS} has more than {} bytes", sums::LARGEST));
        }
        let path = self.scanning.root.join(self.path(SHA256SUMS));
        let text = fs::read(&path).map_err(|error| format!("{SHA256SUMS}: {error}"))?;
        let sums = sums::parse(&String::from_utf8_lossy(&text))
            .map_err(|error| format!("{SHA256SUMS}: {error}"))?;
        let here: BTreeSet<&str> =
            self.directory.files.iter().map(|(name, _)| name.as_str()).collect();
        let missing = |name: &String| {
            !here.contains(name.as_str()) && !self.scanning.state.is_withdrawn(&self.path(name))
        };
        match sums.keys().find(|name| missing(name)) {
            Some(name) => Err(format!("{SHA256SUMS} lists {name}, which is not there")),
            None => Ok(Some(sums)),
        }
    }

    fn version(
        &mut self,
        group: &Group,
        sums: Option<&Sums>,
        is_alone: bool,
        own: &mut Sums,
    ) -> Result<Version, String> {
        let metadata = self.metadata(group)?;
        let mut made = Vec::new();
        if let Parts::Unified(kind) = group.parts {
            made.push((metadata.sha256, kind, None));
        }
        for (kind, name) in group.roots() {
            let (file, fingerprint) = self.root(group, name, &metadata)?;
            made.push((fingerprint, kind.kind(), Some((kind, file))));
        }
        let mut files = vec![(group.metadata.clone(), metadata.sha256)];
        let roots = made.iter().filter_map(|(_, _, root)| root.as_ref());
        files.extend(roots.map(|(_, file)| (base_name(&file.path).to_owned(), file.sha256)));
        if let Some(sums) = sums {
            compare(sums, &files)?;
        }
        if let Some(claims) = group.claims {
            // Some name the files of an image after the metadata alone.
            let fits = claims == metadata.sha256 || made.iter().any(|image| image.0 == claims);
            if !fits {
                return Err(format!("its files are not the image {claims} that their names tell"));
            }
        }
        let fingerprint = made.first().map_or(metadata.sha256, |image| image.0);
        let coordinates = self.coordinates(group, fingerprint)?;
        own.extend(files.iter().cloned());
        let mut images = Vec::new();
        for (fingerprint, kind, root) in made {
            let image = self.image(group, &coordinates, (fingerprint, kind), &metadata, root);
            if !image.is_publishable() {
                return Err(NO_WHOLE_MACHINES.to_owned());
            }
            images.push(image);
        }
        let directory = self.directory.path.clone();
        let files = files.into_iter().map(|(name, _)| name).collect();
        Ok(Version { directory, is_alone, files, coordinates, images })
    }

    fn coordinates(&self, group: &Group, fingerprint: Fingerprint) -> Result<Coordinates, String> {
        let path = self.scanning.above.join(&self.directory.path);
        let directories = Coordinates::of_directories(&path);
        let own = group.says.architecture;
        match &directories {
            Some(found) if found.architecture != own => Err(format!(
                "its metadata says that it is for {own}, its directory that it is for {}",
                found.architecture
            )),
            _ => {
                let name = fingerprint.short();
                let none = Properties::new();
                let hints = self.scanning.hints.get(&fingerprint).unwrap_or(&none);
                let said = Coordinates::of_image(&group.says, hints, &name);
                Ok(said.within(directories))
            }
        }
    }

    fn image(
        &self,
        group: &Group,
        coordinates: &Coordinates,
        (fingerprint, kind): (Fingerprint, InstanceType),
        metadata: &PublishedFile,
        root: Option<(crate::RootKind, PublishedFile)>,
    ) -> PublishedImage {
        let says = &group.says;
        let mut properties = says.properties.clone();
        for (key, value) in [
            ("os", &coordinates.os),
            ("release", &coordinates.release),
            ("variant", &coordinates.variant),
        ] {
            let text = properties.entry(key.to_owned()).or_default();
            if text.trim().is_empty() {
                text.clone_from(value);
            }
        }
        let mut aliases = coordinates.aliases();
        aliases.extend(self.scanning.state.aliases_of(&fingerprint).map(str::to_owned));
        let seconds = |seconds: i64| time::from_seconds(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
        PublishedImage {
            fingerprint,
            kind,
            architecture: says.architecture,
            properties,
            aliases,
            created_at: seconds(says.creation_date),
            expires_at: seconds(says.expiry_date),
            metadata: metadata.clone(),
            root,
            deltas: Vec::new(),
            lineage: None,
            place: Some(coordinates.place()),
        }
    }

    /// The metadata file, or the whole image.
    fn metadata(&mut self, group: &Group) -> Result<PublishedFile, String> {
        let path = self.path(&group.metadata);
        let digests = self.digests(&path, None)?;
        Ok(self.file(path, digests.sha256))
    }

    /// A root file, with the fingerprint that it makes.
    fn root(
        &mut self,
        group: &Group,
        name: &str,
        metadata: &PublishedFile,
    ) -> Result<(PublishedFile, Fingerprint), String> {
        let path = self.path(name);
        let digests = self.digests(&path, Some((&group.metadata, metadata.sha256)))?;
        let fingerprint = digests.behind.get(&metadata.sha256).copied();
        let fingerprint = fingerprint.ok_or_else(|| changed(&group.metadata))?;
        Ok((self.file(path, digests.sha256), fingerprint))
    }

    fn delta(&mut self, name: &str, sums: Option<&Sums>, own: &mut Sums) -> Result<(), String> {
        let path = self.path(name);
        let digests = self.digests(&path, None)?;
        if sums.and_then(|sums| sums.get(name)).is_some_and(|sum| *sum != digests.sha256) {
            return Err(other_hash(name));
        }
        own.insert(name.to_owned(), digests.sha256);
        let file = self.file(path, digests.sha256);
        let directory = self.directory.path.clone();
        self.scan.deltas.push(DeltaFile { directory, name: name.to_owned(), file });
        Ok(())
    }

    fn file(&self, path: String, sha256: Fingerprint) -> PublishedFile {
        let size = self.scan.files.get(&path).map_or(0, |known| known.stamp.size());
        PublishedFile { path, size, sha256 }
    }

    /// The hashes of a file: remembered, or read. `behind` is the metadata file whose hash goes
    /// on with it.
    fn digests(
        &mut self,
        path: &str,
        behind: Option<(&str, Fingerprint)>,
    ) -> Result<Digests, String> {
        let known = self.scan.files.get(path).and_then(|known| known.digests.as_ref());
        if let Some(known) = known {
            let has = behind.is_none_or(|(_, metadata)| known.behind.contains_key(&metadata));
            if has {
                return Ok(known.clone());
            }
        }
        let root = self.scanning.root;
        let told = |error: io::Error| format!("{}: {error}", base_name(path));
        let (mut fronts, progress) = (Vec::new(), self.scanning.progress);
        if let Some((name, sha256)) = behind {
            let front = self.reader.front(&root.join(self.path(name)), &Progress::default());
            let (_, front) = front.map_err(told)?;
            if front.sha256 != sha256 {
                return Err(changed(name));
            }
            fronts.push(front);
        }
        let fronts: Vec<_> = fronts.iter().collect();
        let read = self.reader.digest(&root.join(path), &fronts, progress).map_err(told)?;
        let (stamp, digests) = read;
        self.scan.read.0 += 1;
        self.scan.read.1 += stamp.size();
        match self.scan.files.get_mut(path) {
            Some(known) if known.stamp == stamp => known.digests = Some(digests.clone()),
            _ => return Err(changed(base_name(path))),
        }
        Ok(digests)
    }
}

const NO_WHOLE_MACHINES: &str = "it is a virtual machine in one file, which LXD takes for a \
    container; publish it as a metadata tarball and a disk";

/// Holds files against what is written about them.
fn compare(sums: &Sums, files: &[(String, Fingerprint)]) -> Result<(), String> {
    for (name, hash) in files {
        match sums.get(name) {
            None => return Err(format!("{SHA256SUMS} does not list {name}")),
            Some(sum) if sum != hash => return Err(other_hash(name)),
            Some(_) => {}
        }
    }
    Ok(())
}

fn other_hash(name: &str) -> String {
    format!("{name} has another hash than {SHA256SUMS} says")
}

fn changed(name: &str) -> String {
    format!("{name} was changed while it was read")
}

/// The last name of a path.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
