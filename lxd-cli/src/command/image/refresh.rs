//! `image refresh`: asks the sources of images for newer versions.

use clap::Args;
use lxd_proto::remote::{Progress, Want};
use serde::Serialize;

use crate::command::flags::{Found, ResultFormat, open};
use crate::command::operation::follow;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{emit, note};
use crate::progress::show;

/// Ask an image's source for a newer version.
#[derive(Debug, Args)]
#[command(after_help = "\
The source is the alias on another server that an image was copied from. A newer version takes the
place of the old one, with all its names; `image history` shows the old one, `image rollback` goes
back to it.

Examples:
  lxd-cli image refresh debian/12
  lxd-cli image refresh debian/12 alpine/edge")]
pub(crate) struct Refresh {
    /// Aliases, fingerprints or their beginnings
    #[arg(value_name = "[REMOTE:]IMAGE", required = true)]
    images: Vec<String>,
    #[command(flatten)]
    format: ResultFormat,
}

#[derive(Debug, Serialize)]
struct Report {
    image: String,
    refreshed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Refresh {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        // All are looked up first: a slip of the pen is told before anything is fetched.
        let mut found = Vec::new();
        for word in &self.images {
            found.push(open(context, word, &Want::default()).await?);
        }
        let mut reports = Vec::new();
        let mut last = None;
        for (word, found) in self.images.iter().zip(&found) {
            let (refreshed, error) = match refresh(context, found).await {
                Ok(refreshed) => (refreshed, None),
                Err(failure) if failure.code != 1 => return Err(failure),
                Err(failure) => {
                    let error = failure.error.clone();
                    last = Some(failure);
                    (false, Some(error))
                }
            };
            if self.format.is_text() {
                self.tell(context, word, refreshed, error.as_deref())?;
            }
            reports.push(Report { image: word.clone(), refreshed, error });
        }
        self.format.done(&reports)?;
        let failed = reports.iter().filter(|report| report.error.is_some()).count();
        match (last, failed) {
            (None, _) => Ok(()),
            (Some(failure), 1) if reports.len() == 1 => Err(failure),
            (Some(_), _) => {
                let total = reports.len();
                Err(Failure::new(format!("{failed} of {total} images could not be refreshed")))
            }
        }
    }

    fn tell(&self, context: &Context, word: &str, refreshed: bool, error: Option<&str>) -> Outcome {
        let many = self.images.len() > 1;
        match error {
            Some(error) if many => note(&format!("Error: {word}: {error}")),
            Some(_) => {}
            None if context.quiet => {}
            None => {
                let prefix = if many { format!("{word}: ") } else { String::new() };
                let text = if refreshed {
                    "Image refreshed successfully!"
                } else {
                    "Image already up to date."
                };
                emit(&format!("{prefix}{text}\n"))?;
            }
        }
        Ok(())
    }
}

/// Whether there was a newer version.
async fn refresh(context: &Context, found: &Found<lxd_proto::client::LxdClient>) -> Outcome<bool> {
    let image = &found.resolved.image;
    if image.update_source.is_none() {
        return Err(Failure::new(format!(
            "Image source not found: image {} was not copied from an alias on another server",
            image.fingerprint.short()
        )));
    }
    let operation = found.server.refresh_image(&image.fingerprint).await?;
    let shown = show(context.progress, "Refreshing the image", &Progress::default());
    let operation = follow(context, &found.server, operation, &shown, "the refresh").await??;
    shown.done();
    let metadata = operation.metadata.unwrap_or_default();
    Ok(metadata.get("refreshed").and_then(serde_json::Value::as_bool).unwrap_or(false))
}
