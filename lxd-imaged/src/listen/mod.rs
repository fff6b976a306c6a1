//! Listeners: accept connections, tell who is there, hand them to the router.

mod connection;
pub mod unix;
