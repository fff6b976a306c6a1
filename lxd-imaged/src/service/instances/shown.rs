//! Instances as the API shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use lxd_proto::image::InstanceType;
use lxd_proto::instance::{
    Instance, InstanceFull, InstanceName, InstanceState, InstanceStatus, Snapshot, SnapshotName,
};
use lxd_proto::{project, time};

use super::{expanded, runtime};
use crate::app::App;
use crate::db::{InstanceRecord, SnapshotRecord};
use crate::error::Result;
use crate::service::images::hash;

/// The object of an instance.
pub fn shown(app: &App, record: &InstanceRecord) -> Instance {
    let definition = &record.definition;
    let status = runtime::status(app, &record.name);
    let (expanded_config, expanded_devices) = expanded(definition);
    Instance {
        architecture: definition.architecture.to_string(),
        config: definition.config.clone(),
        devices: definition.devices.clone(),
        ephemeral: definition.ephemeral,
        profiles: definition.profiles.clone(),
        stateful: false,
        description: definition.description.clone(),
        created_at: record.created_at,
        expanded_config,
        expanded_devices,
        name: record.name.to_string(),
        status,
        status_code: status.code(),
        last_used_at: record.last_used_at,
        location: "none".into(),
        kind: InstanceType::Container,
        project: project::DEFAULT.into(),
    }
}

/// The objects with all that belongs to them: one look at what runs of them.
pub async fn full(app: &App, records: &[Arc<InstanceRecord>]) -> Vec<InstanceFull> {
    let running: Vec<&InstanceName> = records
        .iter()
        .map(|record| &record.name)
        .filter(|name| !runtime::is_stopped(app, name))
        .collect();
    let states = runtime::states(app, &running).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot tell how instances run");
        Vec::new()
    });
    let mut states: BTreeMap<_, _> = running.into_iter().zip(states).collect();
    let full = |record: &Arc<InstanceRecord>| {
        let snapshots = snapshots(record);
        let state = states.remove(&record.name);
        InstanceFull {
            instance: shown(app, record),
            backups: None,
            state: Some(state.unwrap_or_else(|| InstanceState::down(InstanceStatus::Stopped))),
            snapshots: Some(snapshots).filter(|all| !all.is_empty()),
        }
    };
    records.iter().map(full).collect()
}

/// How an instance runs.
pub async fn state(app: &App, name: &InstanceName) -> Result<InstanceState> {
    let state = runtime::states(app, &[name]).await?.pop();
    Ok(state.unwrap_or_else(|| InstanceState::down(InstanceStatus::Stopped)))
}

/// The objects of all snapshots of an instance, the newest last.
pub fn snapshots(record: &InstanceRecord) -> Vec<Snapshot> {
    let all = record.snapshots.iter();
    let mut all: Vec<_> = all.map(|(name, taken)| snapshot(record, name, taken)).collect();
    all.sort_by_key(|snapshot| snapshot.created_at);
    all
}

/// The object of a snapshot.
pub fn snapshot(record: &InstanceRecord, name: &SnapshotName, taken: &SnapshotRecord) -> Snapshot {
    let definition = &taken.definition;
    let (expanded_config, expanded_devices) = expanded(definition);
    Snapshot {
        expires_at: taken.expires_at,
        architecture: definition.architecture.to_string(),
        config: definition.config.clone(),
        created_at: taken.created_at,
        devices: definition.devices.clone(),
        ephemeral: definition.ephemeral,
        expanded_config,
        expanded_devices,
        last_used_at: if time::is_unset(record.last_used_at) {
            time::zero()
        } else {
            record.last_used_at
        },
        name: name.to_string(),
        profiles: definition.profiles.clone(),
        stateful: false,
        size: -1,
    }
}

/// The entity tag: what can be edited, and nothing else.
pub fn etag(record: &InstanceRecord) -> String {
    let definition = &record.definition;
    hash(&(
        definition.architecture.to_string(),
        &definition.config,
        &definition.devices,
        definition.ephemeral,
        &definition.profiles,
        &definition.description,
    ))
}
