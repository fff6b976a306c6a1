//! Unpacked images: one read-only tree for all instances of an image.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::remote::Progress;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::rootfs;

/// The unpacked images of a daemon.
#[derive(Debug)]
pub struct Trees {
    root: PathBuf,
    /// Held while a tree is made, used for a new instance, or removed.
    locks: Mutex<HashMap<Fingerprint, Arc<tokio::sync::Mutex<()>>>>,
}

/// The files of an image in the store.
#[derive(Debug, Clone)]
pub struct Files {
    /// The unified file, or the metadata file.
    pub head: PathBuf,
    /// The root file system of a split image.
    pub rootfs: Option<PathBuf>,
}

/// A tree that stays as long as this is held.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
    _held: OwnedMutexGuard<()>,
}

impl Tree {
    /// Where it is: `rootfs`, `templates` and `metadata.yaml` are in it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Trees {
    /// The trees below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root, locks: Mutex::default() }
    }

    /// Where the tree of an image is, or would be.
    pub fn path(&self, image: &Fingerprint) -> PathBuf {
        self.root.join(image.to_string())
    }

    async fn hold(&self, image: &Fingerprint) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            // Those that nobody holds or waits for.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(*image).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// The tree of an image, unpacked from `files` if it is not there. Whoever comes meanwhile
    /// waits for it.
    ///
    /// # Errors
    /// [`Error::Unpack`] says which file or entry was the trouble; nothing stays behind.
    pub async fn ensure(
        &self,
        image: &Fingerprint,
        files: Files,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Tree> {
        let held = self.hold(image).await;
        let path = self.path(image);
        let (root, target) = (self.root.clone(), path.clone());
        blocking(move || {
            if target.exists() {
                return Ok(());
            }
            make(&root, &target, &files, &progress, &cancel)
        })
        .await?;
        Ok(Tree { path, _held: held })
    }

    /// Removes the tree of an image unless `used` says that somebody needs it.
    pub async fn remove_unless(
        &self,
        image: &Fingerprint,
        used: impl FnOnce() -> bool,
        unmount: impl FnOnce(&Path) + Send + 'static,
    ) -> Result<()> {
        let _held = self.hold(image).await;
        if used() {
            return Ok(());
        }
        let (path, gone) = (self.path(image), self.partial(image));
        blocking(move || {
            if !path.exists() {
                return Ok(());
            }
            unmount(&path);
            fs::rename(&path, &gone)
                .and_then(|()| rootfs::remove(&gone))
                .map_err(|error| Error::io(format!("cannot remove {}", path.display()), error))
        })
        .await
    }

    fn partial(&self, image: &Fingerprint) -> PathBuf {
        self.root.join(format!(".{image}.partial"))
    }

    /// Which images have a tree. What was left half made or half removed goes.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn sweep(&self) -> io::Result<Vec<Fingerprint>> {
        let mut images = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_str().map(str::parse) {
                Some(Ok(image)) => images.push(image),
                _ if name.to_string_lossy().ends_with(".partial") => rootfs::remove(&entry.path())?,
                _ => {}
            }
        }
        Ok(images)
    }
}

fn make(
    root: &Path,
    target: &Path,
    files: &Files,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let partial = root.join(format!(".{name}.partial"));
    let trouble = |error| Error::io(format!("cannot make {}", partial.display()), error);
    rootfs::remove(&partial).map_err(trouble)?;
    DirBuilder::new().mode(0o700).create(&partial).map_err(trouble)?;
    let source = rootfs::Source { head: &files.head, rootfs: files.rootfs.as_deref() };
    let outcome = rootfs::unpack(source, &partial, progress, cancel)
        .map_err(|error| match error {
            rootfs::Error::Cancelled => Error::Cancelled,
            error => Error::Unpack(Arc::new(error)),
        })
        .and_then(|_| fs::rename(&partial, target).map_err(trouble));
    if outcome.is_err()
        && let Err(error) = rootfs::remove(&partial)
    {
        tracing::warn!(%error, path = %partial.display(), "cannot remove a half-unpacked image");
    }
    outcome
}

/// Runs what waits for disks and the kernel on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Internal(error.to_string()))?
}
