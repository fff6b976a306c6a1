//! The daemon's one error enum; `http::reply` maps it to the wire.

use std::sync::Arc;

use lxd_proto::config::ConfigError;
use lxd_proto::filter::FilterError;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::FormatError;

use crate::{confined, lxc, rootfs};

/// What the daemon can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request makes no sense; the text says why.
    #[error("{0}")]
    BadRequest(String),
    /// A configuration value was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A filter could not be read.
    #[error("Invalid filter: {0}")]
    Filter(#[from] FilterError),
    /// The caller may not do this.
    #[error("not authorized")]
    Forbidden,
    /// The caller may not do this; the text says why.
    #[error("{0}")]
    Refused(&'static str),
    /// Too many wrong passwords or tokens came from one place.
    #[error("too many wrong passwords or tokens from your address; try again in {seconds} s")]
    TooManyGuesses {
        /// How long to wait.
        seconds: u64,
    },
    /// The name is taken.
    #[error("Mirror \"{0}\" already exists")]
    MirrorExists(String),
    /// A run of the mirror goes on.
    #[error("a run of mirror \"{0}\" goes on; wait for it, or cancel its operation")]
    MirrorRuns(String),
    /// There is no such thing, or the caller may not know of it.
    #[error("{0}")]
    NotFound(&'static str),
    /// More than one image begins with the given digits.
    #[error("More than one image matches")]
    Ambiguous,
    /// More than one certificate begins with the given digits.
    #[error("More than one certificate matches")]
    AmbiguousCertificate,
    /// The certificate is trusted already.
    #[error("Certificate already in trust store")]
    CertificateExists,
    /// The name is taken.
    #[error("Alias \"{0}\" already exists")]
    AliasExists(String),
    /// The name is taken; LXD's text.
    #[error(
        "Failed creating instance record: Add instance info to the database: \
         This \"instances\" entry already exists"
    )]
    InstanceExists,
    /// The name is taken; LXD's text.
    #[error(
        "Failed creating instance snapshot record \"{0}\": Add snapshot info to the database: \
         This \"instances_snapshots\" entry already exists"
    )]
    SnapshotExists(String),
    /// An image could not be unpacked.
    #[error("Failed creating instance from image: Unpack failed: {0}")]
    Unpack(Arc<rootfs::Error>),
    /// A root file system could not be copied or packed.
    #[error("{0}")]
    Rootfs(Arc<rootfs::Error>),
    /// A path inside an instance leads nowhere, or out of it.
    #[error(transparent)]
    Confined(confined::Error),
    /// A template of the image could not be applied.
    #[error(transparent)]
    Template(Box<rootfs::templates::Error>),
    /// The container runtime failed.
    #[error("{}", with_causes(.0))]
    Runtime(Arc<lxc::Error>),
    /// The image is here already.
    #[error("Image with same fingerprint already exists")]
    ImageExists {
        /// Which.
        fingerprint: Fingerprint,
        /// Its size in bytes.
        size: u64,
    },
    /// Nothing has changed since an image was made of the instance.
    #[error("The image already exists: {fingerprint}")]
    ImageMade {
        /// Which.
        fingerprint: Fingerprint,
        /// Its size in bytes.
        size: u64,
    },
    /// Another instance or snapshot has the name.
    #[error("Name '{0}' already in use")]
    NameTaken(String),
    /// Instances cannot run here; the text says what is missing.
    #[error("instances cannot run here: {0}")]
    NoRuntime(String),
    /// The published catalogs cannot be signed now; why is in the log, and no stranger's business.
    #[error("this server cannot sign its catalogs at the moment")]
    CannotSign,
    /// The upload is not what the client announced.
    #[error("fingerprints don't match, got {got} expected {expected}")]
    FingerprintMismatch {
        /// Of the bytes that arrived.
        got: Fingerprint,
        /// Announced.
        expected: Fingerprint,
    },
    /// The object changed since the client read it.
    #[error("ETag doesn't match: {current} vs {given}")]
    EtagMismatch {
        /// Of the object now.
        current: String,
        /// In the request.
        given: String,
    },
    /// A file of the image was refused.
    #[error("{0}")]
    Format(Arc<FormatError>),
    /// The store is full.
    #[error("no space left in the image store: {0}; free space or delete images, then try again")]
    NoSpace(String),
    /// The client went away or sent nothing for too long.
    #[error("the upload broke off: {0}")]
    Upload(String),
    /// Another server did not help; the text names it and says why.
    #[error("{what}")]
    Origin {
        /// The whole story, for people.
        what: String,
        /// What it was, for us.
        source: Arc<lxd_proto::remote::Error>,
    },
    /// What somebody else was waiting for too has failed.
    #[error("{0}")]
    Shared(Arc<Self>),
    /// Cancelled on request.
    #[error("the operation was cancelled")]
    Cancelled,
    /// A feature of a later version.
    #[error("not yet: {0} comes with a later version of lxd-imaged")]
    NotYet(&'static str),
    /// The daemon is about to end.
    #[error("LXD is shutting down")]
    ShuttingDown,
    /// Too much at once.
    #[error("too many {0} at once, try again later")]
    TooMany(&'static str),
    /// The database failed.
    #[error("the image database failed: {0}")]
    Db(crate::db::Failure),
    /// A file of the store could not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, on what.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The request is an object, but asks for nothing known; LXD's text and status.
    #[error("Invalid images JSON")]
    InvalidImagesJson,
    /// The operation is of another class.
    #[error("Only websocket operations can be connected")]
    NoWebsocket,
    /// There are no events of this type.
    #[error("\"{0}\" isn't a supported event type")]
    EventType(String),
    /// Something that cannot happen did; the text names it.
    #[error("internal error: {0}")]
    Internal(String),
}

/// An error with what caused it: those of the runtime say only what was tried.
fn with_causes(error: &lxc::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The daemon's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// There is no image with this fingerprint, as far as the caller may know.
pub const IMAGE_NOT_FOUND: Error = Error::NotFound("Image not found");
/// There is no alias of this name, as far as the caller may know.
pub const ALIAS_NOT_FOUND: Error = Error::NotFound("Image alias not found");
/// There is no instance of this name.
pub const INSTANCE_NOT_FOUND: Error = Error::NotFound("Instance not found");
/// The instance has no snapshot of this name.
pub const SNAPSHOT_NOT_FOUND: Error = Error::NotFound("Instance snapshot not found");
/// There is no mirror of this name.
pub const MIRROR_NOT_FOUND: Error = Error::NotFound("Mirror not found");
/// No certificate in the trust store begins so.
pub const CERTIFICATE_NOT_FOUND: Error = Error::NotFound("Certificate not found");

impl From<rootfs::Error> for Error {
    fn from(error: rootfs::Error) -> Self {
        match error {
            rootfs::Error::Cancelled => Self::Cancelled,
            error => Self::Rootfs(Arc::new(error)),
        }
    }
}

impl From<confined::Error> for Error {
    fn from(error: confined::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::NotFound => Self::NotFound("Not Found"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoSpace(error.to_string()),
            _ => Self::Confined(error),
        }
    }
}

impl From<rootfs::templates::Error> for Error {
    fn from(error: rootfs::templates::Error) -> Self {
        Self::Template(Box::new(error))
    }
}

impl From<lxc::Error> for Error {
    fn from(error: lxc::Error) -> Self {
        Self::Runtime(Arc::new(error))
    }
}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        Self::Format(Arc::new(error))
    }
}

impl Error {
    /// Whether somebody asked for the end.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Cancelled => true,
            Self::Shared(error) => error.is_cancelled(),
            _ => false,
        }
    }

    /// An I/O error while doing `what`; a full disk becomes [`Error::NoSpace`].
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let what = what.into();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoSpace(what),
            _ => Self::Io { what, source },
        }
    }
}
