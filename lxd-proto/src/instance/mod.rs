//! Instances on the wire: the object, what may be edited, and what creates, copies and renames one.

mod create;
pub mod exec;
pub mod file;
mod name;
pub mod settings;
mod snapshot;
mod state;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::image::InstanceType;
use crate::time;
use crate::wire::null_default;

pub use create::{ImageOf, InstanceSource, InstancesPost, Invalid, Server, Source};
pub use name::{InstanceName, InvalidName, SnapshotName};
pub use snapshot::{Snapshot, SnapshotPost, SnapshotPut, SnapshotsPost};
pub use state::{
    Action, Address, Counters, Cpu, Disk, InstanceState, InstanceStatus, Memory, Network, StatePut,
    UnknownAction,
};

/// Configuration of an instance: `image.*`, `user.*`, `limits.*`, `environment.*`, `volatile.*`.
pub type Config = BTreeMap<String, String>;
/// Devices by name, each a map of keys.
pub type Devices = BTreeMap<String, BTreeMap<String, String>>;

/// Keys of [`Config`] that the protocol itself reads.
pub mod key {
    /// In front of each property of the image that an instance was made from.
    pub const IMAGE: &str = "image.";
    /// In front of what only the server writes.
    pub const VOLATILE: &str = "volatile.";
    /// In front of variables for the instance's init and for `exec`.
    pub const ENVIRONMENT: &str = "environment.";
    /// In front of what people write for themselves.
    pub const USER: &str = "user.";
    /// Fingerprint of the image that an instance was made from.
    pub const BASE_IMAGE: &str = "volatile.base_image";
    /// The trigger whose templates the next start is to apply.
    pub const APPLY_TEMPLATE: &str = "volatile.apply_template";
    /// Whether it ran when it was last looked at: `RUNNING` or `STOPPED`.
    pub const LAST_POWER: &str = "volatile.last_state.power";
    /// Identity over renames.
    pub const UUID: &str = "volatile.uuid";
    /// Whether to start it with the daemon.
    pub const AUTOSTART: &str = "boot.autostart";
    /// Who is started first with the daemon: the higher, the earlier.
    pub const AUTOSTART_PRIORITY: &str = "boot.autostart.priority";
    /// How many processors it may use, or which.
    pub const LIMIT_CPU: &str = "limits.cpu";
    /// Which part of the processors' time it gets.
    pub const LIMIT_CPU_ALLOWANCE: &str = "limits.cpu.allowance";
    /// How much memory it may use: bytes with a unit, or a part of the host's.
    pub const LIMIT_MEMORY: &str = "limits.memory";
    /// How many processes it may have.
    pub const LIMIT_PROCESSES: &str = "limits.processes";
    /// Whether it is kept from being deleted.
    pub const PROTECTED: &str = "security.protection.delete";
    /// How long snapshots are kept that do not say so themselves.
    pub const SNAPSHOT_EXPIRY: &str = "snapshots.expiry";
}

/// An instance as the API shows it. Keys in the order LXD emits them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Canonical architecture name; empty where a server does not know it.
    #[serde(default)]
    pub architecture: String,
    /// Its own configuration.
    #[serde(default, deserialize_with = "null_default")]
    pub config: Config,
    /// Its own devices.
    #[serde(default, deserialize_with = "null_default")]
    pub devices: Devices,
    /// Deleted when it stops.
    #[serde(default)]
    pub ephemeral: bool,
    /// Profiles, in the order they apply.
    #[serde(default, deserialize_with = "null_default")]
    pub profiles: Vec<String>,
    /// Has a saved running state; never here.
    #[serde(default)]
    pub stateful: bool,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// When it was made.
    #[serde(default = "time::zero", deserialize_with = "time::deserialize")]
    pub created_at: Timestamp,
    /// Configuration with that of its profiles below it.
    #[serde(default, deserialize_with = "null_default")]
    pub expanded_config: Config,
    /// Devices with those of its profiles below them.
    #[serde(default, deserialize_with = "null_default")]
    pub expanded_devices: Devices,
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub status: InstanceStatus,
    /// The same as a number.
    pub status_code: u16,
    /// When it was last started; the epoch when never.
    #[serde(default = "time::epoch", deserialize_with = "time::deserialize")]
    pub last_used_at: Timestamp,
    /// `none`: not clustered.
    #[serde(default)]
    pub location: String,
    /// Container or virtual machine.
    #[serde(rename = "type", default)]
    pub kind: InstanceType,
    /// Always `default` here.
    #[serde(default)]
    pub project: String,
}

/// An instance with its state and snapshots: `GET /1.0/instances?recursion=2`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceFull {
    /// The instance.
    #[serde(flatten)]
    pub instance: Instance,
    /// Always `null` here.
    #[serde(default)]
    pub backups: Option<Vec<Value>>,
    /// Never `null` from us: `lxc info` reads it without looking.
    #[serde(default)]
    pub state: Option<InstanceState>,
    /// `null` when there are none.
    #[serde(default)]
    pub snapshots: Option<Vec<Snapshot>>,
}

/// The editable part of an instance: body of `PUT /1.0/instances/NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstancePut {
    /// Canonical architecture name; may be empty.
    pub architecture: String,
    /// Replaces the whole configuration.
    #[serde(deserialize_with = "null_default")]
    pub config: Config,
    /// Replaces all devices.
    #[serde(deserialize_with = "null_default")]
    pub devices: Devices,
    /// Deleted when it stops.
    pub ephemeral: bool,
    /// `None` means the image's, else the default profile.
    pub profiles: Option<Vec<String>>,
    /// Name of a snapshot to go back to; the other fields are then ignored.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub restore: String,
    /// Keep or restore a running state.
    pub stateful: bool,
    /// Free text.
    pub description: String,
}

impl From<&Instance> for InstancePut {
    fn from(instance: &Instance) -> Self {
        Self {
            architecture: instance.architecture.clone(),
            config: instance.config.clone(),
            devices: instance.devices.clone(),
            ephemeral: instance.ephemeral,
            profiles: Some(instance.profiles.clone()),
            restore: String::new(),
            stateful: instance.stateful,
            description: instance.description.clone(),
        }
    }
}

/// Body of `PATCH /1.0/instances/NAME`: what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstancePatch {
    /// Merged key by key; an empty value removes its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Config>,
    /// Merged device by device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Devices>,
    /// Deleted when it stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<bool>,
    /// Replaces the profiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profiles: Option<Vec<String>>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Body of `POST /1.0/instances/NAME`: a new name, or (unsupported here) a migration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstancePost {
    /// The new name.
    pub name: String,
    /// Asks for a migration to another server instead.
    pub migration: bool,
    /// With its running state.
    pub live: bool,
    /// Without its snapshots.
    pub instance_only: bool,
    /// The older name of `instance_only`.
    pub container_only: bool,
    /// Where a migration goes.
    pub target: Option<Value>,
    /// Storage pool of a move.
    pub pool: String,
    /// Project of a move.
    pub project: String,
    /// Copy although files may change meanwhile.
    pub allow_inconsistent: bool,
}

#[cfg(test)]
mod tests;
