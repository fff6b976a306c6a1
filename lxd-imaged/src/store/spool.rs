//! A file that is arriving: written once, hashed as it passes, checked behind the writer.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::{Findings, Role};
use sha2::{Digest, Sha256};
use tokio::task::{JoinError, JoinHandle};
use uuid::Uuid;

use super::buffers::{Buffers, Transfer};
use super::checks::{Check, CheckPool, Wanted};
use super::writeback;
use crate::error::{Error, Result};

/// A write that takes longer has waited for the disk.
const BLOCKED: Duration = Duration::from_millis(20);
/// Bytes written between two requests to start write-back.
const WRITEBACK_STEP: u64 = 8 << 20;

/// Where arriving files are written.
#[derive(Debug, Clone)]
pub struct Spools {
    directory: PathBuf,
    buffers: Arc<Buffers>,
    checks: Arc<CheckPool>,
}

/// A finished, complete and accepted file that is not in place yet.
#[derive(Debug)]
pub struct Spooled {
    pub(super) path: SpoolPath,
    /// SHA-256 of its bytes.
    pub digest: Fingerprint,
    /// Bytes.
    pub size: u64,
    /// What the check found; `None` while it goes on in the background.
    pub findings: Findings,
    /// The check that goes on, if the answer did not have to wait for it.
    pub pending: Option<Arc<Check>>,
}

/// Removes the file when dropped, unless it has moved.
#[derive(Debug)]
pub(super) struct SpoolPath(Option<PathBuf>);

impl SpoolPath {
    pub(super) fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// The file is somewhere else now.
    pub(super) fn moved(&mut self) {
        self.0 = None;
    }
}

impl Drop for SpoolPath {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a spool file");
        }
    }
}

/// What one chunk after the other passes through.
struct Writer {
    file: Arc<File>,
    hash: Sha256,
    /// Of all parts of an image so far; `None` where there is only one part.
    combined: Option<Sha256>,
    written: u64,
    written_back: u64,
}

impl Writer {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all_at(chunk, self.written)?;
        self.hash.update(chunk);
        if let Some(combined) = &mut self.combined {
            combined.update(chunk);
        }
        self.written += chunk.len() as u64;
        if self.written - self.written_back >= WRITEBACK_STEP {
            writeback::start(&self.file, self.written_back, self.written - self.written_back);
            self.written_back = self.written;
        }
        Ok(())
    }
}

/// Work on a chunk that goes on while the next one is received.
enum Step {
    /// The disk pushes back: a blocking thread writes and hashes.
    Writing(JoinHandle<(Box<Writer>, Vec<u8>, io::Result<()>)>),
    /// The hash over all parts, beside the writer.
    Hashing(JoinHandle<(Sha256, Arc<Vec<u8>>)>),
}

/// A file that is being received.
pub struct Spool {
    path: SpoolPath,
    writer: Option<Box<Writer>>,
    step: Option<Step>,
    /// Whether a write has blocked: from then on other threads do it.
    blocks: bool,
    buffer: Vec<u8>,
    spare: Option<Vec<u8>>,
    transfer: Transfer,
    check: Arc<Check>,
    /// Whether the check is to go on without this spool.
    accepted: bool,
    received: u64,
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
        Self { directory, buffers: Buffers::new(), checks }
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
        let spool_path = SpoolPath(Some(path));
        if let Some(length) = length {
            reserve(&file, length)?;
        }
        let writer = Writer {
            file: file.clone(),
            hash: Sha256::new(),
            combined,
            written: 0,
            written_back: 0,
        };
        Ok(Spool {
            path: spool_path,
            writer: Some(Box::new(writer)),
            step: None,
            blocks: false,
            buffer: Vec::new(),
            spare: None,
            transfer: self.buffers.transfer(),
            check: self.checks.begin(role, file),
            accepted: false,
            received: 0,
        })
    }
}

/// Whether `length` more bytes fit; some file systems cannot reserve, so both are asked.
fn reserve(file: &File, length: u64) -> Result<()> {
    use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
    let no_space = || Error::NoSpace(format!("the image needs {length} bytes"));
    if let Ok(space) = fstatvfs(file)
        && space.f_bavail.saturating_mul(space.f_frsize) < length
    {
        return Err(no_space());
    }
    if length == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, length) {
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Err(no_space()),
        _ => Ok(()),
    }
}

