//! From files that have arrived to an image; from an image that is here to what is wished of it.

use std::sync::Arc;

use lxd_proto::event::action;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::FileType;
use lxd_proto::image::{Image, InstanceType, UpdateSource, Verified};
use lxd_proto::metadata::Metadata;
use lxd_proto::{profile, time};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{Wish, by_itself};
use crate::app::App;
use crate::catalog::{Entry, Viewer};
use crate::db::{BlobRow, Change, NewImage, Origin};
use crate::error::{Error, Result};
use crate::service::{aliases, images, verify};
use crate::store::blobs::Hold;
use crate::store::checks::{Check, Wanted};
use crate::store::spool::Spooled;

/// The verified files of an image, not recorded yet; all callers of a download share them, and
/// the first one records them.
#[derive(Debug)]
pub(super) struct Arrived {
    described: Described,
    parts: Mutex<Option<Vec<Spooled>>>,
}

/// An image before it is here.
#[derive(Debug, Clone)]
pub(super) struct Described {
    /// As its origin describes it.
    pub(super) image: Image,
    /// Whether the origin describes more than the fingerprint; if not, the metadata does.
    pub(super) whole: bool,
}

/// Where an image was found.
#[derive(Debug, Clone, Default)]
pub(super) struct FoundAt {
    /// Project at the server.
    pub(super) project: String,
    /// The alias it was found by, if it was.
    pub(super) source: Option<UpdateSource>,
}

impl Arrived {
    /// Waits until the files have passed their whole check, also where that goes on in the
    /// background by then.
    pub(super) async fn wait_for_check(&self) -> Result<()> {
        let mut parts = self.parts.lock().await;
        for part in parts.iter_mut().flatten() {
            if let Some(check) = part.pending.clone() {
                check.verdict(Wanted::Whole).await?;
                part.pending = None;
            }
        }
        Ok(())
    }

    pub(super) fn new(described: Described, parts: Vec<Spooled>) -> Self {
        Self { described, parts: Mutex::new(Some(parts)) }
    }
}

/// Files in place that no row uses yet.
pub(super) struct Placed {
    pub(super) head: BlobRow,
    pub(super) rootfs: Option<BlobRow>,
    kind: InstanceType,
    metadata: Option<Metadata>,
    check: Option<Arc<Check>>,
    holds: Vec<Hold>,
}

/// Records the image as it is wished, or changes it that way when another caller was faster.
pub(super) async fn arrived(
    app: &Arc<App>,
    arrived: &Arrived,
    wish: &Wish,
    at: Option<&FoundAt>,
) -> Result<(Arc<Entry>, bool)> {
    let fingerprint = arrived.described.image.fingerprint;
    let entry = insert(app, arrived, |image, placed| {
        let mut image = image;
        apply(app, &mut image, wish, at);
        let origin = at.and_then(|at| origin(at, &arrived.described.image));
        Ok(new_image(image, placed, wish, origin))
    })
    .await?;
    match entry {
        Some(entry) => Ok((entry, true)),
        None => Ok((adopt(app, &fingerprint, wish, at).await?, false)),
    }
}

/// Puts the files in place and records what `make` makes of them. `None` when the image is here
/// already. A name that is taken fails it, but the image stays, without its names.
async fn insert(
    app: &Arc<App>,
    arrived: &Arrived,
    make: impl Fn(Image, &Placed) -> Result<NewImage>,
) -> Result<Option<Arc<Entry>>> {
    insert_with(app, arrived, make, |new| Change::Insert(Box::new(new))).await
}

/// The same with another `change` than a mere insertion.
pub(super) async fn insert_with(
    app: &Arc<App>,
    arrived: &Arrived,
    make: impl Fn(Image, &Placed) -> Result<NewImage>,
    change: impl Fn(NewImage) -> Change,
) -> Result<Option<Arc<Entry>>> {
    let mut parts = arrived.parts.lock().await;
    if app.catalog.get(&arrived.described.image.fingerprint).is_some() {
        return Ok(None);
    }
    let parts = parts.take().ok_or_else(|| Error::BadRequest("Image was deleted meanwhile".into()));
    let placed = place(app, parts?).await?;
    let recorded = async {
        let mut new = make(object(app, &arrived.described, &placed)?, &placed)?;
        match app.db.commit(change(new.clone())).await {
            Err(Error::AliasExists(name)) => {
                new.aliases.clear();
                app.db.commit(change(new)).await?;
                Ok(Err(Error::AliasExists(name)))
            }
            other => other.map(|()| Ok(new.aliases)),
        }
    };
    let recorded = recorded.await;
    finish(app, &arrived.described.image.fingerprint, placed, recorded).await.map(Some)
}

