//! `image`: everything about images.

pub(crate) mod alias;
pub(crate) mod claims;
pub(crate) mod copy;
mod delete;
pub(crate) mod edit;
pub(crate) mod export;
pub(crate) mod fetching;
mod filter;
mod history;
mod import;
pub(crate) mod info;
pub(crate) mod list;
mod property;
mod refresh;
mod rollback;
mod set;
mod show;
mod update;
mod verify;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Outcome;

/// The commands below `image`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Manage the names of images
    #[command(subcommand, arg_required_else_help = true)]
    Alias(alias::Command),
    /// Copy an image, or all of them, from one server to another
    #[command(visible_alias = "cp")]
    Copy(copy::Copy),
    /// Delete images, with their aliases
    #[command(visible_alias = "rm")]
    Delete(delete::Delete),
    /// Edit an image's properties in an editor, or from standard input
    Edit(edit::Edit),
    /// Write an image into files
    Export(export::Export),
    /// Print one property
    GetProperty(property::Get),
    /// Show the versions that an image has had
    History(history::History),
    /// Add an image from files, a directory, a URL or standard input
    Import(import::Import),
    /// Show everything about an image
    Info(info::Info),
    /// List images
    #[command(visible_alias = "ls")]
    List(list::List),
    /// Ask an image's source for a newer version
    Refresh(refresh::Refresh),
    /// Go back to the version before
    Rollback(rollback::Rollback),
    /// Change properties and flags in one step
    Set(set::Set),
    /// Set one property
    SetProperty(property::Set),
    /// Show what can be edited, as YAML
    Show(show::Show),
    /// Remove one property
    UnsetProperty(property::Unset),
    /// Read a whole image and check it
    Verify(verify::Verify),
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Alias(command) => alias::run(command, context).await,
        Command::Copy(copy) => copy.run(context).await,
        Command::Delete(delete) => delete.run(context).await,
        Command::Edit(edit) => edit.run(context).await,
        Command::Export(export) => export.run(context).await,
        Command::GetProperty(get) => get.run(context).await,
        Command::History(history) => history.run(context).await,
        Command::Import(import) => import.run(context).await,
        Command::Info(info) => info.run(context).await,
        Command::List(list) => list.run(context).await,
        Command::Refresh(refresh) => refresh.run(context).await,
        Command::Rollback(rollback) => rollback.run(context).await,
        Command::Set(set) => set.run(context).await,
        Command::SetProperty(set) => set.run(context).await,
        Command::Show(show) => show.run(context).await,
        Command::UnsetProperty(unset) => unset.run(context).await,
        Command::Verify(verify) => verify.run(context).await,
    }
}
