//! Instances: made from images, run, changed, copied, and made into images again.

mod create;
mod edit;
mod exec;
mod files;
mod locks;
mod names;
mod power;
mod publish;
mod runtime;
mod shown;
mod snapshots;
mod streams;

use std::sync::Arc;

use lxd_proto::instance::{InstanceName, key};
use lxd_proto::profile::Profile;
use lxd_proto::routes;

use crate::app::{App, Caller};
use crate::db::{Change, Definition, InstanceChange, InstanceRecord};
use crate::error::{Error, Result};
use crate::lxc::mounts;
use crate::ops::About;
use crate::trees::blocking;

pub use create::create;
pub use edit::{delete, patch, put, rename};
pub use exec::exec;
pub use files::{File, Kind, Written, WrittenKind, clear_console, console, read, remove, write};
pub use locks::Locks;
pub use power::{recover, set_state, stop_all};
pub use publish::publish;
pub use shown::{etag, full, shown, snapshot, snapshots, state};
pub use snapshots::{delete as delete_snapshot, expire, prune, rename as rename_snapshot, take};

/// What is being done about an instance, as operations tell it.
fn about(description: &'static str, name: &InstanceName) -> About {
    let path = routes::INSTANCE.url(&[name.as_str()]);
    let resources = Some([("instances".to_owned(), vec![path])].into());
    About { description, resources, ..About::default() }
}

/// The same with the old name of the collection, which some clients look for.
fn about_both(description: &'static str, name: &InstanceName) -> About {
    let mut about = about(description, name);
    let old = routes::INSTANCE.older_url(&[name.as_str()]).unwrap_or_default();
    about.resources.get_or_insert_default().insert("containers".to_owned(), vec![old]);
    about
}

/// Tells everyone that something happened to an instance.
fn tell(
    app: &App,
    caller: Option<&Caller>,
    action: &str,
    name: &InstanceName,
    context: &[(&str, &str)],
) {
    let source = routes::INSTANCE.url(&[name.as_str()]);
    app.events.lifecycle(action, source, context, caller.map(|caller| &caller.requestor));
}

/// Records new values of an instance.
async fn update(
    app: &App,
    record: &InstanceRecord,
    edit: impl FnOnce(&mut InstanceRecord),
) -> Result<()> {
    let mut record = record.clone();
    edit(&mut record);
    let change = InstanceChange::Update(Box::new(record));
    app.db.commit(Change::Instance(change)).await
}

/// The configuration with that of its profiles, and the devices likewise.
fn expanded(
    definition: &Definition,
) -> (lxd_proto::instance::Config, lxd_proto::instance::Devices) {
    let (mut config, mut devices) = (definition.config.clone(), definition.devices.clone());
    for _ in &definition.profiles {
        // There is one profile.
        let profile = Profile::builtin();
        for (key, value) in profile.config {
            config.entry(key).or_insert(value);
        }
        for (name, device) in profile.devices {
            devices.entry(name).or_insert(device);
        }
    }
    (config, devices)
}

/// The keys that a new instance takes over from an image or another instance, without what the
/// daemon keeps for itself.
fn without_volatile(config: &lxd_proto::instance::Config) -> lxd_proto::instance::Config {
    let kept = |name: &str| !name.starts_with(key::VOLATILE) || name == key::BASE_IMAGE;
    config.iter().filter(|(name, _)| kept(name)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Removes the tree of an image that neither the store nor an instance needs.
pub async fn tidy_tree(app: &Arc<App>, image: &lxd_proto::fingerprint::Fingerprint) {
    let (task, image) = (app.clone(), *image);
    let used = move || task.catalog.get(&image).is_some() || task.catalog.instances.uses(&image);
    let removed = app.trees.remove_unless(&image, used, |tree| {
        if let Err(error) = mounts::unmount(&tree.join("mapped")) {
            tracing::debug!(%error, "nothing to unmount");
        }
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, image = %image, "the tree of a deleted image stays behind");
    }
}

/// Removes what an interrupted change left: half-made instances and snapshots, and trees that
/// nobody needs.
pub async fn sweep(app: &Arc<App>) -> Result<()> {
    let task = app.clone();
    let trees = blocking(move || {
        let all = task.catalog.instances.all();
        let known = |instance: &str, snapshot: Option<&str>| {
            let record = all.iter().find(|record| record.name.as_str() == instance);
            record.is_some_and(|record| match snapshot {
                None => true,
                Some(name) => record.snapshots.keys().any(|known| known.as_str() == name),
            })
        };
        task.disks.sweep(&known)?;
        let swept = task.trees.sweep();
        swept.map_err(|error| Error::io("cannot look at the unpacked images", error))
    })
    .await?;
    for image in trees {
        tidy_tree(app, &image).await;
    }
    Ok(())
}

/// Refuses a user or group that no instance has.
fn check_id(app: &App, what: &str, id: u32) -> Result<()> {
    let ids = app.disks.ids();
    if id < ids {
        return Ok(());
    }
    Err(Error::BadRequest(format!("{what} {id} is none of the {ids} that an instance has")))
}

/// The profiles of an instance; there is only the default one.
fn known_profiles(profiles: Option<Vec<String>>) -> Result<Vec<String>> {
    let unknown = |name: &&String| *name != lxd_proto::profile::DEFAULT;
    match profiles.iter().flatten().find(unknown) {
        Some(name) => Err(Error::BadRequest(format!("Requested profile \"{name}\" doesn't exist"))),
        None => crate::service::images::known_profiles(profiles),
    }
}
