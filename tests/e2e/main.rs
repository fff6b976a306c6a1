//! End-to-end tests: real processes, driven by the real `lxc` and by `lxd-cli`.
//!
//! Every test has a daemon and directories of its own; see `lxd_tests` for the harness.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test reports a fault by panicking")]

mod alias;
mod cache;
mod config;
mod copies;
mod crash;
mod debootstrap;
mod delete;
mod differential;
mod events;
mod export;
mod hostile;
mod import;
mod incus;
mod info_edit;
mod list;
mod load;
mod lxd_cli;
mod memory;
mod network;
mod operations;
mod properties;
mod pylxd;
mod raw_api;
mod remotes;
mod resume;
mod simplestreams;
mod space;
mod startup;
