//! Checking a stopped store: every recorded file is there, whole and what it says.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use lxd_proto::fingerprint::Fingerprint;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::db::{self, Change, NewImage, Opened, Snapshot, WithdrawnFile};
use crate::directory::Directory;

/// One thing that is wrong, and what was done about it.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What kind of fault.
    pub fault: Fault,
    /// The file or image it is about.
    pub subject: String,
    /// What it means, for people.
    pub detail: String,
    /// Whether it was mended.
    pub repaired: bool,
}

/// Kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// An image's file is not there.
    Missing,
    /// An image's file has other bytes than it should.
    Corrupt,
    /// A file that no image uses.
    Orphan,
    /// A file that does not belong in the store.
    Stray,
    /// A file that cannot be read.
    Unreadable,
    /// A half-received file of a daemon that was killed.
    Leftover,
}

/// Result of a check.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Images looked at.
    pub images: usize,
    /// Files read and hashed.
    pub blobs: usize,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong, or nothing is wrong any more.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.repaired)
    }
}

struct Check<'a> {
    directory: &'a Directory,
    opened: Opened,
    repair: bool,
    report: Report,
}

/// Checks the store in `directory`, which no daemon may hold. With `repair`, what no image uses
/// goes to `lost+found`, and images whose bytes are lost are taken out: their records and
/// whatever is left of their files go there too.
///
/// # Errors
/// Where there is no store, nothing is created.
pub async fn run(directory: &Directory, repair: bool) -> anyhow::Result<Report> {
    directory.refuse_no_store()?;
    let _held = directory.hold()?;
    directory.refuse_lost_database()?;
    let mut opened = db::open(&directory.database()).await?;
    let Snapshot { images, aliases, withdrawn, .. } = opened.load().await?;
    let report = Report { images: images.len(), ..Report::default() };
    let mut check = Check { directory, opened, repair, report };
    let names = |fingerprint: &Fingerprint| -> Vec<String> {
        aliases
            .iter()
            .filter(|alias| alias.target == *fingerprint)
            .map(|a| a.name.clone())
            .collect()
    };
    let broken = check.blobs(&images, &withdrawn)?;
    check.forget(&withdrawn, &broken).await?;
    for image in &images {
        let files = std::iter::once(&image.head).chain(&image.rootfs);
        if files.map(|blob| blob.digest).any(|digest| broken.contains(&digest)) {
            check.take_out(image, &names(&image.image.fingerprint)).await?;
        }
    }
    check.leftovers()?;
    Ok(check.report)
}

