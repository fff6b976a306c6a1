//! The listing of a tree on disk: one file for each address, never trusted when read.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::listing::{Listing, MAX_LISTING};

/// Listings that are kept; the one that was not written for longest goes first.
const MAX_FILES: usize = 64;
const EXTENSION: &str = "listing";

/// Which tree a listing is of, as seen by whom. Shown in hex; tells nothing about a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// The key made of these texts; no two lists of texts have the same.
    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// 64 hex digits.
    pub(crate) fn hex(self) -> String {
        hex::encode(self.0)
    }
}

/// Where the listing of one tree is kept, if it is.
#[derive(Debug, Clone)]
pub(crate) struct CacheFile(Option<PathBuf>);

impl CacheFile {
    /// The place for `key` in a directory; without one nothing is kept.
    pub(crate) fn new(directory: Option<&Path>, key: Key) -> Self {
        Self(directory.map(|directory| directory.join(format!("{}.{EXTENSION}", key.hex()))))
    }

    /// What was stored; `None` when there is nothing or something else. Blocks.
    pub(crate) fn load(&self) -> Option<Listing> {
        let path = self.0.as_deref()?;
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read a stored catalog");
                return None;
            }
        };
        let listing = Listing::from_bytes(bytes);
        if listing.is_err() {
            tracing::debug!(path = %path.display(), "a stored catalog cannot be used");
        }
        listing.ok()
    }

    /// Stores a listing in one step: a reader sees the old one or the new one. Blocks.
    ///
    /// Nothing depends on success: a failure is logged.
    pub(crate) fn store(&self, listing: &Listing) {
        let Some(path) = &self.0 else { return };
        let written = write(path, listing.as_bytes()).and_then(|()| prune(path, MAX_FILES));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot store a catalog");
        }
    }

    /// Forgets what is stored. Blocks.
    pub(crate) fn remove(&self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Not through a link, and nothing that could block.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > MAX_LISTING as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.take(MAX_LISTING as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file in one step. Blocks.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    create(directory)?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
    file.write_all(bytes)?;
    // Not flushed to disk: after a power cut the checksum tells, and the tree is asked again.
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Creates the directory for nobody but ourselves.
pub(crate) fn create(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Removes the files beside `path` with its extension that were not written for longest, down to
/// `most`. Blocks.
pub(crate) fn prune(path: &Path, most: usize) -> io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(path.parent().unwrap_or(Path::new(".")))?.flatten() {
        let other = entry.path();
        if other.extension().is_some_and(|extension| Some(extension) == path.extension()) {
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            files.push((written.unwrap_or(SystemTime::UNIX_EPOCH), other));
        }
    }
    files.sort_unstable();
    let surplus = files.len().saturating_sub(most);
    for (_, file) in files.drain(..surplus) {
        fs::remove_file(file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::listing::{self, Rules};

    fn empty() -> Listing {
        listing::build(b"{}", Vec::new(), Rules::for_address("")).unwrap()
    }

    #[test]
    fn keys_tell_addresses_apart() {
        let keys = [
            Key::of(&["https://a/x", ""]),
            Key::of(&["https://a/y", ""]),
            Key::of(&["https://a/", "x"]),
            Key::of(&["https://a/x"]),
        ];
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key));
        }
    }

    #[test]
    fn what_was_stored_comes_back_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("a/b");
        let file = CacheFile::new(Some(&inner), Key::of(&["x"]));
        assert!(file.load().is_none());
        file.store(&empty());
        assert!(file.load().unwrap().is_empty());
        let path = file.0.clone().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);

        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(file.load().is_none(), "{cut} bytes");
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(file.load().is_none());
        file.store(&empty());
        assert!(file.load().is_some(), "the link is replaced");
        file.remove();
        assert!(file.load().is_none());
        CacheFile::new(None, Key::of(&[])).store(&empty());
    }

    #[test]
    fn only_so_many_files_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..MAX_FILES + 5 {
            CacheFile::new(Some(directory.path()), Key::of(&[&number.to_string()])).store(&empty());
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), MAX_FILES);
    }
}
