//! A tree held against what its documents say: every fault, not only the first.

mod beside;
mod listed;
mod signatures;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lxd_proto::remote::Progress;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::digest::{self, Digests, Front, Read, Reader};
use super::disk;
use super::documents;
use super::error::{Broken, Result, TreeError};
use super::lock;
use super::parallel;
use super::scan::base_name;
use super::state::State;
use super::vcdiff::Program;
use crate::document::{Catalog, IMAGE_DOWNLOADS, Index};
use crate::path::TreePath;
use crate::publish::INDEX;
use crate::signed::Keyring;
use listed::{Delta, Listed};

/// Where the documents are.
const DOCUMENTS: &str = "streams/";
/// What catalogs say that they are.
const PRODUCTS_FORMAT: &str = "products:1.0";
/// Who is strict about it.
const OTHERS: &str = "the simplestreams tools refuse it";

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A document that cannot be read, or says what clients do not understand.
    Document,
    /// A listed file is not there.
    Missing,
    /// A listed file has another size.
    Size,
    /// A listed file has other bytes, or `SHA256SUMS` says something else.
    Hash,
    /// A listed file is the one that is listed, but damaged.
    Content,
    /// Metadata and root together are not the image that is listed.
    Fingerprint,
    /// A delta does not make the file that it should, or starts from nothing.
    Delta,
    /// A compressed twin says something else than its document.
    Twin,
    /// A signed document is missing, says something else than its document, or its signature does
    /// not count.
    Signature,
    /// No web server may read a listed file.
    Permissions,
    /// A directory that cannot be read.
    Unreadable,
    /// A file for an image that nothing lists.
    Orphan,
}

/// Something that is wrong with a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    /// A file, from the root of the tree.
    pub path: String,
    /// What it is.
    pub kind: FaultKind,
    /// In words.
    pub reason: String,
}

/// What was looked at, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct VerifyReport {
    /// Of all catalogs.
    pub products: usize,
    /// Of all products.
    pub versions: usize,
    /// Listed files that were read.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Deltas that were applied.
    pub deltas: usize,
    /// Those of documents first, then in the order of their paths.
    pub faults: Vec<Fault>,
    /// What could trouble some clients.
    pub warnings: Vec<Broken>,
}

/// Reads everything that the documents of the tree at `root` list, on at most `jobs` threads.
/// Changes nothing. Signed documents are held against the others; whose they are is not asked.
///
/// # Errors
/// When there is no tree, or somebody is changing it.
pub fn verify(root: &Path, jobs: NonZeroUsize, progress: &Progress) -> Result<VerifyReport> {
    verify_signed(root, None, jobs, progress)
}

/// The same; with a keyring the documents have to be signed by one of its keys.
///
/// # Errors
/// When there is no tree, or somebody is changing it.
pub fn verify_signed(
    root: &Path,
    keyring: Option<&Keyring>,
    jobs: NonZeroUsize,
    progress: &Progress,
) -> Result<VerifyReport> {
    if !root.is_dir() {
        return Err(TreeError::NoDirectory(root.to_owned()));
    }
    let _lock = lock::shared(root)?;
    let state = State::load(root)?;
    let mut checking = Checking { root, report: VerifyReport::default(), unread: false };
    let catalogs = checking.catalogs();
    let mut listed = Listed::default();
    for (path, catalog) in &catalogs {
        checking.list(path, catalog, &mut listed);
    }
    let hashes = checking.files(&listed, jobs, progress);
    checking.images(&listed, &hashes);
    checking.deltas(&listed, &hashes, jobs);
    checking.same_names(&listed);
    checking.signatures(keyring, &catalogs);
    checking.others(&listed, &hashes, &state)?;
    // What is wrong with a document is often the reason for the rest.
    let order = |fault: &Fault| (!fault.path.starts_with(DOCUMENTS), fault.clone());
    checking.report.faults.sort_by_cached_key(order);
    checking.report.faults.dedup();
    checking.report.warnings.sort();
    Ok(checking.report)
}

struct Checking<'a> {
    root: &'a Path,
    report: VerifyReport,
    /// Whether a document could not be read, so that nobody knows what it lists.
    unread: bool,
}

