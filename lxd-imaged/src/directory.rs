//! The state directory: where everything is, who holds it, and what it may not be.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Files that only a real LXD keeps in its directory.
const SIGNS_OF_LXD: [&str; 4] = ["database/local.db", "database/global", "lxd.db", "containers"];
/// Signs of Incus.
const SIGNS_OF_INCUS: [&str; 1] = ["incus.db"];

/// Paths below the state directory.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

/// Held as long as the daemon, or `fsck`, works on a directory.
#[derive(Debug)]
pub struct Held {
    _file: File,
}

impl Directory {
    /// The directory at `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The SQLite database.
    pub fn database(&self) -> PathBuf {
        self.root.join("images.db")
    }

    /// Finished files of images, named by their SHA-256.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Notes about blobs that may be garbage after a crash.
    pub fn unsettled(&self) -> PathBuf {
        self.root.join("unsettled")
    }

    /// Files that are still arriving.
    pub fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// Files of images that were partly fetched from other servers.
    pub fn partial(&self) -> PathBuf {
        self.root.join("partial")
    }

    /// Catalogs of other servers.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Unpacked images, one directory each.
    pub fn trees(&self) -> PathBuf {
        self.root.join("trees")
    }

    /// What instances have of their own, one directory each.
    pub fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// What snapshots have of their own, one directory for each instance.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// What `fsck --repair` took out of the store.
    pub fn lost(&self) -> PathBuf {
        self.root.join("lost+found")
    }

    /// Mirrors that are declared.
    pub fn mirrors(&self) -> PathBuf {
        self.root.join("mirrors.yaml")
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("unix.socket")
    }

    /// The server's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.root.join("server.crt")
    }

    /// Its key.
    pub fn key(&self) -> PathBuf {
        self.root.join("server.key")
    }

    /// Creates what is missing, refuses what is not ours, and locks the directory.
    pub fn hold(&self) -> anyhow::Result<Held> {
        self.refuse_foreign()?;
        // Clients reach the socket through the directory, so others may pass but not list it.
        create(&self.root, 0o711).with_context(|| {
            format!(
                "cannot create {}; set LXD_DIR to a directory you may write",
                self.root.display()
            )
        })?;
        // Nobody but the kernel passes through the trees: there are strangers' set-user-id programs.
        for private in [
            self.blobs(),
            self.spool(),
            self.partial(),
            self.unsettled(),
            self.cache(),
            self.trees(),
            self.snapshots(),
        ] {
            create(&private, 0o700)
                .with_context(|| format!("cannot create {}", private.display()))?;
        }
        // The root user of a container passes through this.
        create(&self.instances(), 0o711)
            .with_context(|| format!("cannot create {}", self.instances().display()))?;
        let path = self.root.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Held { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => bail!(
                "{} is held by another lxd-imaged; stop it first, or choose another LXD_DIR",
                self.root.display()
            ),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    fn refuse_foreign(&self) -> anyhow::Result<()> {
        let present = |signs: &[&str]| signs.iter().any(|sign| self.root.join(sign).exists());
        for (owner, found) in [("LXD", present(&SIGNS_OF_LXD)), ("Incus", present(&SIGNS_OF_INCUS))]
        {
            if found {
                bail!(
                    "{} belongs to {owner}; lxd-imaged keeps its own: set LXD_DIR to another directory",
                    self.root.display()
                );
            }
        }
        Ok(())
    }

    /// Refuses to begin a new database beside the files of an old one: images would be gone from
    /// every list although their bytes are there.
    pub fn refuse_lost_database(&self) -> anyhow::Result<()> {
        let database = self.database();
        let known = fs::metadata(&database).is_ok_and(|file| file.len() > 0);
        if !known && fs::read_dir(self.blobs()).is_ok_and(|mut blobs| blobs.next().is_some()) {
            bail!(
                "{} is missing or empty, but {} holds files of images; put the database back from \
                 a backup, or move these files away to begin anew",
                database.display(),
                self.blobs().display()
            );
        }
        Ok(())
    }

    /// Refuses a directory where no daemon has ever kept anything: a mistyped name.
    pub fn refuse_no_store(&self) -> anyhow::Result<()> {
        let has_files = || fs::read_dir(self.blobs()).is_ok_and(|mut blobs| blobs.next().is_some());
        if self.database().exists() || has_files() {
            return Ok(());
        }
        self.refuse_foreign()?;
        bail!(
            "there is no store in {}: no lxd-imaged has served from there; \
             set LXD_DIR to the directory that is meant",
            self.root.display()
        )
    }

    /// Removes what an earlier daemon left half received. What is no file is none of ours.
    pub fn empty_spool(&self) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(self.spool())? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
                removed += 1;
            } else {
                tracing::warn!(path = %entry.path().display(), "not a file of the store");
            }
        }
        Ok(removed)
    }
}

/// Creates a directory, and what is missing above it, with exactly this mode.
fn create(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create(parent, 0o755)?;
    }
    DirBuilder::new().mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_and_is_not_lxds() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::new(temp.path().join("state"));
        let held = directory.hold().unwrap();
        let second = directory.hold().unwrap_err();
        assert!(second.to_string().contains("held by another"), "{second}");
        drop(held);
        directory.hold().unwrap();

        fs::create_dir(directory.root().join("database")).unwrap();
        fs::write(directory.root().join("database/local.db"), b"").unwrap();
        let foreign = directory.hold().unwrap_err();
        assert!(foreign.to_string().contains("belongs to LXD"), "{foreign}");
    }
}
