//! Compression whose output depends on its input and level only, never on the machine.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZero;
use std::ops::RangeInclusive;

use liblzma::stream::{Check, LzmaOptions, MtStreamBuilder, Stream};
use zstd::zstd_safe::CParameter;

use super::file_type::Compression;
use super::parallel_gzip::ParallelGzip;
use crate::config::CompressionAlgorithm;

/// How much of the input one xz block holds. Blocks are compressed, and can be decompressed, at
/// the same time; smaller ones compress worse.
const XZ_BLOCK: u64 = 24 << 20;

/// How much of the input one zstd job compresses.
const ZSTD_JOB: u32 = 8 << 20;

impl Compression {
    /// The levels it has, from fast to small; `None` when there is nothing to choose.
    pub const fn levels(self) -> Option<RangeInclusive<u32>> {
        match self {
            Self::None => None,
            Self::Gzip | Self::Bzip2 => Some(1..=9),
            Self::Xz | Self::Lzma => Some(0..=9),
            Self::Zstd => Some(1..=22),
        }
    }

    /// The compression of a tarball that an algorithm means, with its level; `None` for squashfs,
    /// which is no tarball.
    pub fn of(algorithm: &CompressionAlgorithm) -> Option<(Self, Option<u32>)> {
        let compression = match algorithm {
            CompressionAlgorithm::None => Self::None,
            CompressionAlgorithm::Gzip(_) => Self::Gzip,
            CompressionAlgorithm::Bzip2(_) => Self::Bzip2,
            CompressionAlgorithm::Xz(_) => Self::Xz,
            CompressionAlgorithm::Lzma(_) => Self::Lzma,
            CompressionAlgorithm::Zstd(_) => Self::Zstd,
            CompressionAlgorithm::Squashfs => return None,
        };
        Some((compression, algorithm.level().map(u32::from)))
    }

    /// The level that is used when none is asked for.
    pub const fn default_level(self) -> u32 {
        match self {
            Self::None => 0,
            // Not larger than what gzip makes at its own default, which is 6.
            Self::Gzip => 7,
            Self::Xz | Self::Lzma => 6,
            Self::Zstd => 3,
            Self::Bzip2 => 9,
        }
    }
}

/// Compresses what is written to it, on all cores where the format allows it.
///
/// Equal input at an equal level gives equal bytes with any number of cores.
/// [`Compressor::finish`] must be called, or the output is cut.
pub struct Compressor<W: Write> {
    compression: Compression,
    encoder: Encoder<W>,
}

enum Encoder<W: Write> {
    Plain(W),
    Gzip(ParallelGzip<W>),
    Xz(liblzma::write::XzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
    Bzip2(bzip2::write::BzEncoder<W>),
}

impl<W: Write> Compressor<W> {
    /// A compressor that writes to `out`.
    ///
    /// # Errors
    /// `InvalidInput` for a level that the compression doesn't have.
    pub fn new(compression: Compression, level: Option<u32>, out: W) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::with_threads(compression, level, cores, out)
    }

    fn with_threads(
        compression: Compression,
        level: Option<u32>,
        threads: usize,
        out: W,
    ) -> io::Result<Self> {
        let level = checked_level(compression, level)?;
        let workers = u32::try_from(threads).unwrap_or(1);
        let encoder = match compression {
            Compression::None => Encoder::Plain(out),
            Compression::Gzip => Encoder::Gzip(ParallelGzip::new(out, level, threads)?),
            Compression::Xz => {
                let stream = MtStreamBuilder::new()
                    .threads(workers)
                    .preset(level)
                    .block_size(XZ_BLOCK)
                    .check(Check::Crc64)
                    .encoder()?;
                Encoder::Xz(liblzma::write::XzEncoder::new_stream(out, stream))
            }
            Compression::Lzma => {
                let stream = Stream::new_lzma_encoder(&LzmaOptions::new_preset(level)?)?;
                Encoder::Xz(liblzma::write::XzEncoder::new_stream(out, stream))
            }
            Compression::Zstd => {
                let level = i32::try_from(level).unwrap_or_default();
                let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                // One worker or many give the same bytes, none at all gives others.
                encoder.set_parameter(CParameter::NbWorkers(workers.max(1)))?;
                encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
                encoder.include_checksum(true)?;
                Encoder::Zstd(encoder)
            }
            Compression::Bzip2 => {
                Encoder::Bzip2(bzip2::write::BzEncoder::new(out, bzip2::Compression::new(level)))
            }
        };
        Ok(Self { compression, encoder })
    }

