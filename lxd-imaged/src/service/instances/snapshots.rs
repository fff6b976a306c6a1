//! Snapshots: taken, renamed, put back, removed.

use std::sync::Arc;

use jiff::Timestamp;
use lxd_proto::event::action;
use lxd_proto::instance::{InstanceName, InstanceStatus, SnapshotName, SnapshotsPost, key};
use lxd_proto::operation::{Operation, description};
use lxd_proto::{config, routes, time};

use super::{about, blocking, expanded, power, runtime, tidy_tree, update};
use crate::app::{App, Caller};
use crate::db::{Change, InstanceChange, InstanceRecord, SnapshotRecord};
use crate::disks::Owner;
use crate::error::{Error, Result, SNAPSHOT_NOT_FOUND};
use crate::ops::About;
use crate::service::images;

/// Snapshots of one instance.
const MOST: usize = 1000;

fn about_snapshot(
    description: &'static str,
    instance: &InstanceName,
    snapshot: &SnapshotName,
) -> About {
    let path = format!("{}/{snapshot}", routes::INSTANCE.url(&[instance.as_str()]));
    let resources = Some([("instances".to_owned(), vec![path])].into());
    About { description, resources, ..About::default() }
}

fn tell(
    app: &App,
    caller: &Caller,
    action: &str,
    instance: &InstanceName,
    snapshot: &SnapshotName,
    context: &[(&str, &str)],
) {
    let source = routes::INSTANCE_SNAPSHOT.url(&[instance.as_str(), snapshot.as_str()]);
    app.events.lifecycle(action, source, context, Some(&caller.requestor));
}

/// Until when a snapshot of now is kept that does not say so itself.
fn kept_until(record: &InstanceRecord, now: Timestamp) -> Timestamp {
    let wish = expanded(&record.definition).0.remove(key::SNAPSHOT_EXPIRY);
    wish.and_then(|wish| config::expiry(&wish, now)).unwrap_or_else(time::zero)
}

/// Takes a snapshot, of a running instance too, as an operation.
///
/// # Errors
/// An unknown instance, a name that is none.
pub fn take(
    app: &Arc<App>,
    caller: &Caller,
    instance: &InstanceName,
    post: &SnapshotsPost,
) -> Result<Operation> {
    app.catalog.instances.get(instance)?;
    if post.stateful {
        return Err(Error::BadRequest("states of processes cannot be kept here".into()));
    }
    let name: Option<SnapshotName> = match post.name.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|error| Error::BadRequest(format!("{error}")))?),
    };
    let wanted = post.expires_at;
    let about = about(description::SNAPSHOT_CREATE, instance);
    let (task, caller, instance) = (app.clone(), caller.clone(), instance.clone());
    app.operations.spawn(about, async move |context| {
        let _held = task.locks.hold(&instance).await;
        let record = task.catalog.instances.get(&instance)?;
        if record.snapshots.len() >= MOST {
            return Err(Error::TooMany("snapshots of one instance").into());
        }
        let name = match name {
            Some(name) => name,
            None => next_name(&record)?,
        };
        if record.snapshots.contains_key(&name) {
            return Err(Error::SnapshotExists(name.to_string()).into());
        }
        let expires_at = wanted.unwrap_or_else(|| kept_until(&record, task.clock.now()));
        context.may_cancel(true);
        let (app, cancel) = (task.clone(), context.cancelled());
        let from = Owner::Instance(instance.clone());
        let to = Owner::Snapshot(instance.clone(), name.clone());
        let (disk, made) = (record.definition.disk, to.clone());
        // What runs is held for a moment, so that the copy is of one moment.
        let held = Held::begin(&task, &instance)?;
        let copied = blocking(move || app.disks.duplicate(&from, &made, disk, &cancel)).await;
        held.end()?;
        copied?;
        let taken = SnapshotRecord {
            created_at: images::stored(task.clock.now()),
            expires_at: images::stored(expires_at),
            definition: record.definition.clone(),
        };
        let change = InstanceChange::Snapshot(instance.clone(), name.clone(), Box::new(taken));
        if let Err(error) = task.db.commit(Change::Instance(change)).await {
            let app = task.clone();
            blocking(move || app.disks.delete(&to)).await?;
            return Err(error.into());
        }
        tell(&task, &caller, action::INSTANCE_SNAPSHOT_CREATED, &instance, &name, &[]);
        Ok(None)
    })
}

/// A running instance whose processes are held for a snapshot. A note beside it says so, for a
/// daemon that is ended meanwhile.
struct Held<'a> {
    app: &'a App,
    instance: &'a InstanceName,
    held: bool,
}

/// The note.
const NOTE: &str = "held-for-snapshot";

