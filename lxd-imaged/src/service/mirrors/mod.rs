//! Mirrors: list, look up, create, edit, delete; `run` keeps them, `declared` reads their file.

pub mod bundle;
pub mod declared;
pub mod run;

use std::collections::HashMap;
use std::sync::Arc;

use lxd_proto::alias::AliasName;
use lxd_proto::event::action;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::Image;
use lxd_proto::mirror::{
    Mirror, MirrorConfig, MirrorName, MirrorPatch, MirrorPut, MirrorState, MirrorsPost, product,
    serial,
};
use lxd_proto::operation::{Operation, description};
use lxd_proto::remote::Protocol;
use lxd_proto::routes;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::images::{self, check_etag, hash};
use crate::acquire::origins;
use crate::app::{App, Caller};
use crate::db::{Change, Member, Membership, MirrorChange, MirrorRecord, NewImage};
use crate::error::{Error, MIRROR_NOT_FOUND, Result};
use crate::mirror::schedule::Schedule;
use crate::ops::About;

/// Mirrors of one daemon.
const MAX_MIRRORS: usize = 1000;
/// Runs that go on at once; the others wait.
const RUNS_AT_ONCE: usize = 4;
/// Downloads of all mirrors together.
const DOWNLOADS_AT_ONCE: usize = 8;

/// The runs that go on.
#[derive(Debug)]
pub struct Runs {
    /// Operations by mirror.
    running: Mutex<HashMap<MirrorName, String>>,
    turns: Semaphore,
    downloads: Semaphore,
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
            turns: Semaphore::new(RUNS_AT_ONCE),
            downloads: Semaphore::new(DOWNLOADS_AT_ONCE),
        }
    }
}

impl Runs {
    /// The operation of the run that goes on.
    fn operation(&self, name: &MirrorName) -> Option<String> {
        self.running.lock().get(name).cloned()
    }
}

/// All mirrors, by name.
pub fn list(app: &App) -> Vec<Mirror> {
    app.catalog.mirrors.all().iter().map(|record| shown(app, record)).collect()
}

/// The mirror with this name.
pub fn get(app: &App, name: &str) -> Result<Mirror> {
    Ok(shown(app, &*app.catalog.mirrors.get(&named(name)?)?))
}

/// A name in a path; anything else names no mirror.
fn named(name: &str) -> Result<MirrorName> {
    name.parse().map_err(|_| MIRROR_NOT_FOUND)
}

/// The entity tag of what can be edited.
pub fn etag(mirror: &Mirror) -> String {
    hash(&mirror.config)
}

fn shown(app: &App, record: &MirrorRecord) -> Mirror {
    let operation = app.mirror_runs.operation(&record.name);
    let mut products: Vec<&str> =
        record.members.values().map(|member| member.product.as_str()).collect();
    products.sort_unstable();
    products.dedup();
    let sizes = record.members.keys().filter_map(|it| Some(app.catalog.get(it)?.image.size));
    Mirror {
        name: record.name.clone(),
        config: record.config.clone(),
        declared: record.declared,
        state: MirrorState {
            images: record.members.len() as u64,
            products: products.len() as u64,
            bytes: sizes.sum(),
            next_run: next_run(record).filter(|_| operation.is_none()),
            operation: operation.unwrap_or_default(),
            last_run: record.last_run.clone(),
        },
    }
}

/// When a mirror runs by itself.
pub fn next_run(record: &MirrorRecord) -> Option<jiff::Timestamp> {
    if !record.config.enabled || record.config.server.is_empty() {
        return None;
    }
    let schedule = Schedule::parse(&record.config.schedule).ok().flatten()?;
    schedule.next(record.created_at, record.last_run.as_ref())
}

/// Refuses a configuration that cannot work.
fn check(config: &MirrorConfig) -> Result<()> {
    config.check().map_err(|error| Error::BadRequest(error.to_string()))?;
    let scheduled = Schedule::parse(&config.schedule)?.is_some();
    if config.server.is_empty() {
        config.protocol.parse::<Protocol>().map_err(|it| Error::BadRequest(it.to_string()))?;
        if scheduled {
            let text = "a mirror without a server has no schedule: it is fed by bundles";
            return Err(Error::BadRequest(text.into()));
        }
        return Ok(());
    }
    spec(config).map(drop)
}

fn spec(config: &MirrorConfig) -> Result<lxd_proto::remote::RemoteSpec> {
    let spec =
        origins::spec(&config.server, &config.protocol, &config.certificate, &config.project)?;
    origins::signed(spec, &config.keyring)
}

/// Makes a mirror; it does not run by that.
pub async fn create(app: &App, caller: &Caller, post: MirrorsPost) -> Result<MirrorName> {
    let name: MirrorName =
        post.name.parse().map_err(|error| Error::BadRequest(format!("{error}")))?;
    check(&post.config)?;
    let _one_at_a_time = app.edits.lock().await;
    if app.catalog.mirrors.all().len() >= MAX_MIRRORS {
        return Err(Error::TooMany("mirrors"));
    }
    add(app, name.clone(), post.config, false).await?;
    tell(app, caller, action::MIRROR_CREATED, &name, &[]);
    Ok(name)
}

