//! `cargo xtask e2e`: the end-to-end tests alone.

use anyhow::Result;
use clap::Args;

use crate::{machine, shell};

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Arguments of the test binary: names of tests, --nocapture, --test-threads N.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Installs what is missing, builds the binaries, runs the tests that match.
pub(crate) fn run(options: &Options) -> Result<()> {
    machine::install(machine::TESTS)?;
    machine::python_with_pylxd()?;
    shell::run(&mut shell::cargo(&["build", "--workspace", "--locked"]))?;
    let mut test = shell::cargo(&["test", "--workspace", "--test", "e2e", "--locked", "--"]);
    shell::run(test.args(&options.arguments))
}
