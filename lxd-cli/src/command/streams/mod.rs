//! `streams`: simplestreams trees on disk, for any web server to hand out.

mod build;
mod prune;
mod report;
mod sign;
mod verify;

use std::num::NonZeroUsize;

use clap::{Args, Subcommand};
use lxd_simplestreams::builder::{TreeError, default_jobs};

use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// The commands below `streams`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a directory of images a simplestreams tree, or bring one up to date
    Build(build::Build),
    /// Check every file of a tree against what its documents say
    Verify(verify::Verify),
    /// Take old versions out of a tree
    Prune(prune::Prune),
    /// Sign the documents of a tree
    Sign(sign::Sign),
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Build(build) => build.run(context).await,
        Command::Verify(verify) => verify.run(context).await,
        Command::Prune(prune) => prune.run(context).await,
        Command::Sign(sign) => sign.run().await,
    }
}

/// How many threads work.
#[derive(Debug, Args)]
struct JobsFlag {
    /// So many threads; one for each core if not given
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

impl JobsFlag {
    fn get(&self) -> NonZeroUsize {
        self.jobs.unwrap_or_else(default_jobs)
    }
}

impl From<TreeError> for Failure {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Remote(error) => error.into(),
            other => Self::new(other.to_string()),
        }
    }
}
