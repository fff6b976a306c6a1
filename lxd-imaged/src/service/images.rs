//! Images: list, look up, edit, delete.

use std::sync::Arc;

use jiff::Timestamp;
use lxd_proto::event::action;
use lxd_proto::filter::Filter;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::image::{Image, ImagePatch, ImagePut, Properties};
use lxd_proto::operation::{Operation, description};
use lxd_proto::{profile, routes, time};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{instances, lineage, secrets, withdrawn};
use crate::acquire::mirrored;
use crate::app::{App, Caller};
use crate::catalog::Entry;
use crate::db::Change;
use crate::error::{Error, Result};
use crate::ops::About;

/// Which images a list shows.
#[derive(Debug, Default)]
pub struct Page {
    /// Only those that match.
    pub filter: Filter,
    /// Only those whose fingerprint sorts after this one.
    pub after: Option<Fingerprint>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Versions that others have replaced too.
    pub all_versions: bool,
}

/// The images of a page, by fingerprint, as far as the caller may see them.
pub fn list(app: &App, caller: &Caller, page: &Page) -> Vec<Arc<Entry>> {
    let mut images = if page.all_versions {
        app.catalog.versions(caller.viewer, page.after)
    } else {
        app.catalog.images(caller.viewer, page.after)
    };
    if !page.filter.is_empty() {
        images.retain(|entry| page.filter.matches(&entry.image));
    }
    images.truncate(page.limit.unwrap_or(usize::MAX));
    images
}

/// The one image that begins with `prefix`.
pub fn get(app: &App, caller: &Caller, prefix: &Prefix) -> Result<Arc<Entry>> {
    app.catalog.image(caller.viewer, prefix)
}

/// The entity tag of what can be edited: as in LXD, a change of anything else keeps it.
pub fn etag(image: &Image) -> String {
    hash(&(image.public, image.auto_update, &image.properties))
}

/// Lower-case hex SHA-256 of the value as JSON, the way LXD makes entity tags.
pub fn hash(value: &impl Serialize) -> String {
    let json = serde_json::to_vec(value).unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update(&json);
    hash.update(b"\n");
    hex::encode(hash.finalize())
}

