//! Why an image file is refused, in words for the person who sent it.

use std::io;

use crate::metadata::MetadataError;

/// The reason why an image file can't be accepted; its text is what a user reads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The file could not be read.
    #[error("reading the image file: {0}")]
    Io(#[from] io::Error),
    /// The first bytes belong to no format that images come in.
    #[error("Unsupported compression")]
    UnsupportedCompression,
    /// The file ends too early.
    #[error("the {what} is truncated; send the whole file again")]
    Truncated {
        /// The format, as in "xz data".
        what: &'static str,
    },
    /// The bytes break the rules of their format.
    #[error("the {what} is corrupt: {reason}")]
    Corrupt {
        /// The format, as in "xz data".
        what: &'static str,
        /// Which rule.
        reason: String,
    },
    /// There are bytes after the end of the data.
    #[error("there are foreign bytes after the end of the {what}")]
    TrailingData {
        /// The format, as in "xz data".
        what: &'static str,
    },
    /// A valid file that uses a feature which is not read here.
    #[error("the {what} can't be used: {reason}")]
    NotSupported {
        /// The format.
        what: &'static str,
        /// Which feature, and what to do.
        reason: String,
    },
    /// Unpacking needs a larger window than is allowed.
    #[error(
        "the {what} needs more than 128 MiB of memory to unpack; \
         compress the image with a smaller window"
    )]
    WindowTooLarge {
        /// The format, as in "xz data".
        what: &'static str,
    },
    /// An entry's name leads out of the archive.
    #[error("the archive leaves its root: entry {entry}")]
    LeavesRoot {
        /// The quoted name.
        entry: String,
    },
    /// One name is used twice.
    #[error("the archive has two entries named {entry}")]
    Duplicate {
        /// The quoted name.
        entry: String,
    },
    /// An entry is not allowed.
    #[error("entry {entry} of the archive {reason}")]
    Entry {
        /// The quoted name.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More entries than allowed.
    #[error("the archive has more than {limit} entries")]
    TooManyEntries {
        /// How many are allowed.
        limit: u64,
    },
    /// More data than allowed.
    #[error("the image unpacks to more than {limit} bytes")]
    TooLarge {
        /// How many bytes are allowed.
        limit: u64,
    },
    /// A small file that unpacks to a huge one.
    #[error("the image looks like a decompression bomb: it unpacks to over {ratio} times its size")]
    Bomb {
        /// The factor that is allowed.
        ratio: u64,
    },
    /// There is no `metadata.yaml`.
    #[error("Metadata tarball is missing metadata.yaml")]
    MissingMetadata,
    /// `metadata.yaml` is wrong.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The image holds neither a root file system nor a disk.
    #[error("Invalid instance type")]
    InvalidInstanceType,
    /// The image holds both a root file system and a disk.
    #[error("the archive has both rootfs/ and rootfs.img: keep one of them")]
    TwoRoots,
    /// The metadata part of a split image is something else.
    #[error("the metadata file is {found}, it must be a tarball with metadata.yaml")]
    NotMetadata {
        /// What it is.
        found: &'static str,
    },
}

impl FormatError {
    /// Corruption in words.
    pub(crate) fn corrupt(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Corrupt { what, reason: reason.into() }
    }

    /// A complaint about one entry.
    pub(crate) fn entry(name: &[u8], reason: &'static str) -> Self {
        Self::Entry { entry: quoted(name), reason }
    }
}

impl From<FormatError> for io::Error {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Io(error) => error,
            FormatError::Truncated { .. } => Self::new(io::ErrorKind::UnexpectedEof, error),
            error => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// A name from an archive, fit to be shown: quoted, control characters escaped, cut when long.
pub(crate) fn quoted(name: &[u8]) -> String {
    const SHOWN: usize = 200;
    let cut = &name[..name.len().min(SHOWN)];
    let more = if name.len() > SHOWN { "…" } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(cut))
}
