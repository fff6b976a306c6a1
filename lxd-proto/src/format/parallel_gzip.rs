//! gzip on several cores: blocks of a fixed size become members, which are one stream together.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// How much of the input one member holds.
const BLOCK: usize = 1 << 20;

/// Compresses blocks in turn on a fixed set of threads.
pub(super) struct ParallelGzip<W: Write> {
    out: W,
    block: Vec<u8>,
    workers: Vec<Worker>,
    /// How many blocks were handed out; block N goes to worker N modulo their number.
    blocks: usize,
}

/// A thread that compresses one block at a time.
struct Worker {
    blocks: SyncSender<Vec<u8>>,
    members: Receiver<io::Result<Vec<u8>>>,
    busy: bool,
}

impl<W: Write> ParallelGzip<W> {
    pub(super) fn new(out: W, level: u32, threads: usize) -> io::Result<Self> {
        let workers =
            (0..threads.max(1)).map(|_| Worker::spawn(level)).collect::<Result<_, _>>()?;
        Ok(Self { out, block: Vec::with_capacity(BLOCK), workers, blocks: 0 })
    }

    /// Hands the current block to the next worker, once that is done with its previous one.
    fn dispatch(&mut self) -> io::Result<()> {
        let next = self.blocks % self.workers.len();
        self.collect(next)?;
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let worker = &mut self.workers[next];
        worker.blocks.send(block).map_err(|_| gone())?;
        worker.busy = true;
        self.blocks += 1;
        Ok(())
    }

    /// Writes out what a worker has made of its block.
    fn collect(&mut self, worker: usize) -> io::Result<()> {
        let worker = &mut self.workers[worker];
        if std::mem::take(&mut worker.busy) {
            let member = worker.members.recv().map_err(|_| gone())??;
            self.out.write_all(&member)?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        // A stream has at least one member.
        if !self.block.is_empty() || self.blocks == 0 {
            self.dispatch()?;
        }
        let workers = self.workers.len();
        for later in 0..workers {
            self.collect((self.blocks + later) % workers)?;
        }
        Ok(self.out)
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let used = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..used]);
        if self.block.len() == BLOCK {
            self.dispatch()?;
        }
        Ok(used)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Worker {
    /// The thread ends when this side of its channels is dropped.
    fn spawn(level: u32) -> io::Result<Self> {
        let (blocks, to_do) = sync_channel::<Vec<u8>>(1);
        let (done, members) = sync_channel(1);
        thread::Builder::new().name("gzip".into()).spawn(move || {
            for block in to_do {
                if done.send(member(&block, level)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { blocks, members, busy: false })
    }
}

/// One member, without name and time.
fn member(block: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let member = Vec::with_capacity(block.len() / 2);
    let mut encoder = flate2::write::GzEncoder::new(member, flate2::Compression::new(level));
    encoder.write_all(block)?;
    encoder.finish()
}

fn gone() -> io::Error {
    io::Error::other("a compression thread ended early")
}
