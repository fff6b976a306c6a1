//! Listeners: accept connections, tell who is there, hand them to the router.

mod client_auth;
mod connection;
mod eager;
mod prompt;
mod sending;
pub mod tls;
pub mod unix;
mod unread;
