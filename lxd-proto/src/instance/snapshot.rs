//! Snapshots of an instance on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Config, Devices};
use crate::time;
use crate::wire::null_default;

/// A snapshot as the API shows it. Keys in the order LXD emits them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Go's zero time when it stays.
    #[serde(default = "time::zero", deserialize_with = "time::deserialize")]
    pub expires_at: Timestamp,
    /// As of the instance.
    #[serde(default)]
    pub architecture: String,
    /// As of the instance at that time.
    #[serde(default, deserialize_with = "null_default")]
    pub config: Config,
    /// When it was made.
    #[serde(default = "time::zero", deserialize_with = "time::deserialize")]
    pub created_at: Timestamp,
    /// As of the instance at that time.
    #[serde(default, deserialize_with = "null_default")]
    pub devices: Devices,
    /// As of the instance at that time.
    #[serde(default)]
    pub ephemeral: bool,
    /// With the profiles below it.
    #[serde(default, deserialize_with = "null_default")]
    pub expanded_config: Config,
    /// With the profiles below them.
    #[serde(default, deserialize_with = "null_default")]
    pub expanded_devices: Devices,
    /// Go's zero time: a snapshot is never started.
    #[serde(default = "time::zero", deserialize_with = "time::deserialize")]
    pub last_used_at: Timestamp,
    /// Without the instance's.
    pub name: String,
    /// As of the instance at that time.
    #[serde(default, deserialize_with = "null_default")]
    pub profiles: Vec<String>,
    /// Has a saved running state.
    #[serde(default)]
    pub stateful: bool,
    /// Bytes; -1 when not known.
    #[serde(default = "unknown_size")]
    pub size: i64,
}

const fn unknown_size() -> i64 {
    -1
}

/// Body of `POST /1.0/instances/NAME/snapshots`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotsPost {
    /// Empty: the server takes `snap0` or the next number.
    pub name: String,
    /// With the running state.
    pub stateful: bool,
    /// `null` or Go's zero time: it stays.
    #[serde(deserialize_with = "time::deserialize_option")]
    pub expires_at: Option<Timestamp>,
}

/// Body of `PUT /1.0/instances/NAME/snapshots/SNAPSHOT`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotPut {
    /// `null` or Go's zero time: it stays.
    #[serde(deserialize_with = "time::deserialize_option")]
    pub expires_at: Option<Timestamp>,
}

/// Body of `POST /1.0/instances/NAME/snapshots/SNAPSHOT`: a new name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotPost {
    /// The new name.
    pub name: String,
    /// Asks for a migration to another server instead.
    pub migration: bool,
    /// Where a migration goes.
    pub target: Option<Value>,
    /// With its running state.
    pub live: bool,
}
