//! Starting and stopping instances, and what follows when one ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lxd_proto::config::{self, parse_bool};
use lxd_proto::event::action;
use lxd_proto::instance::{Action, InstanceName, InstanceStatus, StatePut, key};
use lxd_proto::metadata::Metadata;
use lxd_proto::operation::{Operation, description};

use super::{about, blocking, edit, expanded, runtime, snapshots, tell, update};
use crate::app::{App, Caller};
use crate::db::InstanceRecord;
use crate::error::{Error, Result};
use crate::lxc::{Bridge, HardwareAddress, Nic, Spec};
use crate::ops::Context;
use crate::rootfs::templates::{self, Trigger};
use crate::service::images;
use crate::template;

const RUNNING: &str = "RUNNING";
const STOPPED: &str = "STOPPED";
/// How long instances may take to end when the whole daemon is shut down.
const PATIENCE: Duration = Duration::from_secs(30);
/// Instances that are started or stopped at once with the daemon.
const AT_ONCE: usize = 8;

/// How an instance is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// At once.
    Killed,
    /// By itself, within this time if there is a limit.
    Clean(Option<Duration>),
}

impl End {
    fn of(put: &StatePut) -> Self {
        match u64::try_from(put.timeout) {
            _ if put.force => Self::Killed,
            Ok(0) => Self::Killed,
            Ok(seconds) => Self::Clean(Some(Duration::from_secs(seconds))),
            Err(_) => Self::Clean(None),
        }
    }
}

fn description(action: Action) -> &'static str {
    match action {
        Action::Start => description::INSTANCE_START,
        Action::Stop => description::INSTANCE_STOP,
        Action::Restart => description::INSTANCE_RESTART,
        Action::Freeze => description::INSTANCE_FREEZE,
        Action::Unfreeze => description::INSTANCE_UNFREEZE,
    }
}

/// Starts, stops, restarts, holds or lets go on, as an operation.
///
/// # Errors
/// An unknown action or instance; what goes wrong later is told by the operation.
pub fn set_state(
    app: &Arc<App>,
    caller: &Caller,
    name: &InstanceName,
    put: &StatePut,
) -> Result<Operation> {
    let action: Action =
        put.action.parse().map_err(|error| Error::BadRequest(format!("{error}")))?;
    let end = End::of(put);
    if put.stateful {
        return Err(Error::BadRequest("states of processes cannot be kept here".into()));
    }
    app.catalog.instances.get(name)?;
    let about = about(description(action), name);
    let (task, caller, name) = (app.clone(), caller.clone(), name.clone());
    app.operations.spawn(about, async move |context| {
        let caller = Some(&caller);
        match action {
            Action::Stop => stop(&task, caller, &name, end, &context).await?,
            Action::Restart => restart(&task, caller, &name, end, &context).await?,
            Action::Start | Action::Freeze | Action::Unfreeze => {
                let _held = task.locks.hold(&name).await;
                match action {
                    Action::Freeze => freeze(&task, caller, &name)?,
                    Action::Unfreeze => unfreeze(&task, caller, &name)?,
                    _ => start(&task, caller, &name).await?,
                }
            }
        }
        Ok(None)
    })
}

/// Starts an instance that its caller holds.
pub(super) async fn start(
    app: &Arc<App>,
    caller: Option<&Caller>,
    name: &InstanceName,
) -> Result<()> {
    let _start = app.starts.read().await;
    // All are being ended, and this one may have been passed over already.
    if app.unwatched.is_cancelled() {
        return Err(Error::ShuttingDown);
    }
    let record = app.catalog.instances.get(name)?;
    if let Some(missing) = app.runtime.missing() {
        return Err(Error::NoRuntime(missing.to_owned()));
    }
    if runtime::status(app, name) != InstanceStatus::Stopped {
        return Err(Error::BadRequest("The instance is already running".into()));
    }
    let spec = spec(app, &record)?;
    let (task, prepared) = (app.clone(), record.clone());
    let start = async {
        blocking(move || prepare(&task, &prepared)).await?;
        Ok(app.runtime.start(&spec).await?)
    };
    if let Err(error) = start.await {
        unmount(app, name).await;
        return Err(error);
    }
    if let Err(error) = started(app, &record).await {
        // What cannot be recorded would run on without anybody to see its end.
        if let Err(error) = halt(app, name, End::Killed).await {
            tracing::error!(instance = %name, %error, "cannot end an instance that was not recorded");
        }
        unmount(app, name).await;
        return Err(error);
    }
    watch(app, name);
    tell(app, caller, action::INSTANCE_STARTED, name, &[]);
    Ok(())
}

