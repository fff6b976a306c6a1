//! The image daemon: stores, checks and serves LXD images.
//!
//! `listen` accepts connections, `http` parses and replies, `service` does the work over `db`
//! (what is recorded), `store` (bytes) and `ops` (operations and events). ARCHITECTURE.md tells
//! the whole story.

pub mod acquire;
pub mod app;
pub mod catalog;
pub mod certificate;
pub mod clock;
pub mod confined;
pub mod db;
pub mod directory;
pub mod disks;
pub mod error;
pub mod fsck;
pub mod http;
pub mod instances;
pub mod listen;
pub mod lxc;
pub mod mirror;
pub mod network;
pub mod ops;
pub mod rootfs;
pub mod serve;
pub mod service;
pub mod store;
pub mod streams;
pub mod sweep;
pub mod tasks;
pub mod template;
pub mod trees;
pub mod trust;