/// What follows on the commit of a new image.
async fn finish(
    app: &Arc<App>,
    fingerprint: &Fingerprint,
    placed: Placed,
    recorded: Result<Result<Vec<(lxd_proto::alias::AliasName, String)>>>,
) -> Result<Arc<Entry>> {
    let names = match recorded {
        Ok(names) => names,
        Err(error) => {
            give_up(app, placed).await;
            return Err(error);
        }
    };
    let kind = placed.kind;
    if let Some(check) = placed.check {
        verify::follow(app, *fingerprint, check);
    }
    placed.holds.into_iter().for_each(Hold::recorded);
    let caller = by_itself();
    images::tell(app, &caller, action::IMAGE_CREATED, fingerprint, &[("type", kind.as_str())]);
    for (name, _) in names? {
        let target = fingerprint.to_string();
        aliases::tell(app, &caller, action::ALIAS_CREATED, &name, &[("target", &target)]);
    }
    app.catalog.get(fingerprint).ok_or(crate::error::IMAGE_NOT_FOUND)
}

/// Moves the files into place: bytes before rows.
async fn place(app: &Arc<App>, parts: Vec<Spooled>) -> Result<Placed> {
    let rows: Vec<BlobRow> = parts.iter().map(row).collect();
    let kind = kind(&parts)?;
    let metadata = parts.first().and_then(|part| part.findings.metadata.clone());
    let check = parts.iter().find_map(|part| part.pending.clone());
    let mut holds = Vec::with_capacity(parts.len());
    for part in parts {
        holds.push(app.blobs.place(part).await?);
    }
    app.blobs.flush().await?;
    let mut rows = rows.into_iter();
    let head = rows.next().ok_or_else(|| Error::Internal("an image without files".into()))?;
    Ok(Placed { head, rootfs: rows.next(), kind, metadata, check, holds })
}

/// Removes files that no image came to use.
async fn give_up(app: &App, placed: Placed) {
    let rows: Vec<Fingerprint> =
        std::iter::once(&placed.head).chain(&placed.rootfs).map(|row| row.digest).collect();
    if let Some(check) = &placed.check {
        check.abandon();
    }
    drop(placed);
    for digest in rows {
        let catalog = app.catalog.clone();
        if let Err(error) = app.blobs.remove_unless(digest, move |d| catalog.uses(d)).await {
            tracing::warn!(%error, "a file of a refused image stays behind until the next start");
        }
    }
}

/// Changes an image that is here to what is wished. Does nothing when it is that already.
pub(super) async fn adopt(
    app: &App,
    fingerprint: &Fingerprint,
    wish: &Wish,
    at: Option<&FoundAt>,
) -> Result<Arc<Entry>> {
    let _one_at_a_time = app.edits.lock().await;
    let entry = app.catalog.get(fingerprint).ok_or(crate::error::IMAGE_NOT_FOUND)?;
    let mut image = entry.image.clone();
    let returns = !entry.is_current() && !wish.cached;
    if returns {
        // A person asks for a replaced version: it becomes an image of its own again.
        image.auto_update = false;
    }
    apply(app, &mut image, wish, at);
    let origin = if returns {
        let at = FoundAt {
            project: entry.origin.as_ref().map_or_else(String::new, |o| o.project.clone()),
            source: image.update_source.clone(),
        };
        origin(&at, &entry.image)
    } else if image.update_source == entry.image.update_source && entry.origin.is_some() {
        entry.origin.clone()
    } else {
        at.and_then(|at| origin(at, &entry.image))
    };
    let named = |(name, _): &(lxd_proto::alias::AliasName, String)| {
        app.catalog
            .alias(Viewer::Trusted, name.as_str())
            .is_ok_and(|alias| alias.target == *fingerprint)
    };
    if image == entry.image && origin == entry.origin && wish.aliases.iter().all(named) {
        return Ok(entry);
    }
    let new = NewImage {
        image,
        head: entry.head.clone(),
        rootfs: entry.rootfs.clone(),
        aliases: wish.aliases.clone(),
        reuse: wish.reuse,
        origin,
        adopt: true,
    };
    app.db.commit(Change::Adopt(Box::new(new))).await?;
    app.catalog.get(fingerprint).ok_or(crate::error::IMAGE_NOT_FOUND)
}