/// Records that an instance runs.
async fn started(app: &App, record: &InstanceRecord) -> Result<()> {
    let now = images::stored(app.clock.now());
    update(app, record, |record| {
        record.last_used_at = now;
        let config = &mut record.definition.config;
        config.remove(key::APPLY_TEMPLATE);
        config.insert(key::LAST_POWER.to_owned(), RUNNING.to_owned());
    })
    .await
}

/// Mounts the root and writes what the image's templates say.
fn prepare(app: &App, record: &InstanceRecord) -> Result<()> {
    let definition = &record.definition;
    let root = app.disks.mount(&record.name, definition)?;
    let Some(image) = &definition.image else { return Ok(()) };
    let tree = app.disks.tree(image);
    let path = tree.join("metadata.yaml");
    let yaml = std::fs::read(&path)
        .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
    let metadata = Metadata::parse(&yaml).map_err(|error| Error::BadRequest(error.to_string()))?;
    let deferred = definition.config.get(key::APPLY_TEMPLATE).map(String::as_str);
    let deferred = deferred.and_then(|name| name.parse().ok());
    for trigger in deferred.into_iter().chain([Trigger::Start]) {
        let context = context(record, trigger);
        let templates = tree.join("templates");
        templates::apply(&metadata, &templates, &root, trigger, &context, app.disks.base())?;
    }
    Ok(())
}

/// What templates are told about an instance.
fn context(record: &InstanceRecord, trigger: Trigger) -> template::Context {
    let definition = &record.definition;
    let (config, devices) = expanded(definition);
    let instance = [
        ("name", record.name.to_string()),
        ("type", "container".to_owned()),
        ("architecture", definition.architecture.to_string()),
        ("ephemeral", definition.ephemeral.to_string()),
        ("privileged", false.to_string()),
    ];
    template::Context {
        trigger: trigger.as_str().to_owned(),
        path: String::new(),
        instance: instance.map(|(name, value)| (name.to_owned(), value)).into(),
        config,
        devices,
        properties: BTreeMap::new(),
    }
}

/// What the runtime is to know.
fn spec(app: &App, record: &InstanceRecord) -> Result<Spec> {
    let (config, _) = expanded(&record.definition);
    Ok(Spec {
        name: runtime::named(&record.name)?,
        rootfs: app.disks.root(&record.name),
        hostname: record.name.to_string(),
        environment: environment(&config).into_iter().collect(),
        limits: runtime::limits(&config)?,
        network: nic(app, record)?,
    })
}

/// A veth on the bridge of the server's configuration, if there is one.
fn nic(app: &App, record: &InstanceRecord) -> Result<Option<Nic>> {
    let Some(bridge) = app.catalog.config().remove(config::INSTANCES_BRIDGE) else {
        return Ok(None);
    };
    let uuid = record.definition.config.get(key::UUID).map_or("", String::as_str);
    // The same for the whole life of an instance, from the range that LXD uses.
    let hash = images::hash(&uuid);
    let hwaddr = format!("00:16:3e:{}:{}:{}", &hash[0..2], &hash[2..4], &hash[4..6]);
    Ok(Some(Nic { bridge: Bridge::new(&bridge)?, hwaddr: HardwareAddress::new(&hwaddr)? }))
}

/// The variables that the configuration sets.
pub(super) fn environment(config: &lxd_proto::instance::Config) -> BTreeMap<String, String> {
    let variable = |(name, value): (&String, &String)| {
        Some((name.strip_prefix(key::ENVIRONMENT)?.to_owned(), value.clone()))
    };
    config.iter().filter_map(variable).collect()
}

