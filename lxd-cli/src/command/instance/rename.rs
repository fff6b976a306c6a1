//! `rename`: another name for an instance or a snapshot.

use clap::Args;
use serde_json::json;

use super::{Named, wait};
use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// Give an instance or a snapshot another name.
#[derive(Debug, Args)]
#[command(after_help = "\
An instance must not run while it is renamed.

Examples:
  lxd-cli rename web old-web
  lxd-cli rename web/snap0 web/before-update")]
pub(crate) struct Rename {
    /// The instance or snapshot
    #[arg(value_name = "[REMOTE:]NAME[/SNAPSHOT]")]
    from: String,
    /// Its new name
    #[arg(value_name = "NEW")]
    to: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Rename {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let from = Named::parse(context, &self.from)?;
        let to = self.new_name(context, &from)?;
        let server = &from.server;
        let begun = match &from.snapshot {
            None => server.rename_instance(&from.name, &to).await,
            Some(snapshot) => server.rename_snapshot(&from.name, snapshot, &to).await,
        };
        let operation = from.ok(begun).await?;
        wait(context, server, operation, &format!("the renaming of {}", from.shown())).await?;
        self.format.done(&json!({ "from": from.shown(), "to": to }))
    }

    /// The new name alone.
    fn new_name(&self, context: &Context, from: &Named) -> Outcome<String> {
        let to = context.remotes.parse(&self.to)?;
        // A name without a remote means the one that the instance is on.
        if self.to.contains(':') && to.remote != from.remote {
            return Err(Failure::usage("Can't rename an instance to another server").hint(
                "Publish it, copy the image, and launch it there: `lxd-cli publish --help`.",
            ));
        }
        match (&from.snapshot, to.name.split_once('/')) {
            (None, Some(_)) => Err(Failure::usage("an instance cannot become a snapshot")),
            (Some(_), Some((name, snapshot))) if name == from.name => Ok(snapshot.to_owned()),
            (Some(_), Some(_)) => Err(Failure::usage("a snapshot cannot move to another instance")),
            (_, None) if to.name.is_empty() => Err(Failure::usage("the new name is missing")),
            (_, None) => Ok(to.name),
        }
    }
}
