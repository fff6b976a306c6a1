//! New instances: from an image, as a copy of another, or empty.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lxd_proto::arch::Architecture;
use lxd_proto::event::action;
use lxd_proto::image::{InstanceType, Verified};
use lxd_proto::instance::{
    self, Config, Devices, ImageOf, InstanceName, InstancePut, InstanceSource, InstancesPost,
    SnapshotName, key, settings,
};
use lxd_proto::operation::{Operation, description};
use lxd_proto::remote::{Progress, Secret};
use lxd_proto::time;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{about_both, blocking, known_profiles, names, power, runtime, tell, without_volatile};
use crate::acquire::{self, Source, origins};
use crate::app::{App, Caller};
use crate::catalog::{Entry, Viewer};
use crate::db::{Change, Definition, Disk, InstanceChange, InstanceRecord, SnapshotRecord};
use crate::disks::Owner;
use crate::error::{Error, INSTANCE_NOT_FOUND, Result, SNAPSHOT_NOT_FOUND};
use crate::ops::Context;
use crate::service::{images, sources, verify};
use crate::trees::{Files, Tree};

/// Key of the progress that LXD's client shows.
const UNPACK: &str = "create_instance_from_image_unpack_progress";
/// Time between two reports of progress.
const REPORT: Duration = Duration::from_millis(250);
/// Keys of one configuration, and bytes of one value.
const MOST_KEYS: usize = 512;
const LONGEST_VALUE: usize = 64 << 10;

/// What an instance is made from, as far as the request tells.
enum Origin {
    /// An image here.
    Local(Arc<Entry>),
    /// An image here that is not.
    Missing,
    /// An image at another server.
    Remote(Box<Source>),
    /// Another instance, or a snapshot of one, with or without its own snapshots.
    Copy(Arc<InstanceRecord>, Option<SnapshotName>, bool),
    /// Nothing.
    Empty,
}

/// Begins to make an instance, as an operation.
///
/// # Errors
/// For what makes no sense; what goes wrong later is told by the operation.
pub fn create(app: &Arc<App>, caller: &Caller, post: InstancesPost) -> Result<Operation> {
    if post.kind == InstanceType::VirtualMachine {
        return Err(Error::BadRequest(
            "virtual machines are stored and served here, but not run; use a container".into(),
        ));
    }
    if !post.instance_type.is_empty() {
        return Err(Error::BadRequest("sizes of clouds (instance_type) are not known here".into()));
    }
    let profiles = known_profiles(post.put.profiles.clone())?;
    check_config(&post.put.config)?;
    check_devices(&post.put.devices)?;
    let origin = origin(app, &post.source)?;
    if let Some(missing) = app.runtime.missing() {
        return Err(Error::NoRuntime(missing.to_owned()));
    }
    let name = match post.name.as_str() {
        "" => invent(app)?,
        name => name.parse().map_err(invalid)?,
    };
    let about = about_both(description::INSTANCE_CREATE, &name);
    let (task, caller) = (app.clone(), caller.clone());
    app.operations.spawn(about, async move |context| {
        let held = match &origin {
            Origin::Copy(record, ..) => task.locks.hold_both(&name, &record.name).await,
            _ => (task.locks.hold(&name).await, None),
        };
        if task.catalog.instances.get(&name).is_ok() {
            return Err(Error::InstanceExists.into());
        }
        let put = InstancePut { profiles: Some(profiles), ..post.put };
        let maker = Maker { app: &task, name: &name, put };
        maker.make(origin, context).await?;
        tell(&task, Some(&caller), action::INSTANCE_CREATED, &name, &[("type", "container")]);
        if post.start {
            power::start(&task, Some(&caller), &name).await?;
        }
        drop(held);
        Ok(None)
    })
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::BadRequest(error.to_string())
}

fn invent(app: &App) -> Result<InstanceName> {
    (0..64)
        .filter_map(|attempt| names::invent(attempt).parse().ok())
        .find(|name| app.catalog.instances.get(name).is_err())
        .ok_or_else(|| Error::Internal("no free name was found".into()))
}

