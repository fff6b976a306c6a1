//! `file`: files in and out of an instance.

mod delete;
mod pull;
mod push;

use clap::Subcommand;

use super::Named;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// The commands below `file`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Delete files and empty directories in an instance
    #[command(visible_alias = "rm")]
    Delete(delete::Delete),
    /// Fetch files from an instance
    Pull(pull::Pull),
    /// Send files into an instance
    Push(push::Push),
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Delete(delete) => delete.run(context).await,
        Command::Pull(pull) => pull.run(context).await,
        Command::Push(push) => push.run(context).await,
    }
}

/// A path in an instance.
#[derive(Debug)]
struct Place {
    named: Named,
    /// Absolute; ends with a slash where one was written.
    path: String,
}

impl Place {
    /// What `[REMOTE:]NAME/PATH` names.
    fn parse(context: &Context, word: &str, role: &str) -> Outcome<Self> {
        let reference = context.remotes.parse(word)?;
        let Some((name, path)) =
            reference.name.split_once('/').filter(|(name, _)| !name.is_empty())
        else {
            return Err(Failure::usage(format!("Invalid {role} {word}"))
                .hint("A file of an instance is written as [REMOTE:]NAME/PATH."));
        };
        let named = Named::instance(context, &format!("{}:{name}", reference.remote))?;
        Ok(Self { named, path: format!("/{path}") })
    }

    fn shown(&self) -> String {
        format!("{}{}", self.named.name, self.path)
    }

    /// A failure of the server, with the place; `verb` as in "read".
    async fn failed(&self, path: &str, error: lxd_proto::remote::Error) -> Failure {
        let text = error.to_string();
        if text.contains("nstance not found") {
            return self.named.failed(error).await;
        }
        let failure = Failure::from(error);
        Failure { error: format!("{}{path}: {}", self.named.name, failure.error), ..failure }
    }
}

/// The last component of a path; empty for the root.
fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// One path under another.
fn join(directory: &str, name: &str) -> String {
    format!("{}/{name}", directory.trim_end_matches('/'))
}
