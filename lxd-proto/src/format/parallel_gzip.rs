//! gzip on several cores: blocks of a fixed size are compressed at the same time, each knowing the
//! end of the one before it, and become one stream.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use flate2::{Compress, Compression, FlushCompress, Status};

/// How much of the input one worker compresses at a time.
const BLOCK: usize = 1 << 20;
/// How far back deflate looks.
const WINDOW: usize = 32 << 10;
/// The header: deflate, no name, no time, made nowhere in particular.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Compresses blocks in turn on a fixed set of threads.
pub(super) struct ParallelGzip<W: Write> {
    out: W,
    block: Vec<u8>,
    /// The block before.
    before: Arc<Vec<u8>>,
    workers: Vec<Worker>,
    /// How many blocks were handed out; block N goes to worker N modulo their number.
    blocks: usize,
    checksum: crc32fast::Hasher,
    length: u64,
}

/// A thread that compresses one block at a time.
struct Worker {
    blocks: SyncSender<Block>,
    pieces: Receiver<io::Result<Piece>>,
    busy: bool,
}

/// What a worker is to compress.
struct Block {
    bytes: Arc<Vec<u8>>,
    before: Arc<Vec<u8>>,
    last: bool,
}

/// A block as a piece of the stream, and what the trailer needs of it.
struct Piece {
    deflated: Vec<u8>,
    checksum: crc32fast::Hasher,
    length: u64,
}

impl<W: Write> ParallelGzip<W> {
    pub(super) fn new(mut out: W, level: u32, threads: usize) -> io::Result<Self> {
        let workers =
            (0..threads.max(1)).map(|_| Worker::spawn(level)).collect::<Result<_, _>>()?;
        out.write_all(&HEADER)?;
        Ok(Self {
            out,
            block: Vec::with_capacity(BLOCK),
            before: Arc::default(),
            workers,
            blocks: 0,
            checksum: crc32fast::Hasher::new(),
            length: 0,
        })
    }

    /// Hands the current block to the next worker, once that is done with its previous one.
    fn dispatch(&mut self, last: bool) -> io::Result<()> {
        let next = self.blocks % self.workers.len();
        self.collect(next)?;
        let capacity = if last { 0 } else { BLOCK };
        let bytes = std::mem::replace(&mut self.block, Vec::with_capacity(capacity));
        let bytes = Arc::new(bytes);
        let before = std::mem::replace(&mut self.before, bytes.clone());
        let worker = &mut self.workers[next];
        worker.blocks.send(Block { bytes, before, last }).map_err(|_| gone())?;
        worker.busy = true;
        self.blocks += 1;
        Ok(())
    }

    /// Writes out what a worker has made of its block.
    fn collect(&mut self, worker: usize) -> io::Result<()> {
        let worker = &mut self.workers[worker];
        if std::mem::take(&mut worker.busy) {
            let piece = worker.pieces.recv().map_err(|_| gone())??;
            self.checksum.combine(&piece.checksum);
            self.length = self.length.wrapping_add(piece.length);
            self.out.write_all(&piece.deflated)?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.dispatch(true)?;
        let workers = self.workers.len();
        for later in 0..workers {
            self.collect((self.blocks + later) % workers)?;
        }
        self.out.write_all(&self.checksum.finalize().to_le_bytes())?;
        // The length counts modulo 2^32.
        let [a, b, c, d, ..] = self.length.to_le_bytes();
        self.out.write_all(&[a, b, c, d])?;
        Ok(self.out)
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Handed out when more comes: the last block must be known as that.
        if self.block.len() == BLOCK && !bytes.is_empty() {
            self.dispatch(false)?;
        }
        let used = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..used]);
        Ok(used)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Worker {
    /// The thread ends when this side of its channels is dropped.
    fn spawn(level: u32) -> io::Result<Self> {
        let (blocks, to_do) = sync_channel::<Block>(1);
        let (done, pieces) = sync_channel(1);
        thread::Builder::new().name("gzip".into()).spawn(move || {
            for block in to_do {
                if done.send(deflate(&block, level)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { blocks, pieces, busy: false })
    }
}

/// A block as raw deflate data that ends at a byte; the last one ends the stream.
fn deflate(block: &Block, level: u32) -> io::Result<Piece> {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&block.bytes);
    let mut deflater = Compress::new(Compression::new(level), false);
    let known = block.before.len().saturating_sub(WINDOW);
    if !block.before.is_empty() {
        deflater.set_dictionary(&block.before[known..]).map_err(io::Error::other)?;
    }
    let flush = if block.last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut deflated = Vec::with_capacity(block.bytes.len() / 2 + 1024);
    loop {
        let used = usize::try_from(deflater.total_in()).map_err(io::Error::other)?;
        let rest = block.bytes.get(used..).unwrap_or_default();
        let status = deflater.compress_vec(rest, &mut deflated, flush).map_err(io::Error::other)?;
        let all = deflater.total_in() == block.bytes.len() as u64;
        let done = match status {
            Status::StreamEnd => true,
            // A flush that has filled the space may not be complete.
            Status::Ok | Status::BufError => {
                !block.last && all && deflated.len() < deflated.capacity()
            }
        };
        if done {
            let length = block.bytes.len() as u64;
            return Ok(Piece { deflated, checksum, length });
        }
        deflated.reserve(deflated.capacity().max(1024) / 2);
    }
}

fn gone() -> io::Error {
    io::Error::other("a compression thread ended early")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Text that repeats itself over long distances, and noise that does not.
    fn input(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        (0..length)
            .map(|at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at / 40_000 % 2 == 0 {
                    b"0123456789abcdef"[at / 3 % 16]
                } else {
                    (state >> 24) as u8
                }
            })
            .collect()
    }

    fn compressed(input: &[u8], threads: usize, step: usize) -> Vec<u8> {
        let mut gzip = ParallelGzip::new(Vec::new(), 6, threads).unwrap();
        for piece in input.chunks(step) {
            gzip.write_all(piece).unwrap();
        }
        gzip.finish().unwrap()
    }

    #[test]
    fn one_member_gives_back_what_went_in_whatever_the_threads() {
        for length in [0, 1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 12_345] {
            let input = input(length);
            let one = compressed(&input, 1, 70_000);
            assert_eq!(one, compressed(&input, 3, 1 << 22), "{length}");
            let mut output = Vec::new();
            // Reads a single member: nothing may be left behind it.
            let mut decoder = flate2::bufread::GzDecoder::new(one.as_slice());
            decoder.read_to_end(&mut output).unwrap();
            assert!(output == input, "{length}");
            assert!(decoder.into_inner().is_empty(), "{length}");
        }
    }

    #[test]
    fn a_block_knows_the_end_of_the_one_before() {
        let line: Vec<u8> = input(WINDOW - 1000);
        let mut apart = vec![0; BLOCK - line.len()];
        apart.extend_from_slice(&line);
        let alone = compressed(&apart, 2, 1 << 20).len();
        apart.extend_from_slice(&line);
        let both = compressed(&apart, 2, 1 << 20).len();
        assert!(both < alone + line.len() / 20, "{alone} {both}");
    }
}