fn origin(app: &App, source: &InstanceSource) -> Result<Origin> {
    match source.parse().map_err(invalid)? {
        instance::Source::Local(image) => local(app, image),
        instance::Source::Remote(image, server) => remote(image, server),
        instance::Source::Copy { instance, snapshot, instance_only } => {
            let name: InstanceName = instance.parse().map_err(|_| INSTANCE_NOT_FOUND)?;
            let record = app.catalog.instances.get(&name)?;
            let snapshot: Option<SnapshotName> =
                snapshot.map(str::parse).transpose().map_err(|_| SNAPSHOT_NOT_FOUND)?;
            if snapshot.as_ref().is_some_and(|name| !record.snapshots.contains_key(name)) {
                return Err(SNAPSHOT_NOT_FOUND);
            }
            Ok(Origin::Copy(record, snapshot, instance_only))
        }
        instance::Source::Nothing => Ok(Origin::Empty),
    }
}

/// An image of ours. One that is named by a fingerprint and not here is told by the operation.
fn local(app: &App, image: ImageOf<'_>) -> Result<Origin> {
    let by_prefix = |text: &str| match text.parse() {
        Ok(prefix) => match app.catalog.image(Viewer::Trusted, &prefix) {
            Ok(entry) => Ok(Origin::Local(entry)),
            Err(Error::NotFound(_)) => Ok(Origin::Missing),
            Err(error) => Err(error),
        },
        Err(_) => Ok(Origin::Missing),
    };
    match image {
        ImageOf::Alias(name) => {
            let alias = app.catalog.alias(Viewer::Trusted, name)?;
            by_prefix(&alias.target.to_string())
        }
        ImageOf::Fingerprint(text) => by_prefix(text),
        ImageOf::Properties(wanted) => {
            let has_all = |entry: &&Arc<Entry>| {
                wanted.iter().all(|(key, value)| entry.image.properties.get(key) == Some(value))
            };
            let all = app.catalog.images(Viewer::Trusted, None);
            let newest = all.iter().filter(has_all).max_by_key(|entry| entry.image.created_at);
            Ok(newest.map_or(Origin::Missing, |entry| Origin::Local(entry.clone())))
        }
    }
}

fn remote(image: ImageOf<'_>, server: instance::Server<'_>) -> Result<Origin> {
    let (ImageOf::Alias(reference) | ImageOf::Fingerprint(reference)) = image else {
        return Err(invalid("an image of another server is named by alias or fingerprint"));
    };
    let protocol = if server.protocol.is_empty() { "lxd" } else { server.protocol };
    let spec = origins::spec(server.url, protocol, server.certificate, server.project)?;
    Ok(Origin::Remote(Box::new(Source {
        remote: origins::signed(spec, server.keyring)?,
        reference: reference.to_owned(),
        secret: Some(server.secret.to_owned()).filter(|it| !it.is_empty()).map(Secret::new),
        kind: Some(InstanceType::Container),
        architecture: None,
        fresh: false,
    })))
}

/// Refuses keys that mean nothing here.
pub(super) fn check_config(config: &Config) -> Result<()> {
    if config.len() > MOST_KEYS {
        return Err(Error::BadRequest(format!("more than {MOST_KEYS} configuration keys")));
    }
    for (name, value) in config {
        if name.starts_with("raw.") {
            return Err(Error::BadRequest(format!(
                "{name} is refused: it would reach the container runtime unchecked"
            )));
        }
        settings::check(name, value).map_err(|error| Error::BadRequest(error.to_string()))?;
        if value.len() > LONGEST_VALUE || value.contains('\0') {
            return Err(Error::BadRequest(format!(
                "the value of {name} has more than {LONGEST_VALUE} bytes, or a zero byte"
            )));
        }
        let line = name.starts_with(key::ENVIRONMENT) && value.contains(char::is_control);
        if line {
            return Err(Error::BadRequest(format!("{name} may be one line only")));
        }
        let privileged = name == "security.privileged" || name == "security.nesting";
        if privileged && lxd_proto::config::parse_bool(value) == Some(true) {
            return Err(Error::BadRequest(format!(
                "{name} is refused: containers here have no rights on the host"
            )));
        }
    }
    runtime::limits(config).map(drop)
}

/// Refuses devices that cannot be had here.
pub(super) fn check_devices(devices: &Devices) -> Result<()> {
    for (name, device) in devices {
        let value = |key: &str| device.get(key).map(String::as_str);
        match value("type") {
            Some("none") => {}
            Some("disk") if value("path") == Some("/") => match value("pool") {
                None | Some(lxd_proto::storage::DEFAULT) => {}
                Some(pool) => {
                    return Err(Error::BadRequest(format!(
                        "The \"{pool}\" storage pool doesn't exist"
                    )));
                }
            },
            Some(kind) => {
                return Err(Error::BadRequest(format!(
                    "device \"{name}\": devices of type \"{kind}\" cannot be had here; instances \
                     get a network interface by the server's key instances.bridge"
                )));
            }
            None => return Err(Error::BadRequest(format!("device \"{name}\" has no type"))),
        }
    }
    Ok(())
}

