//! The one place that chooses a protocol for a remote. Simplestreams itself is still to come.

mod connect;

pub use connect::connect;
