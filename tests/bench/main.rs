//! `lxd-bench`: what `cargo xtask bench` runs: this daemon and a real LXD in turn, in one run.

mod client;
mod compressed;
mod options;
mod payload;
mod process;
mod report;
mod scenario;
mod server;
mod tree;
mod turns;

use std::time::Instant;

use anyhow::Result;
use clap::Parser;

use options::Options;
use report::Report;

fn main() -> Result<()> {
    let start = Instant::now();
    let options = Options::parse().settled()?;
    let mut report = Report::new(&options);
    for scenario in options.scenarios() {
        progress(&format!("{} …", scenario.name()));
        if let Err(error) = scenario.run(&options, &mut report) {
            report.note(format!("{}: not measured: {error:#}", scenario.name()));
        }
    }
    report.note(format!("the whole run took {:.0} s", start.elapsed().as_secs_f64()));
    report.print()?;
    if let Some(path) = &options.json {
        report.save(path)?;
    }
    Ok(())
}

/// Says on standard error what is being measured.
#[expect(clippy::print_stderr, reason = "a run takes minutes; somebody watches it")]
fn progress(text: &str) {
    eprintln!("bench: {text}");
}