impl<'a> Held<'a> {
    fn begin(app: &'a App, instance: &'a InstanceName) -> Result<Self> {
        let held = runtime::status(app, instance) == InstanceStatus::Running;
        if held {
            let note = note(app, instance);
            std::fs::write(&note, "")
                .map_err(|error| Error::io(format!("cannot write {}", note.display()), error))?;
            app.runtime.freeze(&runtime::named(instance)?)?;
        }
        Ok(Self { app, instance, held })
    }

    fn end(self) -> Result<()> {
        if self.held { let_go(self.app, self.instance) } else { Ok(()) }
    }
}

fn note(app: &App, instance: &InstanceName) -> std::path::PathBuf {
    app.disks.home(&Owner::Instance(instance.clone())).join(NOTE)
}

/// Lets an instance go on that was held for a snapshot, by this daemon or the one before.
pub(super) fn let_go(app: &App, instance: &InstanceName) -> Result<()> {
    let note = note(app, instance);
    if !note.exists() {
        return Ok(());
    }
    if runtime::status(app, instance) == InstanceStatus::Frozen {
        app.runtime.unfreeze(&runtime::named(instance)?)?;
    }
    std::fs::remove_file(&note)
        .map_err(|error| Error::io(format!("cannot remove {}", note.display()), error))
}

/// The first free one of `snap0`, `snap1`, …
fn next_name(record: &InstanceRecord) -> Result<SnapshotName> {
    (0..=MOST)
        .filter_map(|number| format!("snap{number}").parse().ok())
        .find(|name| !record.snapshots.contains_key(name))
        .ok_or(Error::TooMany("snapshots of one instance"))
}

/// Puts a snapshot in the place of its instance, as an operation. A running instance is stopped
/// and started again.
pub(super) fn restore(
    app: &Arc<App>,
    caller: &Caller,
    instance: &InstanceName,
    snapshot: SnapshotName,
) -> Result<Operation> {
    let missing = || Error::BadRequest(format!("Snapshot {instance}/{snapshot} does not exist"));
    let record = app.catalog.instances.get(instance)?;
    record.snapshots.get(&snapshot).ok_or_else(missing)?;
    let about = about(description::INSTANCE_RESTORE, instance);
    let (task, caller, instance) = (app.clone(), caller.clone(), instance.clone());
    app.operations.spawn(about, async move |context| {
        let _held = task.locks.hold(&instance).await;
        let record = task.catalog.instances.get(&instance)?;
        let taken = record.snapshots.get(&snapshot).ok_or(SNAPSHOT_NOT_FOUND)?.clone();
        context.may_cancel(true);
        let (app, name, of) = (task.clone(), instance.clone(), snapshot.clone());
        let (disk, cancel) = (taken.definition.disk, context.cancelled());
        blocking(move || app.disks.prepare_restore(&name, &of, disk, &cancel)).await?;
        context.may_cancel(false);
        if runtime::is_stopped(&task, &instance) {
            put_in_place(&task, &record, taken).await?;
        } else {
            // It is not over: an ephemeral one stays.
            let _restarting = power::Restarting::begin(&task, &instance);
            task.runtime.kill(&runtime::named(&instance)?).await?;
            let restored = put_in_place(&task, &record, taken).await;
            // As it was, if it cannot be as it is to be.
            let started = power::start(&task, None, &instance).await;
            if started.is_err() {
                power::note_stopped(&task, &instance).await?;
            }
            restored.and(started)?;
        }
        let context = [("snapshot", snapshot.as_str())];
        super::tell(&task, Some(&caller), action::INSTANCE_RESTORED, &instance, &context);
        Ok(None)
    })
}

/// The disk of a snapshot that lies beside that of its stopped instance, and its configuration.
async fn put_in_place(
    app: &Arc<App>,
    record: &InstanceRecord,
    taken: SnapshotRecord,
) -> Result<()> {
    let (task, name, disk) = (app.clone(), record.name.clone(), taken.definition.disk);
    blocking(move || task.disks.restore(&name, disk)).await?;
    update(app, record, |record| {
        let own = record.definition.config.iter();
        let own: Vec<_> = own
            .filter(|(name, _)| *name == key::UUID || *name == key::LAST_POWER)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        record.definition = taken.definition;
        record.definition.config.extend(own);
    })
    .await
}

fn known(app: &App, instance: &InstanceName, snapshot: &SnapshotName) -> Result<()> {
    let record = app.catalog.instances.get(instance)?;
    if record.snapshots.contains_key(snapshot) { Ok(()) } else { Err(SNAPSHOT_NOT_FOUND) }
}

