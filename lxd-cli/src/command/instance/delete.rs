//! `delete`: finds all first, then deletes instances and snapshots, and says what failed.

use clap::Args;
use lxd_proto::instance::{Action, StatePut};
use serde::Serialize;

use super::{Named, wait};
use crate::command::flags::LongFormat;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::note;
use crate::prompt::ask;

/// Delete instances with their snapshots, or single snapshots.
#[derive(Debug, Args)]
#[command(after_help = "\
All are looked up first; when one is missing, or runs and --force is not given, none is deleted.

Examples:
  lxd-cli delete web
  lxd-cli delete --force web db
  lxd-cli delete web/before-update web/old")]
pub(crate) struct Delete {
    /// Instances and snapshots
    #[arg(value_name = "[REMOTE:]NAME[/SNAPSHOT]", required = true)]
    names: Vec<String>,
    /// Stop those that run
    #[arg(short, long)]
    force: bool,
    /// Ask before each
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    format: LongFormat,
}

/// What became of one.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// One on its way out.
struct Doomed {
    named: Named,
    runs: bool,
    ephemeral: bool,
}

impl Delete {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let all = self.find_all(context).await?;
        let mut reports = Vec::new();
        for doomed in &all {
            let name = doomed.named.shown();
            if self.interactive && !confirmed(&name).await? {
                return Err(Failure::new("User aborted delete operation"));
            }
            let outcome = delete(context, doomed).await;
            let error = outcome.err().map(|failure| failure.error);
            if let (Some(error), true) = (&error, all.len() > 1) {
                note(&format!("{name}: error: {error}"));
            }
            reports.push(Report { name, deleted: error.is_none(), error });
        }
        let failed = reports.iter().filter(|report| !report.deleted).count();
        self.format.result().done(&reports)?;
        match (failed, reports.as_slice()) {
            (0, _) => Ok(()),
            (_, [Report { error: Some(error), .. }]) => Err(Failure::new(error.clone())),
            _ => Err(Failure::new(format!("{failed} of {} could not be deleted", reports.len()))),
        }
    }

    async fn find_all(&self, context: &Context) -> Outcome<Vec<Doomed>> {
        let mut all = Vec::new();
        let mut problems = Vec::new();
        for word in &self.names {
            match self.find(context, word).await {
                Ok(doomed) => all.push(doomed),
                Err(failure) => problems.push(failure),
            }
        }
        let Some(last) = problems.pop() else { return Ok(all) };
        problems.iter().for_each(|failure| note(failure.text(false).trim_end()));
        Err(if self.names.len() > 1 { last.hint("Nothing was deleted.") } else { last })
    }

    async fn find(&self, context: &Context, word: &str) -> Outcome<Doomed> {
        let named = Named::parse(context, word)?;
        if let Some(snapshot) = &named.snapshot {
            let read = named.server.get_snapshot(&named.name, snapshot).await;
            named.ok(read).await?;
            return Ok(Doomed { named, runs: false, ephemeral: false });
        }
        let read = named.server.get_instance(&named.name).await;
        let instance = named.ok(read).await?.value;
        let runs = instance.status.is_up();
        if runs && !self.force {
            let error = "The instance is currently running, stop it first or pass --force";
            return Err(Failure::new(format!("{}: {error}", named.name)));
        }
        Ok(Doomed { named, runs, ephemeral: instance.ephemeral })
    }
}

async fn delete(context: &Context, doomed: &Doomed) -> Outcome {
    let Named { server, name, snapshot, .. } = &doomed.named;
    let what = format!("the deletion of {}", doomed.named.shown());
    if let Some(snapshot) = snapshot {
        let operation = server.delete_snapshot(name, snapshot).await?;
        return wait(context, server, operation, &what).await.map(drop);
    }
    if doomed.runs {
        let put = StatePut { force: true, ..StatePut::new(Action::Stop) };
        let operation = server.put_instance_state(name, &put).await?;
        wait(context, server, operation, &what).await?;
        if doomed.ephemeral {
            return Ok(());
        }
    }
    let operation = server.delete_instance(name).await?;
    wait(context, server, operation, &what).await.map(drop)
}

async fn confirmed(name: &str) -> Outcome<bool> {
    let answer = ask(&format!("Remove {name} (yes/no): ")).await?;
    Ok(answer.is_some_and(|answer| answer.trim() == "yes"))
}
