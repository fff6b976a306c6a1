//! The harness of the end-to-end tests: real daemons, real clients, images made in code.
//!
//! | module | owns |
//! |---|---|
//! | [`daemon`] | processes that serve: `lxd-imaged`, and by [`peer`] a real `lxd` |
//! | [`client`] | one run of `lxc`, `lxd-cli` or another program and what it said |
//! | [`containers`] | a tiny system as an image, and the end of what was started from it |
//! | [`http`], [`events`] | the protocol by hand over the unix socket |
//! | [`fixtures`] | images, good and hostile, from a few bytes to many MiB |
//! | [`mask`] | what two runs may differ in |
//! | [`wait`] | bounded waiting, tests that want the machine for themselves |
//! | [`tool`] | programs a test needs, and the one line that installs them |
//! | [`server`] | daemons on the network, one the remote of another |
//! | [`web`], [`streams`] | a web server with an authority of its own, a simplestreams tree |
//! | [`gnupg`] | keys and signatures by the real `gpg`, and what `gpgv` says |
//! | [`wire`] | connections between two servers: counted, cut, slowed, held |
//! | [`terminal`] | a pseudo terminal, for editors and prompts |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a harness reports a fault by failing the test that uses it"
)]

pub mod client;
pub mod containers;
pub mod daemon;
pub mod events;
pub mod fixtures;
pub mod gnupg;
pub mod http;
pub mod mask;
pub mod peer;
pub mod server;
pub mod streams;
pub mod terminal;
pub mod tool;
pub mod wait;
pub mod web;
pub mod wire;
