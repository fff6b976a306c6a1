//! Decompression by pushing: bytes go in as they arrive, and come out in bounded pieces.

use std::fmt;

use flate2::FlushDecompress;
use liblzma::stream as lzma;
use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer};

use super::error::FormatError;
use super::file_type::Compression;

/// The largest piece that comes out at once.
const PIECE: usize = 128 << 10;

/// The base-2 logarithm of the largest zstd window: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;

/// What a decoder of xz or lzma may use: a dictionary of 128 MiB and its own state.
const LZMA_MEMORY: u64 = (128 << 20) + (1 << 20);

/// Decompresses a stream that is pushed into it.
///
/// Several gzip members, xz streams, zstd frames or bzip2 streams in a row are one stream, as for
/// the usual command-line tools. Memory is bounded by a window of 128 MiB and one output piece.
pub struct Decoder {
    compression: Compression,
    codec: Option<Box<dyn Codec>>,
    piece: Box<[u8]>,
}

/// How far one step got.
#[derive(Default)]
struct Step {
    consumed: usize,
    produced: usize,
}

/// One compression's state. `step` must not be called again after an error.
trait Codec: Send {
    /// Decodes some of `input` into `output`. No progress means that it needs more input.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, FormatError>;

    /// Whether the input so far is a whole stream; called once, at the end.
    fn complete(&mut self) -> Result<bool, FormatError>;
}

impl Decoder {
    /// A decoder at the start of a stream.
    ///
    /// # Errors
    /// [`FormatError::Io`] when there is no memory for it.
    pub fn new(compression: Compression) -> Result<Self, FormatError> {
        let codec: Option<Box<dyn Codec>> = match compression {
            Compression::None => None,
            Compression::Gzip => Some(Box::new(Gzip::new())),
            Compression::Zstd => Some(Box::new(Zstd::new()?)),
            Compression::Xz => Some(Box::new(Xz::new()?)),
            Compression::Lzma => Some(Box::new(Lzma::new()?)),
            Compression::Bzip2 => Some(Box::new(Bzip2::new())),
        };
        let piece = if codec.is_some() { PIECE } else { 0 };
        Ok(Self { compression, codec, piece: vec![0; piece].into_boxed_slice() })
    }

    /// Takes the next bytes of the stream and hands what they decode to to `out`, in pieces of at
    /// most 128 KiB (uncompressed data passes through as it came).
    ///
    /// # Errors
    /// What is wrong with the stream, or the first error of `out`; the decoder is of no further
    /// use then.
    pub fn feed<E: From<FormatError>>(
        &mut self,
        mut input: &[u8],
        out: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(codec) = &mut self.codec else {
            return if input.is_empty() { Ok(()) } else { out(input) };
        };
        loop {
            let step = codec.step(input, &mut self.piece)?;
            input = &input[step.consumed..];
            if step.produced > 0 {
                out(&self.piece[..step.produced])?;
            }
            // A full piece may leave more behind that needs no further input.
            if input.is_empty() && step.produced < self.piece.len() {
                return Ok(());
            }
            if step.consumed == 0 && step.produced == 0 {
                return Err(FormatError::corrupt(self.compression.data(), "no progress").into());
            }
        }
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] when more bytes should have come.
    pub fn finish(mut self) -> Result<(), FormatError> {
        let complete = match &mut self.codec {
            Some(codec) => codec.complete()?,
            None => true,
        };
        if complete {
            Ok(())
        } else {
            Err(FormatError::Truncated { what: self.compression.data() })
        }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("compression", &self.compression).finish_non_exhaustive()
    }
}

/// How many of a codec's 64-bit counter went by; never more than a slice's length.
fn advanced(before: u64, after: u64) -> usize {
    usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX)
}

/// Members of gzip, then nothing or zeros: tape blocks are filled up with zeros.
enum Gzip {
    Between { first: bool },
    Member(flate2::Decompress),
    Padding,
}

impl Gzip {
    const DATA: &'static str = Compression::Gzip.data();
    const WINDOW_BITS: u8 = 15;

