//! `operation`: background work on the server.

use clap::{Args, Subcommand};
use lxd_proto::client::LxdClient;
use lxd_proto::operation::Operation;
use lxd_proto::remote::{Error, Progress};
use lxd_proto::status::OperationStatus;
use serde_json::json;

use crate::command::flags::{ListFormat, ResultFormat};
use crate::command::image::info::minute;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::interrupt::interrupted;
use crate::output::{Table, print_list, sort_rows, yaml};
use crate::progress::{Shown, show};
use crate::redact::redact_map;

/// The commands below `operation`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Cancel an operation
    #[command(visible_aliases = ["cancel", "rm"])]
    Delete(Delete),
    /// List operations; finished ones stay for a few seconds
    #[command(visible_alias = "ls")]
    List(List),
    /// Show one operation
    Show(Show),
    /// Wait until an operation has ended
    Wait(Wait),
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Delete(delete) => delete.run(context).await,
        Command::List(list) => list.run(context).await,
        Command::Show(show) => show.run(context).await,
        Command::Wait(wait) => wait.run(context).await,
    }
}

/// List operations.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lxd-cli operation list\n  lxd-cli operation list -f json")]
pub(crate) struct List {
    /// Which server; the default remote if not given
    #[arg(value_name = "REMOTE:")]
    remote: Option<String>,
    /// Show one-time secrets as they are
    #[arg(long)]
    show_secrets: bool,
    #[command(flatten)]
    format: ListFormat,
}

impl List {
    async fn run(&self, context: &Context) -> Outcome {
        let reference = context.remotes.parse(self.remote.as_deref().unwrap_or_default())?;
        if !reference.name.is_empty() {
            return Err(context
                .remotes
                .lacks_colon(&reference.name)
                .unwrap_or_else(|| Failure::usage("Filtering isn't supported yet")));
        }
        let server = context.remotes.server(&reference.remote)?;
        let mut operations = server.list_operations().await?;
        let mut table =
            Table::new(&["ID", "TYPE", "DESCRIPTION", "STATUS", "CANCELABLE", "CREATED"]);
        table.rows = operations.iter().map(row).collect();
        sort_rows(&mut table.rows);
        if !self.show_secrets {
            operations.iter_mut().for_each(hide_secrets);
        }
        print_list(self.format.format, &table, &operations)
    }
}

fn row(operation: &Operation) -> Vec<String> {
    let class = format!("{:?}", operation.class).to_uppercase();
    let cancelable = if operation.may_cancel { "YES" } else { "NO" };
    vec![
        operation.id.clone(),
        class,
        operation.description.clone(),
        operation.status.name().to_uppercase(),
        cancelable.to_owned(),
        minute(operation.created_at),
    ]
}

fn hide_secrets(operation: &mut Operation) {
    if let Some(metadata) = &mut operation.metadata {
        redact_map(metadata);
    }
}

/// Show one operation.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli operation show 09e0c651-77b2-459d-b1da-3d5f42b2a294")]
pub(crate) struct Show {
    /// The operation's id
    #[arg(value_name = "[REMOTE:]ID")]
    id: String,
    /// Show one-time secrets as they are
    #[arg(long)]
    show_secrets: bool,
    #[command(flatten)]
    format: ResultFormat,
}

impl Show {
    async fn run(&self, context: &Context) -> Outcome {
        let (server, id) = named(context, &self.id)?;
        let mut operation = server.get_operation(&id).await?;
        if !self.show_secrets {
            hide_secrets(&mut operation);
        }
        self.format.print(&operation, &yaml(&operation)?)
    }
}

