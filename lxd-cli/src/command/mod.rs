//! The commands, one file each.

pub(crate) mod alias;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod flags;
pub(crate) mod image;
pub(crate) mod info;
pub(crate) mod instance;
pub(crate) mod mirror;
pub(crate) mod monitor;
pub(crate) mod operation;
pub(crate) mod query;
pub(crate) mod remote;
pub(crate) mod streams;
pub(crate) mod version;

use crate::cli::Command;
use crate::context::Context;
use crate::failure::Outcome;

/// Runs one command to its end.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Launch(launch) => launch.run(context).await,
        Command::Init(init) => init.run(context).await,
        Command::List(list) => list.run(context).await,
        Command::Start(start) => start.run(context).await,
        Command::Stop(stop) => stop.run(context).await,
        Command::Restart(restart) => restart.run(context).await,
        Command::Pause(pause) => pause.run(context).await,
        Command::Exec(exec) => exec.run(context).await,
        Command::File(command) => instance::file::run(command, context).await,
        Command::Console(console) => console.run(context).await,
        Command::Snapshot(take) => take.run(context).await,
        Command::Restore(restore) => restore.run(context).await,
        Command::Copy(copy) => copy.run(context).await,
        Command::Rename(rename) => rename.run(context).await,
        Command::Publish(publish) => publish.run(context).await,
        Command::Delete(delete) => delete.run(context).await,
        Command::Image(command) => image::run(command, context).await,
        Command::Mirror(command) => mirror::run(command, context).await,
        Command::Config(command) => config::run(command, context).await,
        Command::Operation(command) => operation::run(command, context).await,
        Command::Remote(command) => remote::run(command, context).await,
        Command::Streams(command) => streams::run(command, context).await,
        Command::Alias(command) => alias::run(&command, context),
        Command::Info(info) => info.run(context).await,
        Command::Version(version) => version.run(context).await,
        Command::Monitor(monitor) => monitor.run(context).await,
        Command::Query(query) => query.run(context).await,
        Command::Doctor(doctor) => doctor.run(context).await,
        Command::Completion(completion) => completion.run(),
    }
}
