//! Blocks: decompressing them, and reading the tables that are made of them.

use std::rc::Rc;

use flate2::FlushDecompress;
use liblzma::stream as lzma;

use super::superblock::{Compressor, SUPERBLOCK, Superblock};
use super::{SQUASHFS, corrupt, number};
use crate::format::error::FormatError;
use crate::format::read_at::ReadAt;

/// The size of a full metadata block.
const METADATA_BLOCK: usize = 8192;

/// How many metadata blocks are kept: 1 MiB.
const CACHED: usize = 128;

/// The most memory that one block may take to decompress; squashfs dictionaries are a block long.
const LZMA_MEMORY: u64 = 16 << 20;

/// A metadata block, decompressed.
pub(super) struct MetadataBlock {
    start: u64,
    data: Vec<u8>,
    /// Where the next one begins.
    next: u64,
}

/// A position in a table of metadata blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    /// Where the block begins, in the file.
    pub(super) block: u64,
    /// The offset in the decompressed block.
    pub(super) offset: usize,
}

/// Reads the blocks of one file.
pub(super) struct Blocks<'a> {
    file: &'a dyn ReadAt,
    compressor: Compressor,
    bytes_used: u64,
    stored: Vec<u8>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    cache: Vec<Option<Rc<MetadataBlock>>>,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(file: &'a dyn ReadAt, superblock: &Superblock) -> Result<Self, FormatError> {
        let zstd = match superblock.compressor {
            Compressor::Zstd => Some(zstd::bulk::Decompressor::new()?),
            _ => None,
        };
        Ok(Self {
            file,
            compressor: superblock.compressor,
            bytes_used: superblock.bytes_used,
            stored: Vec::new(),
            zstd,
            cache: vec![None; CACHED],
        })
    }

    /// Reads plain bytes of the file, such as the index of a table.
    pub(super) fn plain(&self, buf: &mut [u8], offset: u64) -> Result<(), FormatError> {
        self.check_range(offset, buf.len() as u64)?;
        Ok(self.file.read_exact_at(buf, offset)?)
    }

    /// Checks that bytes lie behind the superblock and before the end of the file system.
    pub(super) fn check_range(&self, offset: u64, len: u64) -> Result<(), FormatError> {
        let end = offset.checked_add(len);
        if offset < SUPERBLOCK as u64 || end.is_none_or(|end| end > self.bytes_used) {
            return Err(corrupt("it points to somewhere outside of itself"));
        }
        Ok(())
    }

    /// Fills `buf` from a table, and moves the position behind it.
    pub(super) fn read(&mut self, at: &mut Cursor, mut buf: &mut [u8]) -> Result<(), FormatError> {
        while !buf.is_empty() {
            let block = self.metadata(at.block)?;
            let rest = block.data.get(at.offset..).unwrap_or_default();
            if rest.is_empty() {
                // Only a full block continues in the next one.
                if at.offset != METADATA_BLOCK || block.data.len() != METADATA_BLOCK {
                    return Err(corrupt("it points behind the end of a metadata block"));
                }
                *at = Cursor { block: block.next, offset: 0 };
                continue;
            }
            let used = rest.len().min(buf.len());
            let (now, later) = buf.split_at_mut(used);
            now.copy_from_slice(&rest[..used]);
            at.offset += used;
            buf = later;
        }
        Ok(())
    }

    fn metadata(&mut self, start: u64) -> Result<Rc<MetadataBlock>, FormatError> {
        // Blocks begin anywhere; the multiplication spreads their starts over the slots.
        let slot =
            usize::try_from(start.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57).unwrap_or_default();
        if let Some(block) = &self.cache[slot]
            && block.start == start
        {
            return Ok(Rc::clone(block));
        }
        let mut header = [0; 2];
        self.plain(&mut header, start)?;
        let header = u16::from_le_bytes(header);
        let stored = usize::from(header & 0x7fff);
        if stored == 0 || stored > METADATA_BLOCK {
            return Err(corrupt("a metadata block has a wrong size"));
        }
        let mut data = Vec::new();
        self.decode(start + 2, stored, header & 0x8000 == 0, METADATA_BLOCK, &mut data)?;
        if data.is_empty() {
            return Err(corrupt("a metadata block is empty"));
        }
        let block = Rc::new(MetadataBlock { start, data, next: start + 2 + stored as u64 });
        self.cache[slot] = Some(Rc::clone(&block));
        Ok(block)
    }

    /// Reads `stored` bytes from `start`, decompresses them if they are `compressed`, and puts at
    /// most `limit` bytes into `data`.
    pub(super) fn decode(
        &mut self,
        start: u64,
        stored: usize,
        compressed: bool,
        limit: usize,
        data: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        let mut raw = std::mem::take(&mut self.stored);
        raw.resize(stored, 0);
        let result = self.plain(&mut raw, start).and_then(|()| {
            data.clear();
            if compressed {
                data.resize(limit, 0);
                let len = self.decompress(&raw, data)?;
                data.truncate(len);
            } else if stored > limit {
                return Err(corrupt("a block is too large"));
            } else {
                data.extend_from_slice(&raw);
            }
            Ok(())
        });
        self.stored = raw;
        result
    }

    fn decompress(&mut self, from: &[u8], to: &mut [u8]) -> Result<usize, FormatError> {
        let broken = |error: &dyn std::fmt::Display| corrupt(format!("a block is broken: {error}"));
        match self.compressor {
            Compressor::Zlib => {
                let mut inflate = flate2::Decompress::new(true);
                let status = inflate
                    .decompress(from, to, FlushDecompress::Finish)
                    .map_err(|error| broken(&error))?;
                if status != flate2::Status::StreamEnd {
                    return Err(broken(&"it doesn't end"));
                }
                Ok(usize::try_from(inflate.total_out()).unwrap_or(usize::MAX))
            }
            Compressor::Xz => lzma::Stream::new_stream_decoder(LZMA_MEMORY, 0)
                .and_then(|stream| unlzma(stream, from, to))
                .map_err(lzma_error),
            Compressor::Lzma => lzma::Stream::new_lzma_decoder(LZMA_MEMORY)
                .and_then(|stream| unlzma(stream, from, to))
                .map_err(lzma_error),
            Compressor::Lz4 => {
                lz4_flex::block::decompress_into(from, to).map_err(|error| broken(&error))
            }
            Compressor::Zstd => match &mut self.zstd {
                Some(zstd) => zstd.decompress_to_buffer(from, to).map_err(|error| broken(&error)),
                None => Err(broken(&"there is no decompressor")),
            },
        }
    }

    /// The positions of the metadata blocks of a table that has an index of `count` of them.
    pub(super) fn table_block(&self, index: u64, number_of: u64) -> Result<u64, FormatError> {
        let at = number_of
            .checked_mul(8)
            .and_then(|offset| index.checked_add(offset))
            .ok_or_else(|| corrupt("a table is not where one can be"))?;
        let mut position = [0; 8];
        self.plain(&mut position, at)?;
        Ok(number(&position, 0, 8))
    }

    /// Reads record `at` of a table of 16-byte records, whose blocks are listed at `index`.
    pub(super) fn record(&mut self, index: u64, at: u64) -> Result<[u8; 16], FormatError> {
        const PER_BLOCK: u64 = METADATA_BLOCK as u64 / 16;
        let block = self.table_block(index, at / PER_BLOCK)?;
        let offset = usize::try_from(at % PER_BLOCK).unwrap_or_default() * 16;
        let mut record = [0; 16];
        self.read(&mut Cursor { block, offset }, &mut record)?;
        Ok(record)
    }
}

fn lzma_error(error: lzma::Error) -> FormatError {
    match error {
        lzma::Error::MemLimit => FormatError::WindowTooLarge { what: SQUASHFS },
        error => corrupt(format!("a block is broken: {error}")),
    }
}

/// Decodes one block that must be whole and fit.
fn unlzma(mut stream: lzma::Stream, from: &[u8], to: &mut [u8]) -> Result<usize, lzma::Error> {
    let mut status = lzma::Status::Ok;
    while status == lzma::Status::Ok {
        let (read, written) = (stream.total_in(), stream.total_out());
        let (read, written) = (usize::try_from(read), usize::try_from(written));
        let (Ok(read), Ok(written)) = (read, written) else { break };
        status = stream.process(&from[read..], &mut to[written..], lzma::Action::Finish)?;
    }
    match status {
        lzma::Status::StreamEnd => {
            usize::try_from(stream.total_out()).map_err(|_| lzma::Error::Data)
        }
        _ => Err(lzma::Error::Data),
    }
}
