//! Changing, renaming and deleting instances.

use std::sync::Arc;

use lxd_proto::config::parse_bool;
use lxd_proto::event::action;
use lxd_proto::instance::{
    Config, Devices, InstanceName, InstancePatch, InstancePut, InstanceStatus, SnapshotName, key,
};
use lxd_proto::operation::{Operation, description};

use super::create::{check_config, check_devices};
use super::{
    about, blocking, expanded, known_profiles, runtime, shown, snapshots, tell, tidy_tree, update,
};
use crate::app::{App, Caller};
use crate::db::{Change, Definition, InstanceChange, InstanceRecord};
use crate::disks::Owner;
use crate::error::{Error, Result};
use crate::lxc::Limits;
use crate::service::images;

/// Gives an instance other values, or restores a snapshot, as an operation.
///
/// # Errors
/// What makes no sense, or was read too long ago.
pub fn put(
    app: &Arc<App>,
    caller: &Caller,
    name: &InstanceName,
    etag: Option<&str>,
    put: InstancePut,
) -> Result<Operation> {
    let record = app.catalog.instances.get(name)?;
    if !put.restore.is_empty() {
        if put.stateful {
            let text = "Stateful snapshot restore requested by snapshot is stateless";
            return Err(Error::BadRequest(text.into()));
        }
        let snapshot = put.restore.rsplit('/').next().unwrap_or_default();
        let snapshot: SnapshotName = snapshot.parse().map_err(|_| {
            Error::BadRequest(format!("Snapshot {name}/{} does not exist", put.restore))
        })?;
        return snapshots::restore(app, caller, name, snapshot);
    }
    images::check_etag(etag, &shown::etag(&record))?;
    let profiles = known_profiles(put.profiles.clone())?;
    check_config(&put.config)?;
    check_devices(&put.devices)?;
    let about = about(description::INSTANCE_UPDATE, name);
    let (task, caller, name) = (app.clone(), caller.clone(), name.clone());
    let etag = etag.map(str::to_owned);
    app.operations.spawn(about, async move |_| {
        let _held = task.locks.hold(&name).await;
        let record = task.catalog.instances.get(&name)?;
        images::check_etag(etag.as_deref(), &shown::etag(&record))?;
        change(&task, &record, |definition| {
            definition.config = kept(&definition.config, put.config);
            definition.devices = put.devices;
            definition.ephemeral = put.ephemeral;
            definition.profiles = profiles;
            definition.description = put.description;
        })
        .await?;
        tell(&task, Some(&caller), action::INSTANCE_UPDATED, &name, &[]);
        Ok(None)
    })
}

/// Changes an instance that is held. Other limits hold at once for what runs, or not at all.
async fn change(
    app: &Arc<App>,
    record: &InstanceRecord,
    edit: impl FnOnce(&mut Definition),
) -> Result<()> {
    let mut definition = record.definition.clone();
    edit(&mut definition);
    let [old, new] = [&record.definition, &definition].map(|it| runtime::limits(&expanded(it).0));
    let (old, new) = (old?, new?);
    let other = old != new && !runtime::is_stopped(app, &record.name);
    let changed = async {
        if other {
            limit(app, &record.name, new).await?;
        }
        update(app, record, |record| record.definition = definition).await
    };
    let outcome = changed.await;
    if outcome.is_err()
        && other
        && let Err(error) = limit(app, &record.name, old).await
    {
        tracing::error!(instance = %record.name, %error, "an instance keeps limits that were refused");
    }
    outcome
}

async fn limit(app: &Arc<App>, name: &InstanceName, limits: Limits) -> Result<()> {
    let (task, name) = (app.clone(), runtime::named(name)?);
    blocking(move || Ok(task.runtime.limit(&name, &limits)?)).await
}

/// The new configuration; what the daemon keeps for itself stays as it was.
fn kept(old: &Config, mut new: Config) -> Config {
    new.retain(|name, value| !name.starts_with(key::VOLATILE) && !value.is_empty());
    let own = old.iter().filter(|(name, _)| name.starts_with(key::VOLATILE));
    new.extend(own.map(|(name, value)| (name.clone(), value.clone())));
    new
}