/// Refuses when `given`, if any, is not the current entity tag; quotes do not matter.
pub fn check_etag(given: Option<&str>, current: &str) -> Result<()> {
    match given.map(|given| given.trim().trim_matches('"')) {
        Some(given) if given != current && given != "*" => {
            Err(Error::EtagMismatch { current: current.to_owned(), given: given.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Replaces the editable part of an image.
pub async fn put(
    app: &App,
    caller: &Caller,
    prefix: &Prefix,
    etag: Option<&str>,
    put: ImagePut,
) -> Result<()> {
    let profiles = known_profiles(put.profiles)?;
    edit(app, caller, prefix, etag, |image| {
        image.public = put.public;
        image.auto_update = put.auto_update;
        image.properties = put.properties;
        image.profiles = profiles;
        // Go's zero time means that the client has nothing to say about it.
        if put.expires_at != time::zero() {
            image.expires_at = put.expires_at;
        }
    })
    .await
}

/// Changes what the request names, leaves the rest.
pub async fn patch(
    app: &App,
    caller: &Caller,
    prefix: &Prefix,
    etag: Option<&str>,
    patch: ImagePatch,
) -> Result<()> {
    let profiles = patch.profiles.map(|profiles| known_profiles(Some(profiles))).transpose()?;
    edit(app, caller, prefix, etag, |image| {
        if let Some(public) = patch.public {
            image.public = public;
        }
        if let Some(auto_update) = patch.auto_update {
            image.auto_update = auto_update;
        }
        image.properties.extend(patch.properties.unwrap_or_default());
        if let Some(expires_at) = patch.expires_at.filter(|time| *time != time::zero()) {
            image.expires_at = expires_at;
        }
        if let Some(profiles) = profiles {
            image.profiles = profiles;
        }
    })
    .await
}

async fn edit(
    app: &App,
    caller: &Caller,
    prefix: &Prefix,
    given: Option<&str>,
    change: impl FnOnce(&mut Image),
) -> Result<()> {
    let _one_at_a_time = app.edits.lock().await;
    let entry = get(app, caller, prefix)?;
    check_etag(given, &etag(&entry.image))?;
    let mut image = entry.image.clone();
    change(&mut image);
    let is_shown_anew = image.public != entry.image.public;
    image.expires_at = stored(image.expires_at);
    check_properties(&image.properties)?;
    // An empty value removes its key: that is how clients unset a property.
    image.properties.retain(|_, value| !value.is_empty());
    if is_shown_anew {
        // A mirror would set it back.
        mirrored::claim(app, &image.fingerprint).await?;
        lineage::show(app, &entry, image.public).await?;
    }
    app.db.commit(Change::Edit(Box::new(image))).await?;
    tell(app, caller, action::IMAGE_UPDATED, &entry.image.fingerprint, &[]);
    Ok(())
}

/// Has strangers see an image that is still there, or not. Whoever calls holds [`App::edits`].
pub(super) async fn set_public(app: &App, fingerprint: &Fingerprint, public: bool) -> Result<()> {
    let Some(entry) = app.catalog.get(fingerprint) else { return Ok(()) };
    if entry.image.public == public {
        return Ok(());
    }
    let image = Image { public, ..entry.image.clone() };
    app.db.commit(Change::Edit(Box::new(image))).await
}

/// Bytes that all properties of an image may have together.
const PROPERTIES_LIMIT: usize = 256 << 10;

/// Refuses more property text than an image should carry.
pub fn check_properties(properties: &Properties) -> Result<()> {
    let size: usize = properties.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > PROPERTIES_LIMIT {
        return Err(Error::BadRequest(format!(
            "the properties have {size} bytes together, at most {PROPERTIES_LIMIT} are kept"
        )));
    }
    Ok(())
}

/// A time as the database keeps it, so that a restart does not change it.
pub fn stored(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// The profiles of a request; there is only the default one.
pub fn known_profiles(profiles: Option<Vec<String>>) -> Result<Vec<String>> {
    let profiles = profiles.unwrap_or_else(|| vec![profile::DEFAULT.to_owned()]);
    match profiles.iter().find(|name| *name != profile::DEFAULT) {
        None => Ok(profiles.into_iter().take(1).collect()),
        Some(unknown) => Err(Error::BadRequest(format!("Profile '{unknown}' doesn't exist"))),
    }
}

/// Deletes an image with its aliases and files, as an operation.
pub fn delete(app: &Arc<App>, caller: &Caller, prefix: &Prefix) -> Result<Operation> {
    let fingerprint = get(app, caller, prefix)?.image.fingerprint;
    let about = About::image(description::IMAGE_DELETE, &fingerprint);
    let (task, caller) = (app.clone(), caller.clone());
    app.operations.spawn(about, async move |_| {
        remove(&task, &caller, &fingerprint).await?;
        Ok(None)
    })
}

/// Deletes an image, and with a current one the versions that it replaced.
pub async fn remove(app: &Arc<App>, caller: &Caller, fingerprint: &Fingerprint) -> Result<()> {
    let entry = app.catalog.get(fingerprint).ok_or(crate::error::IMAGE_NOT_FOUND)?;
    remove_one(app, caller, &entry).await?;
    if entry.is_current() {
        for replaced in lineage::replaced(app, &entry) {
            remove_one(app, caller, &replaced).await?;
        }
    }
    Ok(())
}

/// Rows first, then bytes: a crash in between leaves garbage, never a row without its file.
async fn remove_one(app: &Arc<App>, caller: &Caller, entry: &Entry) -> Result<()> {
    let fingerprint = &entry.image.fingerprint;
    app.blobs.unsettle(entry.blobs().map(|blob| blob.digest).collect()).await?;
    app.db.commit(withdrawn::deletion(app, entry)).await?;
    secrets::forget(app, fingerprint);
    if let Some(check) = app.pending_checks.lock().remove(fingerprint) {
        check.abandon();
    }
    for blob in entry.blobs() {
        let catalog = app.catalog.clone();
        app.blobs.remove_unless(blob.digest, move |digest| catalog.uses(digest)).await?;
    }
    instances::tidy_tree(app, fingerprint).await;
    tell(app, caller, action::IMAGE_DELETED, fingerprint, &[]);
    Ok(())
}

/// Sends a lifecycle event about an image.
pub fn tell(
    app: &App,
    caller: &Caller,
    action: &str,
    fingerprint: &Fingerprint,
    context: &[(&str, &str)],
) {
    let source = routes::IMAGE.url(&[&fingerprint.to_string()]);
    tracing::debug!(image = %fingerprint, by = caller.requestor.username, "{action}");
    app.events.lifecycle(action, source, context, Some(&caller.requestor));
}
