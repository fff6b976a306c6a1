//! The `Remote` trait: the one way to any image server, whatever protocol it speaks.

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod fetch;
mod progress;
mod resolve;
mod spec;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::alias::AliasEntry;
use crate::arch::Architecture;
use crate::filter::Filter;
use crate::fingerprint::{Fingerprint, Prefix};
use crate::image::{Image, InstanceType};

pub use error::{Error, Result};
pub use fetch::fetch;
pub use progress::Progress;
pub use resolve::{DEFAULT_ALIAS, Resolved, resolve};
pub use spec::{Protocol, RemoteSpec, UnknownProtocol};

/// An image server. What only LXD servers can do (edit, delete, push) is not in here.
#[async_trait]
pub trait Remote: fmt::Debug + Send + Sync {
    /// Where this is.
    fn spec(&self) -> &RemoteSpec;

    /// The images that may be seen and that `filter` lets pass.
    async fn images(&self, filter: &Filter) -> Result<Vec<Image>>;

    /// All images that may be seen, as the server says now, and not as it said before it went away.
    async fn current_images(&self) -> Result<Vec<Image>> {
        self.images(&Filter::default()).await
    }

    /// The one image whose fingerprint begins with `id`. A private one needs a secret, unless
    /// the server trusts us.
    async fn image(&self, id: &Prefix, secret: Option<&Secret>) -> Result<Image>;

    /// All aliases that may be seen.
    async fn aliases(&self) -> Result<Vec<AliasEntry>>;

    /// The alias with this name for what is wanted.
    async fn alias(&self, name: &str, want: &Want) -> Result<AliasEntry>;

    /// A one-time secret for a private image; `None` where everything is public.
    async fn secret(&self, _fingerprint: &Fingerprint) -> Result<Option<Secret>> {
        Ok(None)
    }

    /// Sends the files of `image` into `sink`, in the order in which they are hashed, and takes
    /// up again by itself what was cut.
    ///
    /// It does not hash: a sink that stores must verify what it got. Everybody else calls
    /// [`fetch`], which does that.
    async fn download(&self, image: &Image, request: &Fetch, sink: &mut dyn Sink) -> Result<()>;
}

/// Which of several images under one alias is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// `None` takes either, a container first.
    pub kind: Option<InstanceType>,
    /// `None` takes the server's first choice.
    pub architecture: Option<Architecture>,
    /// Only what the server says now counts, not what it said before it went away.
    pub fresh: bool,
}

/// A one-time secret that opens a private image. Never shown in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the server's text.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// How to fetch.
#[derive(Clone, Default)]
pub struct Fetch {
    /// For a private image on a server that does not trust us.
    pub secret: Option<Secret>,
    /// Counts the bytes of the files, without framing.
    pub progress: Progress,
    /// Ends the transfer with [`Error::Cancelled`].
    pub cancel: CancellationToken,
    /// Files at hand, for servers that offer differences to them.
    pub bases: Option<Arc<dyn Bases>>,
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch")
            .field("secret", &self.secret)
            .field("progress", &self.progress)
            .field("bases", &self.bases.is_some())
            .finish_non_exhaustive()
    }
}

/// Files of images that are on this machine.
pub trait Bases: Send + Sync {
    /// The root file system file of a split image, if it is here.
    fn rootfs(&self, image: &Fingerprint) -> Option<PathBuf>;
}

/// Which file of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileRole {
    /// Metadata and root file system in one.
    Unified,
    /// The metadata of a split image.
    Metadata,
    /// The root file system of a split image, or the disk of a virtual machine.
    Rootfs(InstanceType),
}

/// A file that is about to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingFile {
    /// Which one.
    pub role: FileRole,
    /// What the server calls it: one path component, never `.` or `..`; may be empty.
    pub filename: String,
    /// Its length where the server tells it.
    pub length: Option<u64>,
}

/// Takes the files of an image as they come.
#[async_trait]
pub trait Sink: Send {
    /// The next file begins; the one before it is complete. Returns how many of its first
    /// bytes the sink holds already: what is written goes on after them.
    async fn begin(&mut self, file: &IncomingFile) -> io::Result<u64>;

    /// More bytes of the current file, each once and in order.
    async fn write(&mut self, bytes: Bytes) -> io::Result<()>;
}
