//! Which format a file is in, told by its first bytes.

use std::fmt;
use std::str::FromStr;

/// How the bytes of a tarball are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, one member or several.
    Gzip,
    /// xz, one stream or several.
    Xz,
    /// Zstandard, one frame or several.
    Zstd,
    /// bzip2, one stream or several.
    Bzip2,
    /// The older `.lzma` container.
    Lzma,
}

/// The format of an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileType {
    /// A tar archive.
    Tar(Compression),
    /// A squashfs file system.
    Squashfs,
    /// A QEMU disk.
    Qcow2,
}

/// Where a tar header has its magic.
const TAR_MAGIC_OFFSET: usize = 257;

impl FileType {
    /// How many of the first bytes [`FileType::detect`] can make use of.
    pub const DETECT_BYTES: usize = TAR_MAGIC_OFFSET + 5;

    /// The format of a file that begins with `head`, which may be shorter than
    /// [`FileType::DETECT_BYTES`] when the file is. `None` for anything that is no image.
    pub fn detect(head: &[u8]) -> Option<Self> {
        // The order is LXD's, so that both take a file for the same thing.
        if head.starts_with(b"BZ") {
            Some(Self::Tar(Compression::Bzip2))
        } else if head.starts_with(&[0x1f, 0x8b]) {
            Some(Self::Tar(Compression::Gzip))
        } else if head.starts_with(b"\xfd7zXZ") {
            Some(Self::Tar(Compression::Xz))
        } else if head.starts_with(&[0x5d, 0, 0]) || head.get(1..5) == Some(b"7zXZ") {
            Some(Self::Tar(Compression::Lzma))
        } else if head.get(TAR_MAGIC_OFFSET..Self::DETECT_BYTES) == Some(b"ustar") {
            Some(Self::Tar(Compression::None))
        } else if head.starts_with(b"hsqs") {
            Some(Self::Squashfs)
        } else if head.starts_with(b"QFI") {
            Some(Self::Qcow2)
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Some(Self::Tar(Compression::Zstd))
        } else {
            None
        }
    }

    /// The extension of such a file, with the leading dot: `.tar.gz`, `.squashfs`, `.qcow2`.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Tar(Compression::None) => ".tar",
            Self::Tar(Compression::Gzip) => ".tar.gz",
            Self::Tar(Compression::Xz) => ".tar.xz",
            Self::Tar(Compression::Zstd) => ".tar.zst",
            Self::Tar(Compression::Bzip2) => ".tar.bz2",
            Self::Tar(Compression::Lzma) => ".tar.lzma",
            Self::Squashfs => ".squashfs",
            Self::Qcow2 => ".qcow2",
        }
    }
}

impl Compression {
    /// Every way, for tables and help texts.
    pub const ALL: [Self; 6] =
        [Self::None, Self::Gzip, Self::Xz, Self::Zstd, Self::Bzip2, Self::Lzma];

    /// The name as LXD's `compression_algorithm` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
        }
    }

    /// Whether decompression takes much longer than receiving a file usually does.
    pub const fn is_slow(self) -> bool {
        matches!(self, Self::Xz | Self::Lzma | Self::Bzip2)
    }

    /// What its data is called in an error.
    pub(crate) const fn data(self) -> &'static str {
        match self {
            Self::None => "data",
            Self::Gzip => "gzip data",
            Self::Xz => "xz data",
            Self::Zstd => "zstd data",
            Self::Bzip2 => "bzip2 data",
            Self::Lzma => "lzma data",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A compression nobody here knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}: use none, gzip, xz, zstd, bzip2 or lzma")]
pub struct UnknownCompression(pub String);

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|compression| compression.name() == name)
            .ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_head(len: usize) -> Vec<u8> {
        let mut head = vec![0; 600];
        head[0] = b'x';
        head[257..262].copy_from_slice(b"ustar");
        head.truncate(len);
        head
    }

    #[test]
    fn magic_numbers_decide() {
        let cases: [(&[u8], &str); 9] = [
            (b"BZh91AY", ".tar.bz2"),
            (b"\x1f\x8b\x08", ".tar.gz"),
            (b"\xfd7zXZ\0", ".tar.xz"),
            (b"\x5d\0\0\x80\0", ".tar.lzma"),
            (b"?7zXZ\0", ".tar.lzma"),
            (b"hsqs", ".squashfs"),
            (b"QFI\xfb", ".qcow2"),
            (b"\x28\xb5\x2f\xfd", ".tar.zst"),
            (&tar_head(262), ".tar"),
        ];
        for (head, extension) in cases {
            assert_eq!(FileType::detect(head).map(FileType::extension), Some(extension));
        }
        assert_eq!(FileType::detect(&tar_head(600)), Some(FileType::Tar(Compression::None)));
        for head in [&b""[..], b"B", b"\x1f", b"PK\x03\x04", &tar_head(261), b"\x28\xb5\x2f"] {
            assert_eq!(FileType::detect(head), None, "{head:?}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for compression in Compression::ALL {
            assert_eq!(compression.to_string().parse(), Ok(compression));
        }
        assert!("lz4".parse::<Compression>().is_err());
    }
}
