//! The deep check of images that were accepted before it had ended.

use std::sync::Arc;

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::Role;
use lxd_proto::image::Verified;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::catalog::{Entry, Viewer};
use crate::db::Change;
use crate::error::Error;
use crate::store::checks::{Check, Wanted};

/// Records what `check` finds about an image that has just been accepted.
pub fn follow(app: &Arc<App>, fingerprint: Fingerprint, check: Arc<Check>) {
    app.pending_checks.lock().insert(fingerprint, check.clone());
    let app = app.clone();
    tokio::spawn(async move {
        let verified = match check.verdict(Wanted::Whole).await {
            Ok(_) => Verified::Yes,
            Err(Error::Cancelled | Error::ShuttingDown) => return,
            Err(error) => {
                tracing::error!(image = %fingerprint, %error, "the deep check of an image failed");
                Verified::No(error.to_string())
            }
        };
        app.pending_checks.lock().remove(&fingerprint);
        if let Err(error) = app.db.commit(Change::Verified(fingerprint, verified)).await {
            tracing::error!(image = %fingerprint, %error, "cannot record the deep check");
        }
    });
}

/// Waits until the deep check of an image has ended.
///
/// # Errors
/// What it has found, or that the caller gave up.
pub async fn passed(
    app: &App,
    fingerprint: &Fingerprint,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let check = app.pending_checks.lock().get(fingerprint).cloned();
    if let Some(check) = check {
        tokio::select! {
            verdict = check.verdict(Wanted::Whole) => drop(verdict?),
            () = cancel.cancelled() => return Err(Error::Cancelled),
        }
        return Ok(());
    }
    match app.catalog.get(fingerprint).map(|entry| entry.image.verified.clone()) {
        Some(Verified::Yes) => Ok(()),
        Some(Verified::No(why)) => {
            Err(Error::BadRequest(format!("the image is broken and cannot be used: {why}")))
        }
        Some(Verified::Pending) | None => Err(Error::BadRequest(
            "the image is still being checked; try again when `image info` says Verified: yes"
                .into(),
        )),
    }
}

/// Starts the deep checks again that a restart has cut off.
pub async fn resume(app: &Arc<App>) {
    for entry in app.catalog.versions(Viewer::Trusted, None) {
        if entry.image.verified == Verified::Pending
            && let Err(error) = recheck(app, &entry).await
        {
            tracing::error!(image = %entry.image.fingerprint, %error, "cannot check an image again");
        }
    }
}

async fn recheck(app: &Arc<App>, entry: &Entry) -> Result<(), Error> {
    let (blob, role) = match &entry.rootfs {
        Some(rootfs) => (rootfs, Role::Rootfs),
        None => (&entry.head, Role::Unified),
    };
    let open = app.blobs.get(&blob.digest).await?;
    let open =
        open.ok_or_else(|| Error::Internal(format!("the blob {} is missing", blob.digest)))?;
    let check = app.checks.recheck(role, open.file(), open.size);
    follow(app, entry.image.fingerprint, check);
    Ok(())
}
