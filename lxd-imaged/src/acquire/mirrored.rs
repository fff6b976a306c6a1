//! Images that a mirror keeps: fetched, deep-checked, and only then recorded, with their aliases, in
//! one transaction.

use std::sync::Arc;

use lxd_proto::alias::AliasName;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::Image;
use lxd_proto::mirror::MirrorName;
use lxd_proto::remote::Remote;

use super::pace::Pace;
use super::record::{self, Described};
use super::{Follow, asked, pulls};
use crate::app::App;
use crate::catalog::Entry;
use crate::db::{Change, Member, Membership, MirrorChange, NewImage};
use crate::error::{Error, IMAGE_NOT_FOUND, Result};
use crate::service::verify;

/// A version that a mirror is to keep.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which mirror.
    pub mirror: MirrorName,
    /// As its server describes it.
    pub image: Image,
    /// Its product.
    pub product: String,
    /// Which version of that.
    pub serial: String,
    /// Names that it gets as it appears; those of others are left out.
    pub aliases: Vec<AliasName>,
}

impl Wanted {
    /// Whether strangers are to see it, as it is decided now: a run takes hours.
    fn is_public(&self, app: &App) -> bool {
        app.catalog.mirrors.get(&self.mirror).is_ok_and(|record| record.config.public)
    }
}

/// Fetches a version unless it is here, and makes it one of the mirror's.
///
/// # Errors
/// [`Error::Origin`] tells the file and what is wrong with it; nothing of it is visible then.
pub async fn take(
    app: &Arc<App>,
    remote: &Arc<dyn Remote>,
    wanted: &Wanted,
    pace: Option<&Arc<Pace>>,
    follow: &Follow,
) -> Result<()> {
    let fingerprint = wanted.image.fingerprint;
    if app.catalog.get(&fingerprint).is_some() {
        return adopt(app, wanted, follow).await;
    }
    let (joined, arrived) = pulls::fetch(app, remote, &wanted.image, None, pace, follow).await?;
    if let Err(error) = asked(app, follow, arrived.wait_for_check()).await {
        if matches!(error, Error::Format(_)) {
            app.partials.discard(&fingerprint);
        }
        return Err(error);
    }
    let edits = app.edits.lock().await;
    let described = Described { image: wanted.image.clone(), whole: true };
    let recorded = record::insert_with(
        app,
        &arrived,
        &described,
        |image, placed| {
            Ok(NewImage {
                image: Image { public: wanted.is_public(app), ..image },
                head: placed.head.clone(),
                rootfs: placed.rootfs.clone(),
                aliases: free(app, wanted),
                reuse: true,
                origin: None,
                adopt: false,
            })
        },
        |new| membership(wanted, new, false),
    )
    .await;
    drop(edits);
    drop(joined);
    match recorded {
        Ok(Some(_)) => Ok(()),
        // Somebody else has put it in meanwhile.
        Ok(None) => adopt(app, wanted, follow).await,
        // It is here; the name that somebody has taken in this moment is told at the end.
        Err(Error::AliasExists(_)) if app.catalog.get(&fingerprint).is_some() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes an image that is here one of the mirror's. What a person has put in stays as it is.
pub async fn adopt(app: &App, wanted: &Wanted, follow: &Follow) -> Result<()> {
    let fingerprint = wanted.image.fingerprint;
    verify::passed(app, &fingerprint, &follow.cancel).await?;
    let _one_at_a_time = app.edits.lock().await;
    let entry = app.catalog.get(&fingerprint).ok_or(IMAGE_NOT_FOUND)?;
    let kept = app.catalog.mirrors.kept(&fingerprint);
    let shared = match kept {
        Some(kept) => kept.shared,
        None => !entry.image.cached || !entry.is_current(),
    };
    let mut image = entry.image.clone();
    if !shared {
        if image.cached {
            image.properties.clone_from(&wanted.image.properties);
            image.properties.retain(|_, value| !value.is_empty());
        }
        image.cached = false;
        image.auto_update = false;
        image.update_source = None;
        // Strangers see what any mirror shows them.
        image.public = wanted.is_public(app) || kept.is_some_and(|kept| kept.public);
    }
    let aliases = free(app, wanted);
    match app.db.commit(membership(wanted, adopted(&entry, image.clone(), aliases), shared)).await {
        Err(Error::AliasExists(_)) => {
            app.db.commit(membership(wanted, adopted(&entry, image, Vec::new()), shared)).await
        }
        other => other,
    }
}

fn adopted(entry: &Entry, image: Image, aliases: Vec<(AliasName, String)>) -> NewImage {
    NewImage {
        image,
        head: entry.head.clone(),
        rootfs: entry.rootfs.clone(),
        aliases,
        reuse: true,
        origin: None,
        adopt: true,
    }
}

fn membership(wanted: &Wanted, image: NewImage, shared: bool) -> Change {
    let member = Member { product: wanted.product.clone(), serial: wanted.serial.clone(), shared };
    let mirror = wanted.mirror.clone();
    Change::Mirror(MirrorChange::Take(Box::new(Membership { mirror, member, image })))
}

/// The aliases that nobody else has.
fn free(app: &App, wanted: &Wanted) -> Vec<(AliasName, String)> {
    let free = |name: &&AliasName| match app.catalog.target(name.as_str()) {
        None => true,
        Some(target) => app.catalog.mirrors.has_set(&wanted.mirror, name.as_str(), &target),
    };
    wanted.aliases.iter().filter(free).map(|name| (name.clone(), String::new())).collect()
}

/// A person has put an image in that mirrors keep too, or decided who sees it: it is not theirs alone
/// any more.
pub async fn claim(app: &App, fingerprint: &Fingerprint) -> Result<()> {
    match app.catalog.mirrors.kept(fingerprint) {
        Some(kept) if !kept.shared => {
            app.db.commit(Change::Mirror(MirrorChange::Claim(*fingerprint))).await
        }
        _ => Ok(()),
    }
}