async fn add(app: &App, name: MirrorName, config: MirrorConfig, declared: bool) -> Result<()> {
    let record = MirrorRecord {
        name,
        config,
        declared,
        created_at: app.clock.now(),
        last_run: None,
        members: std::collections::BTreeMap::new(),
        aliases: std::collections::BTreeMap::new(),
    };
    app.db.commit(Change::Mirror(MirrorChange::Create(Box::new(record)))).await
}

/// Replaces what can be edited of a mirror.
pub async fn put(
    app: &App,
    caller: &Caller,
    name: &str,
    given: Option<&str>,
    put: MirrorPut,
) -> Result<()> {
    edit(app, caller, name, given, |_| Ok(put.config)).await
}

/// Changes what the request names, leaves the rest.
pub async fn patch(
    app: &App,
    caller: &Caller,
    name: &str,
    given: Option<&str>,
    patch: MirrorPatch,
) -> Result<()> {
    edit(app, caller, name, given, |old| {
        patch.apply(old).map_err(|error| Error::BadRequest(error.to_string()))
    })
    .await
}

async fn edit(
    app: &App,
    caller: &Caller,
    name: &str,
    given: Option<&str>,
    change: impl FnOnce(&MirrorConfig) -> Result<MirrorConfig>,
) -> Result<()> {
    let one_at_a_time = app.edits.lock().await;
    let old = get(app, name)?;
    must_not_be_declared(&old)?;
    check_etag(given, &etag(&old))?;
    let config = change(&old.config)?;
    check(&config)?;
    let name = old.name.clone();
    let is_shown_anew = config.public != old.config.public;
    let change = MirrorChange::Update { name: old.name, config: Box::new(config), declared: false };
    app.db.commit(Change::Mirror(change)).await?;
    drop(one_at_a_time);
    if is_shown_anew {
        show(app, &name).await?;
    }
    tell(app, caller, action::MIRROR_UPDATED, &name, &[]);
    Ok(())
}

/// Shows to strangers what any mirror shows, and nothing else of what the mirror keeps. An image
/// that a person has put in or changed stays as it is.
async fn show(app: &App, name: &MirrorName) -> Result<()> {
    show_all(app, app.catalog.mirrors.get(name)?.members.keys()).await
}

/// Does so for all mirrors: what a crash has cut off, or the file of mirrors says now.
///
/// # Errors
/// Those of the database.
pub async fn settle(app: &App) -> Result<()> {
    for record in app.catalog.mirrors.all() {
        show_all(app, record.members.keys()).await?;
    }
    Ok(())
}

async fn show_all(app: &App, members: impl Iterator<Item = &Fingerprint>) -> Result<()> {
    for fingerprint in members {
        let _one_at_a_time = app.edits.lock().await;
        let kept = app.catalog.mirrors.kept(fingerprint);
        if let Some(kept) = kept.filter(|kept| !kept.shared) {
            images::set_public(app, fingerprint, kept.public).await?;
        }
    }
    Ok(())
}

fn must_not_be_declared(mirror: &Mirror) -> Result<()> {
    if mirror.declared {
        return Err(Error::BadRequest(format!(
            "mirror \"{}\" stands in {}; change it there and restart the daemon",
            mirror.name,
            declared::FILE
        )));
    }
    Ok(())
}

/// Deletes a mirror, as an operation. Its images stay, as a person's, unless `images` says that they
/// go; those that somebody else needs stay then too, and are told.
pub fn delete(app: &Arc<App>, caller: &Caller, name: &str, images: bool) -> Result<Operation> {
    let mirror = get(app, name)?;
    must_not_be_declared(&mirror)?;
    // No run begins while it goes.
    let place = run::Place::take(app, &mirror.name)?;
    let about = About { description: description::MIRROR_DELETE, ..about(&mirror.name) };
    let (task, caller) = (app.clone(), caller.clone());
    app.operations.spawn(about, async move |context| {
        place.is(&context);
        let name = mirror.name;
        let (mut removed, mut kept) = (0, Vec::new());
        if images {
            // Whenever this is cut off, the mirror is still there to be deleted, and fetches nothing.
            let config = Box::new(MirrorConfig { enabled: false, ..mirror.config });
            let change = MirrorChange::Update { name: name.clone(), config, declared: false };
            task.db.commit(Change::Mirror(change)).await?;
            (removed, kept) = remove_images(&task, &caller, &name).await?;
        }
        let members = task.catalog.mirrors.get(&name)?.members.clone();
        task.db.commit(Change::Mirror(MirrorChange::Delete(name.clone()))).await?;
        // Others may keep them, and show them to nobody.
        show_all(&task, members.keys()).await?;
        drop(place);
        tell(&task, &caller, action::MIRROR_DELETED, &name, &[]);
        Ok(Some(
            [("removed".to_owned(), Value::from(removed)), ("kept".to_owned(), Value::Array(kept))]
                .into_iter()
                .collect(),
        ))
    })
}