impl Spool {
    /// Takes the next bytes. Returns an error as soon as the disk or the check refuses them.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.received += bytes.len() as u64;
        while !bytes.is_empty() {
            let size = self.transfer.chunk_size();
            if self.buffer.capacity() == 0 {
                self.buffer = match self.spare.take() {
                    Some(spare) => spare,
                    // A slow upload must not hold a whole chunk: the buffer grows with it.
                    None if self.received < size as u64 => Vec::new(),
                    None => self.transfer.buffer(),
                };
                self.buffer.clear();
            }
            let room = size.saturating_sub(self.buffer.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() >= size {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Writes and hashes the buffer.
    ///
    /// A write goes into the page cache, which costs less than handing it to another thread; only
    /// when the kernel makes writers wait for the disk is that what happens.
    async fn flush(&mut self) -> Result<()> {
        self.settle().await?;
        let chunk = std::mem::take(&mut self.buffer);
        let mut writer = self.writer.take().ok_or_else(lost)?;
        if self.blocks {
            self.step = Some(Step::Writing(tokio::task::spawn_blocking(move || {
                let result = writer.write(&chunk);
                (writer, chunk, result)
            })));
            return Ok(());
        }
        let chunk = Arc::new(chunk);
        if let Some(mut combined) = writer.combined.take() {
            let chunk = chunk.clone();
            self.step = Some(Step::Hashing(tokio::task::spawn_blocking(move || {
                combined.update(&*chunk);
                (combined, chunk)
            })));
        }
        let started = Instant::now();
        let written = writer.write(&chunk);
        self.blocks = started.elapsed() > BLOCKED;
        self.check.written(writer.written);
        self.writer = Some(writer);
        self.keep(chunk);
        written.map_err(|error| Error::io("cannot write the image file", error))?;
        // Others have waited for as long as a chunk takes.
        tokio::task::yield_now().await;
        self.check.refused()
    }

    /// Waits for the step that runs, if any.
    async fn settle(&mut self) -> Result<()> {
        let died = |error: JoinError| Error::Internal(error.to_string());
        match self.step.take() {
            None => {}
            Some(Step::Hashing(step)) => {
                let (combined, chunk) = step.await.map_err(died)?;
                self.writer.as_mut().ok_or_else(lost)?.combined = Some(combined);
                self.keep(chunk);
            }
            Some(Step::Writing(step)) => {
                let (writer, chunk, result) = step.await.map_err(died)?;
                result.map_err(|error| Error::io("cannot write the image file", error))?;
                self.check.written(writer.written);
                self.writer = Some(writer);
                self.keep(Arc::new(chunk));
            }
        }
        self.check.refused()
    }

    /// Keeps a buffer for a later chunk, once nobody else reads it.
    fn keep(&mut self, chunk: Arc<Vec<u8>>) {
        let Ok(chunk) = Arc::try_unwrap(chunk) else { return };
        match &self.spare {
            None => self.spare = Some(chunk),
            Some(_) => self.transfer.give_back(chunk),
        }
    }

    /// The whole file has arrived: flushes it to disk and waits for the verdict, as far as
    /// `wanted` says. Returns the hash over this and the earlier parts too, where one was asked for.
    pub async fn finish(mut self, wanted: Wanted) -> Result<(Spooled, Option<Sha256>)> {
        self.flush().await?;
        self.settle().await?;
        let writer = self.writer.take().ok_or_else(lost)?;
        let size = writer.written;
        self.check.complete(size, wanted);
        for buffer in [std::mem::take(&mut self.buffer)].into_iter().chain(self.spare.take()) {
            self.transfer.give_back(buffer);
        }
        let flushed = {
            let file = writer.file.clone();
            tokio::task::spawn_blocking(move || {
                // Reserved space beyond the end is given back before the flush makes it durable.
                file.set_len(size)?;
                file.sync_all()
            })
        };
        let verdict = self.check.verdict(wanted).await;
        let flushed = flushed.await.map_err(|error| Error::Internal(error.to_string()))?;
        let (findings, complete) = verdict?;
        flushed.map_err(|error| Error::io("cannot flush the image file", error))?;
        self.accepted = true;
        let spooled = Spooled {
            path: std::mem::replace(&mut self.path, SpoolPath(None)),
            digest: Fingerprint::from_bytes(writer.hash.finalize().into()),
            size,
            findings,
            pending: (!complete).then(|| self.check.clone()),
        };
        Ok((spooled, writer.combined))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.accepted {
            self.check.abandon();
        }
    }
}

fn lost() -> Error {
    Error::Internal("a write step was lost".into())
}
