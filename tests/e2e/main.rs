//! End-to-end tests: real processes, driven by the real `lxc` and by `lxd-cli`.
//!
//! Every test has a daemon and directories of its own; see `lxd_tests` for the harness.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test reports a fault by panicking")]

mod alias;
mod config;
mod crash;
mod debootstrap;
mod delete;
mod differential;
mod events;
mod export;
mod hostile;
mod import;
mod info_edit;
mod list;
mod load;
mod lxd_cli;
mod memory;
mod operations;
mod properties;
mod pylxd;
mod raw_api;
mod space;
mod startup;
