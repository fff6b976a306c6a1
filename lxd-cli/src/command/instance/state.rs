//! `start`, `stop`, `restart` and `pause`: one instance, several at once, or all.

use clap::Args;
use futures_util::future::join_all;
use lxd_proto::client::LxdClient;
use lxd_proto::instance::{Action, InstanceStatus, StatePut};
use lxd_proto::operation::Operation;
use serde_json::json;

use super::{Named, wait};
use crate::command::flags::LongFormat;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::note;

/// Which instances.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The instances
    #[arg(value_name = "[REMOTE:]NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// All instances of the default remote
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    format: LongFormat,
}

/// How to stop.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Kill it at once
    #[arg(short, long)]
    force: bool,
    /// Seconds to wait for a clean stop; -1 waits for ever
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true)]
    timeout: i64,
}

/// Start instances.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lxd-cli start web db\n  lxd-cli start --all")]
pub(crate) struct Start {
    #[command(flatten)]
    which: Which,
}

/// Stop instances.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lxd-cli stop web
  lxd-cli stop web db --timeout 30
  lxd-cli stop --all --force")]
pub(crate) struct Stop {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    how: How,
}

/// Stop and start instances.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lxd-cli restart web\n  lxd-cli restart web --force")]
pub(crate) struct Restart {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    how: How,
}

/// Freeze the processes of instances; `start` lets them go on.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli pause web")]
pub(crate) struct Pause {
    #[command(flatten)]
    which: Which,
}

impl Start {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        self.which.change(context, &StatePut::new(Action::Start), "start").await
    }
}

impl Stop {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        self.which.change(context, &self.how.put(Action::Stop), "stop").await
    }
}

impl Restart {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        self.which.change(context, &self.how.put(Action::Restart), "restart").await
    }
}

impl Pause {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        self.which.change(context, &StatePut::new(Action::Freeze), "pause").await
    }
}

impl How {
    fn put(&self, action: Action) -> StatePut {
        StatePut { force: self.force, timeout: self.timeout, ..StatePut::new(action) }
    }
}

impl Which {
    async fn change(&self, context: &Context, put: &StatePut, verb: &str) -> Outcome {
        let all = self.find(context, put).await?;
        let changes = all.iter().map(|named| change(context, named, put, verb));
        let mut outcomes = join_all(changes).await;
        if outcomes.len() == 1 && !self.all {
            outcomes.pop().unwrap_or(Ok(()))?;
        } else {
            let mut failed = 0;
            for (named, outcome) in all.iter().zip(&outcomes) {
                if let Err(failure) = outcome {
                    failed += 1;
                    note(&format!("{}: error: {}", named.name, failure.error));
                }
            }
            if failed > 0 {
                note("");
                return Err(Failure::new(format!("Some instances failed to {verb}")));
            }
        }
        let names: Vec<_> = all.iter().map(|named| &named.name).collect();
        self.format.result().done(&json!({ "action": verb, "instances": names }))
    }

    async fn find(&self, context: &Context, put: &StatePut) -> Outcome<Vec<Named>> {
        if !self.all {
            return self.names.iter().map(|word| Named::instance(context, word)).collect();
        }
        let remote = context.remotes.config.default_remote.clone();
        let server = context.remotes.server(&remote)?;
        let wants_up = put.action == Action::Start.as_str();
        let mut all = Vec::new();
        for instance in server.list_instances().await? {
            // Those that are already as they should be are left alone.
            if wants_up != (instance.status == InstanceStatus::Running) {
                let (remote, server) = (remote.clone(), server.clone());
                all.push(Named { remote, server, name: instance.name, snapshot: None });
            }
        }
        Ok(all)
    }
}

async fn change(context: &Context, named: &Named, put: &StatePut, verb: &str) -> Outcome {
    let mut put = put.clone();
    let (server, name) = (&named.server, &named.name);
    let starts = put.action == Action::Start.as_str();
    if starts {
        let read = server.get_instance(name).await;
        if named.ok(read).await?.value.status == InstanceStatus::Frozen {
            put = StatePut::new(Action::Unfreeze);
        }
    }
    let begun = server.put_instance_state(name, &put).await;
    let operation = named.ok(begun).await?;
    let what = format!("the {verb} of {name}");
    if starts {
        return started(context, server, &named.remote, name, operation, &what).await;
    }
    wait(context, server, operation, &what).await.map(drop)
}

/// Waits for a start; a failure says where the reason is written.
pub(super) async fn started(
    context: &Context,
    server: &LxdClient,
    remote: &str,
    name: &str,
    operation: Operation,
    what: &str,
) -> Outcome {
    match wait(context, server, operation, what).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.error.contains("already running") => Err(failure),
        Err(failure) => {
            Err(failure.hint(format!("Try `lxd-cli info --show-log {remote}:{name}` for more.")))
        }
    }
}