/// Stops an instance.
async fn stop(
    app: &Arc<App>,
    caller: Option<&Caller>,
    name: &InstanceName,
    end: End,
    context: &Context,
) -> Result<()> {
    halt_or_give_up(app, name, end, context).await?;
    let _held = app.locks.hold(name).await;
    // Whoever watches it may have been quicker.
    match app.catalog.instances.get(name) {
        Ok(record) if ran(&record) && runtime::is_stopped(app, name) => {
            settle(app, name, true).await?;
            let action = match end {
                End::Killed => action::INSTANCE_STOPPED,
                End::Clean(_) => action::INSTANCE_SHUTDOWN,
            };
            tell(app, caller, action, name, &[]);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Ends what runs of an instance; asked to stop, it stops waiting. Nobody is held up meanwhile: a
/// forced stop may overtake a clean one that the instance ignores.
async fn halt_or_give_up(
    app: &Arc<App>,
    name: &InstanceName,
    end: End,
    context: &Context,
) -> Result<()> {
    if runtime::is_stopped(app, name) {
        return Err(Error::BadRequest("The instance is already stopped".into()));
    }
    if end == End::Killed {
        let _held = app.locks.hold(name).await;
        return halt(app, name, end).await;
    }
    context.may_cancel(true);
    let cancelled = context.cancelled();
    let outcome = tokio::select! {
        halted = halt(app, name, end) => halted,
        () = cancelled.cancelled() => Err(Error::Cancelled),
    };
    context.may_cancel(false);
    outcome
}

/// Ends what runs of an instance.
async fn halt(app: &Arc<App>, name: &InstanceName, end: End) -> Result<()> {
    let name = runtime::named(name)?;
    match end {
        End::Killed => Ok(app.runtime.kill(&name).await?),
        End::Clean(limit) => Ok(app.runtime.stop(&name, limit).await?),
    }
}

async fn restart(
    app: &Arc<App>,
    caller: Option<&Caller>,
    name: &InstanceName,
    end: End,
    context: &Context,
) -> Result<()> {
    // It is not over: an ephemeral one stays.
    let _restarting = Restarting::begin(app, name);
    halt_or_give_up(app, name, end, context).await?;
    let _held = app.locks.hold(name).await;
    app.catalog.instances.get(name)?;
    unmount(app, name).await;
    if let Err(error) = start(app, None, name).await {
        // Whoever watches it must not take this for the end of an ephemeral one.
        note_stopped(app, name).await?;
        return Err(error);
    }
    tell(app, caller, action::INSTANCE_RESTARTED, name, &[]);
    Ok(())
}

/// Says that the end of an instance is not to be noticed, as long as it is held.
pub(super) struct Restarting<'a> {
    app: &'a App,
    name: &'a InstanceName,
}

impl<'a> Restarting<'a> {
    pub(super) fn begin(app: &'a App, name: &'a InstanceName) -> Self {
        app.restarting.lock().insert(name.clone());
        Self { app, name }
    }
}

impl Drop for Restarting<'_> {
    fn drop(&mut self) {
        self.app.restarting.lock().remove(self.name);
    }
}

fn freeze(app: &Arc<App>, caller: Option<&Caller>, name: &InstanceName) -> Result<()> {
    match runtime::status(app, name) {
        InstanceStatus::Running => {}
        InstanceStatus::Frozen => {
            return Err(Error::BadRequest("The instance is already frozen".into()));
        }
        _ => return Err(Error::BadRequest("The instance isn't running".into())),
    }
    app.runtime.freeze(&runtime::named(name)?)?;
    tell(app, caller, action::INSTANCE_PAUSED, name, &[]);
    Ok(())
}

fn unfreeze(app: &Arc<App>, caller: Option<&Caller>, name: &InstanceName) -> Result<()> {
    if runtime::status(app, name) != InstanceStatus::Frozen {
        return Err(Error::BadRequest("The instance isn't frozen".into()));
    }
    app.runtime.unfreeze(&runtime::named(name)?)?;
    tell(app, caller, action::INSTANCE_RESUMED, name, &[]);
    Ok(())
}

/// What follows when an instance that somebody holds has ended. `stopped` says that it was meant
/// to; otherwise it starts again with the daemon.
async fn settle(app: &Arc<App>, name: &InstanceName, stopped: bool) -> Result<()> {
    unmount(app, name).await;
    let record = app.catalog.instances.get(name)?;
    if record.definition.ephemeral && stopped {
        return edit::remove(app, name).await;
    }
    if stopped { note_stopped(app, name).await } else { Ok(()) }
}

/// Records that an instance does not run, and is not to start with the daemon.
pub(super) async fn note_stopped(app: &App, name: &InstanceName) -> Result<()> {
    let record = app.catalog.instances.get(name)?;
    update(app, &record, |record| {
        let config = &mut record.definition.config;
        config.insert(key::LAST_POWER.to_owned(), STOPPED.to_owned());
    })
    .await
}

async fn unmount(app: &Arc<App>, name: &InstanceName) {
    let (task, name) = (app.clone(), name.clone());
    if let Err(error) = blocking(move || task.disks.unmount(&name)).await {
        tracing::warn!(%error, "the root of a stopped instance stays mounted");
    }
}

/// Whether the last thing that was heard of an instance is that it runs.
fn ran(record: &InstanceRecord) -> bool {
    record.definition.config.get(key::LAST_POWER).is_some_and(|power| power == RUNNING)
}

/// Notices when an instance ends by itself.
fn watch(app: &Arc<App>, name: &InstanceName) {
    let (app, name) = (app.clone(), name.clone());
    tokio::spawn(async move {
        let (shutdown, unwatched) = (app.shutdown.clone(), app.unwatched.clone());
        let Ok(watched) = runtime::named(&name) else { return };
        loop {
            let ended = tokio::select! {
                ended = app.runtime.watch(&watched) => ended,
                () = shutdown.cancelled() => return,
                () = unwatched.cancelled() => return,
            };
            if let Err(error) = ended {
                tracing::warn!(instance = %name, %error, "cannot watch a running instance");
                return;
            }
            let _held = app.locks.hold(&name).await;
            // A stop, a restart or a reboot from inside has seen to it.
            let Ok(record) = app.catalog.instances.get(&name) else { return };
            if runtime::status(&app, &name) != InstanceStatus::Stopped {
                continue;
            }
            if !ran(&record) || app.restarting.lock().contains(&name) {
                return;
            }
            match settle(&app, &name, true).await {
                Ok(()) => tell(&app, None, action::INSTANCE_SHUTDOWN, &name, &[]),
                Err(error) => {
                    tracing::warn!(instance = %name, %error, "an instance has ended untidily");
                }
            }
            return;
        }
    });
}

/// Takes up again what runs since before the daemon, lets instances be changed, and starts what
/// ran when the machine went down.
pub async fn recover(app: &Arc<App>) {
    let all = app.catalog.instances.all();
    for record in &all {
        if runtime::is_stopped(app, &record.name) {
            unmount(app, &record.name).await;
            continue;
        }
        if let Err(error) = snapshots::let_go(app, &record.name) {
            tracing::error!(instance = %record.name, %error, "an instance stays frozen");
        }
        // Perhaps the daemon ended before it could say so.
        if !ran(record)
            && let Err(error) = started(app, record).await
        {
            tracing::warn!(instance = %record.name, %error, "cannot record a running instance");
        }
        watch(app, &record.name);
    }
    app.locks.open();
    let mut due: Vec<InstanceName> = all
        .iter()
        .filter(|record| runtime::status(app, &record.name) == InstanceStatus::Stopped)
        .filter(|record| {
            let wish = record.definition.config.get(key::AUTOSTART);
            wish.and_then(|text| parse_bool(text)).unwrap_or_else(|| ran(record))
        })
        .map(|record| record.name.clone())
        .collect();
    due.sort_by_key(|name| std::cmp::Reverse(priority(app, name)));
    if due.is_empty() || app.runtime.missing().is_some() {
        return;
    }
    for names in due.chunks(AT_ONCE) {
        join_all(names.iter().map(|name| async move {
            let _held = app.locks.hold(name).await;
            if let Err(error) = start(app, None, name).await {
                tracing::error!(instance = %name, %error, "cannot start an instance again");
            }
        }))
        .await;
    }
}

/// How early an instance starts with the daemon: the higher, the earlier.
fn priority(app: &App, name: &InstanceName) -> i64 {
    let Ok(record) = app.catalog.instances.get(name) else { return 0 };
    let wish = expanded(&record.definition).0.remove(key::AUTOSTART_PRIORITY);
    wish.and_then(|wish| wish.parse().ok()).unwrap_or_default()
}

/// Ends all instances, for the end of the machine or of the daemon for good. They start again
/// with the daemon.
pub async fn stop_all(app: &Arc<App>) {
    app.unwatched.cancel();
    // An end that comes before everything was tidied must not wait for that.
    app.locks.open();
    // From here on nothing starts any more.
    drop(app.starts.write().await);
    let all = app.catalog.instances.all();
    let running: Vec<_> =
        all.iter().filter(|record| !runtime::is_stopped(app, &record.name)).collect();
    for records in running.chunks(AT_ONCE) {
        join_all(records.iter().map(|record| async move {
            let name = &record.name;
            let _held = app.locks.hold(name).await;
            if halt(app, name, End::Clean(Some(PATIENCE))).await.is_err()
                && let Err(error) = halt(app, name, End::Killed).await
            {
                tracing::error!(instance = %name, %error, "cannot end an instance");
            }
            if let Err(error) = settle(app, name, false).await {
                tracing::warn!(instance = %name, %error, "an instance has ended untidily");
            }
        }))
        .await;
    }
    let task = app.clone();
    if let Err(error) = blocking(move || task.disks.release_trees()).await {
        tracing::warn!(%error, "trees of images stay mounted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_waits_as_long_as_it_was_told_to() {
        let of = |timeout, force| {
            End::of(&StatePut { action: "stop".into(), timeout, force, stateful: false })
        };
        assert_eq!(of(-1, false), End::Clean(None));
        assert_eq!(of(3, false), End::Clean(Some(Duration::from_secs(3))));
        assert_eq!(of(0, false), End::Killed);
        assert_eq!(of(-1, true), End::Killed);
    }
}
