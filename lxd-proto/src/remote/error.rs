//! What goes wrong between us and an image server, as one enum.

use std::io;

use crate::fingerprint::Fingerprint;
use crate::operation::Operation;

/// The result of everything that asks an image server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request to an image server failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server answered with an error; the text is the server's.
    #[error("{message}")]
    Api {
        /// HTTP status.
        status: u16,
        /// The server's words.
        message: String,
    },
    /// An operation ended in failure or was cancelled; the text is the server's.
    #[error("{}", failure(.0))]
    Operation(Box<Operation>),
    /// Nobody answers at the address.
    #[error("cannot reach {endpoint}: {source}")]
    Connect {
        /// Socket path or URL.
        endpoint: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The server's certificate is not to be trusted.
    #[error("cannot trust {endpoint}: {reason}")]
    Tls {
        /// URL.
        endpoint: String,
        /// Why. What to do depends on who asks: only a remote has a certificate to accept.
        reason: String,
    },
    /// Something answers, but no TLS connection comes about, whatever its certificate.
    #[error("cannot speak TLS with {endpoint}: {reason}")]
    Handshake {
        /// URL.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// This is no address of a server.
    #[error("\"{address}\" is no address of a server: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The connection broke in the middle.
    #[error("the connection to {endpoint} broke: {reason}")]
    Transport {
        /// Socket path or URL.
        endpoint: String,
        /// What broke.
        reason: String,
    },
    /// Nothing came for too long.
    #[error("{endpoint} has been silent for {seconds} seconds, giving up")]
    Silent {
        /// Socket path or URL.
        endpoint: String,
        /// How long we waited.
        seconds: u64,
    },
    /// So little came that it would never end.
    #[error("{endpoint} has sent only {bytes} bytes in {seconds} seconds, giving up")]
    Slow {
        /// Socket path or URL.
        endpoint: String,
        /// What came.
        bytes: u64,
        /// While we did nothing but wait.
        seconds: u64,
    },
    /// What came is not what the protocol says.
    #[error("cannot read {what}: {reason}")]
    Decode {
        /// Which answer.
        what: String,
        /// Why not.
        reason: String,
    },
    /// What came is not signed as it has to be, or older than what was seen before.
    #[error("{what} is refused: {reason}")]
    Signature {
        /// Which document of which server.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The bytes that came are not the image that was asked for.
    #[error("Image fingerprint doesn't match. Got {got} expected {expected}")]
    Mismatch {
        /// What was asked for.
        expected: Fingerprint,
        /// What the bytes hash to.
        got: Fingerprint,
    },
    /// The server sends more than it should, or something of another length than it should.
    #[error("{what}: {reason}")]
    Size {
        /// Which answer.
        what: String,
        /// Announced, expected and received.
        reason: String,
    },
    /// The file at the server is not the one it was when the download began.
    #[error("{what} has changed at the server during the download; start again")]
    Changed {
        /// Which file.
        what: String,
    },
    /// A local file or stream failed.
    #[error("{what}: {source}")]
    Io {
        /// Which, and doing what.
        what: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// No image and no alias is called that.
    #[error("Image not found: {reference}")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// Several images begin with the given digits.
    #[error("More than one image matches: {reference}")]
    Ambiguous {
        /// What was asked for.
        reference: String,
        /// The images that match.
        candidates: Vec<Fingerprint>,
    },
    /// This kind of server can't do it.
    #[error("{0}")]
    Unsupported(String),
    /// The caller lost interest.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Whether the server says that the thing does not exist.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { status: 404, .. } | Self::NotFound { .. })
    }

    /// Whether somebody changed the thing since it was read.
    pub const fn is_changed_meanwhile(&self) -> bool {
        matches!(self, Self::Api { status: 412, .. })
    }

    /// Names what a local input or output error belongs to.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

fn failure(operation: &Operation) -> String {
    if operation.err.is_empty() {
        format!("{} ended as {}", operation.description, operation.status.name())
    } else {
        operation.err.clone()
    }
}
