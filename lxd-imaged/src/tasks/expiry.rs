//! Removing what has been kept long enough: unused cached images, replaced versions, partial
//! files. What a mirror keeps goes when the mirror says so.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use lxd_proto::config;
use lxd_proto::time;

use crate::acquire::{by_itself, config_number};
use crate::app::App;
use crate::catalog::{Entry, Viewer};
use crate::error::{Error, Result};
use crate::service::images;

/// What a pass did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Cached images and replaced versions removed.
    pub images: usize,
    /// Partial files removed.
    pub partial: usize,
}

/// Removes everything that is due now.
pub async fn run_once(app: &Arc<App>) -> Result<Report> {
    let now = app.clock.now();
    let mut report = Report::default();
    let days = config_number(app, config::REMOTE_CACHE_EXPIRY);
    let kept = (days > 0).then(|| SignedDuration::from_hours(days.min(36_500) * 24));
    for entry in app.catalog.versions(Viewer::Trusted, None) {
        let mirrored = || app.catalog.mirrors.kept(&entry.image.fingerprint).is_some();
        if !is_due(&entry, kept, now) || mirrored() {
            continue;
        }
        let fingerprint = entry.image.fingerprint;
        match images::remove(app, &by_itself(), &fingerprint).await {
            Ok(()) => {
                report.images += 1;
                tracing::info!(image = %fingerprint, "removed an image that nobody used any more");
            }
            Err(Error::NotFound(_)) => {}
            Err(error) => tracing::error!(image = %fingerprint, %error, "cannot remove an image"),
        }
    }
    report.partial = partial(app, now).await?;
    Ok(report)
}

/// Whether the image is here only as long as it is of use, and has not been for so long.
fn is_due(entry: &Entry, kept: Option<SignedDuration>, now: Timestamp) -> bool {
    let image = &entry.image;
    let replaced = entry.origin.as_ref().and_then(|origin| origin.replaced_at);
    if image.cached && replaced.is_none() && !time::is_unset(image.expires_at) {
        // What a person put in is never removed by a clock.
        if image.expires_at <= now {
            return true;
        }
    }
    let (Some(kept), true) = (kept, image.cached || replaced.is_some()) else { return false };
    let since = replaced.unwrap_or(image.uploaded_at);
    let used = if time::is_unset(image.last_used_at) { since } else { image.last_used_at };
    let since = match replaced {
        Some(replaced) => replaced.max(used),
        None => used,
    };
    since.checked_add(kept).is_ok_and(|end| end <= now)
}

async fn partial(app: &Arc<App>, now: Timestamp) -> Result<usize> {
    let task = app.clone();
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let expired = tokio::task::spawn_blocking(move || {
        task.partials.expire(now, |fingerprint| task.pulls.is_running(fingerprint))
    });
    let expired = expired.await.map_err(|error| Error::Internal(error.to_string()))?;
    let expired = expired.map_err(|error| Error::io("cannot look at partial files", error))?;
    Ok(expired.removed)
}
