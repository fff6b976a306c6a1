//! `cargo xtask test`: everything that must hold before a change goes in.

use std::time::Instant;

use anyhow::Result;

use crate::{machine, shell, tidy};

/// Installs what is missing and runs all checks, cheapest first.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    machine::install(machine::TESTS)?;
    shell::run(&mut shell::cargo(&["fmt", "--all", "--check"]))?;
    println!("\n$ cargo xtask tidy");
    tidy::run()?;
    let clippy =
        ["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"];
    shell::run(&mut shell::cargo(&clippy))?;
    machine::python_with_pylxd()?;
    // The end-to-end tests start the binaries, which `cargo test` alone would not build.
    shell::run(&mut shell::cargo(&["build", "--workspace", "--locked"]))?;
    shell::run(&mut shell::cargo(&["test", "--workspace", "--locked"]))?;
    println!("\nAll checks passed in {} s.", start.elapsed().as_secs());
    Ok(())
}
