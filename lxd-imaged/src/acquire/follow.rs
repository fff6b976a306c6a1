//! Keeping copies current: asking origins for newer versions, and putting these in place.
//!
//! A new version is whole before anything changes; then, in one transaction, it takes the aliases
//! over and the old one becomes a replaced version. A check that fails changes nothing and is
//! recorded with the image.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use lxd_proto::arch::Architecture;
use lxd_proto::config;
use lxd_proto::event::action;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{Image, InstanceType, Properties, Refresh, Verified};
use lxd_proto::remote::{self, Remote, RemoteSpec};
use lxd_proto::time;
use uuid::Uuid;

use super::record::{self, Arrived, Described};
use super::{Follow, Found, Source, asked, by_itself, config_number, find, info, origins, pulls};
use crate::app::App;
use crate::catalog::{Entry, Viewer};
use crate::db::{Change, NewImage, Origin, Replacement};
use crate::error::{Error, IMAGE_NOT_FOUND, Result};
use crate::service::placed::Placed;
use crate::service::{images, lineage};
use crate::store::checks::Wanted;

/// How soon an origin is asked again after a failure, if that is sooner than usual.
const RETRY: SignedDuration = SignedDuration::from_hours(1);

/// Time between two checks of an image; `None` when nothing is kept current.
pub fn interval(app: &App) -> Option<SignedDuration> {
    let hours = config_number(app, config::AUTO_UPDATE_INTERVAL);
    (hours > 0).then(|| SignedDuration::from_hours(hours.min(24 * 3650)))
}

/// When an image is to be checked, by what is recorded about it; `None` when it is not followed.
pub fn due(entry: &Entry, interval: SignedDuration) -> Option<Timestamp> {
    let image = &entry.image;
    if !image.auto_update || image.update_source.is_none() || !entry.is_current() {
        return None;
    }
    let (last, pause) = match &image.refresh {
        None => (image.uploaded_at, interval),
        Some(refresh) if refresh.error.is_empty() => (refresh.checked_at, interval),
        Some(refresh) => (refresh.checked_at, interval.min(RETRY)),
    };
    last.checked_add(jittered(pause, &image.fingerprint)).ok()
}

/// Up to a tenth sooner, always the same for one image: checks spread out, and a restart does not
/// bring them together again.
fn jittered(pause: SignedDuration, fingerprint: &Fingerprint) -> SignedDuration {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(fingerprint);
    let sooner = pause.as_secs() / 10;
    let sooner = i64::try_from(hash % 1000).unwrap_or(0) * sooner / 1000;
    pause - SignedDuration::from_secs(sooner)
}

/// Where an image came from, as a source for its next version.
pub fn source_of(entry: &Entry) -> Result<Source> {
    let fingerprint = &entry.image.fingerprint;
    let source = entry.image.update_source.as_ref().ok_or_else(|| {
        Error::BadRequest(format!(
            "Failed to update image \"{fingerprint}\" in project \"default\": \
             Image source not found"
        ))
    })?;
    let origin = entry.origin.as_ref();
    let project = origin.map_or("", |origin| origin.project.as_str());
    let mut spec = origins::spec(&source.server, &source.protocol, &source.certificate, project)?;
    let keyring = origin.map(|origin| origin.keyring.clone());
    spec.keyring = keyring.filter(|keyring| !keyring.is_empty());
    Ok(Source {
        remote: spec,
        reference: source.alias.clone(),
        secret: None,
        kind: Some(entry.image.kind),
        architecture: Some(entry.image.architecture),
        // What was known before says nothing about a newer version.
        fresh: true,
    })
}

