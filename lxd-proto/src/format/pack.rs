//! Makes a unified image tarball of a directory, the same bytes for the same content.

mod entry;

use std::collections::HashMap;
use std::fs::{self, File, Metadata as FileMetadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::compressor::Compressor;
use super::file_type::Compression;
use crate::metadata::{Metadata, MetadataError};
pub use entry::encode_entry;

use super::tar_header::{Attributes, Timestamp};
use super::tar_reader::{Entry, EntryKind};

/// Why a directory can't be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// Something in the directory can't be read.
    #[error("reading {}: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tarball can't be written.
    #[error("writing the tarball: {0}")]
    Write(io::Error),
    /// `metadata.yaml` is wrong.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A part is missing.
    #[error("{} has no {part}: an image needs metadata.yaml and rootfs/", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
        /// Which part.
        part: &'static str,
    },
    /// A file's length was not what it was before.
    #[error("{} changed while it was read; try again when nothing writes to it", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
}

/// Writes the image in `dir` to `out` as one tarball: `metadata.yaml`, `templates/` and `rootfs/`
/// (or `rootfs.img`).
///
/// Equal directories give equal bytes, on any machine: entries are in order of their names, owners
/// are numbers, no time is later than the image's `creation_date`, and the compressors don't let
/// the number of cores show. Extended attributes, hard links and devices are kept.
///
/// Returns what was left out: sockets, and whatever lies beside the parts of the image.
///
/// # Errors
/// See [`PackError`]; a wrong `level` is a [`PackError::Write`].
pub fn pack_directory(
    dir: &Path,
    compression: Compression,
    level: Option<u32>,
    out: &mut dyn Write,
) -> Result<Vec<PathBuf>, PackError> {
    let metadata_file = dir.join("metadata.yaml");
    let metadata = match fs::read(&metadata_file) {
        Ok(yaml) => Metadata::parse(&yaml)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(PackError::Missing { dir: dir.into(), part: "metadata.yaml" });
        }
        Err(source) => return Err(PackError::Read { path: metadata_file, source }),
    };
    let (names, others): (Vec<_>, Vec<_>) = sorted_names(dir)?.into_iter().partition(|name| {
        matches!(&name[..], b"metadata.yaml" | b"templates" | b"rootfs" | b"rootfs.img")
    });
    if !names.iter().any(|name| name.starts_with(b"rootfs")) {
        return Err(PackError::Missing { dir: dir.into(), part: "rootfs/" });
    }
    let out = Compressor::new(compression, level, out).map_err(PackError::Write)?;
    let newest = metadata.creation_date.max(0);
    let left_out = others.iter().map(|name| join(dir, name)).collect();
    let linked = HashMap::new();
    let mut packer = Packer { out, newest, linked, left_out, buffer: vec![0; COPY] };
    for name in names {
        packer.add(&join(dir, &name), &name)?;
    }
    packer.finish()
}

/// How much is copied at once.
const COPY: usize = 256 << 10;

