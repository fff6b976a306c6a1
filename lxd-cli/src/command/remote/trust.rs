//! `remote trust`: the certificate that a remote shows now is the right one.

use clap::Args;
use lxd_proto::net::peer_certificate;
use serde_json::json;

use super::certificate::AcceptFlags;
use super::manage::RemoteArg;
use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::note;
use crate::remotes::stranger;

/// Accept the certificate that a remote shows now.
#[derive(Debug, Args)]
#[command(after_help = "\
For a server that got a new certificate. Compare the fingerprint with what its owner tells.

Examples:
  lxd-cli remote trust backup
  lxd-cli remote trust backup --fingerprint bf6499d6076d1eb8be8f53ebfad6e77226dc1e18424064dd62638c5a840f0902")]
pub(crate) struct Trust {
    #[command(flatten)]
    remote: RemoteArg,
    #[command(flatten)]
    accept: AcceptFlags,
    #[command(flatten)]
    format: ResultFormat,
}

impl Trust {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let (name, entry) = self.remote.find(context)?;
        if !entry.addr.starts_with("https:") {
            return Err(Failure::new(format!("{name} is on this machine: it has no certificate")));
        }
        let credentials = context.remotes.credentials();
        let shown = peer_certificate(&entry.addr, &stranger()).await?;
        let pinned = credentials.pinned(name)?;
        let object = json!({ "remote": name, "fingerprint": shown.fingerprint });
        if pinned.trim() == shown.pem.trim() {
            return self.format.print(&object, "This certificate is accepted already.\n");
        }
        if !pinned.is_empty() {
            note(&format!("{name} shows another certificate than before."));
        }
        self.accept.accept(&shown).await?;
        credentials.pin(name, &shown.pem)?;
        self.format.done(&object)
    }
}