/// Removes a snapshot, as an operation.
///
/// # Errors
/// There is none of this name.
pub fn delete(
    app: &Arc<App>,
    caller: &Caller,
    instance: &InstanceName,
    snapshot: &SnapshotName,
) -> Result<Operation> {
    known(app, instance, snapshot)?;
    let about = about_snapshot(description::SNAPSHOT_DELETE, instance, snapshot);
    let (task, caller) = (app.clone(), caller.clone());
    let (instance, snapshot) = (instance.clone(), snapshot.clone());
    app.operations.spawn(about, async move |_| {
        remove(&task, &instance, &snapshot).await?;
        tell(&task, &caller, action::INSTANCE_SNAPSHOT_DELETED, &instance, &snapshot, &[]);
        Ok(None)
    })
}

/// Gives a snapshot another name, as an operation.
///
/// # Errors
/// There is none of this name, or the other is taken.
pub fn rename(
    app: &Arc<App>,
    caller: &Caller,
    instance: &InstanceName,
    from: &SnapshotName,
    to: SnapshotName,
) -> Result<Operation> {
    known(app, instance, from)?;
    if known(app, instance, &to).is_ok() {
        return Err(Error::NameTaken(format!("{instance}/{to}")));
    }
    let about = about_snapshot(description::SNAPSHOT_RENAME, instance, from);
    let (task, caller) = (app.clone(), caller.clone());
    let (instance, from) = (instance.clone(), from.clone());
    app.operations.spawn(about, async move |_| {
        let _held = task.locks.hold(&instance).await;
        let _snapshots = task.locks.change_snapshots(&instance).await;
        known(&task, &instance, &from)?;
        let (app, name, old, new) = (task.clone(), instance.clone(), from.clone(), to.clone());
        blocking(move || app.disks.rename_snapshot(&name, &old, &new)).await?;
        let change = InstanceChange::RenameSnapshot(instance.clone(), from.clone(), to.clone());
        if let Err(error) = task.db.commit(Change::Instance(change)).await {
            let (app, name, old, new) = (task.clone(), instance.clone(), from.clone(), to.clone());
            blocking(move || app.disks.rename_snapshot(&name, &new, &old)).await?;
            return Err(error.into());
        }
        let context = [("old_name", from.as_str())];
        tell(&task, &caller, action::INSTANCE_SNAPSHOT_RENAMED, &instance, &to, &context);
        Ok(None)
    })
}

/// Says when a snapshot may go, as an operation.
///
/// # Errors
/// There is none of this name.
pub fn expire(
    app: &Arc<App>,
    caller: &Caller,
    instance: &InstanceName,
    snapshot: &SnapshotName,
    at: Timestamp,
) -> Result<Operation> {
    known(app, instance, snapshot)?;
    let about = about_snapshot(description::SNAPSHOT_UPDATE, instance, snapshot);
    let (task, caller) = (app.clone(), caller.clone());
    let (instance, snapshot) = (instance.clone(), snapshot.clone());
    app.operations.spawn(about, async move |_| {
        let at = images::stored(at);
        let change = InstanceChange::Expire(instance.clone(), snapshot.clone(), at);
        task.db.commit(Change::Instance(change)).await?;
        tell(&task, &caller, action::INSTANCE_SNAPSHOT_UPDATED, &instance, &snapshot, &[]);
        Ok(None)
    })
}

/// Removes the snapshots whose time has come; tells how many.
pub async fn prune(app: &Arc<App>) -> usize {
    let now = app.clock.now();
    let mut removed = 0;
    for record in app.catalog.instances.all() {
        let due =
            |taken: &SnapshotRecord| !time::is_unset(taken.expires_at) && taken.expires_at <= now;
        for name in record.snapshots.iter().filter(|(_, taken)| due(taken)).map(|(name, _)| name) {
            match remove(app, &record.name, name).await {
                Ok(()) => removed += 1,
                Err(Error::NotFound(_)) => {}
                Err(error) => {
                    tracing::error!(instance = %record.name, snapshot = %name, %error,
                        "cannot remove an expired snapshot");
                }
            }
        }
    }
    removed
}

/// Removes a snapshot: the row, then the bytes.
async fn remove(app: &Arc<App>, instance: &InstanceName, snapshot: &SnapshotName) -> Result<()> {
    let _held = app.locks.hold(instance).await;
    let _snapshots = app.locks.change_snapshots(instance).await;
    let record = app.catalog.instances.get(instance)?;
    let taken = record.snapshots.get(snapshot).ok_or(SNAPSHOT_NOT_FOUND)?;
    let change = InstanceChange::DeleteSnapshot(instance.clone(), snapshot.clone());
    app.db.commit(Change::Instance(change)).await?;
    let (task, owner) = (app.clone(), Owner::Snapshot(instance.clone(), snapshot.clone()));
    if let Err(error) = blocking(move || task.disks.delete(&owner)).await {
        tracing::warn!(%error, "files of a deleted snapshot stay until the next start");
    }
    if let Some(image) = &taken.definition.image {
        tidy_tree(app, image).await;
    }
    Ok(())
}
