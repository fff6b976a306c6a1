//! Blobs: finished files, each under the SHA-256 of its bytes.
//!
//! They live behind `object_store`, here a local directory. A blob that someone is about to
//! record is held, so that it cannot be removed as garbage in between.
//!
//! Before a blob moves in, and before its last record goes, it is noted as *unsettled*: after a
//! crash these are the only files that may be garbage. Nothing else is ever removed because the
//! database does not know it: the database may be the part that is missing.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::Either;
use futures_util::{Stream, StreamExt};
use lxd_proto::fingerprint::Fingerprint;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{GetResultPayload, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use rustix::io::ReadWriteFlags;

use super::buffers::{Buffers, Transfer};
use super::outbox::{self, Outbox};
use super::recent::Recent;
use super::spool::Spooled;
use crate::error::{Error, Result};

/// Bytes of a body that is sent in one piece, if they need not be waited for.
const SHORT: usize = 64 << 10;

/// All finished files.
#[derive(Debug)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Where the store is on this machine: files move in by renaming.
    root: PathBuf,
    /// One empty file for each unsettled blob.
    unsettled: PathBuf,
    holds: Mutex<HashMap<Fingerprint, usize>>,
    buffers: Arc<Buffers>,
    recent: Recent,
}

/// Keeps a blob from being removed until it is recorded, or given up.
#[derive(Debug)]
pub struct Hold {
    blobs: Arc<Blobs>,
    digest: Fingerprint,
    recorded: bool,
}

impl Hold {
    /// The blob has a record now, or had one before.
    pub fn recorded(mut self) {
        self.recorded = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = self.blobs.holds.lock();
        if let Some(count) = holds.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                holds.remove(&self.digest);
                if self.recorded {
                    self.blobs.note_settled(&self.digest);
                }
            }
        }
    }
}

/// A blob that is open for reading.
#[derive(Debug, Clone)]
pub struct OpenBlob {
    file: Arc<File>,
    /// Bytes.
    pub size: u64,
    /// When it was stored.
    pub modified: SystemTime,
}

impl Blobs {
    /// The blobs in the directory `root`, with notes about them in `unsettled`.
    pub fn open(root: PathBuf, unsettled: PathBuf) -> Result<Arc<Self>> {
        let store =
            LocalFileSystem::new_with_prefix(&root).map_err(|error| storage(&root, error))?;
        Ok(Arc::new(Self {
            store: Arc::new(store),
            root,
            unsettled,
            holds: Mutex::default(),
            buffers: Buffers::new(),
            recent: Recent::default(),
        }))
    }

