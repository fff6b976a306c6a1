//! `cargo xtask bench`: the benchmark of the tests crate, in release.

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
    let programs = ["build", "--release", "--locked", "-p", "lxd-imaged", "-p", "lxd-cli"];
    shell::run(&mut shell::cargo(&programs))?;
    let bench =
        ["run", "--release", "--locked", "--quiet", "-p", "lxd-tests", "--bin", "lxd-bench", "--"];
    shell::run(shell::cargo(&bench).args(&options.arguments))
}
