//! `alias`: names for command lines.

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use crate::command::flags::{ListFormat, ResultFormat};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Shape, Table, print_list, print_result, sort_rows};
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
@ARGS@ stands for all words that follow the alias, @ARG1@, @ARG2@... for one of them; without
any of these, the words are appended.

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
        let mut aliases = context.remotes.config.aliases.clone();
        if aliases.contains_key(&self.alias) {
            return Err(Failure::new(format!("Alias {} already exists", self.alias)));
        }
        aliases.insert(self.alias.clone(), self.target.clone());
        context.remotes.config.save_aliases(&aliases)?;
        done(&self.format, &json!({ "alias": self.alias, "target": self.target }))
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
        let mut aliases = context.remotes.config.aliases.clone();
        if aliases.remove(&self.alias).is_none() {
            return Err(missing(context, &self.alias));
        }
        context.remotes.config.save_aliases(&aliases)?;
        done(&self.format, &json!({ "alias": self.alias, "removed": true }))
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
        let mut aliases = context.remotes.config.aliases.clone();
        let Some(target) = aliases.remove(&self.alias) else {
            return Err(missing(context, &self.alias));
        };
        if aliases.contains_key(&self.new) {
            return Err(Failure::new(format!("Alias {} already exists", self.new)));
        }
        aliases.insert(self.new.clone(), target);
        context.remotes.config.save_aliases(&aliases)?;
        done(&self.format, &json!({ "alias": self.new, "renamed_from": self.alias }))
    }
}

/// List the names.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli alias list -f json")]
pub(crate) struct List {
    #[command(flatten)]
    format: ListFormat,
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    alias: &'a str,
    target: &'a str,
}

impl List {
    fn run(&self, context: &Context) -> Outcome {
        let aliases = &context.remotes.config.aliases;
        let mut table = Table::new(&["ALIAS", "TARGET"]);
        table.rows = aliases.iter().map(|(k, v)| vec![k.clone(), v.clone()]).collect();
        sort_rows(&mut table.rows);
        let entries: Vec<_> =
            aliases.iter().map(|(alias, target)| Entry { alias, target }).collect();
        print_list(self.format.format, &table, &entries)
    }
}

fn missing(context: &Context, name: &str) -> Failure {
    let known = context.remotes.config.aliases.keys().map(String::as_str);
    Failure::new(format!("Alias {name} doesn't exist")).maybe_hint(did_you_mean(name, known))
}

/// Silent, as in lxc, unless an object is asked for.
fn done(format: &ResultFormat, object: &serde_json::Value) -> Outcome {
    match format.format.shape {
        Shape::Json | Shape::Yaml => print_result(format.format, object, ""),
        Shape::Table | Shape::Csv | Shape::Compact => Ok(()),
    }
}
