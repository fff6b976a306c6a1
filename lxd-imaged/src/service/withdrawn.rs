//! Files of simplestreams clients: those of public images, and for a while those of images that
//! were public until they were deleted. Clients keep catalogs, for an hour or longer.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::SignedDuration;
use lxd_proto::config;
use lxd_proto::fingerprint::Fingerprint;

use crate::acquire::config_number;
use crate::app::App;
use crate::catalog::{Entry, Viewer};
use crate::db::{Change, Withdrawal, WithdrawnFile};
use crate::error::Result;
use crate::streams::files;

/// The longest grace time, in minutes: a year.
const LONGEST: i64 = 365 * 24 * 60;

/// How long files are served after their image was deleted.
fn grace(app: &App) -> SignedDuration {
    SignedDuration::from_mins(config_number(app, config::STREAMS_GRACE).clamp(0, LONGEST))
}

/// The size of a file that anybody may have under this name; `None` for every other file, whether
/// it is private, withdrawn too long ago or not there at all.
pub fn size(app: &App, digest: &Fingerprint, name: &str) -> Option<u64> {
    let publisher = app.catalog.publisher(digest, |entry| files::has(entry, digest, name));
    if let Some(entry) = publisher {
        let file = files::all(&entry).find(|(known, _)| *known == name);
        return file.map(|(_, blob)| blob.size);
    }
    let file = app.catalog.withdrawn(digest, name)?;
    let end = file.withdrawn_at.checked_add(grace(app));
    end.is_ok_and(|end| app.clock.now() < end).then_some(file.size)
}

/// What deletes an image, and keeps its files where somebody may have read of them.
pub fn deletion(app: &App, entry: &Entry) -> Change {
    let fingerprint = entry.image.fingerprint;
    let is_listed = Viewer::Stranger.sees(&entry.image);
    let is_reached = app.catalog.config().contains_key(config::HTTPS_ADDRESS);
    if !is_listed || !is_reached || grace(app).is_zero() {
        return Change::Delete(fingerprint);
    }
    let withdrawn_at = app.clock.now();
    let files = files::all(entry)
        .map(|(name, blob)| WithdrawnFile {
            digest: blob.digest,
            name: name.to_owned(),
            image: fingerprint,
            size: blob.size,
            withdrawn_at,
        })
        .collect();
    Change::Withdraw(Box::new(Withdrawal { fingerprint, files }))
}

/// Removes the files whose time is over; returns how many. Rows first, then bytes.
pub async fn expire(app: &Arc<App>) -> Result<usize> {
    let Ok(before) = app.clock.now().checked_sub(grace(app)) else { return Ok(0) };
    let is_due = |file: &WithdrawnFile| file.withdrawn_at <= before;
    let due: BTreeSet<Fingerprint> =
        app.catalog.all_withdrawn().into_iter().filter(is_due).map(|file| file.digest).collect();
    if due.is_empty() {
        return Ok(0);
    }
    let due: Vec<Fingerprint> = due.into_iter().collect();
    app.blobs.unsettle(due.clone()).await?;
    app.db.commit(Change::Forget(due.clone(), before)).await?;
    for digest in &due {
        let catalog = app.catalog.clone();
        app.blobs.remove_unless(*digest, move |digest| catalog.uses(digest)).await?;
    }
    Ok(due.len())
}
