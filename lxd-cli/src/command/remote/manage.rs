//! `remote get-default`, `switch`, `rename`, `remove` and `set-url`: what is done whether or not
//! the server is there.

use std::time::Duration;

use clap::Args;
use lxd_proto::client::LxdClient;
use lxd_proto::filter::Filter;
use lxd_proto::remote::{Protocol, RemoteSpec};
use lxd_simplestreams::connect;
use serde_json::json;
use tokio::time::timeout;

use super::address::{Address, check_name};
use crate::command::flags::ResultFormat;
use crate::config::RemoteEntry;
use crate::context::Context;
use crate::failure::{Cause, Failure, Outcome};
use crate::output::note;
use crate::redact::without_password;
use crate::suggest::did_you_mean;

/// How long a server at a new address is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Print the name of the default remote.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli remote get-default")]
pub(crate) struct GetDefault {
    #[command(flatten)]
    format: ResultFormat,
}

impl GetDefault {
    pub(super) fn run(&self, context: &Context) -> Outcome {
        let name = &context.remotes.config.default_remote;
        self.format.print(&json!({ "default": name }), &format!("{name}\n"))
    }
}

/// A remote that is there.
#[derive(Debug, Args)]
pub(crate) struct RemoteArg {
    /// The remote's name, with or without a colon
    #[arg(value_name = "REMOTE")]
    remote: String,
}

impl RemoteArg {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.remote.strip_suffix(':').unwrap_or(&self.remote)
    }

    /// Its name and what is known about it.
    pub(super) fn find<'a>(&'a self, context: &'a Context) -> Outcome<(&'a str, &'a RemoteEntry)> {
        let name = self.name();
        let remotes = &context.remotes.config.remotes;
        match remotes.get(name) {
            Some(entry) => Ok((name, entry)),
            None if context.remotes.config.unusable.contains_key(name) => {
                context.remotes.entry(name).map(|entry| (name, entry))
            }
            None => Err(Failure::new(format!("Remote {name} doesn't exist"))
                .maybe_hint(did_you_mean(name, remotes.keys().map(String::as_str)))),
        }
    }

    /// The same, when it may be changed. A remote of the machine's gets the user's own entry
    /// with what was changed.
    fn change<'a>(&'a self, context: &'a Context) -> Outcome<(&'a str, &'a RemoteEntry)> {
        let (name, entry) = self.find(context)?;
        if entry.is_static {
            return Err(Failure::new(format!("Remote {name} is static and cannot be modified")));
        }
        Ok((name, entry))
    }
}

/// Choose the remote that is meant where none is named.
#[derive(Debug, Args)]
#[command(after_help = "\
$LXC_REMOTE wins over it.

Example:
  lxd-cli remote switch backup")]
pub(crate) struct Switch {
    #[command(flatten)]
    remote: RemoteArg,
    #[command(flatten)]
    format: ResultFormat,
}

impl Switch {
    pub(super) fn run(&self, context: &Context) -> Outcome {
        let (name, _) = self.remote.find(context)?;
        context.remotes.config.change(|document| {
            document.set_default_remote(name);
            Ok(())
        })?;
        self.format.done(&json!({ "default": name }))
    }
}

