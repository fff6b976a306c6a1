//! What a file is, by its content: its name says little and its place nothing.

mod structure;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use lxd_proto::format::{Checker, Compression, FileType, FormatError, Limits, Role};
use lxd_proto::image::InstanceType;
use lxd_proto::metadata::Metadata;
use serde::{Deserialize, Serialize};

use super::{disk, groups};
use crate::root::RootKind;

/// How far a tarball is read that has no root file system yet: metadata is small.
const SEARCH: u64 = 64 << 20;
/// How far a root file system is looked into.
const LOOK: u64 = 1 << 20;
/// What VCDIFF files begin with.
const VCDIFF: [u8; 3] = [0xd6, 0xc3, 0xc4];
/// How names of tarballs end: only such a file is broken when it is none.
const TARBALLS: [&str; 10] = [
    ".tar",
    ".tar.xz",
    ".tar.gz",
    ".tar.zst",
    ".tar.bz2",
    ".tar.lzma",
    ".txz",
    ".tgz",
    ".root",
    ".rootfs",
];

/// What a file is to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// The metadata of a split image.
    Metadata(Metadata),
    /// A whole image.
    Unified(Metadata, InstanceType),
    /// The root of a split image.
    Root(RootKind),
    /// A tarball without any of the directories that a root file system has: a root only where
    /// its name says so.
    Bare,
    /// A difference between two files.
    Delta,
    /// Something else, which is nobody's business.
    Other,
}

/// What a file was found to be when it was checked whole, to be remembered; what metadata says is
/// read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Remembered by builders that only looked at the beginning.
    #[serde(rename = "tarball", alias = "squashfs")]
    Unchecked,
    #[serde(rename = "whole-squashfs")]
    Squashfs,
    #[serde(rename = "whole-tarball")]
    Tarball,
    Unified,
    Disk,
    Uefi1,
    Disk1,
    Delta,
    Other,
}

impl Content {
    /// What is remembered of it once it was checked whole.
    pub(super) const fn kind(&self) -> Option<Kind> {
        match self {
            Self::Metadata(_) => None,
            Self::Unified(..) => Some(Kind::Unified),
            Self::Root(RootKind::Squashfs) => Some(Kind::Squashfs),
            Self::Root(RootKind::Tarball) | Self::Bare => Some(Kind::Tarball),
            Self::Root(RootKind::DiskKvm) => Some(Kind::Disk),
            Self::Root(RootKind::Uefi1) => Some(Kind::Uefi1),
            Self::Root(RootKind::Disk1) => Some(Kind::Disk1),
            Self::Delta => Some(Kind::Delta),
            Self::Other => Some(Kind::Other),
        }
    }

    /// As what the whole file still has to be checked; what this module looks at whole has not.
    pub(super) const fn unchecked(&self) -> Option<Role> {
        match self {
            Self::Unified(..) => Some(Role::Unified),
            Self::Root(kind) => kind.unchecked(),
            Self::Bare => Some(Role::Rootfs),
            Self::Metadata(_) | Self::Delta | Self::Other => None,
        }
    }
}

impl RootKind {
    /// As what a root file has to be checked while it is hashed; a disk's structure is quick to
    /// look at.
    pub(super) const fn unchecked(self) -> Option<Role> {
        match self {
            Self::Squashfs | Self::Tarball => Some(Role::Rootfs),
            Self::DiskKvm | Self::Uefi1 | Self::Disk1 => None,
        }
    }
}

impl Kind {
    /// What is known of the file without another look.
    pub(super) const fn content(self) -> Option<Content> {
        Some(match self {
            Self::Unchecked | Self::Unified => return None,
            Self::Squashfs => Content::Root(RootKind::Squashfs),
            Self::Tarball => Content::Root(RootKind::Tarball),
            Self::Disk => Content::Root(RootKind::DiskKvm),
            Self::Uefi1 => Content::Root(RootKind::Uefi1),
            Self::Disk1 => Content::Root(RootKind::Disk1),
            Self::Delta => Content::Delta,
            Self::Other => Content::Other,
        })
    }
}