struct Maker<'a> {
    app: &'a Arc<App>,
    name: &'a InstanceName,
    put: InstancePut,
}

impl Maker<'_> {
    async fn make(&self, origin: Origin, context: Context) -> Result<()> {
        match origin {
            Origin::Missing => {
                Err(Error::BadRequest("Image not provided for instance creation".into()))
            }
            Origin::Local(entry) => {
                self.app
                    .db
                    .commit(Change::Used(entry.image.fingerprint, images::stored(self.now())))
                    .await?;
                self.of_image(&entry, context).await
            }
            Origin::Remote(source) => {
                let follow = sources::shown(context.clone());
                let entry = acquire::ensure(self.app, &source, &follow).await?;
                self.of_image(&entry, context).await
            }
            Origin::Copy(record, snapshot, alone) => {
                context.may_cancel(true);
                self.of_instance(&record, snapshot.as_ref(), alone, context.cancelled()).await
            }
            Origin::Empty => {
                let definition = self.definition(Config::new(), None, Disk::Plain, None)?;
                let change = BTreeMap::new();
                self.build(definition, change, context.cancelled()).await
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.app.clock.now()
    }

    async fn of_image(&self, entry: &Arc<Entry>, context: Context) -> Result<()> {
        let image = &entry.image;
        if image.kind != InstanceType::Container {
            return Err(Error::BadRequest(format!(
                "Requested image's type \"{}\" doesn't match instance type \"container\"",
                image.kind
            )));
        }
        context.may_cancel(true);
        let tree = unpacked(self.app, entry, &context).await?;
        let of_image = image
            .properties
            .iter()
            .map(|(name, value)| (format!("{}{name}", key::IMAGE), value.clone()));
        let mut config: Config = of_image.collect();
        config.insert(key::BASE_IMAGE.to_owned(), image.fingerprint.to_string());
        config.insert(key::APPLY_TEMPLATE.to_owned(), "create".to_owned());
        let disks = self.app.disks.clone();
        let disk = blocking(move || Ok(disks.kind())).await?;
        let definition =
            self.definition(config, Some(image.fingerprint), disk, Some(image.architecture))?;
        self.build(definition, BTreeMap::new(), context.cancelled()).await?;
        // Held until the row says that the tree is used.
        drop(tree);
        Ok(())
    }

    async fn of_instance(
        &self,
        record: &Arc<InstanceRecord>,
        snapshot: Option<&SnapshotName>,
        alone: bool,
        cancel: CancellationToken,
    ) -> Result<()> {
        let record = self.app.catalog.instances.get(&record.name)?;
        let (of, owner) = match snapshot {
            None => (&record.definition, Owner::Instance(record.name.clone())),
            Some(name) => {
                let taken = record.snapshots.get(name).ok_or(SNAPSHOT_NOT_FOUND)?;
                (&taken.definition, Owner::Snapshot(record.name.clone(), name.clone()))
            }
        };
        let mut config = without_volatile(&of.config);
        config.insert(key::APPLY_TEMPLATE.to_owned(), "copy".to_owned());
        let definition = self.definition(config, of.image, of.disk, Some(of.architecture))?;
        let snapshots: BTreeMap<SnapshotName, SnapshotRecord> =
            if alone || snapshot.is_some() { BTreeMap::new() } else { record.snapshots.clone() };
        let (app, name, disk) = (self.app.clone(), self.name.clone(), of.disk);
        let taken: Vec<(SnapshotName, Disk)> =
            snapshots.iter().map(|(name, taken)| (name.clone(), taken.definition.disk)).collect();
        let (from, cancelled) = (record.name.clone(), cancel.clone());
        let copied = blocking(move || {
            let to = Owner::Instance(name.clone());
            app.disks.duplicate(&owner, &to, disk, &cancelled)?;
            for (snapshot, disk) in taken {
                let old = Owner::Snapshot(from.clone(), snapshot.clone());
                app.disks.duplicate(
                    &old,
                    &Owner::Snapshot(name.clone(), snapshot),
                    disk,
                    &cancelled,
                )?;
            }
            Ok(())
        });
        self.recorded(copied.await, definition, snapshots).await
    }

    async fn build(
        &self,
        definition: Definition,
        snapshots: BTreeMap<SnapshotName, SnapshotRecord>,
        cancel: CancellationToken,
    ) -> Result<()> {
        let (app, name, made) = (self.app.clone(), self.name.clone(), definition.clone());
        let built = blocking(move || app.disks.create(&name, &made, &cancel)).await;
        self.recorded(built, definition, snapshots).await
    }

    /// Bytes before the row; without a row no bytes.
    async fn recorded(
        &self,
        built: Result<()>,
        definition: Definition,
        snapshots: BTreeMap<SnapshotName, SnapshotRecord>,
    ) -> Result<()> {
        let recorded = match built {
            Ok(()) => {
                let record = InstanceRecord {
                    name: self.name.clone(),
                    created_at: images::stored(self.now()),
                    last_used_at: time::epoch(),
                    definition,
                    snapshots,
                };
                let change = InstanceChange::Create(Box::new(record));
                self.app.db.commit(Change::Instance(change)).await
            }
            Err(error) => Err(error),
        };
        if recorded.is_err() {
            let (app, owner) = (self.app.clone(), Owner::Instance(self.name.clone()));
            if let Err(error) = blocking(move || app.disks.delete(&owner)).await {
                tracing::warn!(%error, "what was made of a failed instance stays until the next start");
            }
        }
        recorded
    }

    fn definition(
        &self,
        mut config: Config,
        image: Option<lxd_proto::fingerprint::Fingerprint>,
        disk: Disk,
        architecture: Option<Architecture>,
    ) -> Result<Definition> {
        let asked = self.put.architecture.as_str();
        let architecture = match (asked, architecture) {
            ("", Some(architecture)) => architecture,
            ("", None) => Architecture::host()
                .ok_or_else(|| Error::Internal("this machine has no known architecture".into()))?,
            (text, of_image) => {
                let asked: Architecture = text.parse().map_err(invalid)?;
                if of_image.is_some_and(|of_image| of_image != asked) {
                    return Err(Error::BadRequest(format!(
                        "Requested architecture isn't supported by this image: {text}"
                    )));
                }
                asked
            }
        };
        config.extend(without_volatile(&self.put.config));
        config.insert(key::UUID.to_owned(), Uuid::new_v4().to_string());
        Ok(Definition {
            image,
            disk,
            architecture,
            ephemeral: self.put.ephemeral,
            description: self.put.description.clone(),
            config,
            devices: self.put.devices.clone(),
            profiles: self.put.profiles.clone().unwrap_or_default(),
        })
    }
}

/// The tree of an image, once its check has passed.
async fn unpacked(app: &Arc<App>, entry: &Arc<Entry>, context: &Context) -> Result<Tree> {
    let image = &entry.image;
    if image.verified != Verified::Yes {
        verify::passed(app, &image.fingerprint, &context.cancelled()).await?;
    }
    let files = Files {
        head: app.blobs.path(&entry.head.digest),
        rootfs: entry.rootfs.as_ref().map(|rootfs| app.blobs.path(&rootfs.digest)),
    };
    let progress = Progress::default();
    let unpacking =
        app.trees.ensure(&image.fingerprint, files, progress.clone(), context.cancelled());
    tokio::pin!(unpacking);
    let started = Instant::now();
    let mut reports = tokio::time::interval(REPORT);
    loop {
        tokio::select! {
            tree = &mut unpacking => return tree,
            _ = reports.tick() => {}
        }
        let done = progress.done();
        if done > 0 {
            report(context, done, image.size, started);
        }
    }
}

fn report(context: &Context, done: u64, total: u64, started: Instant) {
    let percent = (done * 100).checked_div(total).unwrap_or_default().min(100);
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    let speed = done.saturating_mul(1000) / millis;
    let (whole, hundredths) = (speed / 1_000_000, speed % 1_000_000 / 10_000);
    let text = format!("Unpack: {percent}% ({whole}.{hundredths:02}MB/s)");
    let numbers = json!({
        "stage": "create_instance_from_image_unpack",
        "percent": percent.to_string(),
        "speed": speed.to_string(),
    });
    context.transfer(UNPACK, text, numbers);
}
