//! `image refresh`: asks the sources of images for newer versions.

use clap::Args;
use lxd_proto::client::LxdClient;
use lxd_proto::fingerprint::Fingerprint;
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
back to it. With -q only the fingerprint of what is current now is printed.

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
    /// What is current now; unknown when the server does not tell what took the place of an
    /// image without a name.
    fingerprint: Option<Fingerprint>,
    /// What was current before.
    was: Fingerprint,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Report {
    /// For people; `None` when there is nothing to say.
    fn text(&self, quiet: bool) -> Option<String> {
        match (&self.error, self.fingerprint) {
            (Some(_), _) => None,
            (None, now) if quiet => now.map(|now| now.to_string()),
            (None, Some(now)) if self.refreshed => Some(format!(
                "Image refreshed successfully! {} -> {}",
                self.was.short(),
                now.short()
            )),
            (None, None) if self.refreshed => Some("Image refreshed successfully!".to_owned()),
            (None, _) => Some("Image already up to date.".to_owned()),
        }
    }
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
            let was = found.resolved.image.fingerprint;
            let image = word.clone();
            let mut report =
                Report { image, refreshed: false, fingerprint: Some(was), was, error: None };
            match refresh(context, found).await {
                Ok(true) => {
                    report.refreshed = true;
                    report.fingerprint = current(found).await;
                }
                Ok(false) => {}
                Err(failure) if failure.code != 1 => return Err(failure),
                Err(failure) => {
                    report.error = Some(failure.error.clone());
                    last = Some(failure);
                }
            }
            if self.format.is_text() {
                self.tell(context, &report)?;
            }
            reports.push(report);
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

    fn tell(&self, context: &Context, report: &Report) -> Outcome {
        let many = self.images.len() > 1;
        let word = &report.image;
        match &report.error {
            Some(error) if many => note(&format!("Error: {word}: {error}")),
            _ => {}
        }
        match report.text(context.quiet) {
            Some(text) if many && !context.quiet => emit(&format!("{word}: {text}\n")),
            Some(text) => emit(&format!("{text}\n")),
            None => Ok(()),
        }
    }
}

/// What has taken the place of an image that was refreshed: what has its name now, or else what
/// the server keeps as its newest version.
async fn current(found: &Found<LxdClient>) -> Option<Fingerprint> {
    let image = &found.resolved.image;
    let server = &found.server;
    if let Some(alias) = image.aliases.first() {
        return Some(server.get_alias(&alias.name).await.ok()?.value.target);
    }
    let versions = server.image_history(&image.fingerprint).await.ok()?;
    let now = versions.iter().find(|version| version.replaced_at.is_none())?;
    Some(now.image.fingerprint)
}

/// Whether there was a newer version.
async fn refresh(context: &Context, found: &Found<LxdClient>) -> Outcome<bool> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_told_with_what_is_current_now() {
        let (was, now) = (Fingerprint::from_bytes([0xaa; 32]), Fingerprint::from_bytes([0xbb; 32]));
        let mut report =
            Report { image: "v".into(), refreshed: true, fingerprint: Some(now), was, error: None };
        let text = "Image refreshed successfully! aaaaaaaaaaaa -> bbbbbbbbbbbb";
        assert_eq!(report.text(false).as_deref(), Some(text));
        assert_eq!(report.text(true), Some(now.to_string()));
        let object = serde_json::to_value(&report).unwrap();
        assert_eq!(object["fingerprint"], now.to_string());
        assert_eq!(object["was"], was.to_string());
        report.fingerprint = None;
        assert_eq!(report.text(false).as_deref(), Some("Image refreshed successfully!"));
        assert_eq!(report.text(true), None);
        report = Report { refreshed: false, fingerprint: Some(was), ..report };
        assert_eq!(report.text(false).as_deref(), Some("Image already up to date."));
        assert_eq!(report.text(true), Some(was.to_string()));
        report.error = Some("no".into());
        assert_eq!((report.text(false), report.text(true)), (None, None));
    }
}