impl Check<'_> {
    fn found(&mut self, fault: Fault, subject: String, detail: String, repaired: bool) {
        self.report.findings.push(Finding { fault, subject, detail, repaired });
    }

    /// Reads every file; returns the digests that images need and cannot have, and those of
    /// withdrawn files.
    fn blobs(
        &mut self,
        images: &[NewImage],
        withdrawn: &[WithdrawnFile],
    ) -> anyhow::Result<BTreeSet<Fingerprint>> {
        let wanted: BTreeSet<Fingerprint> = images
            .iter()
            .flat_map(|image| std::iter::once(&image.head).chain(&image.rootfs))
            .map(|blob| blob.digest)
            .chain(withdrawn.iter().map(|file| file.digest))
            .collect();
        let mut present = BTreeSet::new();
        let mut broken = BTreeSet::new();
        for entry in fs::read_dir(self.directory.blobs())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // A fifo under a blob's name would keep a reader for ever.
            let regular = entry.file_type()?.is_file();
            match name.parse::<Fingerprint>() {
                Ok(digest) if regular && wanted.contains(&digest) => {
                    present.insert(digest);
                    let fault = match self.hash(&entry.path()) {
                        Ok(actual) if actual == digest => continue,
                        Ok(actual) => (Fault::Corrupt, format!("its bytes hash to {actual}")),
                        Err(error) => (Fault::Unreadable, format!("{error:#}")),
                    };
                    let moved = self.repair && self.move_away(&entry.path(), &name);
                    self.found(fault.0, name, fault.1, moved);
                    broken.insert(digest);
                }
                Ok(_) if regular => self.aside(Fault::Orphan, &entry.path(), "no image uses it"),
                _ => self.aside(Fault::Stray, &entry.path(), "not a file of the store"),
            }
        }
        for digest in wanted.difference(&present) {
            // Repaired when the images that need it are taken out.
            let detail = "no such file in the store".to_owned();
            self.found(Fault::Missing, digest.to_string(), detail, self.repair);
            broken.insert(*digest);
        }
        Ok(broken)
    }

    /// Forgets withdrawn files that cannot be served.
    async fn forget(
        &mut self,
        withdrawn: &[WithdrawnFile],
        broken: &BTreeSet<Fingerprint>,
    ) -> anyhow::Result<()> {
        let lost = withdrawn.iter().map(|file| file.digest).filter(|file| broken.contains(file));
        let lost: Vec<Fingerprint> = lost.collect();
        if self.repair && !lost.is_empty() {
            self.opened.apply(&Change::Forget(lost, Timestamp::MAX)).await?;
        }
        Ok(())
    }

    fn hash(&mut self, path: &Path) -> anyhow::Result<Fingerprint> {
        let mut file =
            File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    hash.update(&buffer[..read]);
                    self.report.bytes += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read {}", path.display()));
                }
            }
        }
        self.report.blobs += 1;
        Ok(Fingerprint::from_bytes(hash.finalize().into()))
    }

    /// Notes something that is no part of any image, and moves it out of the way.
    fn aside(&mut self, fault: Fault, path: &Path, detail: &str) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let moved = self.repair && self.move_away(path, &name);
        self.found(fault, name, detail.to_owned(), moved);
    }

    /// Moves something to `lost+found`; one thing that cannot be moved does not end the check.
    fn move_away(&self, path: &Path, name: &str) -> bool {
        let lost = self.directory.lost();
        let moved = fs::create_dir_all(&lost).and_then(|()| fs::rename(path, lost.join(name)));
        if let Err(error) = &moved {
            tracing::error!(path = %path.display(), %error, "cannot move it to lost+found");
        }
        moved.is_ok()
    }

    /// Takes an image without bytes out of the database; its record is kept as a file.
    async fn take_out(&mut self, image: &NewImage, aliases: &[String]) -> anyhow::Result<()> {
        let fingerprint = image.image.fingerprint;
        let subject = format!("image {fingerprint}");
        let named = if aliases.is_empty() { "no alias".into() } else { aliases.join(", ") };
        if self.repair {
            let lost = self.directory.lost();
            fs::create_dir_all(&lost)?;
            let record = lost.join(format!("{fingerprint}.json"));
            let kept = serde_json::json!({ "image": image.image, "aliases": aliases });
            fs::write(&record, serde_json::to_vec_pretty(&kept)?)
                .with_context(|| format!("cannot write {}", record.display()))?;
            self.opened.apply(&Change::Delete(fingerprint)).await?;
        }
        let detail = format!(
            "cannot be served ({named}); import it again{}",
            if self.repair { ", its record is in lost+found" } else { "" }
        );
        self.found(Fault::Missing, subject, detail, self.repair);
        Ok(())
    }

    fn leftovers(&mut self) -> anyhow::Result<()> {
        for entry in fs::read_dir(self.directory.spool())? {
            let entry = entry?;
            if !entry.file_type()?.is_file() {
                self.aside(Fault::Stray, &entry.path(), "not a file of the store");
                continue;
            }
            if self.repair {
                fs::remove_file(entry.path())?;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            self.found(
                Fault::Leftover,
                name,
                "half received; the next start removes it".into(),
                self.repair,
            );
        }
        Ok(())
    }
}
