//! QEMU disks: whether one is self-contained and sane, told by its header.

use super::error::FormatError;
use super::layout::Limits;
use super::read_at::ReadAt;

/// How every QEMU disk begins.
pub(super) const MAGIC: &[u8] = b"QFI\xfb";

/// How much of the start of a disk is looked at.
pub(super) const HEADER_BYTES: usize = 104;

const DISK: &str = "qcow2 disk";

/// The header fields that matter, in the order of the file.
struct Header {
    version: u32,
    backing_file: u64,
    cluster_bits: u32,
    size: u64,
    encryption: u32,
    l1_entries: u32,
    l1_offset: u64,
    refcount_offset: u64,
    incompatible: u64,
    length: u32,
}

impl Header {
    fn read(head: &[u8]) -> Option<Self> {
        let version = number(head, 4, 4)?;
        // Version 2 has a shorter header, and none of the later features.
        let later =
            |at, len, default| if version == 2 { Some(default) } else { number(head, at, len) };
        Some(Self {
            version: u32::try_from(version).ok()?,
            backing_file: number(head, 8, 8)?,
            cluster_bits: u32::try_from(number(head, 20, 4)?).ok()?,
            size: number(head, 24, 8)?,
            encryption: u32::try_from(number(head, 32, 4)?).ok()?,
            l1_entries: u32::try_from(number(head, 36, 4)?).ok()?,
            l1_offset: number(head, 40, 8)?,
            refcount_offset: number(head, 48, 8)?,
            incompatible: later(72, 8, 0)?,
            length: u32::try_from(later(100, 4, 72)?).ok()?,
        })
    }
}

/// A big-endian number.
fn number(head: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = head.get(at..at + len)?;
    Some(bytes.iter().fold(0, |value, &byte| (value << 8) | u64::from(byte)))
}

/// Checks the disk in a file of its own.
///
/// # Errors
/// The reason why the disk can't be used.
pub(super) fn check(file: &dyn ReadAt, limits: &Limits) -> Result<(), FormatError> {
    let len = file.len()?;
    let mut head = [0; HEADER_BYTES];
    let there = usize::try_from(len).map_or(HEADER_BYTES, |len| len.min(HEADER_BYTES));
    file.read_exact_at(&mut head[..there], 0)?;
    check_header(&head[..there], len, limits)
}

/// Checks the start of a disk that is `len` bytes long.
///
/// # Errors
/// The reason why the disk can't be used.
pub(super) fn check_header(head: &[u8], len: u64, limits: &Limits) -> Result<(), FormatError> {
    let corrupt = |reason: &str| Err(FormatError::corrupt(DISK, reason));
    let refuse =
        |reason: &str| Err(FormatError::NotSupported { what: DISK, reason: reason.into() });
    if !head.starts_with(MAGIC) {
        return corrupt("it doesn't begin as a qcow2 disk does");
    }
    let Some(header) = Header::read(head) else {
        return Err(FormatError::Truncated { what: DISK });
    };
    if !matches!(header.version, 2 | 3) {
        return refuse("its version is neither 2 nor 3");
    }
    if header.backing_file != 0 {
        return refuse("it has a backing file; flatten it with `qemu-img convert -O qcow2`");
    }
    if header.encryption != 0 {
        return refuse("it is encrypted");
    }
    check_features(&header)?;
    if !(9..=21).contains(&header.cluster_bits) {
        return corrupt("its cluster size is out of range");
    }
    let cluster = 1_u64 << header.cluster_bits;
    if header.size > limits.unpacked {
        return Err(FormatError::TooLarge { limit: limits.unpacked });
    }
    // An entry of the level 1 table covers a cluster full of level 2 entries, 8 bytes each.
    let covered = cluster * (cluster / 8);
    if u64::from(header.l1_entries) < header.size.div_ceil(covered) {
        return corrupt("its level 1 table is too short");
    }
    for offset in [header.l1_offset, header.refcount_offset] {
        if offset % cluster != 0 || (offset == 0 && header.size > 0) {
            return corrupt("a table is not where one can be");
        }
    }
    let l1_end = header.l1_offset.checked_add(8 * u64::from(header.l1_entries));
    if l1_end.is_none_or(|end| end > len) || header.refcount_offset >= len {
        return Err(FormatError::Truncated { what: DISK });
    }
    Ok(())
}

/// The features that change how a disk is read, by bit.
fn check_features(header: &Header) -> Result<(), FormatError> {
    const DIRTY: u64 = 1;
    const CORRUPT: u64 = 1 << 1;
    const EXTERNAL_DATA: u64 = 1 << 2;
    const COMPRESSION_TYPE: u64 = 1 << 3;
    const EXTENDED_L2: u64 = 1 << 4;
    const KNOWN: u64 = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;

    let bits = header.incompatible;
    let reason = if bits & EXTERNAL_DATA != 0 {
        "its data is in another file; flatten it with `qemu-img convert -O qcow2`"
    } else if bits & CORRUPT != 0 {
        "it is marked as corrupt; mend it with `qemu-img check -r all`"
    } else if bits & !KNOWN != 0 {
        "it has features not known here"
    } else if header.version == 3 && !(104..=65536).contains(&header.length) {
        "the length of its header is out of range"
    } else {
        return Ok(());
    };
    Err(FormatError::NotSupported { what: DISK, reason: reason.into() })
}

#[cfg(test)]
pub(in crate::format) mod tests;