    fn new() -> Self {
        Self::Between { first: true }
    }
}

impl Codec for Gzip {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, FormatError> {
        let Some(&next) = input.first() else {
            return match self {
                Self::Member(member) => inflate(member, input, output).map(|(step, _)| step),
                _ => Ok(Step::default()),
            };
        };
        match self {
            Self::Between { first } => {
                match next {
                    0 if !*first => *self = Self::Padding,
                    0x1f => {
                        *self = Self::Member(flate2::Decompress::new_gzip(Self::WINDOW_BITS));
                    }
                    _ => return Err(FormatError::TrailingData { what: Self::DATA }),
                }
                self.step(input, output)
            }
            Self::Member(member) => {
                let (step, ended) = inflate(member, input, output)?;
                if ended {
                    *self = Self::Between { first: false };
                }
                Ok(step)
            }
            Self::Padding if input.iter().any(|&byte| byte != 0) => {
                Err(FormatError::TrailingData { what: Self::DATA })
            }
            Self::Padding => Ok(Step { consumed: input.len(), produced: 0 }),
        }
    }

    fn complete(&mut self) -> Result<bool, FormatError> {
        Ok(matches!(self, Self::Between { first: false } | Self::Padding))
    }
}

fn inflate(
    member: &mut flate2::Decompress,
    input: &[u8],
    output: &mut [u8],
) -> Result<(Step, bool), FormatError> {
    let before = (member.total_in(), member.total_out());
    let status = member
        .decompress(input, output, FlushDecompress::None)
        .map_err(|error| FormatError::corrupt(Gzip::DATA, error.to_string()))?;
    let step = Step {
        consumed: advanced(before.0, member.total_in()),
        produced: advanced(before.1, member.total_out()),
    };
    Ok((step, status == flate2::Status::StreamEnd))
}

struct Zstd {
    decoder: zstd::stream::raw::Decoder<'static>,
    /// Whether the input so far ends with a whole frame; `None` before the first byte.
    boundary: Option<bool>,
}

impl Zstd {
    const DATA: &'static str = Compression::Zstd.data();

    fn new() -> Result<Self, FormatError> {
        let mut decoder = zstd::stream::raw::Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
        Ok(Self { decoder, boundary: None })
    }
}

impl Codec for Zstd {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, FormatError> {
        // Between frames a call without input would begin a frame that isn't there.
        if input.is_empty() && self.boundary != Some(false) {
            return Ok(Step::default());
        }
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(output);
        let hint = self.decoder.run(&mut from, &mut to).map_err(|error| {
            // The library tells its errors apart by their text only.
            let reason = error.to_string();
            if reason.contains("too much memory") {
                FormatError::WindowTooLarge { what: Self::DATA }
            } else {
                FormatError::corrupt(Self::DATA, reason)
            }
        })?;
        self.boundary = Some(hint == 0);
        Ok(Step { consumed: from.pos(), produced: to.pos() })
    }

    fn complete(&mut self) -> Result<bool, FormatError> {
        Ok(self.boundary == Some(true))
    }
}

/// liblzma's errors in our words.
fn lzma_error(what: &'static str, error: lzma::Error) -> FormatError {
    match error {
        lzma::Error::MemLimit => FormatError::WindowTooLarge { what },
        lzma::Error::Options => FormatError::NotSupported {
            what,
            reason: "it was made with options that are not known here".into(),
        },
        lzma::Error::UnsupportedCheck => FormatError::NotSupported {
            what,
            reason: "its kind of checksum is not known here".into(),
        },
        lzma::Error::Mem => FormatError::Io(std::io::ErrorKind::OutOfMemory.into()),
        error => FormatError::corrupt(what, error.to_string()),
    }
}

struct Xz {
    stream: lzma::Stream,
}

impl Xz {
    const DATA: &'static str = Compression::Xz.data();

    fn new() -> Result<Self, FormatError> {
        let flags = lzma::CONCATENATED | lzma::TELL_UNSUPPORTED_CHECK;
        let stream = lzma::Stream::new_stream_decoder(LZMA_MEMORY, flags)
            .map_err(|error| lzma_error(Self::DATA, error))?;
        Ok(Self { stream })
    }
}