/// Changes what the request names, leaves the rest.
///
/// # Errors
/// What makes no sense, or was read too long ago.
pub async fn patch(
    app: &Arc<App>,
    caller: &Caller,
    name: &InstanceName,
    etag: Option<&str>,
    patch: InstancePatch,
) -> Result<()> {
    let profiles = patch.profiles.map(|all| known_profiles(Some(all))).transpose()?;
    check_config(patch.config.as_ref().unwrap_or(&Config::new()))?;
    check_devices(patch.devices.as_ref().unwrap_or(&Devices::new()))?;
    let _held = app.locks.hold(name).await;
    let record = app.catalog.instances.get(name)?;
    images::check_etag(etag, &shown::etag(&record))?;
    change(app, &record, |definition| {
        if let Some(config) = patch.config {
            let mut all = definition.config.clone();
            all.extend(config);
            definition.config = kept(&definition.config, all);
        }
        definition.devices.extend(patch.devices.unwrap_or_default());
        if let Some(ephemeral) = patch.ephemeral {
            definition.ephemeral = ephemeral;
        }
        if let Some(profiles) = profiles {
            definition.profiles = profiles;
        }
        if let Some(description) = patch.description {
            definition.description = description;
        }
    })
    .await?;
    tell(app, Some(caller), action::INSTANCE_UPDATED, name, &[]);
    Ok(())
}

/// Gives a stopped instance another name, as an operation.
///
/// # Errors
/// It runs, or the name is taken.
pub fn rename(
    app: &Arc<App>,
    caller: &Caller,
    from: &InstanceName,
    to: InstanceName,
) -> Result<Operation> {
    app.catalog.instances.get(from)?;
    if app.catalog.instances.get(&to).is_ok() {
        return Err(Error::NameTaken(to.to_string()));
    }
    stopped(app, from, "Renaming of running instance not allowed")?;
    let about = about(description::INSTANCE_RENAME, from);
    let (task, caller, from) = (app.clone(), caller.clone(), from.clone());
    app.operations.spawn(about, async move |_| {
        let _held = task.locks.hold_both(&from, &to).await;
        let _snapshots = task.locks.change_snapshots(&from).await;
        task.catalog.instances.get(&from)?;
        if task.catalog.instances.get(&to).is_ok() {
            return Err(Error::NameTaken(to.to_string()).into());
        }
        stopped(&task, &from, "Renaming of running instance not allowed")?;
        let (app, old, new) = (task.clone(), from.clone(), to.clone());
        blocking(move || app.disks.rename(&old, &new)).await?;
        let change = InstanceChange::Rename(from.clone(), to.clone());
        if let Err(error) = task.db.commit(Change::Instance(change)).await {
            let (app, old, new) = (task.clone(), from.clone(), to.clone());
            blocking(move || app.disks.rename(&new, &old)).await?;
            return Err(error.into());
        }
        let context = [("old_name", from.as_str())];
        tell(&task, Some(&caller), action::INSTANCE_RENAMED, &to, &context);
        Ok(None)
    })
}

fn stopped(app: &App, name: &InstanceName, otherwise: &str) -> Result<()> {
    if runtime::status(app, name) == InstanceStatus::Stopped {
        Ok(())
    } else {
        Err(Error::BadRequest(otherwise.to_owned()))
    }
}

fn unprotected(app: &App, name: &InstanceName) -> Result<()> {
    let record = app.catalog.instances.get(name)?;
    let wish = expanded(&record.definition).0.remove(key::PROTECTED);
    if wish.and_then(|wish| parse_bool(&wish)) == Some(true) {
        return Err(Error::BadRequest("Instance is protected".to_owned()));
    }
    Ok(())
}

/// Deletes a stopped instance with its snapshots, as an operation.
///
/// # Errors
/// It runs, or is kept from being deleted.
pub fn delete(app: &Arc<App>, caller: &Caller, name: &InstanceName) -> Result<Operation> {
    unprotected(app, name)?;
    stopped(app, name, "Instance is running")?;
    let about = super::about_both(description::INSTANCE_DELETE, name);
    let (task, caller, name) = (app.clone(), caller.clone(), name.clone());
    app.operations.spawn(about, async move |_| {
        let _held = task.locks.hold(&name).await;
        unprotected(&task, &name)?;
        stopped(&task, &name, "Instance is running")?;
        remove(&task, &name).await?;
        tell(&task, Some(&caller), action::INSTANCE_DELETED, &name, &[]);
        Ok(None)
    })
}

/// Removes an instance that its caller holds: the row, then the bytes.
pub(super) async fn remove(app: &Arc<App>, name: &InstanceName) -> Result<()> {
    let _snapshots = app.locks.change_snapshots(name).await;
    let record = app.catalog.instances.get(name)?;
    app.db.commit(Change::Instance(InstanceChange::Delete(name.clone()))).await?;
    let (task, owner) = (app.clone(), Owner::Instance(name.clone()));
    if let Err(error) = blocking(move || task.disks.delete(&owner)).await {
        tracing::warn!(%error, "files of a deleted instance stay until the next start");
    }
    let snapshots = record.snapshots.values().filter_map(|taken| taken.definition.image);
    for image in snapshots.chain(record.definition.image) {
        tidy_tree(app, &image).await;
    }
    Ok(())
}
