//! The files of an image on their way: whole, from where they were cut, or as a delta.

use std::path::Path;

use bytes::Bytes;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::InstanceType;
use lxd_proto::net::{Access, Download, DownloadOptions};
use lxd_proto::remote::{Error, Fetch, FileRole, IncomingFile, Result, Sink};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use crate::convert::{Delta, ImageFiles, RemoteFile};
use crate::delta::{self, Decoding, DeltaError};
use crate::tree::Tree;

/// Where files come from, and how.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) access: &'a Access,
    pub(crate) request: &'a Fetch,
}

/// The files of one image on their way to a sink.
pub(crate) struct Transfer<'a> {
    pub(crate) from: Source<'a>,
    pub(crate) sink: &'a mut dyn Sink,
}

/// A delta that is on this machine with what it belongs to.
struct Ready {
    program: std::path::PathBuf,
    base: std::path::PathBuf,
    /// Removed when dropped.
    delta: NamedTempFile,
    size: u64,
}

/// Why a file that a delta could make is not made by it.
#[derive(Debug, thiserror::Error)]
enum NoDelta {
    #[error(transparent)]
    Download(#[from] Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Decode(#[from] DeltaError),
    #[error("its result has the SHA-256 {got}, the catalog says {expected}")]
    Mismatch { got: Fingerprint, expected: Fingerprint },
}

impl Transfer<'_> {
    /// Sends all files of an image into the sink, in the order in which they are hashed.
    pub(crate) async fn image(mut self, kind: InstanceType, files: &ImageFiles) -> Result<()> {
        let total = |file: &RemoteFile| file.size;
        let root = files.root.as_ref();
        if let (Some(metadata), Some(root)) = (total(&files.metadata), root.map_or(Some(0), total))
        {
            self.from.request.progress.set_total(metadata.saturating_add(root));
        }
        let Some(root) = root else {
            let have = self.begin(FileRole::Unified, &files.metadata).await?;
            return self.whole(&files.metadata, have).await;
        };
        let have = self.begin(FileRole::Metadata, &files.metadata).await?;
        self.whole(&files.metadata, have).await?;
        let have = self.begin(FileRole::Rootfs(kind), root).await?;
        let have = self.delta(root, &files.deltas, have).await?;
        self.whole(root, have).await
    }

    async fn begin(&mut self, role: FileRole, file: &RemoteFile) -> Result<u64> {
        if file.sha256.is_none() {
            let reason = "the catalog has no SHA-256 for it in lower-case hex".to_owned();
            return Err(Error::Decode { what: self.from.name(file), reason });
        }
        let filename = file.path.file_name().to_owned();
        let incoming = IncomingFile { role, filename, length: file.size };
        let have = self.sink.begin(&incoming).await.map_err(local)?;
        self.from.request.progress.add(usize::try_from(have).unwrap_or(usize::MAX));
        Ok(have)
    }

    /// Downloads a file from byte `have` on.
    async fn whole(&mut self, file: &RemoteFile, have: u64) -> Result<()> {
        if file.size == Some(have) {
            return Ok(());
        }
        let mut download = self.from.open(file, have).await?;
        // Without the beginning there is nothing to compare: the image's own hash tells.
        let mut hash = (have == 0).then(Sha256::new);
        let source = self.from;
        while let Some(bytes) = download.next().await.map_err(|error| source.failed(file, error))? {
            if let Some(hash) = &mut hash {
                hash.update(&bytes);
            }
            self.write(bytes).await?;
        }
        hash.map_or(Ok(()), |hash| self.from.verify(file, hash))
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.from.request.progress.add(bytes.len());
        self.sink.write(bytes).await.map_err(local)
    }

    /// Makes the file by a delta as far as that goes, and returns how much of it the sink has
    /// then: `have` when there is no delta, or a wrong one.
    async fn delta(&mut self, root: &RemoteFile, deltas: &[Delta], have: u64) -> Result<u64> {
        let Some((delta, size)) = self.from.best(root, deltas, have) else { return Ok(have) };
        let file = self.from.name(&delta.file);
        let ready = match self.from.prepare(delta, root, size).await {
            Ok(Some(ready)) => ready,
            Ok(None) => return Ok(have),
            Err(error) => {
                tracing::warn!(delta = file, %error, "the delta cannot be used, downloading all");
                return Ok(have);
            }
        };
        tracing::debug!(delta = file, "making the root file system from an older one");
        let mut at = 0;
        let mut sent = have;
        let idle = self.from.tree.http().limits().idle;
        let decoding =
            Decoding::begin(&ready.program, &ready.base, ready.delta.path(), ready.size, idle);
        let Ok(mut decoding) = decoding else { return Ok(have) };
        // It was decoded once already; if it fails now, the rest is downloaded.
        while let Ok(Some(mut bytes)) = decoding.next().await {
            let end = at + bytes.len() as u64;
            if end > sent {
                let known = usize::try_from(sent.saturating_sub(at)).unwrap_or(usize::MAX);
                let bytes = bytes.split_off(known.min(bytes.len()));
                sent = end;
                self.write(bytes).await?;
            }
            at = end;
        }
        Ok(sent)
    }
}

