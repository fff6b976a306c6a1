//! `copy`: another instance with the files and the configuration of one, on the same server.

use clap::Args;
use lxd_proto::instance::{InstancePut, InstanceSource, InstancesPost, key};
use serde_json::json;

use super::settings::{Settings, copied};
use super::{Named, created_name, wait_shown};
use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::emit;

/// Copy an instance, or a snapshot of one.
#[derive(Debug, Args)]
#[command(after_help = "\
The copy is on the same server. To another server an instance goes as an image: publish it, copy
the image, launch it there.

Examples:
  lxd-cli copy web web2
  lxd-cli copy web/before-update trial -c limits.memory=512MiB
  lxd-cli copy web --instance-only")]
pub(crate) struct Copy {
    /// The instance or snapshot
    #[arg(value_name = "[REMOTE:]NAME[/SNAPSHOT]")]
    from: String,
    /// A name for the copy; without one the server makes one up
    #[arg(value_name = "[REMOTE:][NAME]")]
    to: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// Without its snapshots
    #[arg(long)]
    instance_only: bool,
    #[command(flatten)]
    format: ResultFormat,
}

impl Copy {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let from = Named::parse(context, &self.from)?;
        let name = self.target_name(context, &from)?;
        let mut post = request(&from).await?;
        self.settings.apply(&mut post.put)?;
        post.name.clone_from(&name);
        post.source.instance_only = self.instance_only;
        post.source.container_only = self.instance_only;
        let server = &from.server;
        let begun = server.create_instance(&post).await;
        let operation = from.ok(begun).await?;
        let words = ("Transferring instance", "the copy");
        let operation = wait_shown(context, server, operation, words).await?;
        let made = if name.is_empty() { created_name(&operation)? } else { name.clone() };
        let text = match (context.quiet, name.is_empty()) {
            (true, _) => format!("{made}\n"),
            (false, true) => format!("Instance name is: {made}\n"),
            (false, false) => String::new(),
        };
        if self.format.is_text() {
            return emit(&text);
        }
        self.format.done(&json!({ "from": from.shown(), "name": made }))
    }

    fn target_name(&self, context: &Context, from: &Named) -> Outcome<String> {
        let Some(word) = &self.to else { return Ok(String::new()) };
        let to = context.remotes.parse(word)?;
        if word.contains(':') && to.remote != from.remote {
            let to_server = &to.remote;
            return Err(Failure::new(format!(
                "an instance cannot be copied from {}: to {to_server}:",
                from.remote
            ))
            .hint(format!(
                "As an image it can: `lxd-cli publish {}:{} --alias NAME`, `lxd-cli image copy \
                 {}:NAME {to_server}:`, `lxd-cli launch {to_server}:NAME {word}`.",
                from.remote,
                from.shown(),
                from.remote,
            )));
        }
        if to.name.contains('/') {
            return Err(Failure::usage("a copy is an instance: its name has no slash"));
        }
        Ok(to.name)
    }
}

/// The request for a copy as it is.
async fn request(from: &Named) -> Outcome<InstancesPost> {
    let read = from.server.get_instance(&from.name).await;
    let instance = from.ok(read).await?.value;
    let mut put = InstancePut::from(&instance);
    let mut source = from.name.clone();
    if let Some(name) = &from.snapshot {
        let read = from.server.get_snapshot(&from.name, name).await;
        let snapshot = from.ok(read).await?.value;
        put.config = snapshot.config;
        put.devices = snapshot.devices;
        put.profiles = Some(snapshot.profiles);
        source = format!("{}/{name}", from.name);
    }
    let base_image = put.config.get(key::BASE_IMAGE).cloned().unwrap_or_default();
    put.config = copied(&put.config);
    put.ephemeral = false;
    let source =
        InstanceSource { kind: "copy".to_owned(), base_image, source, ..InstanceSource::default() };
    Ok(InstancesPost { put, source, kind: instance.kind, ..InstancesPost::default() })
}
