//! `image delete`: finds all first, then deletes one after the other and says what is gone.

use clap::Args;
use lxd_proto::client::LxdClient;
use lxd_proto::image::Image;
use lxd_proto::remote::Want;
use serde::Serialize;

use crate::command::flags::{Found, ResultFormat, open};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Shape, emit, note, print_result};

/// Delete images, with their aliases.
#[derive(Debug, Args)]
#[command(after_help = "\
All images are looked up first; when one is missing, none is deleted.

Examples:
  lxd-cli image delete debian/11 a65894de
  lxd-cli image delete --dry-run debian/11")]
pub(crate) struct Delete {
    /// Aliases, fingerprints or their beginnings
    #[arg(value_name = "[REMOTE:]IMAGE", required = true)]
    images: Vec<String>,
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: ResultFormat,
}

/// One image on its way out.
#[derive(Debug)]
struct Doomed {
    server: LxdClient,
    remote: String,
    image: Image,
}

/// What became of it.
#[derive(Debug, Serialize)]
struct Report {
    fingerprint: String,
    remote: String,
    aliases: Vec<String>,
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Delete {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let doomed = self.find_all(context).await?;
        let as_text =
            matches!(self.format.format.shape, Shape::Table | Shape::Csv | Shape::Compact);
        let mut reports = Vec::new();
        for doomed in &doomed {
            let report = self.delete(doomed).await;
            if as_text {
                self.tell(&report, context.quiet)?;
            }
            reports.push(report);
        }
        if !as_text {
            print_result(self.format.format, &reports, "")?;
        }
        let failed = reports.iter().filter(|report| report.error.is_some()).count();
        if failed == 0 {
            return Ok(());
        }
        Err(Failure::new(format!("{failed} of {} images could not be deleted", reports.len())))
    }

    async fn find_all(&self, context: &Context) -> Outcome<Vec<Doomed>> {
        let mut all: Vec<Doomed> = Vec::new();
        let mut problems = Vec::new();
        for word in &self.images {
            match find(context, word).await {
                Ok(found) => {
                    let same = |other: &&Doomed| {
                        other.remote == found.remote
                            && other.image.fingerprint == found.image.fingerprint
                    };
                    if all.iter().find(same).is_none() {
                        all.push(found);
                    }
                }
                Err(failure) => problems.push(failure),
            }
        }
        let Some(first) = problems.pop() else { return Ok(all) };
        // Every problem is told, the last as the error itself.
        problems.iter().for_each(|failure| note(failure.text(false).trim_end()));
        Err(if self.images.len() > 1 { first.hint("Nothing was deleted.") } else { first })
    }

    async fn delete(&self, doomed: &Doomed) -> Report {
        let mut report = Report {
            fingerprint: doomed.image.fingerprint.to_string(),
            remote: doomed.remote.clone(),
            aliases: doomed.image.aliases.iter().map(|alias| alias.name.clone()).collect(),
            deleted: false,
            error: None,
        };
        if self.dry_run {
            return report;
        }
        let outcome = async {
            let operation = doomed.server.delete_image(&doomed.image.fingerprint).await?;
            doomed.server.finish(operation, |_| ()).await
        };
        match outcome.await {
            Ok(_) => report.deleted = true,
            Err(error) => report.error = Some(Failure::from(error).error),
        }
        report
    }

    fn tell(&self, report: &Report, quiet: bool) -> Outcome {
        let names = if report.aliases.is_empty() {
            String::new()
        } else {
            format!(" ({})", report.aliases.join(", "))
        };
        let fingerprint = &report.fingerprint;
        match (&report.error, report.deleted) {
            (Some(error), _) => {
                note(&format!("Error: {fingerprint}{names} was not deleted: {error}"));
                Ok(())
            }
            (None, _) if quiet => emit(&format!("{fingerprint}\n")),
            (None, true) => emit(&format!("Image deleted: {fingerprint}{names}\n")),
            (None, false) => emit(&format!("Image would be deleted: {fingerprint}{names}\n")),
        }
    }
}

async fn find(context: &Context, word: &str) -> Outcome<Doomed> {
    let Found { remote, server, resolved } = open(context, word, &Want::default()).await?;
    Ok(Doomed { server, remote, image: resolved.image })
}