/// Asks the origin of one image now, whether or not it is kept current, and takes a newer version
/// in its place; tells whether there was one. What the check found is recorded.
///
/// # Errors
/// [`Error::BadRequest`] for a replaced version names the current one, which is to be refreshed.
pub async fn refresh(app: &Arc<App>, fingerprint: &Fingerprint, follow: &Follow) -> Result<bool> {
    let entry = app.catalog.get(fingerprint).ok_or(IMAGE_NOT_FOUND)?;
    must_be_current(app, &entry)?;
    let source = source_of(&entry)?;
    let remote = origins::connect(app, &source.remote)?;
    let outcome = async {
        let found = asked(app, follow, find(&*remote, &source)).await?;
        if found.fingerprint == *fingerprint {
            return Ok(false);
        }
        update(app, &remote, &entry, found, follow).await.map(|_| true)
    }
    .await;
    match &outcome {
        Ok(true) | Err(Error::Cancelled | Error::ShuttingDown) => {}
        Ok(false) => record_checks(app, vec![(entry, String::new())]).await?,
        Err(error) => record_checks(app, vec![(entry, error.to_string())]).await?,
    }
    outcome
}

/// Refuses a replaced version: what came after it is no news, and has settings of its own.
fn must_be_current(app: &App, entry: &Entry) -> Result<()> {
    if entry.is_current() {
        return Ok(());
    }
    let fingerprint = entry.image.fingerprint.short();
    let mut images = app.catalog.images(Viewer::Trusted, None).into_iter();
    let current = images.find(|other| same_lineage(other, entry));
    Err(Error::BadRequest(match current {
        Some(current) => {
            let current = current.image.fingerprint;
            format!("image {fingerprint} has been replaced by {current}; refresh that one")
        }
        None => format!("image {fingerprint} is a replaced version, which is not refreshed"),
    }))
}

fn same_lineage(one: &Entry, other: &Entry) -> bool {
    let lineage = |entry: &Entry| entry.origin.as_ref().map(|origin| origin.lineage.clone());
    lineage(one).is_some_and(|one| !one.is_empty() && Some(one) == lineage(other))
}

/// What an origin is asked for: an alias, and which of the images under it.
type Question = (String, InstanceType, Architecture);

/// What checking the images of one origin came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Images that are current.
    pub current: usize,
    /// Images that have a new version now.
    pub updated: usize,
    /// Images whose check or update failed.
    pub failed: usize,
}

/// Checks images that all come from `spec`: each alias is asked for once, and a server that does
/// not answer is not asked again.
pub async fn check(
    app: &Arc<App>,
    spec: &RemoteSpec,
    entries: Vec<Arc<Entry>>,
    follow: &Follow,
) -> Checked {
    let mut checked = Checked::default();
    let mut results = Vec::with_capacity(entries.len());
    let mut answers: HashMap<Question, Found> = HashMap::new();
    let mut down: Option<String> = None;
    let remote = match origins::connect(app, spec) {
        Ok(remote) => Some(remote),
        Err(error) => {
            down = Some(error.to_string());
            None
        }
    };
    for entry in entries {
        if follow.cancel.is_cancelled() {
            break;
        }
        let (Some(remote), None) = (&remote, &down) else {
            results.push((entry, down.clone().unwrap_or_default()));
            continue;
        };
        match check_one(app, remote, &entry, &mut answers, follow).await {
            Ok(true) => checked.updated += 1,
            Ok(false) => results.push((entry, String::new())),
            Err(Error::Cancelled | Error::ShuttingDown) => break,
            Err(error) => {
                let why = printable(&error.to_string());
                tracing::warn!(image = %entry.image.fingerprint, why, "an image could not be refreshed");
                if is_down(&error) {
                    down = Some(error.to_string());
                }
                results.push((entry, error.to_string()));
            }
        }
    }
    checked.failed = results.iter().filter(|(_, error)| !error.is_empty()).count();
    checked.current = results.len() - checked.failed;
    if let Err(error) = record_checks(app, results).await {
        tracing::error!(%error, "cannot record checks of image origins");
    }
    checked
}

async fn check_one(
    app: &Arc<App>,
    remote: &Arc<dyn Remote>,
    entry: &Arc<Entry>,
    answers: &mut HashMap<Question, Found>,
    follow: &Follow,
) -> Result<bool> {
    let source = source_of(entry)?;
    let key = (source.reference.clone(), entry.image.kind, entry.image.architecture);
    let found = if let Some(found) = answers.get(&key) {
        found.clone()
    } else {
        let found = asked(app, follow, find(&**remote, &source)).await?;
        answers.insert(key, found.clone());
        found
    };
    let skipped = entry.origin.as_ref().and_then(|origin| origin.skipped);
    if found.fingerprint == entry.image.fingerprint || skipped == Some(found.fingerprint) {
        return Ok(false);
    }
    update(app, remote, entry, found, follow).await.map(|_| true)
}

