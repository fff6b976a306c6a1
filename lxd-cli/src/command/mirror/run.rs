//! `mirror run`.

use clap::Args;
use lxd_proto::mirror::{MirrorReport, MirrorRunPost};
use lxd_proto::operation::Operation;
use lxd_proto::remote::{Error, Progress};

use super::{MirrorArg, report};
use crate::command::flags::ResultFormat;
use crate::command::operation::follow;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::progress::show;

/// Fetch what is new.
#[derive(Debug, Args)]
#[command(after_help = "\
Versions become visible one by one, each only when it is whole and checked. Old ones go at the end.
What fails is tried again by the next run, from where it broke off. Ctrl-C stops the run; what has
come stays.

Examples:
  lxd-cli mirror run debian --dry-run
  lxd-cli mirror run debian --format json")]
pub(crate) struct Run {
    #[command(flatten)]
    mirror: MirrorArg,
    /// Only tell what a run would do
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: ResultFormat,
}

impl Run {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let (server, name) = self.mirror.open(context)?;
        let operation = server.run_mirror(&name, &MirrorRunPost { dry_run: self.dry_run }).await?;
        let shown = show(context.progress, &format!("Mirror {name}"), &Progress::default());
        let ended = follow(context, &server, operation, &shown, "the run").await?;
        shown.done();
        match ended {
            Ok(operation) => {
                let report = told(&operation)?;
                self.tell(context, &report)?;
                incomplete(&report)
            }
            Err(Error::Operation(operation)) => {
                // Some of it may have been done.
                if let Ok(report) = told(&operation)
                    && !report.items.is_empty()
                {
                    self.tell(context, &report)?;
                }
                Err(Error::Operation(operation).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn tell(&self, context: &Context, report: &MirrorReport) -> Outcome {
        if context.quiet && self.format.is_text() {
            return Ok(());
        }
        self.format.print(report, &report::text(report))
    }
}

/// The report of an operation.
pub(super) fn told(operation: &Operation) -> Outcome<MirrorReport> {
    let report = operation.metadata.as_ref().and_then(|metadata| metadata.get("report"));
    report
        .and_then(|report| serde_json::from_value(report.clone()).ok())
        .ok_or_else(|| Failure::new("the server's answer has no report of the run"))
}

/// Fails when something that is selected is not here.
pub(super) fn incomplete(report: &MirrorReport) -> Outcome {
    let missing = report.counts.failed + report.counts.skipped;
    if missing == 0 {
        return Ok(());
    }
    let failure = Failure::new(format!("{missing} versions could not be mirrored"));
    Err(failure.hint("The next run tries them again."))
}
