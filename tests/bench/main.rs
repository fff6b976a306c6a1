//! `lxd-bench`: what `cargo xtask bench` runs: this daemon and a real LXD in turn, in one run.

mod client;
mod instances;
mod nginx;
mod options;
mod payload;
mod process;
mod report;
mod scenario;
mod server;
mod tls;
mod tree;
mod turns;

use std::time::Instant;

use anyhow::Result;
use clap::Parser;

use options::Options;
use scenario::Bench;

fn main() -> Result<()> {
    let start = Instant::now();
    let options = Options::parse().settled()?;
    let mut bench = Bench::new(options);
    for scenario in bench.options.scenarios() {
        progress(&format!("{scenario:?} …"));
        if let Err(error) = bench.run(scenario) {
            bench.report.note(format!("{scenario:?} was not measured: {error:#}"));
        }
    }
    let took = start.elapsed().as_secs_f64();
    bench.report.note(format!("the whole run took {took:.0} s"));
    bench.report.print()?;
    if let Some(path) = &bench.options.json {
        bench.report.save(path)?;
    }
    Ok(())
}

/// Says on standard error what is being measured.
#[expect(clippy::print_stderr, reason = "a run takes minutes; somebody watches it")]
fn progress(text: &str) {
    eprintln!("bench: {text}");
}