/// Characters of a failure that are kept.
const KEPT: usize = 500;

/// A failure as everybody may see it: some of the words are the origin's, who may be hostile.
pub(crate) fn printable(error: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    error.chars().take(KEPT).map(visible).collect()
}

/// Whether the server, not one of its images, is the trouble.
pub(crate) fn is_down(error: &Error) -> bool {
    let source = match error {
        Error::Shared(error) => return is_down(error),
        Error::Origin { source, .. } => source,
        _ => return false,
    };
    matches!(
        **source,
        remote::Error::Connect { .. }
            | remote::Error::Transport { .. }
            | remote::Error::Silent { .. }
            | remote::Error::Slow { .. }
    )
}

async fn record_checks(app: &App, results: Vec<(Arc<Entry>, String)>) -> Result<()> {
    if results.is_empty() {
        return Ok(());
    }
    let now = app.clock.now();
    let interval = interval(app);
    let checks = results
        .into_iter()
        .map(|(entry, error)| (entry.image.fingerprint, checked(&entry, now, interval, error)))
        .collect();
    app.db.commit(Change::Refreshed(checks)).await
}

/// What is recorded about a check that was made `now`.
fn checked(
    entry: &Entry,
    now: Timestamp,
    interval: Option<SignedDuration>,
    error: String,
) -> Refresh {
    let mut pause = interval;
    if !error.is_empty() {
        pause = pause.map(|pause| pause.min(RETRY));
    }
    let next = pause
        .filter(|_| entry.image.auto_update)
        .and_then(|pause| now.checked_add(jittered(pause, &entry.image.fingerprint)).ok());
    let error = printable(&error);
    Refresh { checked_at: now, next_check_at: next.unwrap_or_else(time::zero), error }
}

/// Puts the version that was found in the place of `old`.
async fn update(
    app: &Arc<App>,
    remote: &Arc<dyn Remote>,
    old: &Arc<Entry>,
    found: Found,
    follow: &Follow,
) -> Result<Arc<Entry>> {
    let from = old.image.fingerprint;
    let entry = if let Some(here) = app.catalog.get(&found.fingerprint) {
        passed(app, &here).await?;
        replace_by(app, &from, &here, None).await?
    } else {
        let image = match found.image {
            Some(image) => image,
            None => asked(app, follow, info(&**remote, &found.fingerprint, None)).await?,
        };
        let (joined, arrived) = pulls::fetch(app, remote, &image, None, None, follow).await?;
        // Strangers do not see an image before that: the aliases would be gone for them.
        if let Err(error) = asked(app, follow, arrived.wait_for_check()).await {
            if matches!(error, Error::Format(_)) {
                app.partials.discard(&image.fingerprint);
            }
            return Err(error);
        }
        let entry = replace_by_arrived(app, &from, &image, &arrived).await?;
        drop(joined);
        entry
    };
    tracing::info!(old = %from, new = %entry.image.fingerprint, "an image has a new version");
    images::tell(app, &by_itself(), action::IMAGE_REFRESHED, &from, &[]);
    lineage::prune(app, &entry.image.fingerprint).await;
    Ok(entry)
}

/// Waits for the deep check of an image that is here; refuses one that did not pass.
async fn passed(app: &App, entry: &Entry) -> Result<()> {
    let check = app.pending_checks.lock().get(&entry.image.fingerprint).cloned();
    if let Some(check) = check {
        check.verdict(Wanted::Whole).await?;
    }
    match &entry.image.verified {
        Verified::No(reason) => Err(Error::BadRequest(format!(
            "image {} is broken: {reason}",
            entry.image.fingerprint.short()
        ))),
        Verified::Yes | Verified::Pending => Ok(()),
    }
}

