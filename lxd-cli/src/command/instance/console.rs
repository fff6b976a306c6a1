//! `console`: what an instance has written to its console.

use clap::Args;

use super::Named;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::emit_bytes;

/// Show what an instance has written to its console.
#[derive(Debug, Args)]
#[command(after_help = "\
To work in an instance there is `lxd-cli exec`.

Example:
  lxd-cli console web --show-log")]
pub(crate) struct Console {
    /// The instance
    #[arg(value_name = "[REMOTE:]NAME")]
    instance: String,
    /// Show the log
    #[arg(long)]
    show_log: bool,
}

impl Console {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let named = Named::instance(context, &self.instance)?;
        if !self.show_log {
            return Err(Failure::usage("only the log of a console can be shown, with --show-log")
                .hint(format!("`lxd-cli exec {} -- sh` works in the instance.", self.instance)));
        }
        let read = named.server.console_log(&named.name).await;
        let log = named.ok(read).await?;
        emit_bytes(b"\nConsole log:\n\n")?;
        emit_bytes(&log)?;
        emit_bytes(b"\n")
    }
}
