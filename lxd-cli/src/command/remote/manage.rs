//! `remote get-default`, `switch`, `rename`, `remove` and `set-url`: what needs no server.

use clap::Args;
use lxd_proto::remote::Protocol;
use serde_json::json;

use super::address::{Address, check_name};
use crate::command::flags::ResultFormat;
use crate::config::RemoteEntry;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::suggest::did_you_mean;

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
        let credentials = context.remotes.credentials();
        context.remotes.config.change(|document| {
            if document.has_remote(new) {
                return Err(Failure::new(format!("Remote {new} already exists")));
            }
            document.rename_remote(old, new);
            credentials.rename_pin(old, new)
        })?;
        self.format.done(&json!({ "remote": new, "renamed_from": old }))
    }
}

/// Forget a remote.
#[derive(Debug, Args)]
#[command(after_help = "\
Its accepted certificate is forgotten too; the server is not asked, and goes on trusting this
client until `lxd-cli config trust remove` is used there.

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
        let (name, entry) = self.remote.change(context)?;
        if entry.global {
            return Err(global(name, "removed"));
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
            document.remove_remote(name);
            Ok(())
        })?;
        // Only when nothing refers to it any more.
        context.remotes.credentials().unpin(name)?;
        self.format.done(&json!({ "remote": name, "removed": true }))
    }
}

/// Change where a remote is.
#[derive(Debug, Args)]
#[command(after_help = "\
The server is not asked. An accepted certificate stays the one that is expected; when the server
at the new address shows another, `lxd-cli remote trust REMOTE` accepts it.

Example:
  lxd-cli remote set-url backup https://backup.example.org:8443")]
pub(crate) struct SetUrl {
    #[command(flatten)]
    remote: RemoteArg,
    /// The new address
    url: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl SetUrl {
    pub(super) fn run(&self, context: &Context) -> Outcome {
        let (name, entry) = self.remote.change(context)?;
        let protocol = entry.protocol.parse().unwrap_or(Protocol::Lxd);
        let addr = match Address::parse(&self.url)? {
            Address::Token(_) => return Err(Failure::usage("a token is no address")),
            address => address.url(protocol),
        };
        let entry = RemoteEntry { addr: addr.clone(), ..entry.clone() };
        context.remotes.config.change(|document| {
            document.set_remote(name, &entry);
            Ok(())
        })?;
        self.format.done(&json!({ "remote": name, "addr": addr }))
    }
}

fn global(name: &str, what: &str) -> Failure {
    Failure::new(format!("Remote {name} is global and cannot be {what}"))
}