/// A version that has just arrived takes the place of `from`.
async fn replace_by_arrived(
    app: &Arc<App>,
    from: &Fingerprint,
    remote_image: &Image,
    arrived: &Arrived,
) -> Result<Arc<Entry>> {
    // Edits wait: what a person changes now is either kept or made to the new version.
    let edits = app.edits.lock().await;
    if let Some(here) = app.catalog.get(&remote_image.fingerprint) {
        // Somebody has copied it meanwhile, or refreshed the same image.
        drop(edits);
        return replace_by(app, from, &here, None).await;
    }
    let old = app.catalog.get(from).ok_or_else(deleted)?;
    must_be_current(app, &old)?;
    let make = |image: Image, placed: &Placed| {
        let origin = successor(app, &old, remote_image.properties.clone());
        Ok(NewImage {
            image: inherit(&old, image, &remote_image.properties),
            head: placed.head.clone(),
            rootfs: placed.rootfs.clone(),
            aliases: Vec::new(),
            reuse: false,
            origin: Some(origin),
            adopt: false,
        })
    };
    let commit = |new: NewImage| {
        let lineage = new.origin.as_ref().map(|origin| origin.lineage.clone());
        let from_origin = replaced(app, &old, lineage.unwrap_or_default());
        Change::Replace(Box::new(Replacement { from: *from, from_origin, to: new }))
    };
    let described = Described { image: remote_image.clone(), whole: true };
    let entry = record::insert_with(app, arrived, &described, make, commit).await?;
    drop(edits);
    if let Some(entry) = entry {
        return Ok(entry);
    }
    // Somebody copied it meanwhile.
    let here = app.catalog.get(&remote_image.fingerprint).ok_or_else(deleted)?;
    replace_by(app, from, &here, None).await
}

/// A version that is here takes the place of `from`; `skipped` is not taken again by itself.
///
/// Earlier versions and cached images become as public as `from` is. Other images belong to
/// somebody: they are not shown because a followed image has turned out to be the same.
pub(crate) async fn replace_by(
    app: &Arc<App>,
    from: &Fingerprint,
    to: &Entry,
    skipped: Option<Fingerprint>,
) -> Result<Arc<Entry>> {
    let _one_at_a_time = app.edits.lock().await;
    let old = app.catalog.get(from).ok_or_else(deleted)?;
    let to = app.catalog.get(&to.image.fingerprint).ok_or_else(deleted)?;
    if same_lineage(&old, &to) && !old.is_current() && to.is_current() {
        // Somebody else was faster; what people have made of it since then stays.
        return Ok(to);
    }
    must_be_current(app, &old)?;
    let given = to.origin.as_ref().map_or(&to.image.properties, |origin| &origin.properties);
    let mut origin = successor(app, &old, given.clone());
    origin.skipped = skipped;
    let mut image = to.image.clone();
    image.auto_update = old.image.auto_update;
    if to.image.cached || same_lineage(&old, &to) {
        image.public = old.image.public;
    } else if old.image.public && !image.public {
        tracing::warn!(image = %image.fingerprint, "the new version of a public image was here as a private one and stays private");
    }
    image.cached &= old.image.cached;
    image.last_used_at = image.last_used_at.max(old.image.last_used_at);
    image.update_source.clone_from(&old.image.update_source);
    let from_origin = replaced(app, &old, origin.lineage.clone());
    let new = NewImage {
        image,
        head: to.head.clone(),
        rootfs: to.rootfs.clone(),
        aliases: Vec::new(),
        reuse: false,
        origin: Some(origin),
        adopt: true,
    };
    let change = Replacement { from: *from, from_origin, to: new };
    app.db.commit(Change::Replace(Box::new(change))).await?;
    app.catalog.get(&to.image.fingerprint).ok_or_else(deleted)
}

/// The origin of the version that comes after `old`.
fn successor(app: &App, old: &Entry, properties: Properties) -> Origin {
    let before = old.origin.as_ref();
    Origin {
        project: before.map_or_else(String::new, |origin| origin.project.clone()),
        keyring: before.map_or_else(String::new, |origin| origin.keyring.clone()),
        properties,
        lineage: lineage_of(old),
        replaced_at: None,
        skipped: None,
        refresh: Some(checked(old, app.clock.now(), interval(app), String::new())),
    }
}