/// Cancel an operation.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli operation delete 09e0c651-77b2-459d-b1da-3d5f42b2a294")]
pub(crate) struct Delete {
    /// The operation's id
    #[arg(value_name = "[REMOTE:]ID")]
    id: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Delete {
    async fn run(&self, context: &Context) -> Outcome {
        let (server, id) = named(context, &self.id)?;
        server.cancel_operation(&id).await?;
        let text = format!("Operation {id} deleted\n");
        self.format.print(&json!({ "id": id, "deleted": true }), &text)
    }
}

/// Wait until an operation has ended.
#[derive(Debug, Args)]
#[command(after_help = "\
The exit status is 1 when the operation failed or was cancelled.

Example:
  lxd-cli operation wait 09e0c651-77b2-459d-b1da-3d5f42b2a294")]
pub(crate) struct Wait {
    /// The operation's id
    #[arg(value_name = "[REMOTE:]ID")]
    id: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Wait {
    async fn run(&self, context: &Context) -> Outcome {
        let (server, id) = named(context, &self.id)?;
        let operation = server.get_operation(&id).await?;
        let shown = show(context.progress, &operation.description, &Progress::default());
        let ended = server.finish(operation, |now| shown.note(&server_progress(now))).await;
        let operation = match ended {
            Ok(operation) => operation,
            Err(Error::Operation(operation)) => *operation,
            Err(error) => return Err(error.into()),
        };
        shown.done();
        let (description, status) = (&operation.description, operation.status.name());
        let text = format!("{description}: {status}\n");
        self.format.print(&operation, &text)?;
        if operation.status == OperationStatus::Success {
            Ok(())
        } else {
            Err(Error::Operation(Box::new(operation)).into())
        }
    }
}

/// Waits for the end of `operation` and shows how far it is. An interrupt cancels it on the
/// server, and fails with `what` ("the import") was cancelled.
///
/// The inner result is the operation's own: [`Error::Operation`] when it did not succeed.
pub(crate) async fn follow(
    context: &Context,
    server: &LxdClient,
    operation: Operation,
    shown: &Shown,
    what: &str,
) -> Outcome<Result<Operation, Error>> {
    context.interrupt.handle();
    let id = operation.id.clone();
    let mut bytes = Bytes::default();
    let see = |now: &Operation| {
        shown.note(&server_progress(now));
        bytes.count(now, shown.progress());
    };
    tokio::select! {
        ended = server.finish(operation, see) => Ok(ended),
        () = context.interrupt.happened() => Err(match server.cancel_operation(&id).await {
            Ok(()) => interrupted(&format!("{what} was cancelled")),
            Err(_) => interrupted(&format!("the server goes on with {what}"))
                .hint(format!("`lxd-cli operation wait {id}` waits for it.")),
        }),
    }
}

/// The numbers that our daemon puts beside the text of its progress.
#[derive(Debug, Default)]
struct Bytes {
    counted: u64,
}

impl Bytes {
    fn count(&mut self, operation: &Operation, progress: &Progress) {
        let numbers = operation.metadata.as_ref().and_then(|metadata| metadata.get("progress"));
        let number = |key: &str| -> Option<u64> { numbers?.get(key)?.as_str()?.parse().ok() };
        if let Some(total) = number("total").filter(|total| *total > 0) {
            progress.set_total(total);
        }
        if let Some(more) = number("processed").and_then(|done| done.checked_sub(self.counted)) {
            self.counted += more;
            progress.add(usize::try_from(more).unwrap_or(usize::MAX));
        }
    }
}

/// What the server says about how far it is, such as `rootfs: 42% (18.20MB/s)`.
pub(crate) fn server_progress(operation: &Operation) -> String {
    let metadata = operation.metadata.iter().flatten();
    let mut progress = metadata.filter(|(key, _)| key.ends_with("_progress"));
    progress.find_map(|(_, value)| value.as_str()).unwrap_or_default().to_owned()
}

fn named(context: &Context, word: &str) -> Outcome<(LxdClient, String)> {
    let reference = context.remotes.parse(word)?;
    if reference.name.is_empty() {
        return Err(Failure::usage(format!("Operation identifier missing: {word}")));
    }
    Ok((context.remotes.server(&reference.remote)?, reference.name))
}
