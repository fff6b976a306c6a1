//! `remote`: the servers that have a name.

mod add;
pub(crate) mod address;
mod certificate;
mod list;
mod manage;
mod trust;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Outcome;

/// The commands below `remote`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give a server a name
    Add(add::Add),
    /// Print the name of the default remote
    GetDefault(manage::GetDefault),
    /// List the known remotes
    #[command(visible_alias = "ls")]
    List(list::List),
    /// Forget a remote
    #[command(visible_alias = "rm")]
    Remove(manage::Remove),
    /// Change a remote's name
    #[command(visible_alias = "mv")]
    Rename(manage::Rename),
    /// Change where a remote is
    SetUrl(manage::SetUrl),
    /// Choose the remote that is meant where none is named
    #[command(visible_alias = "set-default")]
    Switch(manage::Switch),
    /// Accept the certificate that a remote shows now
    Trust(trust::Trust),
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Add(add) => add.run(context).await,
        Command::GetDefault(get) => get.run(context),
        Command::List(list) => list.run(context),
        Command::Remove(remove) => remove.run(context),
        Command::Rename(rename) => rename.run(context),
        Command::SetUrl(set) => set.run(context).await,
        Command::Switch(switch) => switch.run(context),
        Command::Trust(trust) => trust.run(context).await,
    }
}
