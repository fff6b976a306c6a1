//! `remote list`: what is known about every remote.

use std::collections::BTreeMap;

use clap::Args;
use lxd_proto::remote::Protocol;
use serde_json::{Value, json};

use crate::command::flags::ListFormat;
use crate::config::RemoteEntry;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{self, Shape, Table, emit, note, print_list, sort_rows};
use crate::redact::without_password;

/// List the known remotes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lxd-cli remote list\n  lxd-cli remote list -f json")]
pub(crate) struct List {
    #[command(flatten)]
    format: ListFormat,
}

impl List {
    pub(super) fn run(&self, context: &Context) -> Outcome {
        let config = &context.remotes.config;
        let mut remotes: BTreeMap<_, _> =
            config.remotes.iter().map(|(name, entry)| (name, shown(entry))).collect();
        for (name, entry) in &mut remotes {
            match keyring(context, name) {
                Ok(keys) => entry.keyring = keys,
                Err(failure) => note(&format!("Warning: {name}: {}", failure.error)),
            }
        }
        for name in config.unusable.keys() {
            if let Some(failure) = config.unusable(name) {
                note(&format!("Warning: {}", failure.error));
            }
        }
        let headers = ["NAME", "URL", "PROTOCOL", "AUTH TYPE", "PUBLIC", "STATIC", "GLOBAL"];
        let mut table = Table::new(&headers);
        for (name, entry) in &remotes {
            let current = **name == config.default_remote;
            let name = if current { format!("{name} (current)") } else { (*name).clone() };
            table.rows.push(row(name, entry));
        }
        sort_rows(&mut table.rows);
        if self.format.format.shape == Shape::Json {
            let remotes: BTreeMap<_, _> = config
                .remotes
                .iter()
                .map(|(name, entry)| (name, lxcs(entry, &remotes[name])))
                .collect();
            return emit(&output::json(&remotes)?);
        }
        print_list(self.format.format, &table, &remotes)
    }
}

/// The entry as lxc writes it in JSON, where it has other names than in YAML and nothing is filled
/// in; with the keys that are told.
fn lxcs(entry: &RemoteEntry, told: &RemoteEntry) -> Value {
    let mut object = json!({
        "Addr": without_password(&entry.addr), "AuthType": entry.auth_type, "Domain": entry.domain,
        "Project": entry.project, "Protocol": entry.protocol, "Public": entry.public,
        "Global": entry.global, "Static": entry.is_static,
    });
    if !told.keyring.is_empty() {
        object["Keyring"] = json!(told.keyring);
    }
    object
}

/// The fingerprints of the keys for a remote.
fn keyring(context: &Context, name: &str) -> Outcome<Vec<String>> {
    let entry = context.remotes.entry(name)?;
    if entry.protocol != Protocol::Simplestreams.as_str() {
        return Ok(Vec::new());
    }
    let keyring = context.remotes.keyrings().of(name, &entry.addr)?;
    Ok(keyring.map_or_else(Vec::new, |keyring| keyring.fingerprints()))
}

/// The entry as it is told: complete, and without the password of its address.
fn shown(entry: &RemoteEntry) -> RemoteEntry {
    let mut entry = entry.clone();
    entry.addr = without_password(&entry.addr);
    if entry.protocol.is_empty() {
        Protocol::default().as_str().clone_into(&mut entry.protocol);
    }
    entry
}

fn row(name: String, entry: &RemoteEntry) -> Vec<String> {
    let upper = |value| if value { "YES" } else { "NO" }.to_owned();
    let auth = if entry.addr.starts_with("unix:") {
        "file access"
    } else if !entry.keyring.is_empty() {
        "none (signed)"
    } else if entry.protocol == Protocol::Simplestreams.as_str() {
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
        entry.protocol.clone(),
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
        let cells = row("local (current)".into(), &shown(&remotes["local"]));
        assert_eq!(cells.join("|"), "local (current)|unix://|lxd|file access|NO|YES|NO");
        let cells = row("images".into(), &shown(&remotes["images"]));
        assert_eq!(
            cells.join("|"),
            "images|https://images.linuxcontainers.org|simplestreams|none|YES|NO|NO"
        );
        let json = lxcs(&remotes["local"], &remotes["local"]);
        assert_eq!((&json["Addr"], &json["Static"]), (&"unix://".into(), &true.into()));
        let signed = RemoteEntry {
            addr: "https://h/x".into(),
            protocol: "simplestreams".into(),
            keyring: vec!["AB".into()],
            ..RemoteEntry::default()
        };
        let cells = row("s".into(), &shown(&signed));
        assert_eq!(cells.join("|"), "s|https://h/x|simplestreams|none (signed)|NO|NO|NO");
        assert_eq!(lxcs(&signed, &signed)["Keyring"], json!(["AB"]));
        let secret = RemoteEntry { addr: "https://me:pw@h/x".into(), ..RemoteEntry::default() };
        let cells = row("p".into(), &shown(&secret));
        assert_eq!(cells.join("|"), "p|https://me:***@h/x|lxd|tls|NO|NO|NO");
    }
}
