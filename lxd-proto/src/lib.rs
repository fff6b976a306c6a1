//! The LXD image protocol, told once: paths, headers, wire structs, names and formats,
//! shared by the daemon, the client and the tests.
//!
//! | feature  | adds                                                                   |
//! |----------|------------------------------------------------------------------------|
//! | (none)   | [`routes`], wire structs, [`fingerprint`], [`arch`], [`filter`], [`config`] |
//! | `format` | [`format`]: image files: compression, archive checks, squashfs, qcow2, packing; YAML of [`metadata`] |
//! | `remote` | [`remote`]: the [`remote::Remote`] trait over any image server            |
//! | `client` | [`client`]: `LxdClient` over a unix socket or HTTPS                    |

pub mod alias;
pub mod arch;
pub mod config;
pub mod envelope;
pub mod event;
pub mod extensions;
pub mod filter;
pub mod fingerprint;
pub mod image;
pub mod metadata;
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
#[cfg(feature = "remote")]
pub mod remote;

mod wire;