/// The origin of `old` once another version has taken its place.
fn replaced(app: &App, old: &Entry, lineage: String) -> Origin {
    let mut origin = old.origin.clone().unwrap_or_else(|| Origin {
        properties: old.image.properties.clone(),
        ..Origin::default()
    });
    origin.lineage = lineage;
    origin.replaced_at = Some(app.clock.now());
    if let Some(refresh) = &mut origin.refresh {
        refresh.next_check_at = time::zero();
    }
    origin
}

fn lineage_of(entry: &Entry) -> String {
    let known = entry.origin.as_ref().map(|origin| origin.lineage.clone());
    known.filter(|lineage| !lineage.is_empty()).unwrap_or_else(|| Uuid::new_v4().to_string())
}

/// The new version with everything a person decided about the old one.
fn inherit(old: &Entry, image: Image, given: &Properties) -> Image {
    let before = old.origin.as_ref().map(|origin| &origin.properties);
    Image {
        properties: keep_edits(before, &old.image.properties, given),
        public: old.image.public,
        auto_update: old.image.auto_update,
        cached: old.image.cached,
        profiles: old.image.profiles.clone(),
        last_used_at: old.image.last_used_at,
        update_source: old.image.update_source.clone(),
        ..image
    }
}

/// The properties of a new version: as the origin gives them now, but what a person changed,
/// added or removed in the old version stays that way.
fn keep_edits(before: Option<&Properties>, edited: &Properties, given: &Properties) -> Properties {
    let mut properties = given.clone();
    let Some(before) = before else { return properties };
    for (key, value) in edited {
        if before.get(key) != Some(value) {
            properties.insert(key.clone(), value.clone());
        }
    }
    properties.retain(|key, value| {
        let removed = before.contains_key(key) && !edited.contains_key(key);
        !value.is_empty() && !removed
    });
    properties
}

fn deleted() -> Error {
    Error::BadRequest("Image was deleted meanwhile".into())
}

/// Current images that are followed and due `now`, by the server they come from.
pub fn due_by_origin(app: &App, now: Timestamp) -> Vec<(RemoteSpec, Vec<Arc<Entry>>)> {
    let Some(interval) = interval(app) else { return Vec::new() };
    let mut groups: Vec<(RemoteSpec, Vec<Arc<Entry>>)> = Vec::new();
    for entry in app.catalog.images(Viewer::Trusted, None) {
        if due(&entry, interval).is_none_or(|due| due > now) {
            continue;
        }
        let Ok(source) = source_of(&entry) else { continue };
        match groups.iter_mut().find(|(spec, _)| *spec == source.remote) {
            Some((_, entries)) => entries.push(entry),
            None => groups.push((source.remote, vec![entry])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_a_person_changed_outlives_an_update() {
        let before = properties(&[("os", "debian"), ("release", "12"), ("gone", "x")]);
        let edited = properties(&[("os", "debian"), ("release", "mine"), ("added", "1")]);
        let given = properties(&[("os", "Debian"), ("release", "13"), ("gone", "y"), ("new", "n")]);
        let expected =
            properties(&[("os", "Debian"), ("release", "mine"), ("added", "1"), ("new", "n")]);
        assert_eq!(keep_edits(Some(&before), &edited, &given), expected);
        assert_eq!(keep_edits(None, &edited, &given), given);
    }

    #[test]
    fn checks_spread_out_but_never_come_late() {
        let pause = SignedDuration::from_hours(6);
        let all: Vec<_> =
            (0..=255).map(|b| jittered(pause, &Fingerprint::from_bytes([b; 32]))).collect();
        let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        assert!(*most <= pause && *least >= pause - pause / 10, "{least} {most}");
        assert!(*most - *least > pause / 20, "they do not spread");
    }

    #[test]
    fn what_an_origin_says_is_short_and_cannot_steer_a_terminal() {
        let said = printable(&format!("no\n2026 ERROR \u{1b}[31m{}", "x".repeat(5000)));
        assert_eq!(said.chars().count(), KEPT);
        assert!(!said.contains(char::is_control), "{said:?}");
    }
}