/// Change a remote's name.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli remote rename s2 backup")]
pub(crate) struct Rename {
    #[command(flatten)]
    remote: RemoteArg,
    /// The name as it shall be
    new: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Rename {
    pub(super) fn run(&self, context: &Context) -> Outcome {
        let (old, entry) = self.remote.change(context)?;
        if entry.global {
            return Err(global(old, "renamed"));
        }
        let new = self.new.strip_suffix(':').unwrap_or(&self.new);
        check_name(new)?;
        if context.remotes.config.remotes.contains_key(new) {
            return Err(Failure::new(format!("Remote {new} already exists")));
        }
        let (credentials, keyrings) = (context.remotes.credentials(), context.remotes.keyrings());
        context.remotes.config.change(|document| {
            if document.has_remote(new) {
                return Err(Failure::new(format!("Remote {new} already exists")));
            }
            document.rename_remote(old, new);
            keyrings.rename(old, new, &entry.addr)?;
            credentials.rename_pin(old, new)
        })?;
        self.format.done(&json!({ "remote": new, "renamed_from": old }))
    }
}

/// Forget a remote.
#[derive(Debug, Args)]
#[command(after_help = "\
Its accepted certificate and its keyring are forgotten too; the server is not asked, and goes on
trusting this client until `lxd-cli config trust remove` is used there.

Example:
  lxd-cli remote remove backup")]
pub(crate) struct Remove {
    #[command(flatten)]
    remote: RemoteArg,
    #[command(flatten)]
    format: ResultFormat,
}

impl Remove {
    pub(super) fn run(&self, context: &Context) -> Outcome {
        let name = self.remote.name();
        // An entry that cannot be used can go, too; then only the file says whose it is.
        let unusable = context.remotes.config.unusable.contains_key(name);
        let mut addr = String::new();
        if !unusable {
            let (_, entry) = self.remote.change(context)?;
            if entry.global {
                return Err(global(name, "removed"));
            }
            addr.clone_from(&entry.addr);
        }
        let is_default = || {
            Failure::new(format!("Can't remove the default remote {name}"))
                .hint("Choose another first: `lxd-cli remote switch local`.")
        };
        if context.remotes.config.default_remote == name {
            return Err(is_default());
        }
        context.remotes.config.change(|document| {
            if document.default_remote() == Some(name) {
                return Err(is_default());
            }
            if unusable && !document.has_remote(name) {
                return Err(global(name, "removed"));
            }
            document.remove_remote(name);
            Ok(())
        })?;
        // Only when nothing refers to it any more.
        context.remotes.credentials().unpin(name)?;
        context.remotes.keyrings().remove(name, &addr)?;
        self.format.done(&json!({ "remote": name, "removed": true }))
    }
}

/// Change where a remote is.
#[derive(Debug, Args)]
#[command(after_help = "\
The address is saved whatever is there, since a server may be about to move; then it is asked, and
a warning tells when it does not answer as this remote should. An accepted certificate stays the
one that is expected; when the server at the new address shows another, `lxd-cli remote trust
REMOTE` accepts it.

Example:
  lxd-cli remote set-url backup https://backup.example.org:8443")]
pub(crate) struct SetUrl {
    #[command(flatten)]
    remote: RemoteArg,
    /// The new address
    url: String,
    /// Do not ask the server
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    format: ResultFormat,
}

impl SetUrl {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let (name, entry) = self.remote.change(context)?;
        let protocol = entry.protocol.parse().unwrap_or(Protocol::Lxd);
        let addr = match Address::parse(&self.url)? {
            Address::Token(_) => return Err(Failure::usage("a token is no address")),
            address => address.url(protocol),
        };
        let before = &entry.addr;
        let entry = RemoteEntry { addr: addr.clone(), ..entry.clone() };
        let keyrings = context.remotes.keyrings();
        context.remotes.config.change(|document| {
            document.set_remote(name, &entry);
            keyrings.moved(name, before, &addr)
        })?;
        let addr = without_password(&addr);
        let warning = if self.no_check { None } else { doubt(context, name, &entry).await };
        if let Some(warning) = &warning {
            note(&format!("Warning: {name}: the address is saved, but {warning}"));
        }
        match warning {
            None => self.format.done(&json!({ "remote": name, "addr": addr })),
            Some(warning) => {
                self.format.done(&json!({ "remote": name, "addr": addr, "warning": warning }))
            }
        }
    }
}

/// Why the server of a changed entry cannot be used as it is; `None` when it can.
async fn doubt(context: &Context, name: &str, entry: &RemoteEntry) -> Option<String> {
    let asked = async {
        let spec = RemoteSpec { address: entry.addr.clone(), ..context.remotes.spec(name)? };
        let access = context.remotes.access(name)?;
        if spec.protocol == Protocol::Simplestreams {
            connect(spec, &access)?.images(&Filter::default()).await?;
            return Ok(None);
        }
        let server = LxdClient::new(spec, &access)?.server().await?.value;
        let stranger = !entry.public && server.auth != "trusted";
        Ok(stranger.then(|| "the server there does not trust this client.".to_owned()))
    };
    let failure: Failure = match timeout(PATIENCE, asked).await {
        Ok(Ok(doubt)) => return doubt,
        Ok(Err(failure)) => failure,
        Err(_) => Failure::new(format!("nobody answered within {} s", PATIENCE.as_secs())),
    };
    let remedy = match failure.cause {
        Cause::Untrusted => format!(
            "if its owner says that the certificate is right, `lxd-cli remote trust {name}` \
             accepts it"
        ),
        _ => format!("`lxd-cli doctor {name}:` looks for the reason"),
    };
    Some(format!("{}; {remedy}.", failure.error))
}

fn global(name: &str, what: &str) -> Failure {
    Failure::new(format!("Remote {name} is global and cannot be {what}"))
}
