//! Deltas between the versions of a product: which there should be, which there are, and that
//! each makes what it should before it is told of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use lxd_proto::fingerprint::Fingerprint;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::digest;
use super::disk;
use super::error::{Broken, Result, TreeError};
use super::intake;
use super::parallel;
use super::scan::{DeltaFile, Version, join};
use super::state::{State, Tried, delta_key};
use super::sums::{self, SHA256SUMS};
use super::vcdiff::{Failed, Program};
use crate::publish::{Products, PublishedDelta, PublishedFile, PublishedImage};
use crate::root::RootKind;

/// Programs that run at once: each takes some 300 MiB.
const MOST_PROGRAMS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);

/// Which deltas are made. Those that are there are checked and published in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deltas {
    /// None.
    #[default]
    Existing,
    /// For root file systems of containers: they gain much.
    Squashfs,
    /// For disks of virtual machines, too: LXD 5.0 does not use them, and they gain little.
    All,
}

impl Deltas {
    /// Whether they can be made here.
    ///
    /// # Errors
    /// [`TreeError::NoXdelta`] when the program is missing that makes them.
    pub fn check_program(self) -> Result<()> {
        if self == Self::Existing { Ok(()) } else { Program::find().map(drop) }
    }

    fn wants(self, kind: RootKind) -> bool {
        match kind {
            RootKind::Squashfs => self != Self::Existing,
            RootKind::DiskKvm => self == Self::All,
            RootKind::Tarball | RootKind::Uefi1 | RootKind::Disk1 => false,
        }
    }
}

/// What came of a delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeltaReport {
    /// Its path.
    pub path: String,
    /// Its bytes; 0 where there is none.
    pub size: u64,
    /// The bytes of the file it makes.
    pub full: u64,
    /// Whether it was made now.
    pub made: bool,
    /// Why it is not published; `None` when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A delta that could be.
#[derive(Debug, Clone)]
struct Job {
    path: String,
    /// What is there.
    existing: Option<PublishedFile>,
    /// The older image, and its file.
    base: (Fingerprint, PublishedFile),
    /// The newer image, and its file.
    target: (Fingerprint, PublishedFile),
}

/// What is done about deltas.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) root: &'a Path,
    pub(super) state: &'a State,
    pub(super) jobs: NonZeroUsize,
    pub(super) wanted: Deltas,
    /// Whether hashes are written beside the files.
    pub(super) writes: bool,
    pub(super) versions: &'a [Version],
    pub(super) files: &'a [DeltaFile],
}

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// For images by their fingerprint.
    pub(super) deltas: BTreeMap<Fingerprint, Vec<PublishedDelta>>,
    pub(super) reports: Vec<DeltaReport>,
    pub(super) broken: Vec<Broken>,
    pub(super) tried: BTreeMap<String, Tried>,
    /// Files that were made.
    pub(super) new: Vec<PublishedFile>,
    /// Files that lead from one published version to another, whatever came of them.
    pub(super) used: BTreeSet<String>,
}

/// The name of a delta from the version `base`.
fn name(kind: RootKind, base: &str) -> String {
    match kind {
        RootKind::DiskKvm => format!("disk.{base}.qcow2.vcdiff"),
        _ => format!("rootfs.{base}.vcdiff"),
    }
}

/// What a name says: which root it makes, and of which version.
pub(super) fn parse_name(name: &str) -> Option<(RootKind, &str)> {
    let name = name.strip_suffix(".vcdiff")?;
    let (kind, name) = match name.strip_suffix(".qcow2") {
        Some(name) => (RootKind::DiskKvm, name),
        None => (RootKind::Squashfs, name),
    };
    let base = match name.strip_prefix("delta-") {
        Some(base) => base,
        None => name.split_once('.')?.1,
    };
    Some((kind, base))
}

/// A serial as it stands in the name of a file; web servers differ in what a plus is in a URL.
pub(super) fn in_name(serial: &str) -> String {
    serial.replace(':', "").replace('+', ".")
}

