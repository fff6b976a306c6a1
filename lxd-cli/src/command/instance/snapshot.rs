//! `snapshot` and `restore`: states of an instance to come back to.

use clap::Args;
use jiff::Timestamp;
use lxd_proto::instance::{InstancePut, SnapshotsPost};
use serde_json::json;

use super::{Named, wait};
use crate::command::flags::ResultFormat;
use crate::command::image::edit::parse_time;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::suggest::did_you_mean;

/// Keep the state of an instance's files and configuration.
#[derive(Debug, Args)]
#[command(after_help = "\
Without a name the server takes snap0, snap1 and so on.

Examples:
  lxd-cli snapshot web
  lxd-cli snapshot web before-update
  lxd-cli snapshot web nightly --reuse --expire 2030-01-31")]
pub(crate) struct Take {
    /// The instance
    #[arg(value_name = "[REMOTE:]NAME")]
    instance: String,
    /// A name for the snapshot
    #[arg(value_name = "SNAPSHOT")]
    name: Option<String>,
    /// When the snapshot may go, such as 2030-01-31
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expire: Option<Timestamp>,
    /// Keep the snapshot for good; it is kept anyway unless --expire is given
    #[arg(long, conflicts_with = "expire")]
    no_expiry: bool,
    /// Replace a snapshot of that name
    #[arg(long, requires = "name")]
    reuse: bool,
    #[command(flatten)]
    format: ResultFormat,
}

/// Bring an instance back to a snapshot.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli restore web before-update")]
pub(crate) struct Restore {
    /// The instance
    #[arg(value_name = "[REMOTE:]NAME")]
    instance: String,
    /// The snapshot
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Take {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let named = Named::instance(context, &self.instance)?;
        let server = &named.server;
        let post = SnapshotsPost {
            name: self.name.clone().unwrap_or_default(),
            stateful: false,
            expires_at: self.expire,
        };
        if self.reuse && server.get_snapshot(&named.name, &post.name).await.is_ok() {
            let operation = server.delete_snapshot(&named.name, &post.name).await?;
            wait(context, server, operation, "the deletion of the old snapshot").await?;
        }
        let begun = server.create_snapshot(&named.name, &post).await;
        let operation = named.ok(begun).await?;
        let what = format!("the snapshot of {}", named.name);
        wait(context, server, operation, &what).await.map_err(|failure| self.in_words(failure))?;
        self.format.done(&json!({ "instance": named.name, "snapshot": self.name }))
    }

    /// LXD's words about its database, as what they mean.
    fn in_words(&self, failure: Failure) -> Failure {
        let (Some(name), true) = (&self.name, failure.error.contains("already exists")) else {
            return failure;
        };
        let detail = Some(failure.error);
        Failure {
            detail,
            ..Failure::new(format!("{} has a snapshot \"{name}\" already", self.instance))
                .hint("--reuse replaces it.")
        }
    }
}

impl Restore {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let named = Named::instance(context, &self.instance)?;
        let server = &named.server;
        // As "NAME/SNAPSHOT" the snapshot may be written too.
        let prefix = format!("{}/", named.name);
        let snapshot = self.snapshot.strip_prefix(&prefix).unwrap_or(&self.snapshot);
        let read = server.list_snapshots(&named.name).await;
        let known = named.ok(read).await?;
        if !known.iter().any(|other| other.name == snapshot) {
            let names = known.iter().map(|other| other.name.as_str());
            let error = format!("Snapshot {}/{snapshot} does not exist", named.name);
            return Err(Failure::new(error).maybe_hint(did_you_mean(snapshot, names)));
        }
        let put = InstancePut { restore: snapshot.to_owned(), ..InstancePut::default() };
        let operation = server.put_instance(&named.name, &put, None).await?;
        wait(context, server, operation, &format!("the restoring of {}", named.name)).await?;
        self.format.done(&json!({ "instance": named.name, "snapshot": snapshot }))
    }
}