/// Removes the names that a mirror has given, and its images that nobody else needs. Tells how many,
/// and which ones stay.
async fn remove_images(
    app: &Arc<App>,
    caller: &Caller,
    name: &MirrorName,
) -> Result<(usize, Vec<Value>)> {
    let set = app.catalog.mirrors.get(name)?.aliases.clone();
    let set: Vec<_> = set
        .into_iter()
        .filter_map(|(alias, target)| Some((AliasName::try_from(alias).ok()?, target)))
        .collect();
    app.db.commit(Change::Mirror(MirrorChange::Unset(name.clone(), set))).await?;
    let (mut removed, mut kept) = (0, Vec::new());
    for fingerprint in app.catalog.mirrors.get(name)?.members.keys() {
        match retire(app, caller, name, fingerprint).await? {
            Retired::Removed => removed += 1,
            Retired::Left | Retired::Bound(_) => kept.push(Value::from(fingerprint.to_string())),
            Retired::Gone => {}
        }
    }
    Ok((removed, kept))
}

/// What became of an image that a mirror does not need any more.
enum Retired {
    /// Nobody else needs it.
    Removed,
    /// Other mirrors keep it.
    Left,
    /// A person needs it, for this reason.
    Bound(String),
    /// It was gone already.
    Gone,
}

/// Gives up an image of a mirror: removes it, or only the mirror's share in it. Whether somebody
/// needs it is looked at in this moment, in which nobody can change it.
async fn retire(
    app: &Arc<App>,
    caller: &Caller,
    name: &MirrorName,
    fingerprint: &Fingerprint,
) -> Result<Retired> {
    let edits = app.edits.lock().await;
    let Some(member) = app.catalog.mirrors.member(name, fingerprint) else {
        return Ok(Retired::Gone);
    };
    let Some(entry) = app.catalog.get(fingerprint) else { return Ok(Retired::Gone) };
    let kept = app.catalog.mirrors.kept(fingerprint);
    if kept.is_some_and(|it| it.mirrors > 1) {
        app.db.commit(Change::Mirror(MirrorChange::Leave(name.clone(), *fingerprint))).await?;
        drop(edits);
        show_all(app, std::iter::once(fingerprint)).await?;
        return Ok(Retired::Left);
    }
    if let Some(reason) = run::bound(app, &entry, member.shared) {
        return Ok(Retired::Bound(reason));
    }
    let removed = remove_if_there(app, caller, fingerprint).await?;
    Ok(if removed { Retired::Removed } else { Retired::Gone })
}

/// Deletes an image; tells whether it was there.
async fn remove_if_there(
    app: &Arc<App>,
    caller: &Caller,
    fingerprint: &Fingerprint,
) -> Result<bool> {
    match images::remove(app, caller, fingerprint).await {
        Ok(()) => Ok(true),
        Err(Error::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Refuses bundles where signatures are asked for: they have none.
fn takes_bundles(config: &MirrorConfig) -> Result<()> {
    if config.keyring.is_empty() {
        return Ok(());
    }
    Err(Error::BadRequest(
        "the mirror takes only what the keys of its keyring have signed, and a bundle has no \
         signature; import the bundle as a mirror of another name"
            .into(),
    ))
}

/// How an image is recorded that has come out of a bundle: as one of the mirror's, without names.
/// These come when all have arrived.
///
/// # Errors
/// When the mirror takes no bundles, or does not select the image.
pub fn arrived(app: &App, caller: &Caller, mirror: MirrorName, image: NewImage) -> Result<Change> {
    caller.must_be_trusted()?;
    let record = app.catalog.mirrors.get(&mirror)?;
    takes_bundles(&record.config)?;
    if !record.config.selects(&image.image) {
        let text = format!("mirror \"{mirror}\" does not select this image");
        return Err(Error::BadRequest(text));
    }
    let member =
        Member { product: product(&image.image), serial: serial(&image.image), shared: false };
    let shown = Image { public: record.config.public, ..image.image };
    let image = NewImage { aliases: Vec::new(), image: shown, ..image };
    let taken = Membership { mirror, member, image };
    Ok(Change::Mirror(MirrorChange::Take(Box::new(taken))))
}

/// What operations about a mirror have in common.
fn about(name: &MirrorName) -> About {
    let path = routes::MIRROR.url(&[name.as_str()]);
    About { resources: Some([("mirrors".to_owned(), vec![path])].into()), ..About::default() }
}

/// Sends a lifecycle event about a mirror.
fn tell(app: &App, caller: &Caller, action: &str, name: &MirrorName, context: &[(&str, &str)]) {
    let source = routes::MIRROR.url(&[name.as_str()]);
    app.events.lifecycle(action, source, context, Some(&caller.requestor));
}
