//! The superblock: where the tables are, and how blocks are compressed.

use super::{SQUASHFS, corrupt, number, small};
use crate::format::error::FormatError;
use crate::format::read_at::ReadAt;

/// The length of a superblock; data comes after it.
pub(super) const SUPERBLOCK: usize = 96;

/// The offset of a table that isn't there.
const ABSENT: u64 = u64::MAX;

/// How the blocks of a file are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format) enum Compressor {
    Zlib,
    Lzma,
    Xz,
    Lz4,
    Zstd,
}

impl Compressor {
    /// The compressor of a file that begins with `head`, if that is long enough to tell.
    pub(in crate::format) fn detect(head: &[u8]) -> Option<Self> {
        let id = head.get(20..22)?;
        Self::from_id(u16::from_le_bytes([id[0], id[1]])).ok()
    }

    fn from_id(id: u16) -> Result<Self, FormatError> {
        match id {
            1 => Ok(Self::Zlib),
            2 => Ok(Self::Lzma),
            4 => Ok(Self::Xz),
            5 => Ok(Self::Lz4),
            6 => Ok(Self::Zstd),
            3 => Err(FormatError::NotSupported {
                what: SQUASHFS,
                reason: "it is compressed with lzo; use zstd, xz or gzip".into(),
            }),
            _ => Err(FormatError::NotSupported {
                what: SQUASHFS,
                reason: "its compression is not known here; use zstd, xz or gzip".into(),
            }),
        }
    }

    /// Whether decompression takes much longer than reading.
    pub(in crate::format) const fn is_slow(self) -> bool {
        matches!(self, Self::Xz | Self::Lzma)
    }
}

/// A checked superblock.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) compressor: Compressor,
    pub(super) block_size: u32,
    pub(super) inode_count: u32,
    pub(super) fragment_count: u32,
    pub(super) id_count: u32,
    pub(super) root_inode: u64,
    /// Where the file system ends; the file may be longer, filled up to some unit.
    pub(super) bytes_used: u64,
    pub(super) inode_table: u64,
    pub(super) directory_table: u64,
    pub(super) fragment_table: Option<u64>,
    pub(super) id_table: u64,
    pub(super) xattr_table: Option<u64>,
}

impl Superblock {
    /// Reads and checks the superblock of a file.
    pub(super) fn read(file: &dyn ReadAt) -> Result<Self, FormatError> {
        let len = file.len()?;
        if len < SUPERBLOCK as u64 {
            return Err(FormatError::Truncated { what: SQUASHFS });
        }
        let mut raw = [0; SUPERBLOCK];
        file.read_exact_at(&mut raw, 0)?;
        let table = |at| Some(number(&raw, at, 8)).filter(|&start| start != ABSENT);
        if raw[..4] != *b"hsqs" {
            return Err(corrupt("it doesn't begin as a squashfs image does"));
        }
        if (small(&raw, 28, 2), small(&raw, 30, 2)) != (4, 0) {
            return Err(FormatError::NotSupported {
                what: SQUASHFS,
                reason: "its version is not 4.0".into(),
            });
        }
        let superblock = Self {
            compressor: Compressor::from_id(u16::from_le_bytes([raw[20], raw[21]]))?,
            block_size: small(&raw, 12, 4),
            inode_count: small(&raw, 4, 4),
            fragment_count: small(&raw, 16, 4),
            id_count: small(&raw, 26, 2),
            root_inode: number(&raw, 32, 8),
            bytes_used: number(&raw, 40, 8),
            inode_table: number(&raw, 64, 8),
            directory_table: number(&raw, 72, 8),
            fragment_table: table(80),
            id_table: number(&raw, 48, 8),
            xattr_table: table(56),
        };
        superblock.check(small(&raw, 22, 2), len)?;
        Ok(superblock)
    }

    fn check(&self, block_log: u32, len: u64) -> Result<(), FormatError> {
        const BLOCK_LOGS: std::ops::RangeInclusive<u32> = 12..=20;
        if !BLOCK_LOGS.contains(&block_log) || self.block_size != 1 << block_log {
            return Err(corrupt("its block size is out of range"));
        }
        if self.bytes_used > len {
            return Err(FormatError::Truncated { what: SQUASHFS });
        }
        if self.inode_count == 0 || self.id_count == 0 {
            return Err(corrupt("it is empty"));
        }
        // The order is that of every writer; each table ends where the next begins.
        let mut at = SUPERBLOCK as u64;
        for start in [Some(self.inode_table), Some(self.directory_table), self.fragment_table]
            .into_iter()
            .flatten()
            .chain([self.id_table])
            .chain(self.xattr_table)
        {
            if start < at || start >= self.bytes_used {
                return Err(corrupt("a table is not where one can be"));
            }
            at = start;
        }
        if self.fragment_count > 0 && self.fragment_table.is_none() {
            return Err(corrupt("its fragment table is missing"));
        }
        Ok(())
    }
}