    /// Writes the end of the stream, and gives back where it was written to.
    ///
    /// # Errors
    /// Whatever the writer says.
    pub fn finish(self) -> io::Result<W> {
        match self.encoder {
            Encoder::Plain(out) => Ok(out),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Xz(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Bzip2(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.encoder {
            Encoder::Plain(out) => out.write(bytes),
            Encoder::Gzip(encoder) => encoder.write(bytes),
            Encoder::Xz(encoder) => encoder.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
            Encoder::Bzip2(encoder) => encoder.write(bytes),
        }
    }

    /// Does nothing: where the output is cut into blocks must not depend on the caller.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> fmt::Debug for Compressor<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("compression", &self.compression).finish_non_exhaustive()
    }
}

fn checked_level(compression: Compression, level: Option<u32>) -> io::Result<u32> {
    let Some(level) = level else { return Ok(compression.default_level()) };
    let reason = match compression.levels() {
        Some(levels) if levels.contains(&level) => return Ok(level),
        Some(levels) => {
            format!("{compression} has levels {} to {}, not {level}", levels.start(), levels.end())
        }
        None => "data that is not compressed has no level".to_owned(),
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::testing::Random;
    use crate::format::{Decoder, FormatError};

    fn compress(compression: Compression, threads: usize, data: &[u8], piece: usize) -> Vec<u8> {
        let level = compression.levels().map(|_| 1);
        let mut compressor =
            Compressor::with_threads(compression, level, threads, Vec::new()).unwrap();
        for piece in data.chunks(piece) {
            compressor.write_all(piece).unwrap();
            compressor.flush().unwrap();
        }
        compressor.finish().unwrap()
    }

    #[test]
    fn output_depends_on_nothing_but_the_input() {
        let mut data = Random::new(1).bytes(500_000);
        data.resize(30 << 20, b'x');
        for compression in Compression::ALL {
            // More than one block of those that work in blocks.
            let len = match compression {
                Compression::None | Compression::Gzip => 5 << 20,
                Compression::Zstd => 18 << 20,
                Compression::Xz => 26 << 20,
                Compression::Bzip2 | Compression::Lzma => 200_000,
            };
            let data = &data[..len];
            let one = compress(compression, 1, data, data.len());
            for (threads, piece) in [(2, 10_007), (3, 1 << 20)] {
                let other = compress(compression, threads, data, piece);
                assert!(other == one, "{compression} with {threads} threads");
            }
            let mut decoder = Decoder::new(compression).unwrap();
            let mut unpacked = Vec::new();
            decoder
                .feed(&one, &mut |piece| {
                    unpacked.extend_from_slice(piece);
                    Ok::<_, FormatError>(())
                })
                .unwrap();
            decoder.finish().unwrap();
            assert!(unpacked == data, "{compression}");
        }
    }

    #[test]
    fn nothing_is_a_stream_too() {
        for compression in Compression::ALL {
            let empty = compress(compression, 2, b"", 1);
            assert_eq!(empty.is_empty(), compression == Compression::None);
            Decoder::new(compression)
                .and_then(|mut decoder| {
                    decoder.feed(&empty, &mut |_| Err(FormatError::MissingMetadata))?;
                    decoder.finish()
                })
                .unwrap();
        }
    }

    #[test]
    fn levels_are_checked() {
        for (compression, level, good) in [
            (Compression::Gzip, 9, true),
            (Compression::Gzip, 10, false),
            (Compression::Gzip, 0, false),
            (Compression::Zstd, 22, true),
            (Compression::Zstd, 23, false),
            (Compression::None, 1, false),
        ] {
            let result = Compressor::new(compression, Some(level), Vec::new());
            assert_eq!(result.is_ok(), good, "{compression} {level}");
        }
        let error = Compressor::new(Compression::Xz, Some(10), Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "xz has levels 0 to 9, not 10");
    }

    /// Fails after some bytes.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn errors_of_the_writer_come_back() {
        let data = Random::new(1).bytes(700_000);
        for compression in Compression::ALL {
            let mut compressor = Compressor::new(compression, None, Full(300_000)).unwrap();
            let result = compressor.write_all(&data).and_then(|()| compressor.finish().map(drop));
            let error = result.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{compression}: {error}");
        }
    }
}
