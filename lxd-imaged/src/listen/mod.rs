//! Listeners: accept connections, tell who is there, hand them to the router.

mod connection;
mod eager;
mod sending;
pub mod unix;