impl Codec for Xz {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, FormatError> {
        let before = (self.stream.total_in(), self.stream.total_out());
        self.stream
            .process(input, output, lzma::Action::Run)
            .map_err(|error| lzma_error(Self::DATA, error))?;
        Ok(Step {
            consumed: advanced(before.0, self.stream.total_in()),
            produced: advanced(before.1, self.stream.total_out()),
        })
    }

    fn complete(&mut self) -> Result<bool, FormatError> {
        // Everything was drained by `step`, so a byte of output would be a fault too.
        let status = self.stream.process(&[], &mut [0; 1], lzma::Action::Finish);
        Ok(matches!(status, Ok(lzma::Status::StreamEnd)))
    }
}

struct Lzma {
    stream: lzma::Stream,
    ended: bool,
}

impl Lzma {
    const DATA: &'static str = Compression::Lzma.data();

    fn new() -> Result<Self, FormatError> {
        let stream = lzma::Stream::new_lzma_decoder(LZMA_MEMORY)
            .map_err(|error| lzma_error(Self::DATA, error))?;
        Ok(Self { stream, ended: false })
    }
}

impl Codec for Lzma {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, FormatError> {
        if self.ended {
            return if input.is_empty() {
                Ok(Step::default())
            } else {
                Err(FormatError::TrailingData { what: Self::DATA })
            };
        }
        let before = (self.stream.total_in(), self.stream.total_out());
        let status = self
            .stream
            .process(input, output, lzma::Action::Run)
            .map_err(|error| lzma_error(Self::DATA, error))?;
        self.ended = status == lzma::Status::StreamEnd;
        Ok(Step {
            consumed: advanced(before.0, self.stream.total_in()),
            produced: advanced(before.1, self.stream.total_out()),
        })
    }

    fn complete(&mut self) -> Result<bool, FormatError> {
        Ok(self.ended)
    }
}

struct Bzip2 {
    stream: Option<bzip2::Decompress>,
    first: bool,
    /// Streams that decoded to nothing.
    empty: u32,
}

impl Bzip2 {
    const DATA: &'static str = Compression::Bzip2.data();
    /// The most streams that may be empty: 14 bytes of one cost as much as 100 kB of data.
    const MAX_EMPTY: u32 = 1000;

    fn new() -> Self {
        Self { stream: None, first: true, empty: 0 }
    }
}

impl Codec for Bzip2 {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, FormatError> {
        if self.stream.is_none() {
            match input.first() {
                None => return Ok(Step::default()),
                Some(b'B') => self.stream = Some(bzip2::Decompress::new(false)),
                Some(_) if self.first => {
                    return Err(FormatError::corrupt(Self::DATA, "it doesn't begin with BZ"));
                }
                Some(_) => return Err(FormatError::TrailingData { what: Self::DATA }),
            }
        }
        let Some(stream) = &mut self.stream else { return Ok(Step::default()) };
        let before = (stream.total_in(), stream.total_out());
        let status = stream
            .decompress(input, output)
            .map_err(|error| FormatError::corrupt(Self::DATA, error.to_string()))?;
        let step = Step {
            consumed: advanced(before.0, stream.total_in()),
            produced: advanced(before.1, stream.total_out()),
        };
        match status {
            bzip2::Status::StreamEnd => {
                self.empty += u32::from(stream.total_out() == 0);
                if self.empty > Self::MAX_EMPTY {
                    return Err(FormatError::corrupt(Self::DATA, "it has too many empty streams"));
                }
                self.stream = None;
                self.first = false;
            }
            bzip2::Status::MemNeeded => {
                return Err(FormatError::Io(std::io::ErrorKind::OutOfMemory.into()));
            }
            _ => {}
        }
        Ok(step)
    }

    fn complete(&mut self) -> Result<bool, FormatError> {
        Ok(self.stream.is_none() && !self.first)
    }
}

#[cfg(test)]
mod tests;