impl Work<'_> {
    /// Checks the deltas that are there, and makes those that are wanted.
    pub(super) fn run(&self, products: &Products) -> Result<Done> {
        let jobs = self.list(products);
        let mut done = Done::default();
        done.used.extend(jobs.iter().map(|job| job.path.clone()));
        let mut program = None;
        let remembers = |job: &Job| self.remembered(job).is_some();
        if !jobs.iter().all(remembers) {
            match Program::find() {
                Ok(found) => program = Some(found),
                Err(error) if self.wanted != Deltas::Existing => return Err(error),
                // A tree with deltas can be published without the program, but without them.
                Err(error) => {
                    for job in jobs.iter().filter(|job| !remembers(job)) {
                        done.broken.push(Broken::new(&job.path, &error));
                    }
                }
            }
        }
        let outcomes = parallel::each(
            self.jobs.min(MOST_PROGRAMS),
            &jobs,
            || (),
            |(), job| match (self.remembered(job), &program) {
                (Some(known), _) => Some(known),
                (None, Some(program)) => Some(self.attempt(program, job)),
                (None, None) => None,
            },
        );
        for (job, outcome) in jobs.into_iter().zip(outcomes) {
            if let Some(outcome) = outcome {
                done.add(job, outcome);
            }
        }
        if self.writes {
            self.amend_sums(&done.deltas)?;
        }
        Ok(done)
    }

    /// All deltas that are there and lead from one version to another, and all that are wanted.
    fn list(&self, products: &Products) -> Vec<Job> {
        let homes: BTreeMap<Fingerprint, &Version> = self
            .versions
            .iter()
            .flat_map(|version| version.images.iter().map(move |i| (i.fingerprint, version)))
            .collect();
        let mut jobs = Vec::new();
        for (_, product) in products.products() {
            let versions: Vec<_> = product.versions().collect();
            for (at, (serial, images)) in versions.iter().enumerate() {
                for image in *images {
                    let Some((kind, target)) = &image.root else { continue };
                    let Some(home) = homes.get(&image.fingerprint) else { continue };
                    let bases = |serial: &str, images: &[PublishedImage]| {
                        let base = images.iter().find_map(|image| match &image.root {
                            Some((other, file)) if other == kind => {
                                Some((image.fingerprint, file.clone()))
                            }
                            _ => None,
                        })?;
                        let path = join(&home.directory, &name(*kind, &in_name(serial)));
                        Some(Job {
                            path,
                            existing: None,
                            base,
                            target: (image.fingerprint, target.clone()),
                        })
                    };
                    let mut own = Vec::new();
                    for file in self.files.iter().filter(|file| file.directory == home.directory) {
                        let Some((of, token)) = parse_name(&file.name) else { continue };
                        let other = versions.iter().find(|(other, _)| {
                            of == *kind && other != serial && in_name(other) == in_name(token)
                        });
                        let job = other.and_then(|(serial, images)| bases(serial, images));
                        own.extend(job.map(|job| Job {
                            path: file.file.path.clone(),
                            existing: Some(file.file.clone()),
                            ..job
                        }));
                    }
                    let mut older = versions[at + 1..].iter();
                    let next = older.find_map(|(serial, images)| bases(serial, images));
                    let makes = self.wanted.wants(*kind) && home.is_alone;
                    if let Some(job) = next.filter(|_| makes) {
                        let is_there = own.iter().any(|other| other.base.0 == job.base.0);
                        own.extend((!is_there).then_some(job));
                    }
                    jobs.extend(own);
                }
            }
        }
        jobs
    }

    /// What is known of a delta without a look.
    fn remembered(&self, job: &Job) -> Option<Outcome> {
        let known = self.state.deltas.get(&delta_key(&job.base.1.sha256, &job.target.1.sha256))?;
        match (known, &job.existing) {
            (Tried::Good(hash), Some(file)) if *hash == file.sha256 => {
                Some(Outcome::Good(file.clone(), Fresh::No))
            }
            (Tried::Useless(reason), None) => Some(Outcome::None(reason.clone(), true)),
            _ => None,
        }
    }

    fn attempt(&self, program: &Program, job: &Job) -> Outcome {
        match &job.existing {
            Some(file) => match self.check(program, job, &self.root.join(&file.path)) {
                Ok(()) => Outcome::Good(file.clone(), Fresh::No),
                Err(reason) => Outcome::Bad(reason),
            },
            None => self.make(program, job),
        }
    }

    /// Whether the delta makes what it should.
    fn check(&self, program: &Program, job: &Job, delta: &Path) -> Result<(), String> {
        let (base, target) = (self.root.join(&job.base.1.path), &job.target.1);
        let mut hash = Sha256::new();
        let decoded = program.decode(&base, delta, target.size, |bytes| {
            hash.update(bytes);
            Ok(())
        });
        decoded.map_err(|error| format!("it cannot be applied: {error}"))?;
        let got = digest::finish(hash);
        if got == target.sha256 {
            return Ok(());
        }
        Err(format!("it makes a file with the hash {got}, which should be {}", target.sha256))
    }

    fn make(&self, program: &Program, job: &Job) -> Outcome {
        let path = self.root.join(&job.path);
        let key = delta_key(&job.base.1.sha256, &job.target.1.sha256);
        let aside = intake::incoming(self.root).join(key);
        let outcome = self.make_aside(program, job, &aside);
        let outcome = outcome.and_then(|(size, sha256)| {
            fs::rename(&aside, &path).map_err(|error| (error.to_string(), false))?;
            disk::flush_directory(disk::parent_of(&path)).map_err(|e| (e.to_string(), false))?;
            Ok(PublishedFile { path: job.path.clone(), size, sha256 })
        });
        match outcome {
            Ok(file) => Outcome::Good(file, Fresh::Yes),
            Err((reason, is_lasting)) => {
                // The next build removes what stays here.
                let _ = disk::remove_if_there(&aside);
                Outcome::None(reason, is_lasting)
            }
        }
    }

    /// Makes and checks it under another name; its size and hash.
    fn make_aside(
        &self,
        program: &Program,
        job: &Job,
        aside: &Path,
    ) -> Result<(u64, Fingerprint), (String, bool)> {
        let io = |error: io::Error| (error.to_string(), false);
        let ready = disk::create_directories(disk::parent_of(aside));
        ready.map_err(|error| (error.to_string(), false))?;
        let (base, target) = (&job.base.1, &job.target.1);
        disk::remove_if_there(aside).map_err(io)?;
        let mut file = disk::create(aside).map_err(io)?;
        let (mut hash, mut size) = (Sha256::new(), 0);
        let [from, to] = [base, target].map(|file| self.root.join(&file.path));
        let made = program.encode((&from, base.size), (&to, target.size), |bytes| {
            hash.update(bytes);
            size += bytes.len() as u64;
            file.write_all(bytes)
        });
        made.map_err(|error| match error {
            Failed::TooLarge(_) => {
                (format!("it is not under half of the {} bytes it makes", target.size), true)
            }
            error => (error.to_string(), error.is_lasting()),
        })?;
        self.check(program, job, aside).map_err(|reason| (reason, false))?;
        file.sync_all().map_err(io)?;
        Ok((size, digest::finish(hash)))
    }

    /// Lists deltas in the hashes beside them, as far as they are not: an earlier program may have
    /// ended in between.
    fn amend_sums(&self, deltas: &BTreeMap<Fingerprint, Vec<PublishedDelta>>) -> Result<()> {
        let mut directories: BTreeMap<&str, Vec<(&str, Fingerprint)>> = BTreeMap::new();
        for file in deltas.values().flatten().map(|delta| &delta.file) {
            if let Some((directory, name)) = file.path.rsplit_once('/') {
                directories.entry(directory).or_default().push((name, file.sha256));
            }
        }
        for (directory, files) in directories {
            let path = self.root.join(directory).join(SHA256SUMS);
            let text = fs::read_to_string(&path).map_err(TreeError::io("read", &path))?;
            if let Some(text) = sums::with(&text, &files) {
                disk::replace(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// Whether something was made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fresh {
    Yes,
    No,
}

/// What came of one.
#[derive(Debug)]
enum Outcome {
    /// It makes what it should.
    Good(PublishedFile, Fresh),
    /// There is none, and why; whether that will be so the next time.
    None(String, bool),
    /// What is there is wrong.
    Bad(String),
}

impl Done {
    fn add(&mut self, job: Job, outcome: Outcome) {
        let key = delta_key(&job.base.1.sha256, &job.target.1.sha256);
        let mut report = DeltaReport {
            path: job.path.clone(),
            size: 0,
            full: job.target.1.size,
            made: false,
            reason: None,
        };
        match outcome {
            Outcome::Good(file, fresh) => {
                report.size = file.size;
                report.made = fresh == Fresh::Yes;
                self.tried.insert(key, Tried::Good(file.sha256));
                if report.made {
                    self.new.push(file.clone());
                }
                let deltas = self.deltas.entry(job.target.0).or_default();
                deltas.push(PublishedDelta { base: job.base.0, file });
            }
            Outcome::None(reason, is_lasting) => {
                if is_lasting {
                    self.tried.insert(key, Tried::Useless(reason.clone()));
                }
                report.reason = Some(reason);
            }
            Outcome::Bad(reason) => {
                self.broken.push(Broken::new(&job.path, &reason));
                report.reason = Some(reason);
            }
        }
        self.reports.push(report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_delta_starts_from() {
        for (text, kind, base) in [
            ("rootfs.20260101_1200.vcdiff", RootKind::Squashfs, "20260101_1200"),
            ("rootfs.20260101.12.vcdiff", RootKind::Squashfs, "20260101.12"),
            ("disk.20260101.qcow2.vcdiff", RootKind::DiskKvm, "20260101"),
            ("delta-20260101_13:00.vcdiff", RootKind::Squashfs, "20260101_13:00"),
        ] {
            assert_eq!(parse_name(text), Some((kind, base)), "{text}");
        }
        assert_eq!(name(RootKind::Squashfs, "a"), "rootfs.a.vcdiff");
        assert_eq!(parse_name(&name(RootKind::DiskKvm, "a")), Some((RootKind::DiskKvm, "a")));
        for other in ["rootfs.squashfs", "x.vcdiff", ".vcdiff"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
