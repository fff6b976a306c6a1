//! From files that have arrived to an image; from an image that is here to what is wished of it.

use std::sync::Arc;

use lxd_proto::alias::AliasName;
use lxd_proto::event::action;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{Image, InstanceType, UpdateSource};
use lxd_proto::{profile, time};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{Wish, by_itself};
use crate::app::App;
use crate::catalog::{Entry, Viewer};
use crate::db::{Change, NewImage, Origin};
use crate::error::{Error, Result};
use crate::service::placed::{self, Placed};
use crate::service::{aliases, images};
use crate::store::checks::Wanted;
use crate::store::spool::Spooled;

/// The verified files of an image, not recorded yet; all callers of a download share them, and
/// the first one records them.
#[derive(Debug)]
pub(super) struct Arrived {
    fingerprint: Fingerprint,
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
    /// Keys that had to sign what the server says; empty for none.
    pub(super) keyring: String,
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

    pub(super) fn new(fingerprint: Fingerprint, parts: Vec<Spooled>) -> Self {
        Self { fingerprint, parts: Mutex::new(Some(parts)) }
    }
}

/// Records the image as the caller's own origin describes it and as it is wished, or changes it that way when another caller was faster.
pub(super) async fn arrived(
    app: &Arc<App>,
    arrived: &Arrived,
    described: &Described,
    wish: &Wish,
    at: Option<&FoundAt>,
) -> Result<(Arc<Entry>, bool)> {
    let fingerprint = arrived.fingerprint;
    let entry = insert(app, arrived, described, |image, placed| {
        let mut image = image;
        apply(app, &mut image, wish, at);
        let origin = at.and_then(|at| origin(at, &described.image));
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
    described: &Described,
    make: impl Fn(Image, &Placed) -> Result<NewImage>,
) -> Result<Option<Arc<Entry>>> {
    insert_with(app, arrived, described, make, |new| Change::Insert(Box::new(new))).await
}

/// The same with another `change` than a mere insertion.
pub(super) async fn insert_with(
    app: &Arc<App>,
    arrived: &Arrived,
    described: &Described,
    make: impl Fn(Image, &Placed) -> Result<NewImage>,
    change: impl Fn(NewImage) -> Change,
) -> Result<Option<Arc<Entry>>> {
    let mut parts = arrived.parts.lock().await;
    if app.catalog.get(&arrived.fingerprint).is_some() {
        return Ok(None);
    }
    let parts = parts.take().ok_or_else(|| Error::BadRequest("Image was deleted meanwhile".into()));
    let parts = parts?;
    let image = object(app, described, &parts)?;
    let kind = image.kind;
    let placed = Placed::new(app, parts).await?;
    let recorded = async {
        let mut new = make(image, &placed)?;
        match app.db.commit(change(new.clone())).await {
            Err(Error::AliasExists(name)) => {
                new.aliases.clear();
                app.db.commit(change(new)).await?;
                Ok(Err(Error::AliasExists(name)))
            }
            other => other.map(|()| Ok(new.aliases)),
        }
    };
    let fingerprint = arrived.fingerprint;
    let names = match recorded.await {
        Ok(names) => names,
        Err(error) => {
            placed.give_up(app).await;
            return Err(error);
        }
    };
    placed.recorded(app, fingerprint);
    tell(app, &fingerprint, kind, names)?;
    app.catalog.get(&fingerprint).ok_or(crate::error::IMAGE_NOT_FOUND).map(Some)
}

/// Tells about a new image, and about its names unless one was taken.
fn tell(
    app: &App,
    fingerprint: &Fingerprint,
    kind: InstanceType,
    names: Result<Vec<(AliasName, String)>>,
) -> Result<()> {
    let caller = by_itself();
    images::tell(app, &caller, action::IMAGE_CREATED, fingerprint, &[("type", kind.as_str())]);
    for (name, _) in names? {
        let target = fingerprint.to_string();
        aliases::tell(app, &caller, action::ALIAS_CREATED, &name, &[("target", &target)]);
    }
    Ok(())
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
        let before = entry.origin.clone().unwrap_or_default();
        let at = FoundAt {
            project: before.project,
            keyring: before.keyring,
            source: image.update_source.clone(),
        };
        origin(&at, &entry.image)
    } else if image.update_source == entry.image.update_source && entry.origin.is_some() {
        // Once it has to be signed, it has to stay so.
        let keyring = at
            .filter(|at| at.source == image.update_source && !at.keyring.is_empty())
            .map(|at| at.keyring.clone());
        entry.origin.clone().map(|origin| Origin {
            keyring: keyring.unwrap_or_else(|| origin.keyring.clone()),
            ..origin
        })
    } else {
        at.and_then(|at| origin(at, &entry.image))
    };
    let named = |(name, _): &(AliasName, String)| {
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

/// A new image as its origin describes it, as far as its files agree: what they make is theirs to
/// say.
fn object(app: &App, described: &Described, parts: &[Spooled]) -> Result<Image> {
    let mut remote = described.image.clone();
    if !described.whole {
        let metadata = placed::metadata(parts)?;
        remote.properties.clone_from(&metadata.properties);
        remote.architecture = metadata.architecture;
        remote.created_at = placed::created_at(metadata)?;
        remote.expires_at = placed::expires_at(metadata);
    }
    let mut properties = std::mem::take(&mut remote.properties);
    properties.retain(|_, value| !value.is_empty());
    images::check_properties(&properties)?;
    Ok(Image {
        auto_update: false,
        properties,
        public: false,
        expires_at: if time::is_unset(remote.expires_at) {
            time::epoch()
        } else {
            images::stored(remote.expires_at)
        },
        profiles: vec![profile::DEFAULT.to_owned()],
        aliases: Vec::new(),
        architecture: remote.architecture,
        cached: false,
        filename: one_name(&remote.filename),
        fingerprint: remote.fingerprint,
        size: placed::size(parts),
        update_source: None,
        kind: placed::kind(parts, false)?,
        created_at: images::stored(remote.created_at),
        last_used_at: time::zero(),
        uploaded_at: app.clock.now(),
        verified: placed::verified(parts),
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
        keyring: at.keyring.clone(),
        properties: remote.properties.clone(),
        lineage: Uuid::new_v4().to_string(),
        ..Origin::default()
    })
}

/// A stranger's file name as one line of bounded length.
fn one_name(name: &str) -> String {
    name.chars().filter(|c| !c.is_control() && *c != '/').take(255).collect()
}
