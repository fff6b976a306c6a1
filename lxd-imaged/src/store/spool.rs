//! A file that is arriving: written once, hashed as it passes, checked behind the writer.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::{Findings, Role};
use sha2::{Digest, Sha256};
use tokio::task::{JoinError, JoinHandle};
use uuid::Uuid;

use super::buffers::{Buffers, Transfer};
use super::checks::{Check, CheckPool, Wanted};
use super::combined::{Combined, Hashers};
use super::writeback;
use crate::error::{Error, Result};

/// A write that takes longer has waited for the disk.
const BLOCKED: Duration = Duration::from_millis(20);
/// Bytes written between two requests to start write-back.
const WRITEBACK_STEP: u64 = 8 << 20;
/// Pieces of so many bytes are written as they come; smaller ones are gathered.
const UNCOPIED: usize = 32 << 10;
/// Bytes an upload takes before others get their turn.
const TURN: u64 = 1 << 20;

/// Where arriving files are written.
#[derive(Debug, Clone)]
pub struct Spools {
    directory: PathBuf,
    buffers: Arc<Buffers>,
    checks: Arc<CheckPool>,
    hashers: Hashers,
}

/// A finished, complete and accepted file that is not in place yet. Dropped, it ends its check.
#[derive(Debug)]
pub struct Spooled {
    pub(super) path: SpoolPath,
    /// SHA-256 of its bytes.
    pub digest: Fingerprint,
    /// Bytes.
    pub size: u64,
    /// What the check has found so far.
    pub findings: Findings,
    /// The check that goes on, if the answer did not have to wait for it. Whoever follows it
    /// takes it out.
    pub pending: Option<Arc<Check>>,
}

impl Drop for Spooled {
    fn drop(&mut self) {
        if let Some(check) = &self.pending {
            // It would decode a file that is gone for everybody else.
            check.abandon();
        }
    }
}

/// Removes the file when dropped, unless it has moved or is kept for another try.
#[derive(Debug)]
pub(super) struct SpoolPath {
    path: Option<PathBuf>,
    kept: bool,
}

impl SpoolPath {
    /// A file that goes with its last user; `kept` lets it stay.
    pub(super) fn new(path: PathBuf, kept: bool) -> Self {
        Self { path: Some(path), kept }
    }

    pub(super) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// The file is somewhere else now.
    pub(super) fn moved(&mut self) {
        self.path = None;
    }
}

impl Drop for SpoolPath {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && !self.kept
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a spool file");
        }
    }
}

/// What one chunk after the other passes through.
pub(super) struct Writer {
    pub(super) file: Arc<File>,
    pub(super) hash: Sha256,
    pub(super) written: u64,
    pub(super) written_back: u64,
}

impl Writer {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all_at(chunk, self.written)?;
        self.hash.update(chunk);
        self.written += chunk.len() as u64;
        if self.written - self.written_back >= WRITEBACK_STEP {
            writeback::start(&self.file, self.written_back, self.written - self.written_back);
            self.written_back = self.written;
        }
        Ok(())
    }
}

/// A write that goes on while the next chunk is received.
type Writing = JoinHandle<(Box<Writer>, io::Result<()>)>;

/// A file that is being received.
pub struct Spool {
    path: SpoolPath,
    writer: Option<Box<Writer>>,
    writing: Option<Writing>,
    /// Over all parts of an image so far; `None` where there is only one part.
    combined: Option<Combined>,
    /// Whether a write has blocked: from then on other threads do it.
    blocks: bool,
    buffer: Vec<u8>,
    transfer: Transfer,
    check: Arc<Check>,
    /// Whether the check is to go on without this spool.
    accepted: bool,
    received: u64,
    /// Bytes that may still be taken before others get their turn.
    turn: u64,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("path", &self.path.path())
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl Spools {
    /// Files arrive in `directory`, which must be on the file system of the blobs.
    pub fn new(directory: PathBuf, checks: Arc<CheckPool>) -> Self {
        Self { directory, buffers: Buffers::new(), checks, hashers: Hashers::default() }
    }

    /// Begins a file that plays `role`. `length` is reserved now if it is known. `combined`
    /// is the hash of the parts before this one, carried on.
    pub fn begin(
        &self,
        role: Role,
        length: Option<u64>,
        combined: Option<Sha256>,
    ) -> Result<Spool> {
        let path = self.directory.join(Uuid::new_v4().to_string());
        let what = || format!("cannot create {}", path.display());
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::io(what(), error))?;
        let file = Arc::new(file);
        let spool_path = SpoolPath::new(path, false);
        if let Some(length) = length {
            reserve(&file, 0, length)?;
        }
        let writer = Writer { file, hash: Sha256::new(), written: 0, written_back: 0 };
        Ok(self.spool(role, spool_path, writer, combined))
    }

    /// A spool that goes on where `writer` and `combined` are.
    pub(super) fn spool(
        &self,
        role: Role,
        path: SpoolPath,
        writer: Writer,
        combined: Option<Sha256>,
    ) -> Spool {
        let check = self.checks.begin(role, writer.file.clone());
        let received = writer.written;
        if received > 0 {
            check.written(received);
        }
        Spool {
            path,
            writer: Some(Box::new(writer)),
            writing: None,
            combined: combined.map(|hash| Combined::new(hash, self.hashers.clone())),
            blocks: false,
            buffer: Vec::new(),
            transfer: self.buffers.transfer(),
            check,
            accepted: false,
            received,
            turn: TURN,
        }
    }
}