    /// How many bytes there is room for; `None` where the file system does not say.
    pub fn free(&self) -> Option<u64> {
        let space = rustix::fs::statvfs(&self.root).ok()?;
        Some(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Moves a flushed spool file into place. The move itself is durable only after
    /// [`Blobs::flush`].
    pub async fn place(self: &Arc<Self>, mut spooled: Spooled) -> Result<Hold> {
        let blobs = self.clone();
        let moved = tokio::task::spawn_blocking(move || {
            let hold = blobs.hold(spooled.digest);
            blobs.note_unsettled(&spooled.digest)?;
            let path = blobs.path(&spooled.digest);
            fs::rename(spooled.path.path(), &path).map_err(|error| {
                Error::io(format!("cannot move a file to {}", path.display()), error)
            })?;
            spooled.path.moved();
            // The file that was open under this name is another one now.
            blobs.recent.forget(&spooled.digest);
            Ok(hold)
        });
        moved.await.map_err(|error| Error::Internal(error.to_string()))?
    }

    /// Makes all moves so far durable.
    pub async fn flush(&self) -> Result<()> {
        let root = self.root.clone();
        let flushed = tokio::task::spawn_blocking(move || File::open(root)?.sync_all());
        flushed
            .await
            .map_err(|error| Error::Internal(error.to_string()))?
            .map_err(|error| Error::io("cannot flush the blob directory", error))
    }

    fn hold(self: &Arc<Self>, digest: Fingerprint) -> Hold {
        *self.holds.lock().entry(digest).or_default() += 1;
        Hold { blobs: self.clone(), digest, recorded: false }
    }

    fn note_unsettled(&self, digest: &Fingerprint) -> Result<()> {
        let path = self.unsettled.join(digest.to_string());
        File::create(&path)
            .map(drop)
            .map_err(|error| Error::io(format!("cannot create {}", path.display()), error))
    }

    fn note_settled(&self, digest: &Fingerprint) {
        let path = self.unsettled.join(digest.to_string());
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a note");
        }
    }

    /// Notes that the last records of blobs may be about to go. [`Self::remove_unless`] follows.
    pub async fn unsettle(self: &Arc<Self>, digests: Vec<Fingerprint>) -> Result<()> {
        let blobs = self.clone();
        let noted = tokio::task::spawn_blocking(move || {
            digests.iter().try_for_each(|digest| blobs.note_unsettled(digest))
        });
        noted.await.map_err(|error| Error::Internal(error.to_string()))?
    }

    /// The unsettled blobs; after a start, those of a daemon that was killed.
    pub async fn unsettled(self: &Arc<Self>) -> Result<Vec<Fingerprint>> {
        let path = self.unsettled.clone();
        let listed = tokio::task::spawn_blocking(move || {
            let mut digests = Vec::new();
            for entry in fs::read_dir(path)? {
                let name = entry?.file_name();
                digests.extend(name.to_str().and_then(|name| name.parse::<Fingerprint>().ok()));
            }
            Ok(digests)
        });
        listed
            .await
            .map_err(|error| Error::Internal(error.to_string()))?
            .map_err(|error| Error::io("cannot list the unsettled files", error))
    }

    /// Settles a blob: removes it unless it is held or `used` says that it is needed.
    pub async fn remove_unless(
        self: &Arc<Self>,
        digest: Fingerprint,
        used: impl Fn(&Fingerprint) -> bool + Send + 'static,
    ) -> Result<()> {
        let blobs = self.clone();
        let removed = tokio::task::spawn_blocking(move || {
            // Held over the removal: nobody can take a hold and move a file in meanwhile.
            let holds = blobs.holds.lock();
            if holds.contains_key(&digest) {
                return Ok(());
            }
            let unused = !used(&digest);
            if unused {
                blobs.recent.forget(&digest);
            }
            if unused
                && let Err(error) = fs::remove_file(blobs.path(&digest))
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            blobs.note_settled(&digest);
            Ok(())
        });
        removed
            .await
            .map_err(|error| Error::Internal(error.to_string()))?
            .map_err(|error| Error::io(format!("cannot remove the blob {digest}"), error))
    }

    /// Opens a blob; `None` if it is not there.
    pub async fn get(&self, digest: &Fingerprint) -> Result<Option<OpenBlob>> {
        let (mut recent, mut removals) = self.recent.get(digest);
        if let Some(blob) = recent.take() {
            if blob.is_named() {
                return Ok(Some(blob));
            }
            // Another file is in its place, or none.
            self.recent.forget(digest);
            removals = self.recent.get(digest).1;
        }
        let got = match self.store.get(&Key::from(digest.to_string())).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            other => other.map_err(|error| storage(&self.root, error))?,
        };
        let (size, modified) = (got.meta.size, got.meta.last_modified.into());
        match got.payload {
            GetResultPayload::File(file, _) => {
                let blob = OpenBlob { file: Arc::new(file), size, modified };
                self.recent.keep(*digest, &blob, removals);
                Ok(Some(blob))
            }
            GetResultPayload::Stream(_) => {
                Err(Error::Internal("the blob store is not a directory".into()))
            }
        }
    }

    /// Whether a blob is there with all its `size` bytes.
    pub async fn is_whole(&self, digest: &Fingerprint, size: u64) -> Result<bool> {
        Ok(self.get(digest).await?.is_some_and(|blob| blob.has(size)))
    }

    /// Where a blob is on this machine.
    pub fn path(&self, digest: &Fingerprint) -> PathBuf {
        self.root.join(digest.to_string())
    }

    /// The same for a connection that sends file ranges by itself.
    pub fn send(
        outbox: Arc<Outbox>,
        segments: Vec<Segment>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let pieces = segments.into_iter().flat_map(Segment::pieces);
        futures_util::stream::iter(pieces).then(move |piece| {
            let outbox = outbox.clone();
            async move {
                match piece {
                    Segment::Inline(bytes) => Ok(bytes),
                    Segment::Blob(blob, range) => {
                        blob.bring_in(&range).await?;
                        Ok(outbox.queue(blob.file, range))
                    }
                }
            }
        })
    }

    /// The bytes of several ranges, one after the other, read ahead by one chunk.
    pub fn read(
        &self,
        segments: Vec<Segment>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        match at_hand(&segments) {
            Some(bytes) => Either::Left(futures_util::stream::iter([Ok(bytes)])),
            None => Either::Right(self.read_chunks(segments)),
        }
    }

