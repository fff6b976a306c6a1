//! Proof that a `.xz` file is complete, from its end: without decompressing it.

use super::error::FormatError;
use super::file_type::Compression;
use super::read_at::ReadAt;

const XZ: &str = Compression::Xz.data();

/// The length of a stream's header, and of its footer.
const FRAME: u64 = 12;

/// What the indexes of an xz file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XzSummary {
    /// How many bytes the file decompresses to.
    pub uncompressed: u64,
    /// How many streams it is made of.
    pub streams: u64,
    /// How many blocks its streams are made of.
    pub blocks: u64,
}

/// Proves that an xz file is whole: every stream has its footer, an index whose checksum is right,
/// and blocks that fill the space between header and index exactly.
///
/// It takes no more than reading the indexes, a few bytes per block. What is in the blocks is not
/// looked at: a file that was damaged inside passes.
///
/// # Errors
/// [`FormatError::Truncated`] when no footer is at the end; [`FormatError::Corrupt`] when the
/// parts don't fit together.
pub fn prove_complete(file: &dyn ReadAt) -> Result<XzSummary, FormatError> {
    let mut end = file.len()?;
    if end == 0 || end % 4 != 0 {
        return Err(FormatError::Truncated { what: XZ });
    }
    let mut summary = XzSummary { uncompressed: 0, streams: 0, blocks: 0 };
    while end > 0 {
        let stream_end = before_padding(file, end)?;
        if stream_end == 0 {
            return Err(FormatError::corrupt(XZ, "it begins with padding"));
        }
        end = stream(file, stream_end, &mut summary)?;
    }
    Ok(summary)
}

/// The end of the last stream: zeros may follow it, four by four.
fn before_padding(file: &dyn ReadAt, mut end: u64) -> Result<u64, FormatError> {
    const STEP: usize = 4096;
    let mut buffer = [0; STEP];
    while end > 0 {
        let len = usize::try_from(end).map_or(STEP, |end| end.min(STEP));
        let piece = &mut buffer[..len];
        file.read_exact_at(piece, end - len as u64)?;
        if let Some(last) = piece.chunks(4).rposition(|word| word != [0; 4]) {
            return Ok(end - len as u64 + 4 * (last as u64 + 1));
        }
        end -= len as u64;
    }
    Ok(0)
}

/// Checks the stream that ends at `end`, and tells where it begins.
fn stream(file: &dyn ReadAt, end: u64, summary: &mut XzSummary) -> Result<u64, FormatError> {
    let misfit = || FormatError::corrupt(XZ, "its parts don't fit together");
    let footer_start = end.checked_sub(FRAME).ok_or(FormatError::Truncated { what: XZ })?;
    let footer: [u8; 12] = read(file, footer_start)?;
    if footer[10..] != *b"YZ" {
        return Err(FormatError::Truncated { what: XZ });
    }
    if crc32fast::hash(&footer[4..10]) != word(&footer, 0) {
        return Err(FormatError::corrupt(XZ, "the checksum of its footer is wrong"));
    }
    let index_len = (u64::from(word(&footer, 4)) + 1) * 4;
    let index_start = footer_start.checked_sub(index_len).ok_or_else(misfit)?;
    let index = Index::read(file, index_start, index_len)?;
    let start = index_start
        .checked_sub(index.total)
        .and_then(|blocks| blocks.checked_sub(FRAME))
        .ok_or_else(misfit)?;
    let header: [u8; 12] = read(file, start)?;
    if header[..6] != *b"\xfd7zXZ\0" || header[6..8] != footer[8..10] {
        return Err(misfit());
    }
    if crc32fast::hash(&header[6..8]) != word(&header, 8) {
        return Err(FormatError::corrupt(XZ, "the checksum of its header is wrong"));
    }
    summary.streams += 1;
    summary.blocks = summary.blocks.saturating_add(index.blocks);
    summary.uncompressed =
        summary.uncompressed.checked_add(index.uncompressed).ok_or_else(misfit)?;
    Ok(start)
}

