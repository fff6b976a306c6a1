//! What it means when a server does not give its documents.

use std::io;

use lxd_proto::remote::Error;

/// Why the server gave no current listing.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether a listing from before is better than nothing.
    pub(super) passing: bool,
}

/// Whether the server may be well again in a while.
pub(super) fn is_passing(error: &Error) -> bool {
    match error {
        Error::Connect { .. }
        | Error::Transport { .. }
        | Error::Silent { .. }
        | Error::Slow { .. }
        | Error::Decode { .. }
        | Error::Size { .. } => true,
        Error::Api { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
        _ => false,
    }
}

/// The error of a whole tree: a missing document does not mean that an image is missing.
pub(super) fn no_tree(error: Error, tree: &str) -> Error {
    if error.is_not_found() {
        let reason = format!("{error}; is this a simplestreams server?");
        return Error::Decode { what: format!("the catalogs of {tree}"), reason };
    }
    error
}

/// The same error for another caller.
pub(super) fn copy(error: &Error) -> Error {
    match error {
        Error::Api { status, message } => Error::Api { status: *status, message: message.clone() },
        Error::Connect { endpoint, source } => Error::Connect {
            endpoint: endpoint.clone(),
            source: io::Error::new(source.kind(), source.to_string()),
        },
        Error::Tls { endpoint, reason } => {
            Error::Tls { endpoint: endpoint.clone(), reason: reason.clone() }
        }
        Error::Handshake { endpoint, reason } => {
            Error::Handshake { endpoint: endpoint.clone(), reason: reason.clone() }
        }
        Error::Transport { endpoint, reason } => {
            Error::Transport { endpoint: endpoint.clone(), reason: reason.clone() }
        }
        Error::Silent { endpoint, seconds } => {
            Error::Silent { endpoint: endpoint.clone(), seconds: *seconds }
        }
        Error::Slow { endpoint, bytes, seconds } => {
            Error::Slow { endpoint: endpoint.clone(), bytes: *bytes, seconds: *seconds }
        }
        Error::Decode { what, reason } => {
            Error::Decode { what: what.clone(), reason: reason.clone() }
        }
        Error::Signature { what, reason } => {
            Error::Signature { what: what.clone(), reason: reason.clone() }
        }
        Error::Size { what, reason } => Error::Size { what: what.clone(), reason: reason.clone() },
        other => Error::Unsupported(other.to_string()),
    }
}