struct Packer<W: Write> {
    out: Compressor<W>,
    /// No time is later than this.
    newest: i64,
    /// The first names of files that have several.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// What does not go in.
    left_out: Vec<PathBuf>,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<W> {
    /// Adds a file under a name, a directory with all in it.
    fn add(&mut self, path: &Path, name: &[u8]) -> Result<(), PackError> {
        let read = |source| PackError::Read { path: path.into(), source };
        let metadata = fs::symlink_metadata(path).map_err(read)?;
        let kind = metadata.file_type();
        if kind.is_socket() {
            self.left_out.push(path.into());
            return Ok(());
        }
        // Metadata and templates must be files of their own.
        if !kind.is_dir() && metadata.nlink() > 1 && name.starts_with(b"rootfs/") {
            let id = (metadata.dev(), metadata.ino());
            if let Some(first) = self.linked.get(&id) {
                let first = first.clone();
                let attributes = self.attributes(&metadata, Vec::new());
                return self.entry(&metadata, EntryKind::HardLink, name, &first, &attributes);
            }
            self.linked.insert(id, name.to_vec());
        }
        let mut link = Vec::new();
        if kind.is_symlink() {
            link = fs::read_link(path).map_err(read)?.into_os_string().into_vec();
        }
        let attributes = self.attributes(&metadata, entry::xattrs(path).map_err(read)?);
        self.entry(&metadata, entry_kind(&metadata), name, &link, &attributes)?;
        if kind.is_file() {
            self.copy(path, &metadata)?;
        } else if kind.is_dir() {
            for child in sorted_names(path)? {
                self.add(&join(path, &child), &[name, b"/", &child].concat())?;
            }
        }
        Ok(())
    }

    fn attributes(&self, metadata: &FileMetadata, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Attributes {
        let seconds = metadata.mtime().clamp(0, self.newest);
        Attributes {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: Timestamp { seconds, nanoseconds: 0 },
            xattrs,
        }
    }

    /// Writes the headers of an entry.
    fn entry(
        &mut self,
        metadata: &FileMetadata,
        kind: EntryKind,
        name: &[u8],
        link: &[u8],
        attributes: &Attributes,
    ) -> Result<(), PackError> {
        let size = metadata.len();
        let entry = Entry { name, link, kind, size, sparse: false, attributes };
        self.write(&encode_entry(&entry, None))
    }

    /// Copies a file's content.
    fn copy(&mut self, path: &Path, metadata: &FileMetadata) -> Result<(), PackError> {
        let read = |source| PackError::Read { path: path.into(), source };
        let changed = || PackError::Changed { path: path.into() };
        if metadata.len() == 0 {
            return Ok(());
        }
        let mut file = File::open(path).map_err(read)?;
        let mut left = metadata.len();
        while left > 0 {
            let len = usize::try_from(left).map_or(COPY, |left| left.min(COPY));
            let len = file.read(&mut self.buffer[..len]).map_err(read)?;
            if len == 0 {
                return Err(changed());
            }
            self.out.write_all(&self.buffer[..len]).map_err(PackError::Write)?;
            left -= len as u64;
        }
        if file.read(&mut [0]).map_err(read)? != 0 {
            return Err(changed());
        }
        let padding = metadata.len().wrapping_neg() % 512;
        self.write(&[0; 512][..usize::try_from(padding).unwrap_or_default()])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.out.write_all(bytes).map_err(PackError::Write)
    }

    fn finish(mut self) -> Result<Vec<PathBuf>, PackError> {
        self.write(&[0; 1024])?;
        self.out.finish().map_err(PackError::Write)?.flush().map_err(PackError::Write)?;
        Ok(self.left_out)
    }
}

/// What a file is to an archive.
fn entry_kind(metadata: &FileMetadata) -> EntryKind {
    let kind = metadata.file_type();
    let (major, minor) = (major(metadata.rdev()), minor(metadata.rdev()));
    if kind.is_dir() {
        EntryKind::Directory
    } else if kind.is_symlink() {
        EntryKind::Symlink
    } else if kind.is_char_device() {
        EntryKind::CharacterDevice(major, minor)
    } else if kind.is_block_device() {
        EntryKind::BlockDevice(major, minor)
    } else if kind.is_fifo() {
        EntryKind::Fifo
    } else {
        EntryKind::File
    }
}

/// The names in a directory, in byte order.
fn sorted_names(dir: &Path) -> Result<Vec<Vec<u8>>, PackError> {
    let read = |source| PackError::Read { path: dir.into(), source };
    let mut names = fs::read_dir(dir)
        .map_err(read)?
        .map(|entry| Ok(entry?.file_name().into_vec()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(read)?;
    names.sort_unstable();
    Ok(names)
}

fn join(dir: &Path, name: &[u8]) -> PathBuf {
    dir.join(std::ffi::OsStr::from_bytes(name))
}

#[cfg(test)]
mod tests;
