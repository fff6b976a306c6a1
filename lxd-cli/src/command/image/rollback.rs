//! `image rollback`: back to the version before.

use clap::Args;
use serde_json::json;

use super::history::versions;
use crate::command::flags::{ImageArg, ResultFormat};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::emit;

/// Go back to the version before.
#[derive(Debug, Args)]
#[command(after_help = "\
All names move back in one step. The version that was left is not taken again by auto-update, but
the next one is. With the fingerprint of an old version that one is gone back to.

Examples:
  lxd-cli image rollback debian/12
  lxd-cli image rollback a65894de6c07")]
pub(crate) struct Rollback {
    #[command(flatten)]
    image: ImageArg,
    #[command(flatten)]
    format: ResultFormat,
}

impl Rollback {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let found = self.image.open(context).await?;
        let named = found.resolved.image.fingerprint;
        let before = versions(&found.server, &found.remote, &named).await?;
        let was = before.iter().find(|version| version.replaced_at.is_none());
        let now = found.server.rollback_image(&named).await?.fingerprint;
        let was = was.map(|version| version.image.fingerprint);
        if context.quiet && self.format.is_text() {
            return emit(&format!("{now}\n"));
        }
        let text = match was {
            Some(was) => format!("Image rolled back: {} -> {}\n", was.short(), now.short()),
            None => format!("Image rolled back to {}\n", now.short()),
        };
        self.format.print(&json!({ "fingerprint": now, "was": was }), &text)
    }
}
