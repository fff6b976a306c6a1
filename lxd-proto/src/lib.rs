//! The LXD image protocol, told once: paths, headers, wire structs, names and formats,
//! shared by the daemon, the client and the tests.
//!
//! | feature  | adds                                                                   |
//! |----------|------------------------------------------------------------------------|
//! | (none)   | [`routes`], wire structs, [`fingerprint`], [`arch`], [`filter`], [`config`] |
//! | `format`, `client` | [`multipart`]: forms, read as they come                          |
//! | `format` | [`format`]: image files: compression, archive checks, squashfs, qcow2, packing; YAML of [`metadata`] |
//! | `remote` | [`remote`]: the [`remote::Remote`] trait over any image server            |
//! | `client` | [`client`]: `LxdClient` over a unix socket or HTTPS; [`net`]: TLS, proxies, resumable downloads |
//! | `conformance` | the suite that every implementation of `Remote` is held against     |

pub mod alias;
pub mod arch;
pub mod certificate;
pub mod config;
pub mod envelope;
pub mod event;
pub mod extensions;
pub mod filter;
pub mod fingerprint;
pub mod image;
pub mod instance;
pub mod metadata;
pub mod mirror;
pub mod operation;
pub mod profile;
pub mod project;
pub mod routes;
pub mod server;
pub mod status;
pub mod storage;
pub mod time;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "format")]
pub mod format;
#[cfg(any(feature = "client", feature = "format"))]
pub mod multipart;
#[cfg(feature = "client")]
pub mod net;
#[cfg(feature = "remote")]
pub mod remote;

mod wire;
