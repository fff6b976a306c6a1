//! Versions of one image: the current one, those that it replaced, and the way back.

use std::sync::Arc;

use lxd_proto::config;
use lxd_proto::event::action;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::image::{ImageVersion, Verified};

use super::images;
use crate::acquire::{by_itself, config_number, follow};
use crate::app::{App, Caller};
use crate::catalog::{Entry, Viewer};
use crate::error::{Error, Result};

/// The versions of an image, newest first.
pub fn history(app: &App, caller: &Caller, prefix: &Prefix) -> Result<Vec<ImageVersion>> {
    let entry = images::get(app, caller, prefix)?;
    let shown = |entry: &Arc<Entry>| ImageVersion {
        image: crate::catalog::shown(&entry.image).into_owned(),
        replaced_at: entry.origin.as_ref().and_then(|origin| origin.replaced_at),
    };
    let versions = versions(app, &entry);
    Ok(versions.iter().filter(|entry| caller.viewer.sees(&entry.image)).map(shown).collect())
}

/// Makes an earlier version current again: of a current image the one before it, of a replaced
/// one itself. Its aliases come back in one transaction; the version that it takes the place of is
/// not taken again by auto-update.
///
/// # Errors
/// [`Error::BadRequest`] when there is no earlier version, or it did not pass its check.
pub async fn rollback(app: &Arc<App>, caller: &Caller, prefix: &Prefix) -> Result<Arc<Entry>> {
    let entry = images::get(app, caller, prefix)?;
    let versions = versions(app, &entry);
    let at = |wanted: &Entry| {
        versions.iter().position(|entry| entry.image.fingerprint == wanted.image.fingerprint)
    };
    let none = || {
        Error::BadRequest(format!(
            "image {} has no earlier version here to go back to",
            entry.image.fingerprint.short()
        ))
    };
    let (from, to) = if entry.is_current() {
        let before = at(&entry).and_then(|index| versions.get(index + 1)).ok_or_else(none)?;
        (entry.clone(), before.clone())
    } else {
        let current = versions.iter().find(|entry| entry.is_current()).ok_or_else(none)?;
        (current.clone(), entry.clone())
    };
    if let Verified::No(reason) = &to.image.verified {
        return Err(Error::BadRequest(format!(
            "image {} is broken, so it cannot become current again: {reason}",
            to.image.fingerprint.short()
        )));
    }
    // Two steps back in a row: the origin still offers the newest.
    let skipped = from.origin.as_ref().and_then(|origin| origin.skipped);
    let skipped = skipped.unwrap_or(from.image.fingerprint);
    let now = follow::replace_by(app, &from.image.fingerprint, &to, Some(skipped)).await?;
    hide(app, &now, versions).await?;
    images::tell(app, caller, action::IMAGE_ROLLED_BACK, &now.image.fingerprint, &[]);
    Ok(now)
}

/// What is newer than the version that is current again is not offered to strangers: they would take
/// it for the newest.
async fn hide(app: &App, now: &Entry, versions: Vec<Arc<Entry>>) -> Result<()> {
    let _one_at_a_time = app.edits.lock().await;
    let newer = versions.iter().filter(|it| it.image.uploaded_at > now.image.uploaded_at);
    for fingerprint in newer.map(|entry| entry.image.fingerprint) {
        images::set_public(app, &fingerprint, false).await?;
    }
    Ok(())
}

/// Has strangers see the versions that an image has replaced, or not, as they are to see itself.
/// Those that came after it, and were given up for it, stay hidden.
pub(super) async fn show(app: &App, current: &Arc<Entry>, public: bool) -> Result<()> {
    if !current.is_current() {
        return Ok(());
    }
    for entry in replaced(app, current) {
        let is_older = entry.image.uploaded_at <= current.image.uploaded_at;
        images::set_public(app, &entry.image.fingerprint, public && is_older).await?;
    }
    Ok(())
}

/// Deletes versions beyond those that are to be kept.
pub async fn prune(app: &Arc<App>, current: &Fingerprint) {
    let Some(entry) = app.catalog.get(current) else { return };
    let keep = usize::try_from(config_number(app, config::KEEP_VERSIONS)).unwrap_or(0);
    let mut replaced = replaced(app, &entry);
    replaced.sort_by_key(|entry| std::cmp::Reverse(replaced_at(entry)));
    for entry in replaced.iter().skip(keep) {
        let fingerprint = entry.image.fingerprint;
        if let Err(error) = images::remove(app, &by_itself(), &fingerprint).await {
            tracing::warn!(image = %fingerprint, %error, "cannot delete a replaced version");
        }
    }
}

/// The versions that another one has replaced.
pub fn replaced(app: &App, entry: &Arc<Entry>) -> Vec<Arc<Entry>> {
    let mut replaced = versions(app, entry);
    replaced.retain(|entry| !entry.is_current());
    replaced
}

fn replaced_at(entry: &Entry) -> Option<jiff::Timestamp> {
    entry.origin.as_ref().and_then(|origin| origin.replaced_at)
}

/// All versions, by when they came, newest first.
fn versions(app: &App, entry: &Arc<Entry>) -> Vec<Arc<Entry>> {
    let Some(lineage) = entry.origin.as_ref().map(|origin| &origin.lineage) else {
        return vec![entry.clone()];
    };
    let mut versions = app.catalog.versions(Viewer::Trusted, None);
    versions.retain(|entry| entry.origin.as_ref().is_some_and(|o| o.lineage == *lineage));
    versions.sort_by_key(|entry| std::cmp::Reverse(entry.image.uploaded_at));
    versions
}