    fn read_chunks(
        &self,
        segments: Vec<Segment>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let transfer = Arc::new(self.buffers.transfer());
        let reader = Reader { segments: segments.into(), transfer };
        let first = reader.start();
        futures_util::stream::unfold(Some(first), async |next| {
            let (result, reader) = match next?.await {
                Ok(read) => read,
                Err(error) => return Some((Err(io::Error::other(error)), None)),
            };
            match result {
                Ok(None) => None,
                // The next chunk is read while this one is sent.
                Ok(Some(bytes)) => Some((Ok(bytes), Some(reader.start()))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

/// A piece of a body.
#[derive(Debug, Clone)]
pub enum Segment {
    /// Bytes at hand.
    Inline(Bytes),
    /// A range of a blob.
    Blob(OpenBlob, Range<u64>),
}

impl Segment {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Blob(_, range) => range.end - range.start,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The segment in pieces that a stand-in can stand for.
    fn pieces(self) -> impl Iterator<Item = Self> {
        let length = self.len();
        let count = length.div_ceil(outbox::LONGEST);
        (0..count).map(move |index| {
            let from = index * outbox::LONGEST;
            self.slice(from, length.min(from + outbox::LONGEST))
        })
    }

    /// The part `[from, to)` of the segment.
    #[must_use]
    pub fn slice(&self, from: u64, to: u64) -> Self {
        match self {
            Self::Inline(bytes) => {
                let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
                Self::Inline(bytes.slice(at(from)..at(to)))
            }
            Self::Blob(blob, range) => {
                Self::Blob(blob.clone(), range.start + from..range.start + to)
            }
        }
    }
}

/// A short body whose bytes are all in the page cache: read where we are, sent in one piece.
fn at_hand(segments: &[Segment]) -> Option<Bytes> {
    let length: u64 = segments.iter().map(Segment::len).sum();
    let length = usize::try_from(length).ok().filter(|length| *length <= SHORT)?;
    let mut all = vec![0; length];
    let mut rest = all.as_mut_slice();
    for segment in segments {
        let (part, after) = rest.split_at_mut(usize::try_from(segment.len()).ok()?);
        rest = after;
        match segment {
            Segment::Inline(bytes) => part.copy_from_slice(bytes),
            Segment::Blob(blob, range) => {
                let mut buffers = [IoSliceMut::new(part)];
                let (file, flags) = (&blob.file, ReadWriteFlags::NOWAIT);
                let read = rustix::io::preadv2(file, &mut buffers, range.start, flags);
                if read.ok()? as u64 != segment.len() {
                    return None;
                }
            }
        }
    }
    Some(all.into())
}

struct Reader {
    segments: std::collections::VecDeque<Segment>,
    transfer: Arc<Transfer>,
}

type Read = tokio::task::JoinHandle<(io::Result<Option<Bytes>>, Reader)>;

impl Reader {
    fn start(mut self) -> Read {
        tokio::task::spawn_blocking(move || {
            let result = self.read();
            (result, self)
        })
    }

    fn read(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(segment) = self.segments.pop_front() {
            let (blob, range) = match segment {
                Segment::Inline(bytes) if bytes.is_empty() => continue,
                Segment::Inline(bytes) => return Ok(Some(bytes)),
                Segment::Blob(_, range) if range.is_empty() => continue,
                Segment::Blob(blob, range) => (blob, range),
            };
            let mut buffer = self.transfer.buffer();
            let size = self.transfer.chunk_size() as u64;
            let length = (range.end - range.start).min(size);
            // A reused buffer has its length already: nothing is zeroed.
            buffer.resize(usize::try_from(length).unwrap_or(0), 0);
            blob.file.read_exact_at(&mut buffer, range.start)?;
            self.segments.push_front(Segment::Blob(blob, range.start + length..range.end));
            return Ok(Some(self.transfer.share(buffer)));
        }
        Ok(None)
    }
}

impl OpenBlob {
    /// Whether the file still has a name: nobody has removed it, or put another in its place.
    fn is_named(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.nlink() > 0)
    }

    /// Whether the file has so many bytes, also if someone has cut it since it was opened.
    pub fn has(&self, size: u64) -> bool {
        self.size == size && self.file.metadata().is_ok_and(|file| file.len() == size)
    }

    /// Reads a range into the page cache unless it is there, so that sending it does not wait
    /// for the disk on a thread that serves others.
    async fn bring_in(&self, range: &Range<u64>) -> io::Result<()> {
        if self.is_cached(range.start) && self.is_cached(range.end - 1) {
            return Ok(());
        }
        let (file, range) = (self.file.clone(), range.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; 64 << 10];
            let mut position = range.start;
            while position < range.end {
                match file.read_at(&mut buffer, position)? {
                    0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                    read => position += read as u64,
                }
            }
            Ok(())
        });
        read.await.map_err(io::Error::other)?
    }

    /// Whether the byte at `offset` can be read at once. File systems that cannot tell (those in
    /// memory) have it.
    fn is_cached(&self, offset: u64) -> bool {
        let mut byte = [0];
        let buffers = &mut [IoSliceMut::new(&mut byte)];
        let read = rustix::io::preadv2(&self.file, buffers, offset, ReadWriteFlags::NOWAIT);
        !matches!(read, Err(rustix::io::Errno::AGAIN))
    }

    /// The file itself.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }
}

fn storage(root: &Path, error: object_store::Error) -> Error {
    Error::io(format!("the blob store {} failed", root.display()), io::Error::other(error))
}
