//! Wrong command lines: help on standard error, exit status 2.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli;
use crate::failure::{Failure, USAGE};
use crate::output::{Format, Shape, emit};

/// Commands of lxc's that are not there, and what to say of them.
const LATER: &[(&[&str], &str)] = &[
    (
        &["import", "export"],
        "Backups of instances are not made; for images there is `lxd-cli image ...`.",
    ),
    (
        &["cluster", "network", "profile", "project", "rebuild", "storage", "warning"],
        "That is a command of lxc's that this client does not have; lxc itself works with this \
         server for all that the server can do.",
    ),
];

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
            let sentence = sentence(kind, error, args);
            match typed_shape(args) {
                shape @ Some(Shape::Json | Shape::Yaml) => {
                    let (error, hint) = sentence.split_once("\n\n").unwrap_or((&sentence, ""));
                    let failure = Failure::usage(error.trim().trim_start_matches("Error: "));
                    let hint = Some(hint.split_whitespace().collect::<Vec<_>>().join(" "));
                    let failure = failure.maybe_hint(hint.filter(|hint| !hint.is_empty()));
                    wrong(&failure.shaped(shape, false))
                }
                _ => wrong(&format!("{}\n{sentence}", help(args))),
            }
        }
    }
}

/// The shape that the command was asked for, so that its failure has it too.
pub(crate) fn wanted_shape(matches: &ArgMatches) -> Option<Shape> {
    let mut deepest = matches;
    while let Some((_, sub)) = deepest.subcommand() {
        deepest = sub;
    }
    let mut values = deepest.try_get_raw("format").ok()??;
    shape(&values.next_back()?.to_string_lossy())
}

/// The same for a command line that could not be parsed.
fn typed_shape(args: &[OsString]) -> Option<Shape> {
    let mut asked = None;
    let mut words = args.iter().map(|arg| arg.to_string_lossy()).take_while(|arg| arg != "--");
    while let Some(word) = words.next() {
        if word == "-f" || word == "--format" {
            asked = words.next();
        } else if let Some(value) = word.strip_prefix("--format=") {
            asked = Some(value.to_owned().into());
        } else if let Some(value) = word.strip_prefix("-f").filter(|_| !word.starts_with("--")) {
            asked = Some(value.trim_start_matches('=').to_owned().into());
        }
    }
    shape(&asked?)
}

fn shape(format: &str) -> Option<Shape> {
    format.parse::<Format>().ok().map(|format| format.shape)
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
    reached(args).render_help().to_string()
}

/// A flag and its value that stand apart where only `--flag=value` can be meant, put together.
fn parted(args: &[OsString]) -> Option<String> {
    let command = reached(args);
    args.windows(2).find_map(|pair| {
        let [flag, value] = [&pair[0], &pair[1]].map(|word| word.to_string_lossy());
        let long = flag.strip_prefix("--")?;
        let found = command.get_arguments().find(|arg| arg.get_long() == Some(long))?;
        let values = found.get_possible_values();
        let is_value = values.iter().any(|possible| possible.matches(&value, false));
        (found.is_require_equals_set() && is_value).then(|| format!("{flag}={value}"))
    })
}

/// The command that `args` lead to.
fn reached(args: &[OsString]) -> clap::Command {
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
    current
}

fn named(command: &clap::Command, name: &str) -> bool {
    command.get_name() == name || command.get_all_aliases().any(|alias| alias == name)
}

/// What is wrong, in lxc's words where it has some.
fn sentence(kind: ErrorKind, error: &clap::Error, args: &[OsString]) -> String {
    let invalid = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    let mut text = match kind {
        ErrorKind::InvalidSubcommand => {
            let word = invalid(ContextKind::InvalidSubcommand);
            let top = args.iter().skip(1).find(|arg| !arg.to_string_lossy().starts_with('-'));
            let at_top = top.is_some_and(|top| top.to_string_lossy() == word);
            let known = LATER.iter().find(|(names, _)| at_top && names.contains(&word.as_str()));
            let mut text = format!("Error: unknown command \"{word}\"");
            if let Some((_, hint)) = known {
                return format!("{text}\n\n{hint}\n");
            }
            if word.is_empty() {
                text.push_str(": one of the commands above is needed");
            }
            text
        }
        ErrorKind::UnknownArgument => {
            let word = invalid(ContextKind::InvalidArg);
            match word.strip_prefix("--") {
                Some(_) => format!("Error: unknown flag: {word}"),
                None if word.starts_with('-') => format!("Error: unknown shorthand flag: {word}"),
                None => {
                    let mut text = format!("Error: one word too many: \"{word}\"");
                    if let Some(joined) = parted(args) {
                        text.push_str(&format!("\n\nDid you mean this?\n\t{joined}"));
                    }
                    text
                }
            }
        }
        ErrorKind::MissingRequiredArgument => {
            format!("Error: missing {}", invalid(ContextKind::InvalidArg))
        }
        _ => {
            let rendered = error.render().to_string();
            let first = rendered.lines().next().unwrap_or_default();
            let valid = invalid(ContextKind::ValidValue);
            let valid = if valid.is_empty() { valid } else { format!(" (it is one of {valid})") };
            format!("Error: {}{valid}", first.trim_start_matches("error: "))
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
