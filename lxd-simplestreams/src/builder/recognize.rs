//! What a file is, by its content: its name says little and its place nothing.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use lxd_proto::format::{
    Checker, Compression, FileType, FormatError, Limits, Role, prove_complete,
};
use lxd_proto::image::InstanceType;
use lxd_proto::metadata::Metadata;
use serde::{Deserialize, Serialize};

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
    /// A difference between two files.
    Delta,
    /// Something else, which is nobody's business.
    Other,
}

/// What a file was found to be, to be remembered; what metadata says is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Squashfs,
    Tarball,
    Disk,
    Uefi1,
    Disk1,
    Delta,
    Other,
}

impl Content {
    /// The part of it that need not be read again while the file stays the same.
    pub(super) const fn kind(&self) -> Option<Kind> {
        match self {
            Self::Metadata(_) | Self::Unified(..) => None,
            Self::Root(RootKind::Squashfs) => Some(Kind::Squashfs),
            Self::Root(RootKind::Tarball) => Some(Kind::Tarball),
            Self::Root(RootKind::DiskKvm) => Some(Kind::Disk),
            Self::Root(RootKind::Uefi1) => Some(Kind::Uefi1),
            Self::Root(RootKind::Disk1) => Some(Kind::Disk1),
            Self::Delta => Some(Kind::Delta),
            Self::Other => Some(Kind::Other),
        }
    }
}

impl From<Kind> for Content {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Squashfs => Self::Root(RootKind::Squashfs),
            Kind::Tarball => Self::Root(RootKind::Tarball),
            Kind::Disk => Self::Root(RootKind::DiskKvm),
            Kind::Uefi1 => Self::Root(RootKind::Uefi1),
            Kind::Disk1 => Self::Root(RootKind::Disk1),
            Kind::Delta => Self::Delta,
            Kind::Other => Self::Other,
        }
    }
}

/// Looks at the file. Metadata is checked whole, root file systems as far as is quick: the
/// structure of a squashfs or a disk, the index of an xz file, the beginning of other tarballs.
///
/// # Errors
/// What is wrong with a file that is meant for an image.
pub(super) fn recognize(path: &Path) -> Result<Content, FormatError> {
    let mut file = File::open(path)?;
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
    let whole = |file: &File| match compression {
        Compression::Xz => prove_complete(file).map(drop),
        _ => Ok(()),
    };
    match walk(file, Role::Unified, SEARCH) {
        Ok((Some(metadata), Some(kind))) => {
            whole(file)?;
            return Ok(Content::Unified(metadata, kind));
        }
        Ok((Some(metadata), None)) => {
            file.rewind()?;
            // The rules for a file that is nothing but metadata are stricter.
            walk(file, Role::Metadata, u64::MAX)?;
            return Ok(Content::Metadata(metadata));
        }
        // What is meant to be metadata is told by its own fault.
        Err(error @ (FormatError::Metadata(_) | FormatError::TwoRoots)) => return Err(error),
        Err(FormatError::Io(error)) => return Err(error.into()),
        Ok((None, _)) | Err(_) => {}
    }
    file.rewind()?;
    match walk(file, Role::Rootfs, LOOK) {
        Ok(_) => whole(file).map(|()| Content::Root(RootKind::Tarball)),
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

fn read(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
