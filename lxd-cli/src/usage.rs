//! Wrong command lines: help on standard error, exit status 2.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli;
use crate::failure::USAGE;
use crate::output::emit;

/// Answers what clap could not parse, and requests for help.
pub(crate) fn explain(error: &clap::Error, args: &[OsString]) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp => printed(&error.render().to_string()),
        ErrorKind::DisplayVersion => printed(concat!(env!("CARGO_PKG_VERSION"), "\n")),
        // Without any word, as lxc does: the list of commands is the answer.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if args.len() <= 1 => {
            printed(&error.render().to_string())
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => wrong(&error.render().to_string()),
        ErrorKind::MissingSubcommand if args.len() <= 1 => printed(&help(args)),
        kind => {
            let mut text = help(args);
            text.push('\n');
            text.push_str(&sentence(kind, error));
            wrong(&text)
        }
    }
}

/// Whether the command was asked for JSON, so that its failure is JSON too.
pub(crate) fn wants_json(matches: &ArgMatches) -> bool {
    let mut deepest = matches;
    while let Some((_, sub)) = deepest.subcommand() {
        deepest = sub;
    }
    let Ok(Some(mut values)) = deepest.try_get_raw("format") else { return false };
    values.next().is_some_and(|value| value.to_string_lossy().starts_with("json"))
}

fn printed(text: &str) -> ExitCode {
    match emit(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure.code),
    }
}

fn wrong(text: &str) -> ExitCode {
    // Nowhere else to complain.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(USAGE)
}

/// The help of the command that `args` lead to.
fn help(args: &[OsString]) -> String {
    let mut command = cli::command();
    command.build();
    let mut current = command;
    for arg in args.iter().skip(1) {
        let name = arg.to_string_lossy();
        if name.starts_with('-') {
            continue;
        }
        let Some(sub) = current.get_subcommands().find(|sub| named(sub, &name)) else { break };
        current = sub.clone();
    }
    current.render_help().to_string()
}

fn named(command: &clap::Command, name: &str) -> bool {
    command.get_name() == name || command.get_all_aliases().any(|alias| alias == name)
}

/// What is wrong, in lxc's words where it has some.
fn sentence(kind: ErrorKind, error: &clap::Error) -> String {
    let invalid = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    let mut text = match kind {
        ErrorKind::InvalidSubcommand => {
            format!("Error: unknown command \"{}\"", invalid(ContextKind::InvalidSubcommand))
        }
        ErrorKind::UnknownArgument => {
            let word = invalid(ContextKind::InvalidArg);
            match word.strip_prefix("--") {
                Some(_) => format!("Error: unknown flag: {word}"),
                None if word.starts_with('-') => format!("Error: unknown shorthand flag: {word}"),
                None => format!("Error: one word too many: \"{word}\""),
            }
        }
        ErrorKind::MissingRequiredArgument => {
            format!("Error: missing {}", invalid(ContextKind::InvalidArg))
        }
        _ => {
            let rendered = error.render().to_string();
            let first = rendered.lines().next().unwrap_or_default();
            format!("Error: {}", first.trim_start_matches("error: "))
        }
    };
    for kind in [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg] {
        let close = invalid(kind);
        if !close.is_empty() {
            text.push_str(&format!("\n\nDid you mean this?\n\t{close}"));
        }
    }
    text.push('\n');
    text
}
