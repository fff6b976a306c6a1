//! One directory of a tree: its files put together, hashed, and held against the hashes beside
//! them.

use std::io;

use jiff::Timestamp;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{InstanceType, Properties};
use lxd_proto::remote::Progress;
use lxd_proto::time;

use super::{DeltaFile, Directory, Scan, Scanning, Version, base_name, join};
use crate::builder::digest::{Digests, Read, Reader, Stamp};
use crate::builder::disk;
use crate::builder::error::Broken;
use crate::builder::groups::{Group, Grouped, Parts, group};
use crate::builder::place::Coordinates;
use crate::builder::recognize::{Content, Kind, recognize};
use crate::builder::state::Known;
use crate::builder::sums::{self, SHA256SUMS, Sums};
use crate::publish::{PublishedFile, PublishedImage};
use crate::root::RootKind;

/// One directory being read.
pub(super) struct Reading<'a, 's> {
    pub(super) scanning: &'a Scanning<'s>,
    pub(super) directory: &'a Directory,
    pub(super) reader: &'a mut Reader,
    pub(super) scan: Scan,
}

impl Reading<'_, '_> {
    pub(super) fn run(&mut self) {
        let (mut contents, mut broken) = (Vec::new(), Vec::new());
        for (name, stamp) in &self.directory.files {
            if name == SHA256SUMS {
                continue;
            }
            match self.content(name, *stamp) {
                Ok(Content::Other) => {}
                Ok(content) => contents.push((name.clone(), content)),
                Err(error) => {
                    self.broken(name, error);
                    broken.push(name.clone());
                }
            }
        }
        let deltas = contents.iter().filter(|(_, content)| *content == Content::Delta);
        let deltas: Vec<String> = deltas.map(|(name, _)| name.clone()).collect();
        let Grouped { groups, incomplete, spare, strays } = group(contents, &broken);
        for name in strays {
            let reason = "it is not published: the image beside it has its files by their usual \
                          names";
            self.warn(&name, reason);
        }
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
                Ok(mut version) => {
                    // It goes when its version goes: alone it would be a broken one.
                    let own = spare.iter().filter(|(_, taken)| *taken == group.metadata);
                    version.files.extend(own.map(|(name, _)| name.clone()));
                    self.scan.versions.push(version);
                }
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
            // Others like to have it; the images are published without.
            if let Err(error) = disk::replace(&path, sums::text(&own).as_bytes()) {
                self.warn(SHA256SUMS, error);
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

    fn warn(&mut self, name: &str, reason: impl ToString) {
        let path = self.path(name);
        self.scan.warnings.push(Broken::new(path, reason));
    }

    /// Warns of a path that is an address to some clients.
    fn warn_of_paths(&mut self, files: &[String]) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~+:@,=!$&'()*;/".contains(c);
        let odd = |name: &String| self.path(name).chars().find(|c| !is_plain(*c));
        if let Some(odd) = files.iter().find_map(odd) {
            let reason = format!(
                "its path has {odd:?}, which some clients do not ask for rightly (sstream-mirror \
                 ends there): rename it"
            );
            let path = self.directory.path.clone();
            self.scan.warnings.push(Broken::new(path, reason));
        }
    }

    /// What a file is, without a look where it was looked at before.
    fn content(&mut self, name: &str, stamp: Stamp) -> Result<Content, String> {
        let path = self.path(name);
        let known = self.scanning.state.known(&path, stamp);
        if let Some(known) = known {
            self.scan.files.insert(path.clone(), known.clone());
            if let Some(content) = known.kind.and_then(Kind::content) {
                return Ok(content);
            }
        }
        let content = recognize(&self.scanning.root.join(&path)).map_err(|e| e.to_string())?;
        let entry =
            self.scan.files.entry(path).or_insert(Known { stamp, kind: None, digests: None });
        if content.unchecked().is_none() {
            entry.kind = content.kind();
        }
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
        let text = disk::read(&path).map_err(|error| format!("{SHA256SUMS}: {error}"))?;
        Ok(Some(sums::parse(&String::from_utf8_lossy(&text))))
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
            let (file, fingerprint) = self.root(group, (kind, name), &metadata)?;
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
        let files: Vec<String> = files.into_iter().map(|(name, _)| name).collect();
        // What comes from elsewhere gets a path of ours.
        if self.scanning.above.as_os_str().is_empty() {
            self.warn_of_paths(&files);
        }
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
        root: Option<(RootKind, PublishedFile)>,
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
        let content = match group.parts {
            Parts::Unified(kind) => Content::Unified(group.says.clone(), kind),
            Parts::Roots(_) => Content::Metadata(group.says.clone()),
        };
        let digests = self.digests(&path, None, &content)?;
        Ok(self.file(path, digests.sha256))
    }

    /// A root file, with the fingerprint that it makes.
    fn root(
        &mut self,
        group: &Group,
        (kind, name): (RootKind, &str),
        metadata: &PublishedFile,
    ) -> Result<(PublishedFile, Fingerprint), String> {
        let path = self.path(name);
        let behind = Some((group.metadata.as_str(), metadata.sha256));
        let digests = self.digests(&path, behind, &Content::Root(kind))?;
        let fingerprint = digests.behind.get(&metadata.sha256).copied();
        let fingerprint = fingerprint.ok_or_else(|| changed(&group.metadata))?;
        Ok((self.file(path, digests.sha256), fingerprint))
    }

    fn delta(&mut self, name: &str, sums: Option<&Sums>, own: &mut Sums) -> Result<(), String> {
        let path = self.path(name);
        let digests = self.digests(&path, None, &Content::Delta)?;
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
    /// on with it. What the file is for is checked on the way, once.
    fn digests(
        &mut self,
        path: &str,
        behind: Option<(&str, Fingerprint)>,
        content: &Content,
    ) -> Result<Digests, String> {
        let known = self.scan.files.get(path);
        let is_checked = known.is_some_and(|known| known.kind == content.kind());
        let role = content.unchecked().filter(|_| !is_checked);
        if let Some(known) = known.and_then(|known| known.digests.as_ref()) {
            let has = behind.is_none_or(|(_, metadata)| known.behind.contains_key(&metadata));
            if has && role.is_none() {
                return Ok(known.clone());
            }
        }
        let root = self.scanning.root;
        let told = |error: io::Error| of_file(path, error);
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
        let read = self.reader.digest(&root.join(path), &fronts, role, progress).map_err(told)?;
        let Read { stamp, digests, check } = read;
        self.scan.read.0 += 1;
        self.scan.read.1 += stamp.size();
        match self.scan.files.get_mut(path) {
            Some(known) if known.stamp == stamp => {
                check.map_err(|error| of_file(path, error))?;
                known.kind = content.kind();
                known.digests = Some(digests.clone());
            }
            _ => return Err(changed(base_name(path))),
        }
        Ok(digests)
    }
}

const NO_WHOLE_MACHINES: &str = "it is a virtual machine in one file, which LXD takes for a \
    container; publish it as a metadata tarball and a disk";

/// Holds files against what is written about them, where something is.
fn compare(sums: &Sums, files: &[(String, Fingerprint)]) -> Result<(), String> {
    let is_other =
        |(name, hash): &&(String, Fingerprint)| sums.get(name).is_some_and(|listed| listed != hash);
    files.iter().find(is_other).map_or(Ok(()), |(name, _)| Err(other_hash(name)))
}

fn of_file(path: &str, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", base_name(path))
}

fn other_hash(name: &str) -> String {
    format!("{name} has another hash than {SHA256SUMS} says")
}

fn changed(name: &str) -> String {
    format!("{name} was changed while it was read")
}
