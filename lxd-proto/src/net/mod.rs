//! The way out: proxies, TLS, who we are, and downloads that survive cuts.

mod access;
mod authorities;
mod backoff;
mod client;
mod dial;
mod document;
mod download;
mod fault;
mod head;
mod identity;
mod peer;
mod proxies;
mod ranges;
mod target;
mod tls;
mod trickle;
mod verifier;

pub use access::{Access, Limits};
pub use authorities::Authorities;
pub use client::Http;
pub use document::{Document, KnownVersion};
pub use download::{Download, DownloadOptions, Piece};
pub use head::Head;
pub use identity::{Identity, IdentityError};
pub use peer::{PeerCertificate, checked_certificate, peer_certificate};
pub use proxies::Proxies;

pub(crate) use dial::{Connection, Stream, dial, dial_socket};
pub(crate) use fault::deepest;
pub(crate) use target::parse;
