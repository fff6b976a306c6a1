//! The `lxd-cli` program: reads the command line, runs one command, says how it ended.

mod cli;
mod command;
mod config;
mod context;
mod credentials;
mod diff;
mod editor;
mod expand;
mod failure;
mod in_use;
mod interrupt;
mod keyrings;
mod output;
mod progress;
mod prompt;
mod redact;
mod remotes;
mod suggest;
mod usage;
mod warnings;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::FromArgMatches;

use crate::cli::Cli;
use crate::config::Config;
use crate::context::Context;
use crate::failure::{Failure, INTERRUPTED, Outcome};
use crate::interrupt::{Interrupt, Signals, interrupted};
use crate::output::Shape;
use crate::remotes::Remotes;

fn main() -> ExitCode {
    warnings::show();
    let args: Vec<OsString> = std::env::args_os().collect();
    let force_local = args.iter().any(|arg| arg == "--force-local");
    let config = Config::load(force_local);
    let args = match expand::expand(args, &config.aliases) {
        Ok(args) => args,
        Err(failure) => return ended(Err(failure), false, None),
    };
    let matches = match cli::command().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => return usage::explain(&error, &args),
    };
    let shape = usage::wanted_shape(&matches);
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => {
            let debug = cli.global.debug;
            ended(run(cli, config), debug, shape)
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
        remotes: Remotes::new(config, project),
        quiet: cli.global.quiet,
        progress: if cli.global.quiet { progress::Style::None } else { cli.global.progress },
        interrupt: Interrupt::default(),
    };
    let outcome = runtime.block_on(async {
        let mut signals = Signals::catch()
            .map_err(|error| Failure::new(format!("cannot watch for signals: {error}")))?;
        let command = command::run(cli.command, &context);
        tokio::pin!(command);
        let mut code = tokio::select! {
            outcome = &mut command => return outcome,
            code = signals.next() => code,
        };
        if !context.interrupt.happen() {
            return Err(Failure { code, ..Failure::new("interrupted") });
        }
        let outcome = tokio::select! {
            outcome = &mut command => outcome,
            again = signals.next() => {
                code = again;
                Err(interrupted("the server may still be at work"))
            }
        };
        outcome.map_err(|failure| match failure.code {
            INTERRUPTED => Failure { code, ..failure },
            _ => failure,
        })
    });
    let outcome =
        outcome.map_err(|failure| failure.advised(|endpoint| context.remotes.opened_at(endpoint)));
    // A thread that still reads a silent pipe must not hold the program.
    runtime.shutdown_background();
    outcome
}

fn ended(outcome: Outcome, debug: bool, shape: Option<Shape>) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    // Nowhere else to complain.
    let _ = std::io::stderr().write_all(failure.shaped(shape, debug).as_bytes());
    ExitCode::from(failure.code)
}
