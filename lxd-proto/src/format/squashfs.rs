//! Squashfs 4.0 files: a bounded walk over all directories, and over the data when asked for.

mod block;
mod inode;
mod superblock;
mod walk;

use super::error::FormatError;
use super::layout::{Limits, Parts, Role};
use super::read_at::ReadAt;
use block::Blocks;
pub(super) use superblock::Compressor;
use superblock::Superblock;
use walk::Walk;

/// What squashfs data is called in an error.
const SQUASHFS: &str = "squashfs image";

/// What a walk has seen.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) parts: Parts,
    pub(super) entries: u64,
    pub(super) unpacked: u64,
}

/// Checks a whole squashfs file: superblock, tables, every directory and inode, the place of every
/// data block; with `verify_data` also that each of them decompresses.
///
/// # Errors
/// The reason why it can't be used.
pub(super) fn check(
    file: &dyn ReadAt,
    role: Role,
    limits: &Limits,
    verify_data: bool,
) -> Result<Walked, FormatError> {
    let superblock = Superblock::read(file)?;
    let blocks = Blocks::new(file, &superblock)?;
    Walk::new(superblock, blocks, role, limits, verify_data)?.run()
}

fn corrupt(reason: impl Into<String>) -> FormatError {
    FormatError::corrupt(SQUASHFS, reason)
}

/// A little-endian number of a fixed record.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |value, &byte| (value << 8) | u64::from(byte))
}

/// A number of at most four bytes.
fn small(bytes: &[u8], at: usize, len: usize) -> u32 {
    u32::try_from(number(bytes, at, len)).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(in crate::format) mod tests;
