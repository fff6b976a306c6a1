//! The `lxd-cli` program: reads the command line, runs one command, says how it ended.

mod cli;
mod command;
mod config;
mod context;
mod diff;
mod editor;
mod expand;
mod failure;
mod interrupt;
mod output;
mod progress;
mod redact;
mod remotes;
mod suggest;
mod usage;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::FromArgMatches;

use crate::cli::Cli;
use crate::config::Config;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::interrupt::{Interrupt, interrupted};
use crate::remotes::Remotes;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let force_local = args.iter().any(|arg| arg == "--force-local");
    let config = Config::load(force_local);
    let args = match expand::expand(args, &config.aliases) {
        Ok(args) => args,
        Err(failure) => return ended(Err(failure), false, false),
    };
    let matches = match cli::command().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => return usage::explain(&error, &args),
    };
    let as_json = usage::wants_json(&matches);
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => {
            let debug = cli.global.debug;
            ended(run(cli, config), debug, as_json)
        }
        Err(error) => usage::explain(&error, &args),
    }
}

/// Runs the command; an interrupt drops it, so that everything half done is tidied away.
fn run(cli: Cli, config: Config) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    if let Some(broken) = &config.broken {
        output::note(&format!("Warning: {broken}; only the built-in remotes are known."));
    }
    let project = cli.global.project;
    let context = Context {
        remotes: Remotes { config, project },
        quiet: cli.global.quiet,
        progress: if cli.global.quiet { progress::Style::None } else { cli.global.progress },
        interrupt: Interrupt::default(),
    };
    let outcome = runtime.block_on(async {
        let command = command::run(cli.command, &context);
        tokio::pin!(command);
        tokio::select! {
            outcome = &mut command => return outcome,
            _ = tokio::signal::ctrl_c() => {}
        }
        if !context.interrupt.happen() {
            return Err(interrupted("nothing is left behind here"));
        }
        tokio::select! {
            outcome = &mut command => outcome,
            _ = tokio::signal::ctrl_c() => Err(interrupted("the server may still be at work")),
        }
    });
    // A thread that still reads a silent pipe must not hold the program.
    runtime.shutdown_background();
    outcome
}

fn ended(outcome: Outcome, debug: bool, as_json: bool) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    let text = match serde_json::to_string(&failure) {
        Ok(json) if as_json && !failure.error.is_empty() => format!("{json}\n"),
        _ => failure.text(debug),
    };
    // Nowhere else to complain.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(failure.code)
}