impl Checking<'_> {
    fn fault(&mut self, path: &str, kind: FaultKind, reason: impl ToString) {
        let (path, reason) = (path.to_owned(), reason.to_string());
        self.report.faults.push(Fault { path, kind, reason });
    }

    /// A document that nobody can read.
    fn unread(&mut self, path: &str, reason: impl ToString) {
        self.fault(path, FaultKind::Document, reason);
        self.unread = true;
    }

    fn warn(&mut self, path: &str, reason: impl ToString) {
        self.report.warnings.push(Broken::new(path, reason));
    }

    /// The index and every catalog that it names.
    fn catalogs(&mut self) -> Vec<(String, Catalog)> {
        let Some(bytes) = self.document(INDEX) else { return Vec::new() };
        let index = match Index::parse(&bytes) {
            Ok(index) => index,
            Err(error) => {
                self.unread(INDEX, error);
                return Vec::new();
            }
        };
        if index.format != "index:1.0" {
            let reason = format!("its format is not index:1.0: {OTHERS}");
            self.fault(INDEX, FaultKind::Document, reason);
        }
        let mut catalogs = Vec::new();
        for (id, entry) in &index.index {
            if entry.datatype != IMAGE_DOWNLOADS {
                continue;
            }
            let Some(path) = TreePath::parse(&entry.path) else {
                let reason = format!("{id} has a path outside of the tree: {:?}", entry.path);
                self.unread(INDEX, reason);
                continue;
            };
            if entry.format != PRODUCTS_FORMAT {
                let reason = format!("{id} has another format than {PRODUCTS_FORMAT}: {OTHERS}");
                self.fault(INDEX, FaultKind::Document, reason);
            }
            let Some(bytes) = self.document(path.as_str()) else { continue };
            match Catalog::parse(&bytes) {
                Ok(catalog) => {
                    let names: BTreeSet<&String> = entry.products.iter().collect();
                    if names != catalog.products.keys().collect() {
                        let reason = format!("{id} names other products than {path} has");
                        self.fault(INDEX, FaultKind::Document, reason);
                    }
                    if catalog.format != PRODUCTS_FORMAT {
                        let reason = format!("its format is not {PRODUCTS_FORMAT}: {OTHERS}");
                        self.fault(path.as_str(), FaultKind::Document, reason);
                    }
                    if catalog.content_id != *id {
                        let reason = format!("its content_id is not {id}, as the index says");
                        self.fault(path.as_str(), FaultKind::Document, reason);
                    }
                    catalogs.push((path.as_str().to_owned(), catalog));
                }
                Err(error) => self.unread(path.as_str(), error),
            }
        }
        catalogs
    }

    /// A document, held against its twin.
    fn document(&mut self, path: &str) -> Option<Vec<u8>> {
        let full = self.root.join(path);
        let bytes = match disk::read(&full) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.fault(path, FaultKind::Missing, "there is no such document");
                self.unread = true;
                return None;
            }
            Err(error) => {
                self.unread(path, error);
                return None;
            }
        };
        self.permissions(path);
        let twin = format!("{path}.gz");
        match documents::unpacked(&documents::twin(&full)) {
            Ok(Some(other)) if other != bytes => {
                self.fault(&twin, FaultKind::Twin, format!("it is not {path}, compressed"));
            }
            Err(error) => self.fault(&twin, FaultKind::Twin, error),
            Ok(_) => {}
        }
        Some(bytes)
    }

    /// Whether a web server may read a file that clients ask for.
    fn permissions(&mut self, path: &str) {
        let Ok(found) = fs::symlink_metadata(self.root.join(path)) else { return };
        let mode = found.permissions().mode() & 0o7777;
        if mode & 0o444 == 0 {
            let reason = format!("nobody may read it (mode {mode:04o}); chmod 644");
            self.fault(path, FaultKind::Permissions, reason);
        } else if mode & 0o004 == 0 {
            let reason = format!(
                "not everybody may read it (mode {mode:04o}), perhaps the web server neither"
            );
            self.warn(path, reason);
        }
    }

    /// Reads every listed file.
    fn files(
        &mut self,
        listed: &Listed,
        jobs: NonZeroUsize,
        progress: &Progress,
    ) -> BTreeMap<String, Digests> {
        let mut metadata: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for pair in &listed.images {
            metadata.entry(&pair.root).or_default().insert(&pair.metadata);
        }
        progress.set_total(listed.files.values().map(|(size, _)| size).sum());
        let files: Vec<_> = listed.files.iter().collect();
        let (root, roles) = (self.root, &listed.roles);
        let read = parallel::each(jobs, &files, Reader::new, |reader, (path, (size, hash))| {
            let mut check = || -> Result<Read, io::Error> {
                let none = Progress::default();
                let fronts: Vec<Front> = metadata
                    .get(path.as_str())
                    .into_iter()
                    .flatten()
                    .filter_map(|front| Some(reader.front(&root.join(front), &none).ok()?.1))
                    .collect();
                let fronts = fronts.iter().collect::<Vec<_>>();
                reader.digest(&root.join(path), &fronts, roles.get(*path).copied(), progress)
            };
            match check() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err((FaultKind::Missing, "it is listed, but not there".to_owned()))
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    Err((FaultKind::Permissions, error.to_string()))
                }
                Err(error) => Err((FaultKind::Hash, error.to_string())),
                Ok(Read { stamp, .. }) if stamp.size() != *size => Err((
                    FaultKind::Size,
                    format!("it has {} bytes, {size} are listed", stamp.size()),
                )),
                Ok(Read { digests, .. }) if digests.sha256 != *hash => Err((
                    FaultKind::Hash,
                    format!("its SHA-256 is {}, {hash} is listed", digests.sha256),
                )),
                Ok(Read { check: Err(error), .. }) => Err((
                    FaultKind::Content,
                    format!("it has the bytes that are listed, but no server takes it: {error}"),
                )),
                Ok(Read { digests, .. }) => Ok(digests),
            }
        });
        let mut hashes = BTreeMap::new();
        for ((path, (size, _)), outcome) in files.into_iter().zip(read) {
            self.permissions(path);
            match outcome {
                Ok(digests) => {
                    self.report.files += 1;
                    self.report.bytes += size;
                    hashes.insert(path.clone(), digests);
                }
                Err((kind, reason)) => self.fault(path, kind, reason),
            }
        }
        hashes
    }

    fn images(&mut self, listed: &Listed, hashes: &BTreeMap<String, Digests>) {
        for pair in &listed.images {
            let (Some(metadata), Some(root)) = (hashes.get(&pair.metadata), hashes.get(&pair.root))
            else {
                continue;
            };
            let got = root.behind.get(&metadata.sha256);
            if got != Some(&pair.fingerprint) {
                let got = got.map_or_else(|| "unknown".to_owned(), ToString::to_string);
                let reason = format!(
                    "together with {} its SHA-256 is {got}, {} is listed",
                    base_name(&pair.root),
                    pair.fingerprint
                );
                self.fault(&pair.metadata, FaultKind::Fingerprint, reason);
            }
        }
    }

    /// Applies every delta whose files are as they should be.
    fn deltas(&mut self, listed: &Listed, hashes: &BTreeMap<String, Digests>, jobs: NonZeroUsize) {
        let sound = |delta: &&Delta| {
            [&delta.path, &delta.base, &delta.target].iter().all(|path| hashes.contains_key(*path))
        };
        let deltas: Vec<&Delta> = listed.deltas.iter().filter(sound).collect();
        if deltas.is_empty() {
            return;
        }
        let program = match Program::find() {
            Ok(program) => program,
            Err(error) => {
                for delta in deltas {
                    self.fault(&delta.path, FaultKind::Delta, &error);
                }
                return;
            }
        };
        let root = self.root;
        let outcomes = parallel::each(
            jobs,
            &deltas,
            || (),
            |(), delta| {
                let (size, expected) = listed.files.get(&delta.target).copied()?;
                let mut hash = Sha256::new();
                let [base, path] = [&delta.base, &delta.path].map(|path| root.join(path));
                let applied = program.decode(&base, &path, size, |bytes| {
                    hash.update(bytes);
                    Ok(())
                });
                let target = base_name(&delta.target);
                match applied {
                    Err(error) => Some(format!("it cannot be applied: {error}")),
                    Ok(()) if digest::finish(hash) == expected => None,
                    Ok(()) => Some(format!("it does not make {target}")),
                }
            },
        );
        for (delta, reason) in deltas.into_iter().zip(outcomes) {
            self.report.deltas += 1;
            if let Some(reason) = reason {
                self.fault(&delta.path, FaultKind::Delta, reason);
            }
        }
    }
}
