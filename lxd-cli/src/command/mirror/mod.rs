//! `mirror`: selections of other servers' images that the daemon keeps.

mod bundle;
mod create;
mod edit;
mod list;
mod report;
mod run;

use clap::{Args, Subcommand};
use lxd_proto::client::LxdClient;
use lxd_proto::mirror::Mirror;
use serde_json::json;

use crate::command::flags::ResultFormat;
use crate::command::image::list::for_people;
use crate::command::operation::follow;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{human_size, note, yaml};
use crate::progress::show;
use crate::redact::without_password;
use lxd_proto::remote::Progress;

/// The commands below `mirror`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a mirror of another server's images
    Create(Box<create::Create>),
    /// Delete a mirror
    #[command(visible_alias = "rm")]
    Delete(Delete),
    /// Edit a mirror in an editor, or from standard input
    Edit(edit::Edit),
    /// Write a mirror into one file
    Export(bundle::export::Export),
    /// Take a file in that `mirror export` has written
    Import(bundle::import::Import),
    /// Show a mirror and how its last run went
    Info(Info),
    /// List the mirrors
    #[command(visible_alias = "ls")]
    List(list::List),
    /// Fetch what is new now
    Run(run::Run),
    /// Change settings of a mirror in one step
    Set(edit::Set),
    /// Show a mirror, as YAML
    Show(Show),
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Create(create) => create.run(context).await,
        Command::Delete(delete) => delete.run(context).await,
        Command::Edit(edit) => edit.run(context).await,
        Command::Export(export) => export.run(context).await,
        Command::Import(import) => import.run(context).await,
        Command::Info(info) => info.run(context).await,
        Command::List(list) => list.run(context).await,
        Command::Run(run) => run.run(context).await,
        Command::Set(set) => set.run(context).await,
        Command::Show(show) => show.run(context).await,
    }
}

/// A mirror of a server.
#[derive(Debug, Args)]
pub(crate) struct MirrorArg {
    /// Its name
    #[arg(value_name = "[REMOTE:]MIRROR")]
    mirror: String,
}

impl MirrorArg {
    /// Its server and its name.
    fn open(&self, context: &Context) -> Outcome<(LxdClient, String)> {
        let reference = context.remotes.parse(&self.mirror)?;
        if reference.name.is_empty() {
            return Err(Failure::usage(format!("Mirror name missing: {}", self.mirror)));
        }
        Ok((context.remotes.server(&reference.remote)?, reference.name))
    }
}

/// Show a mirror.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli mirror show debian")]
pub(crate) struct Show {
    #[command(flatten)]
    mirror: MirrorArg,
    #[command(flatten)]
    format: ResultFormat,
}

impl Show {
    async fn run(&self, context: &Context) -> Outcome {
        let (server, name) = self.mirror.open(context)?;
        let mirror = server.get_mirror(&name).await?.value;
        self.format.print(&mirror, &yaml(&mirror)?)
    }
}

/// Show a mirror for people.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli mirror info debian")]
pub(crate) struct Info {
    #[command(flatten)]
    mirror: MirrorArg,
    #[command(flatten)]
    format: ResultFormat,
}

impl Info {
    async fn run(&self, context: &Context) -> Outcome {
        let (server, name) = self.mirror.open(context)?;
        let mirror = server.get_mirror(&name).await?.value;
        self.format.print(&mirror, &text(&mirror))
    }
}

/// A mirror for people: what differs from the defaults, and how it goes.
fn text(mirror: &Mirror) -> String {
    let (config, state) = (&mirror.config, &mirror.state);
    let mut lines = vec![format!("Name: {}", mirror.name)];
    if !config.description.is_empty() {
        lines.push(format!("Description: {}", config.description));
    }
    if config.server.is_empty() {
        lines.push("Source: bundles".to_owned());
    } else {
        let signed = if config.keyring.is_empty() { "" } else { ", signed" };
        let server = without_password(&config.server);
        lines.push(format!("Source: {server} ({}{signed})", config.protocol));
    }
    for (name, globs) in config.filters() {
        if !globs.is_empty() {
            lines.push(format!("Only {name}: {}", globs.as_slice().join(", ")));
        }
    }
    lines.push(format!("Keeps: {} of each product", config.keep));
    let seen = if config.public { "everybody" } else { "trusted clients" };
    lines.push(format!("Shown to: {seen}"));
    if !config.alias_prefix.is_empty() {
        lines.push(format!("Alias prefix: {}", config.alias_prefix));
    }
    if config.bandwidth > 0 {
        lines.push(format!("At most: {}/s", human_size(config.bandwidth)));
    }
    let schedule = match (config.schedule.as_str(), config.enabled) {
        ("", _) => "by hand".to_owned(),
        (schedule, true) => format!("{schedule} (UTC)"),
        (schedule, false) => format!("{schedule} (UTC), disabled"),
    };
    lines.push(format!("Runs: {schedule}"));
    if mirror.declared {
        lines.push("Declared in: mirrors.yaml".to_owned());
    }
    lines.push(format!(
        "Images: {} of {} products, {}",
        state.images,
        state.products,
        human_size(state.bytes)
    ));
    if let Some(run) = &state.last_run {
        let ended = run.ended_at.map(|ended| format!(", ended {}", for_people(ended)));
        lines.push(format!(
            "Last run: {}, began {}{}",
            run.outcome.as_str(),
            for_people(run.started_at),
            ended.unwrap_or_default()
        ));
        lines.push(format!("  {}", report::counts(&run.counts)));
        for fault in &run.errors {
            let what = [fault.product.as_str(), fault.serial.as_str()].join(" ");
            lines.push(format!("  {}: {}", what.trim(), fault.error).replace("  : ", "  "));
        }
    }
    if !state.operation.is_empty() {
        lines.push(format!("Running: operation {}", state.operation));
    }
    if let Some(next) = state.next_run {
        lines.push(format!("Next run: {}", for_people(next)));
    }
    lines.join("\n") + "\n"
}

/// Delete a mirror.
#[derive(Debug, Args)]
#[command(after_help = "\
Its images stay and belong to nobody but you then; --images deletes those that nobody else needs.

Examples:
  lxd-cli mirror delete debian
  lxd-cli mirror delete debian --images")]
pub(crate) struct Delete {
    #[command(flatten)]
    mirror: MirrorArg,
    /// Delete its images too
    #[arg(long)]
    images: bool,
    #[command(flatten)]
    format: ResultFormat,
}

impl Delete {
    async fn run(&self, context: &Context) -> Outcome {
        let (server, name) = self.mirror.open(context)?;
        let operation = server.delete_mirror(&name, self.images).await?;
        let shown = show(context.progress, "Deleting the mirror", &Progress::default());
        let operation = follow(context, &server, operation, &shown, "the deletion").await??;
        shown.done();
        let metadata = operation.metadata.unwrap_or_default();
        let kept = metadata.get("kept").and_then(serde_json::Value::as_array);
        for fingerprint in kept.into_iter().flatten().filter_map(serde_json::Value::as_str) {
            if self.format.is_text() {
                note(&format!("Image {fingerprint} stays: somebody else needs it."));
            }
        }
        self.format.done(&json!({ "name": name, "deleted": true, "images": metadata }))
    }
}