/// Looks at the file. Metadata and disks are checked whole, other roots as far as is quick: the
/// structure of a squashfs, the beginning of a tarball. [`Content::unchecked`] says what is left.
///
/// # Errors
/// What is wrong with a file that is meant for an image.
pub(super) fn recognize(path: &Path) -> Result<Content, FormatError> {
    let mut file = disk::open(path)?;
    let mut head = Vec::new();
    (&mut file).take(FileType::DETECT_BYTES as u64).read_to_end(&mut head)?;
    file.rewind()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if head.starts_with(&VCDIFF) {
        return Ok(Content::Delta);
    }
    match FileType::detect(&head) {
        // An empty file is one that somebody has begun to write.
        None if head.is_empty() && is_image_name(&name) => {
            Err(FormatError::Truncated { what: "image file" })
        }
        None => Ok(Content::Other),
        Some(FileType::Qcow2) => {
            check(Role::Rootfs, &head, &file)?;
            Ok(Content::Root(if name.ends_with("uefi1.img") {
                RootKind::Uefi1
            } else if name.ends_with("disk1.img") {
                RootKind::Disk1
            } else {
                RootKind::DiskKvm
            }))
        }
        Some(FileType::Squashfs) => {
            if let Ok((Some(metadata), Some(kind))) = check(Role::Unified, &head, &file) {
                return Ok(Content::Unified(metadata, kind));
            }
            check(Role::Rootfs, &head, &file)?;
            Ok(Content::Root(RootKind::Squashfs))
        }
        Some(FileType::Tar(compression)) => tarball(&mut file, compression, &name),
    }
}

fn is_image_name(name: &str) -> bool {
    let others = [".squashfs", ".qcow2", ".img"];
    TARBALLS.iter().chain(&others).any(|ending| name.ends_with(ending))
}

/// Metadata and kind of a file that needs no reading from its beginning to its end.
fn check(
    role: Role,
    head: &[u8],
    file: &File,
) -> Result<(Option<Metadata>, Option<InstanceType>), FormatError> {
    let mut checker = Checker::new(role, Limits::default()).verify_data(false);
    checker.feed(head)?;
    let findings = checker.finish(file)?;
    Ok((findings.metadata, findings.kind))
}

fn tarball(file: &mut File, compression: Compression, name: &str) -> Result<Content, FormatError> {
    match walk(file, Role::Unified, SEARCH) {
        Ok((Some(metadata), Some(kind))) => return Ok(Content::Unified(metadata, kind)),
        Ok((Some(metadata), None)) => {
            file.rewind()?;
            // The rules for a file that is nothing but metadata are stricter.
            walk(file, Role::Metadata, u64::MAX)?;
            return Ok(Content::Metadata(metadata));
        }
        // What is meant to be metadata is told by its own fault.
        Err(error @ (FormatError::Metadata(_) | FormatError::TwoRoots)) => return Err(error),
        Err(FormatError::Io(error)) => return Err(error.into()),
        Err(error) if groups::is_metadata_name(name) => return Err(error),
        // A compressed one can be so small that it ends before anything is known of it.
        Ok((None, _)) => {
            file.rewind()?;
            if let Ok((Some(metadata), _)) = walk(file, Role::Metadata, u64::MAX) {
                return Ok(Content::Metadata(metadata));
            }
        }
        Err(_) => {}
    }
    file.rewind()?;
    match walk(file, Role::Rootfs, LOOK) {
        Ok(_) => {
            file.rewind()?;
            let is_root = structure::is_root(file.take(LOOK), compression)?;
            Ok(if is_root { Content::Root(RootKind::Tarball) } else { Content::Bare })
        }
        Err(error) if TARBALLS.iter().any(|ending| name.ends_with(ending)) => Err(error),
        // Many a log is compressed.
        Err(_) => Ok(Content::Other),
    }
}

/// Reads a tarball until all is known that describes the image, its end, or `limit` bytes.
fn walk(
    file: &mut File,
    role: Role,
    limit: u64,
) -> Result<(Option<Metadata>, Option<InstanceType>), FormatError> {
    let mut checker = Checker::new(role, Limits::default());
    let mut buffer = vec![0; 64 << 10];
    let mut left = limit;
    while left > 0 && !(role == Role::Unified && checker.known().settled) {
        let count = read(file, &mut buffer)?;
        if count == 0 {
            let (metadata, kind) = {
                let known = checker.known();
                (known.metadata.cloned(), known.kind)
            };
            // A whole image without a root is no image, but metadata.
            return match checker.finish(file) {
                Ok(found) => Ok((found.metadata, found.kind)),
                Err(FormatError::InvalidInstanceType) if role == Role::Unified => {
                    Ok((metadata, kind))
                }
                Err(error) => Err(error),
            };
        }
        checker.feed(&buffer[..count])?;
        left = left.saturating_sub(count as u64);
    }
    let known = checker.known();
    Ok((known.metadata.cloned(), known.kind))
}

fn read(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