fn read<const N: usize>(file: &dyn ReadAt, at: u64) -> Result<[u8; N], FormatError> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// The little-endian word at `at`.
fn word(bytes: &[u8; 12], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The sums of an index.
struct Index {
    blocks: u64,
    /// The length of all blocks with their padding.
    total: u64,
    uncompressed: u64,
}

impl Index {
    fn read(file: &dyn ReadAt, start: u64, len: u64) -> Result<Self, FormatError> {
        let bad = || FormatError::corrupt(XZ, "its index can't be read");
        // The checksum is the last word.
        let mut bytes = IndexBytes::new(file, start, start + len - 4);
        if bytes.next()? != 0 {
            return Err(bad());
        }
        let mut index = Self { blocks: bytes.number()?, total: 0, uncompressed: 0 };
        for _ in 0..index.blocks {
            let block = bytes.number()?;
            let padded = block.checked_next_multiple_of(4).filter(|_| block > 0).ok_or_else(bad)?;
            index.total = index.total.checked_add(padded).ok_or_else(bad)?;
            index.uncompressed = index.uncompressed.checked_add(bytes.number()?).ok_or_else(bad)?;
        }
        if bytes.left() > 3 {
            return Err(bad());
        }
        while bytes.left() > 0 {
            if bytes.next()? != 0 {
                return Err(bad());
            }
        }
        let stored: [u8; 4] = read(file, start + len - 4)?;
        if bytes.crc.finalize() != u32::from_le_bytes(stored) {
            return Err(FormatError::corrupt(XZ, "the checksum of its index is wrong"));
        }
        Ok(index)
    }
}

/// The bytes of an index, one by one, read in larger pieces and summed up.
struct IndexBytes<'a> {
    file: &'a dyn ReadAt,
    at: u64,
    end: u64,
    piece: Vec<u8>,
    used: usize,
    crc: crc32fast::Hasher,
}

impl<'a> IndexBytes<'a> {
    fn new(file: &'a dyn ReadAt, at: u64, end: u64) -> Self {
        Self { file, at, end, piece: Vec::new(), used: 0, crc: crc32fast::Hasher::new() }
    }

    fn left(&self) -> u64 {
        self.end - self.at + (self.piece.len() - self.used) as u64
    }

    fn next(&mut self) -> Result<u8, FormatError> {
        const PIECE: usize = 64 << 10;
        if self.used == self.piece.len() {
            let left = self.end - self.at;
            let len = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            if len == 0 {
                return Err(FormatError::corrupt(XZ, "its index can't be read"));
            }
            self.piece.resize(len, 0);
            self.file.read_exact_at(&mut self.piece, self.at)?;
            self.crc.update(&self.piece);
            self.at += len as u64;
            self.used = 0;
        }
        self.used += 1;
        Ok(self.piece[self.used - 1])
    }

    /// A number of up to 63 bits, seven to a byte, the lowest first.
    fn number(&mut self) -> Result<u64, FormatError> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.next()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // The shortest form is the only one.
                if byte == 0 && shift > 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(FormatError::corrupt(XZ, "its index can't be read"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use liblzma::stream::{Check, MtStreamBuilder};

    use super::*;
    use crate::format::testing::Random;

    fn xz(data: &[u8], block: u64) -> Vec<u8> {
        let stream = MtStreamBuilder::new()
            .threads(1)
            .preset(0)
            .block_size(block)
            .check(Check::Crc64)
            .encoder()
            .unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn whole_files_are_proven() {
        for (len, block, blocks) in [(0, 1 << 20, 0), (1, 1 << 20, 1), (500_000, 4096, 123)] {
            let file = xz(&Random::new(3).bytes(len), block);
            let summary = prove_complete(&file).unwrap();
            let want = XzSummary { uncompressed: len as u64, streams: 1, blocks };
            assert_eq!(summary, want);
        }
    }

    #[test]
    fn streams_and_padding_add_up() {
        let one = xz(b"one", 4096);
        let two = xz(b"second", 4096);
        let file = [&one[..], &[0; 8192], &two, &one, &[0; 4]].concat();
        let summary = prove_complete(&file).unwrap();
        assert_eq!((summary.streams, summary.uncompressed), (3, 12));
    }

    #[test]
    fn a_cut_anywhere_is_noticed() {
        let file = xz(&Random::new(5).bytes(30_000), 4096);
        for len in 0..file.len() {
            assert!(prove_complete(&&file[..len]).is_err(), "cut at {len}");
        }
        for missing in [4, 100, 4000] {
            assert!(prove_complete(&&file[missing..]).is_err());
            let hole = [&file[..5000], &file[5000 + missing..]].concat();
            assert!(prove_complete(&hole).is_err());
        }
        assert!(prove_complete(&vec![0_u8; 64]).is_err());
        assert!(prove_complete(&[&file[..], b"tail"].concat()).is_err());
    }

    #[test]
    fn damaged_frames_are_noticed_and_never_panic() {
        let file = xz(&Random::new(5).bytes(30_000), 4096);
        // The last block ends some 60 bytes before the end: index and footer come after it.
        let tail = file.len() - 50;
        for at in (0..12).chain(tail..file.len()) {
            let mut damaged = file.clone();
            damaged[at] ^= 0x41;
            assert!(prove_complete(&damaged).is_err(), "byte {at}");
        }
        let mut random = Random::new(9);
        for _ in 0..2000 {
            let mut damaged = file[..file.len() - 4 * random.below(20)].to_vec();
            for _ in 0..3 {
                let at = damaged.len() - 1 - random.below(100);
                damaged[at] = random.byte();
            }
            let _ = prove_complete(&damaged);
        }
    }
}