/// What a tmpfs calls itself (statfs(2)).
const TMPFS: i64 = 0x0102_1994;

/// Whether `length` more bytes fit behind `offset`; some file systems cannot reserve, so both are
/// asked.
pub(super) fn reserve(file: &File, offset: u64, length: u64) -> Result<()> {
    use rustix::fs::{FallocateFlags, fallocate, fstatfs, fstatvfs};
    let no_space = || Error::NoSpace(format!("the image needs {length} bytes"));
    if let Ok(space) = fstatvfs(file)
        && space.f_bavail.saturating_mul(space.f_frsize) < length
    {
        return Err(no_space());
    }
    if length == 0 {
        return Ok(());
    }
    if fstatfs(file).is_ok_and(|fs| fs.f_type == TMPFS) {
        // It would fill the pages with zeros first, and the space is asked above.
        return Ok(());
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, offset, length) {
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Err(no_space()),
        _ => Ok(()),
    }
}

impl Spool {
    /// Takes the next bytes. Returns an error as soon as the disk or the check refuses them.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.received += bytes.len() as u64;
        while !bytes.is_empty() {
            let size = self.transfer.chunk_size();
            // Large pieces pass without being copied.
            if self.buffer.is_empty() && bytes.len() >= UNCOPIED && !self.blocks {
                let later = bytes.split_off(bytes.len().min(size));
                self.pass(std::mem::replace(&mut bytes, later)).await?;
                continue;
            }
            if self.buffer.capacity() == 0 && self.received >= size as u64 {
                // Before that the buffer grows: a slow upload must not hold a whole chunk.
                self.buffer = self.transfer.buffer();
                self.buffer.clear();
            }
            let room = size.saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.buffer.len() >= size {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Passes the buffer on.
    async fn flush(&mut self) -> Result<()> {
        let chunk = self.transfer.share(std::mem::take(&mut self.buffer));
        self.pass(chunk).await
    }

    /// Writes and hashes a chunk.
    ///
    /// A write goes into the page cache, which costs less than handing it to another thread; only
    /// when the kernel makes writers wait for the disk is that what happens.
    async fn pass(&mut self, chunk: Bytes) -> Result<()> {
        self.settle().await?;
        if let Some(combined) = &mut self.combined {
            combined.update(&chunk).await?;
        }
        let mut writer = self.writer.take().ok_or_else(lost)?;
        if self.blocks {
            self.writing = Some(tokio::task::spawn_blocking(move || {
                let result = writer.write(&chunk);
                (writer, result)
            }));
            return Ok(());
        }
        let started = Instant::now();
        let written = writer.write(&chunk);
        self.blocks = started.elapsed() > BLOCKED;
        self.check.written(writer.written);
        self.writer = Some(writer);
        written.map_err(|error| Error::io("cannot write the image file", error))?;
        self.turn = self.turn.saturating_sub(chunk.len() as u64);
        if self.turn == 0 {
            self.turn = TURN;
            tokio::task::yield_now().await;
        }
        self.check.refused()
    }

    /// Leaves everything received so far in the file, and no reserved space beyond it.
    fn keep_what_came(&mut self) {
        let Some(mut writer) = self.writer.take() else { return };
        let kept = writer.write(&self.buffer).and_then(|()| writer.file.set_len(writer.written));
        if let Err(error) = kept {
            tracing::warn!(path = %self.path.path().display(), %error, "cannot keep a partial file whole");
        }
    }

    /// Waits for the write that runs, if any.
    async fn settle(&mut self) -> Result<()> {
        if let Some(writing) = self.writing.take() {
            let (writer, result) = writing.await.map_err(died)?;
            result.map_err(|error| Error::io("cannot write the image file", error))?;
            self.check.written(writer.written);
            self.writer = Some(writer);
        }
        self.check.refused()
    }

    /// The whole file has arrived: flushes it to disk and waits for the verdict, as far as
    /// `wanted` says. Returns the hash over this and the earlier parts too, where one was asked for.
    pub async fn finish(mut self, wanted: Wanted) -> Result<(Spooled, Option<Sha256>)> {
        self.flush().await?;
        self.settle().await?;
        let writer = self.writer.take().ok_or_else(lost)?;
        let size = writer.written;
        self.check.complete(size, wanted);
        let flushed = {
            let file = writer.file.clone();
            tokio::task::spawn_blocking(move || {
                // Reserved space beyond the end is given back before the flush makes it durable.
                file.set_len(size)?;
                file.sync_all()
            })
        };
        let combined = match self.combined.take() {
            Some(combined) => Some(combined.finish().await?),
            None => None,
        };
        let verdict = self.check.verdict(wanted).await;
        let flushed = flushed.await.map_err(|error| Error::Internal(error.to_string()))?;
        let (findings, complete) = verdict?;
        flushed.map_err(|error| Error::io("cannot flush the image file", error))?;
        self.accepted = true;
        let spooled = Spooled {
            path: std::mem::replace(&mut self.path, SpoolPath { path: None, kept: false }),
            digest: Fingerprint::from_bytes(writer.hash.finalize().into()),
            size,
            findings,
            pending: (!complete).then(|| self.check.clone()),
        };
        Ok((spooled, combined))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.accepted {
            self.check.abandon();
            if self.path.kept {
                self.keep_what_came();
            }
        }
    }
}

fn lost() -> Error {
    Error::Internal("a write step was lost".into())
}

fn died(error: JoinError) -> Error {
    Error::Internal(error.to_string())
}
