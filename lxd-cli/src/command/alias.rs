//! `alias`: names for command lines.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::command::flags::{ListFormat, ResultFormat};
use crate::config::Document;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Table, print_list, sort_rows};
use crate::suggest::did_you_mean;

/// The commands below `alias`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give a command line a name
    Add(Add),
    /// List the names
    #[command(visible_alias = "ls")]
    List(List),
    /// Remove a name
    #[command(visible_alias = "rm")]
    Remove(Remove),
    /// Change a name
    #[command(visible_alias = "mv")]
    Rename(Rename),
}

/// Runs one of them.
pub(crate) fn run(command: &Command, context: &Context) -> Outcome {
    match command {
        Command::Add(add) => add.run(context),
        Command::List(list) => list.run(context),
        Command::Remove(remove) => remove.run(context),
        Command::Rename(rename) => rename.run(context),
    }
}

/// Give a command line a name.
#[derive(Debug, Args)]
#[command(after_help = "\
@ARGS@ stands for the words that follow the alias, @ARG1@, @ARG2@... for one of them, also within
a word. Words that none of these has placed are appended.

Examples:
  lxd-cli alias add il 'image list -f csv -c lf'
  lxd-cli alias add put 'image import @ARG2@ --alias @ARG1@'")]
pub(crate) struct Add {
    /// The name
    alias: String,
    /// The words it stands for
    target: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Add {
    fn run(&self, context: &Context) -> Outcome {
        context.remotes.config.change(|document| {
            refuse_known(context, document, &self.alias)?;
            document.set_alias(&self.alias, &self.target);
            Ok(())
        })?;
        self.format.done(&json!({ "alias": self.alias, "target": self.target }))
    }
}

/// Remove a name.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli alias remove il")]
pub(crate) struct Remove {
    /// The name
    alias: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Remove {
    fn run(&self, context: &Context) -> Outcome {
        context.remotes.config.change(|document| {
            let removed = document.remove_alias(&self.alias);
            removed.map(drop).ok_or_else(|| missing(context, &self.alias))
        })?;
        self.format.done(&json!({ "alias": self.alias, "removed": true }))
    }
}

/// Change a name.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli alias rename il ill")]
pub(crate) struct Rename {
    /// The name as it is
    alias: String,
    /// The name as it shall be
    new: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Rename {
    fn run(&self, context: &Context) -> Outcome {
        context.remotes.config.change(|document| {
            let target = document.remove_alias(&self.alias);
            let target = target.ok_or_else(|| missing(context, &self.alias))?;
            refuse_known(context, document, &self.new)?;
            document.set_alias(&self.new, &target);
            Ok(())
        })?;
        self.format.done(&json!({ "alias": self.new, "renamed_from": self.alias }))
    }
}

/// List the names.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli alias list -f json")]
pub(crate) struct List {
    #[command(flatten)]
    format: ListFormat,
}

impl List {
    fn run(&self, context: &Context) -> Outcome {
        let aliases = &context.remotes.config.aliases;
        let mut table = Table::new(&["ALIAS", "TARGET"]);
        table.rows = aliases.iter().map(|(k, v)| vec![k.clone(), v.clone()]).collect();
        sort_rows(&mut table.rows);
        print_list(self.format.format, &table, aliases)
    }
}

/// Fails when the name is taken, in the user's file or in the machine's.
fn refuse_known(context: &Context, document: &Document, name: &str) -> Outcome {
    // Of the file itself the document is the newest that is known.
    if document.has_alias(name) || context.remotes.config.global_aliases.contains(name) {
        return Err(Failure::new(format!("Alias {name} already exists")));
    }
    Ok(())
}

fn missing(context: &Context, name: &str) -> Failure {
    let config = &context.remotes.config;
    if config.global_aliases.contains(name) {
        return Failure::new(format!("Alias {name} is the machine's, not yours"))
            .hint(format!("It is in {}.", config.global_dir.display()));
    }
    let known = config.aliases.keys().map(String::as_str);
    Failure::new(format!("Alias {name} doesn't exist")).maybe_hint(did_you_mean(name, known))
}