impl Source<'_> {
    /// The smallest delta whose base is at hand and that is smaller than what is missing, with
    /// the size of the file it makes.
    fn best<'d>(
        &self,
        root: &RemoteFile,
        deltas: &'d [Delta],
        have: u64,
    ) -> Option<(&'d Delta, u64)> {
        let bases = self.request.bases.as_ref()?;
        let size = root.size?;
        root.sha256?;
        let missing = size.checked_sub(have)?;
        let usable = deltas.iter().filter(|delta| {
            delta.file.sha256.is_some()
                && delta.file.size.is_some_and(|size| size < missing)
                && bases.rootfs(&delta.base).is_some()
        });
        usable.min_by_key(|delta| delta.file.size).map(|delta| (delta, size))
    }

    /// Downloads a delta and decodes it once, to see that it makes the right file.
    ///
    /// Nothing is given out before that: what a sink got cannot be taken back.
    async fn prepare(
        &self,
        delta: &Delta,
        root: &RemoteFile,
        size: u64,
    ) -> Result<Option<Ready>, NoDelta> {
        let Some(program) = delta::program() else {
            tracing::debug!("xdelta3 is not installed, deltas are not used");
            return Ok(None);
        };
        let base = self.request.bases.as_ref().and_then(|bases| bases.rootfs(&delta.base));
        let (Some(base), Some(expected)) = (base, root.sha256) else { return Ok(None) };
        let file = self.fetch_delta(&delta.file).await?;
        let idle = self.tree.http().limits().idle;
        let mut decoding = Decoding::begin(&program, &base, file.path(), size, idle)?;
        let mut hash = Sha256::new();
        while let Some(bytes) = decoding.next().await? {
            hash.update(&bytes);
        }
        let got = Fingerprint::from_bytes(hash.finalize().into());
        if got != expected {
            return Err(NoDelta::Mismatch { got, expected });
        }
        Ok(Some(Ready { program, base, delta: file, size }))
    }

    async fn fetch_delta(&self, file: &RemoteFile) -> Result<NamedTempFile, NoDelta> {
        let stored = temporary(self.access.cache.as_deref())?;
        let mut to = tokio::fs::File::from_std(stored.reopen()?);
        let mut download = self.open(file, 0).await?;
        let mut hash = Sha256::new();
        while let Some(bytes) = download.next().await? {
            hash.update(&bytes);
            to.write_all(&bytes).await?;
        }
        to.flush().await?;
        self.verify(file, hash)?;
        Ok(stored)
    }

    /// What messages call a file.
    fn name(&self, file: &RemoteFile) -> String {
        format!("{} of {}", file.path, self.tree.name())
    }

    /// Opens a file from byte `from` on.
    async fn open(&self, file: &RemoteFile, from: u64) -> Result<Download> {
        let options = DownloadOptions { length: file.size, from, ..DownloadOptions::default() };
        let url = self.tree.url(&file.path);
        self.tree.http().open(url.as_str(), options).await.map_err(|error| self.failed(file, error))
    }

    /// A listed file that is not there does not mean that the image is not known.
    fn failed(&self, file: &RemoteFile, error: Error) -> Error {
        if error.is_not_found() {
            let reason = "the catalog lists it, but the server does not have it".to_owned();
            return Error::Decode { what: self.name(file), reason };
        }
        error
    }

    /// Fails when a file is not what the catalog says.
    fn verify(&self, file: &RemoteFile, hash: Sha256) -> Result<()> {
        let got = Fingerprint::from_bytes(hash.finalize().into());
        match file.sha256 {
            Some(expected) if expected != got => {
                let reason = format!("its SHA-256 is {got}, the catalog says {expected}");
                Err(Error::Decode { what: self.name(file), reason })
            }
            _ => Ok(()),
        }
    }
}

/// A file for a delta, beside the catalogs if these are kept.
fn temporary(directory: Option<&Path>) -> std::io::Result<NamedTempFile> {
    match directory {
        Some(directory) => {
            crate::cache::create(directory)?;
            tempfile::Builder::new().prefix(".delta-").tempfile_in(directory)
        }
        None => NamedTempFile::new(),
    }
}

/// A failure of the sink: its own text says on which file.
fn local(source: std::io::Error) -> Error {
    Error::Io { what: "cannot store the image".to_owned(), source }
}
