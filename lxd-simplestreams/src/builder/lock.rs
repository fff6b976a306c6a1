//! The lock of a tree: one program changes it, or several read it.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::LOCK;
use super::disk;
use super::error::{Result, TreeError};
use super::state::STATE;

/// The lock, as long as it lives.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // A program that another thread is just starting may have the file for a moment, and would
        // hold the lock with it.
        let _ = self.0.unlock();
    }
}

/// Keeps everybody else away from the tree at `root`.
pub(super) fn exclusive(root: &Path) -> Result<Lock> {
    let path = root.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let lock = disk::open_with(&mut options, &path).map_err(TreeError::io("open", &path))?;
    disk::refuse_link(&root.join(STATE))?;
    match lock.try_lock() {
        Ok(()) => Ok(Lock(lock)),
        Err(TryLockError::WouldBlock) => Err(TreeError::Locked(root.to_owned())),
        Err(TryLockError::Error(error)) => Err(TreeError::io("lock", &path)(error)),
    }
}

/// Keeps those away who would change the tree; one that cannot be locked is only read anyway.
pub(super) fn shared(root: &Path) -> Result<Option<Lock>> {
    let Ok(file) = disk::open(&root.join(LOCK)) else { return Ok(None) };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Err(TreeError::Locked(root.to_owned())),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}
