//! The daemon on the network, in process: real TLS, real certificates, no other process.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod access;
mod daemon;
mod https;
mod listener;
mod streams;
mod trust;
