//! What one types in this repository: `cargo xtask <command>`.

mod bench;
mod demo;
mod dist;
mod e2e;
mod machine;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, checks and shows lxd-imaged.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show the main job on a real Debian image: build it, import, list, edit, export, compare.
    Demo(demo::Options),
    /// Install what the tests need, then run every check: format, clippy, layers, all tests.
    Test,
    /// Run the end-to-end tests alone; arguments go to the test binary (a filter, --nocapture).
    E2e(e2e::Options),
    /// Check what no compiler does: layers, module docs, dependencies.
    Tidy,
    /// Measure ours and a real LXD side by side; arguments go to the benchmark.
    Bench(bench::Options),
    /// Build release binaries and a tarball with checksums in target/dist.
    Dist,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Demo(options) => demo::run(&options),
        Task::Test => test::run(),
        Task::E2e(options) => e2e::run(&options),
        Task::Tidy => tidy::run(),
        Task::Bench(options) => bench::run(&options),
        Task::Dist => dist::run(),
    }
}
