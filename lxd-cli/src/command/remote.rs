//! `remote`: the known servers, to look at.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::command::flags::{ListFormat, ResultFormat};
use crate::config::RemoteEntry;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{Table, print_list, print_result, sort_rows};

/// The commands below `remote`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the name of the default remote
    GetDefault(GetDefault),
    /// List the known remotes
    #[command(visible_alias = "ls")]
    List(List),
}

/// Runs one of them.
pub(crate) fn run(command: &Command, context: &Context) -> Outcome {
    match command {
        Command::GetDefault(get) => get.run(context),
        Command::List(list) => list.run(context),
    }
}

/// Print the name of the default remote.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli remote get-default")]
pub(crate) struct GetDefault {
    #[command(flatten)]
    format: ResultFormat,
}

impl GetDefault {
    fn run(&self, context: &Context) -> Outcome {
        let name = &context.remotes.config.default_remote;
        print_result(self.format.format, &json!({ "default": name }), &format!("{name}\n"))
    }
}

/// List the known remotes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lxd-cli remote list\n  lxd-cli remote list -f json")]
pub(crate) struct List {
    #[command(flatten)]
    format: ListFormat,
}

impl List {
    fn run(&self, context: &Context) -> Outcome {
        let config = &context.remotes.config;
        let headers = ["NAME", "URL", "PROTOCOL", "AUTH TYPE", "PUBLIC", "STATIC", "GLOBAL"];
        let mut table = Table::new(&headers);
        for (name, entry) in &config.remotes {
            let current = *name == config.default_remote;
            let shown = if current { format!("{name} (current)") } else { name.clone() };
            table.rows.push(row(shown, entry));
        }
        sort_rows(&mut table.rows);
        print_list(self.format.format, &table, &config.remotes)
    }
}

fn row(name: String, entry: &RemoteEntry) -> Vec<String> {
    let upper = |value| if value { "YES" } else { "NO" }.to_owned();
    let protocol = if entry.protocol.is_empty() { "lxd" } else { &entry.protocol };
    let auth = if entry.addr.starts_with("unix:") {
        "file access"
    } else if protocol == "simplestreams" {
        "none"
    } else if entry.auth_type.is_empty() {
        "tls"
    } else {
        &entry.auth_type
    };
    let auth = if entry.domain.is_empty() {
        auth.to_owned()
    } else {
        format!("{auth} ({})", entry.domain)
    };
    vec![
        name,
        entry.addr.clone(),
        protocol.to_owned(),
        auth,
        upper(entry.public),
        upper(entry.is_static),
        upper(entry.global),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn rows_are_those_of_lxc() {
        let remotes = Config::load(true).remotes;
        let cells = row("local (current)".into(), &remotes["local"]);
        assert_eq!(cells.join("|"), "local (current)|unix://|lxd|file access|NO|YES|NO");
        let cells = row("images".into(), &remotes["images"]);
        assert_eq!(
            cells.join("|"),
            "images|https://images.linuxcontainers.org|simplestreams|none|YES|NO|NO"
        );
    }
}
