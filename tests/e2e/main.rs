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
mod exec;
mod export;
mod files;
mod hostile;
mod import;
mod incus;
mod info_edit;
mod instances;
mod list;
mod live_streams;
mod load;
mod lxd_cli;
mod memory;
mod mirror;
mod network;
mod operations;
mod properties;
mod publish;
mod pylxd;
mod raw_api;
mod remotes;
mod resume;
mod signed;
mod simplestreams;
mod snapshots;
mod space;
mod startup;
mod streams_launch;
mod streams_tree;
mod templates;
