//! `streams`: simplestreams trees on disk, for any web server to hand out.

pub(crate) mod sign;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Outcome;

/// The commands below `streams`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sign the documents of a tree
    Sign(sign::Sign),
}

/// Runs one of them.
pub(crate) async fn run(command: Command, _context: &Context) -> Outcome {
    match command {
        Command::Sign(sign) => sign.run().await,
    }
}