/// Refuses when a wished name belongs to another image.
pub(super) fn check_aliases(app: &App, fingerprint: &Fingerprint, wish: &Wish) -> Result<()> {
    if wish.reuse {
        return Ok(());
    }
    for (name, _) in &wish.aliases {
        if let Ok(alias) = app.catalog.alias(Viewer::Trusted, name.as_str())
            && alias.target != *fingerprint
        {
            return Err(Error::AliasExists(name.to_string()));
        }
    }
    Ok(())
}

/// Lays what is wished over an image, new or not.
pub(super) fn apply(app: &App, image: &mut Image, wish: &Wish, at: Option<&FoundAt>) {
    let source = at.and_then(|at| at.source.clone());
    let follows = source.is_some() || image.update_source.is_some();
    if !wish.cached && image.cached {
        // A person has it now: it stays, as current as they ask.
        image.cached = false;
        image.auto_update = wish.auto_update && follows;
    } else {
        image.auto_update |= wish.auto_update && follows;
    }
    if image.update_source.is_none() || wish.auto_update {
        image.update_source = source.or(image.update_source.take());
    }
    image.public |= wish.public;
    if let Some(properties) = &wish.properties {
        image.properties.clone_from(properties);
        image.properties.retain(|_, value| !value.is_empty());
    }
    if let Some(profiles) = &wish.profiles {
        image.profiles.clone_from(profiles);
    }
    if let Some(filename) = &wish.filename {
        image.filename.clone_from(filename);
    }
    if let Some(expires_at) = wish.expires_at {
        image.expires_at = expires_at;
    }
    if wish.used {
        image.last_used_at = app.clock.now();
    }
}

/// A new image as its origin describes it, as far as its files agree.
fn object(app: &App, described: &Described, placed: &Placed) -> Result<Image> {
    let mut remote = described.image.clone();
    if let (false, Some(metadata)) = (described.whole, &placed.metadata) {
        remote.properties.clone_from(&metadata.properties);
        remote.architecture = metadata.architecture;
        remote.created_at = seconds(metadata.creation_date);
        remote.expires_at = seconds(metadata.expiry_date);
    }
    let mut properties = std::mem::take(&mut remote.properties);
    properties.retain(|_, value| !value.is_empty());
    images::check_properties(&properties)?;
    let pending = placed.check.is_some();
    Ok(Image {
        auto_update: false,
        properties,
        public: false,
        expires_at: if time::is_unset(remote.expires_at) {
            time::epoch()
        } else {
            micros(remote.expires_at)
        },
        profiles: vec![profile::DEFAULT.to_owned()],
        aliases: Vec::new(),
        architecture: remote.architecture,
        cached: false,
        filename: printable(&remote.filename),
        fingerprint: remote.fingerprint,
        size: placed.head.size + placed.rootfs.as_ref().map_or(0, |rootfs| rootfs.size),
        update_source: None,
        kind: placed.kind,
        created_at: micros(remote.created_at),
        last_used_at: time::zero(),
        uploaded_at: app.clock.now(),
        verified: if pending { Verified::Pending } else { Verified::Yes },
        refresh: None,
    })
}

/// The row of a new image.
fn new_image(image: Image, placed: &Placed, wish: &Wish, origin: Option<Origin>) -> NewImage {
    let cached = wish.cached;
    NewImage {
        image: Image { cached, ..image },
        head: placed.head.clone(),
        rootfs: placed.rootfs.clone(),
        aliases: wish.aliases.clone(),
        reuse: wish.reuse,
        origin,
        adopt: false,
    }
}

/// The beginning of a lineage; only an image that can be followed has one.
fn origin(at: &FoundAt, remote: &Image) -> Option<Origin> {
    at.source.as_ref().map(|_| Origin {
        project: at.project.clone(),
        properties: remote.properties.clone(),
        lineage: Uuid::new_v4().to_string(),
        ..Origin::default()
    })
}

fn row(part: &Spooled) -> BlobRow {
    let extension = part.findings.file_type.extension().to_owned();
    BlobRow { digest: part.digest, size: part.size, extension }
}

/// What the files make; what the origin says about that does not count.
fn kind(parts: &[Spooled]) -> Result<InstanceType> {
    match parts {
        [unified] => {
            unified.findings.kind.ok_or_else(|| Error::BadRequest("Invalid instance type".into()))
        }
        [_, rootfs] if rootfs.findings.file_type == FileType::Qcow2 => {
            Ok(InstanceType::VirtualMachine)
        }
        [_, _] => Ok(InstanceType::Container),
        _ => Err(Error::Internal("an image without files".into())),
    }
}

fn seconds(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(seconds).unwrap_or_else(|_| time::epoch())
}

/// A time as the database keeps it.
fn micros(time: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// A stranger's file name as one line of bounded length.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control() && *c != '/').take(255).collect()
}
