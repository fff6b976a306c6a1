//! The way out against servers that cut, stall and lie as they are told.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod conformance;
mod document;
mod download;
mod export;
mod proxy;
mod server;
mod tls;
