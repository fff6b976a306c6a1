//! `cargo xtask bench`: the benchmark of the tests crate, in release.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{machine, shell};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Arguments of the benchmark: names of scenarios, --help.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Installs the peer, builds for release, runs the scenarios.
pub(crate) fn run(options: &Options) -> Result<()> {
    machine::install(machine::TESTS)?;
    shell::run(&mut shell::cargo(&["build", "--release", "--locked", "--workspace", "--bins"]))?;
    let bench = shell::target().join("release/lxd-bench");
    shell::run(Command::new(bench).args(&options.arguments).current_dir(shell::root()))
}
