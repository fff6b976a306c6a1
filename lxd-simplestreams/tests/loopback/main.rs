//! `SimplestreamsRemote` against a web server on the loopback interface.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod catalogs;
mod downloads;
mod signed;
mod support;
