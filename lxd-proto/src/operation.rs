//! Operations: work that takes longer than a request.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::status::OperationStatus;

/// How long LXD keeps a finished operation, in seconds; clients ask for it once after they
/// have attached to the events, and a missing one makes them fail.
pub const KEPT_SECONDS: u64 = 5;

/// What kind of thing an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationClass {
    /// Work in the background.
    Task,
    /// Waits for websocket connections.
    Websocket,
    /// Holds a one-time secret.
    Token,
}

/// An operation on the wire, keys in LXD's order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// UUID, version 4.
    pub id: String,
    /// Task, websocket or token.
    pub class: OperationClass,
    /// What is being done, for people.
    pub description: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// How it stands.
    pub status: OperationStatus,
    /// The same as a number.
    pub status_code: u16,
    /// Paths of what it works on, by kind (`images`); `null` when there are none.
    pub resources: Option<BTreeMap<String, Vec<String>>>,
    /// Progress while it runs, the result when it is done; `null` when there is none.
    pub metadata: Option<Map<String, Value>>,
    /// Whether it can be cancelled.
    pub may_cancel: bool,
    /// Why it failed; empty otherwise.
    pub err: String,
    /// `none`: not clustered.
    #[serde(default)]
    pub location: String,
}

/// Descriptions that LXD gives its operations and people know from `lxc operation list`.
pub mod description {
    /// Uploads, pulls and publishing alike.
    pub const IMAGE_DOWNLOAD: &str = "Downloading image";
    /// `DELETE /1.0/images/FINGERPRINT`.
    pub const IMAGE_DELETE: &str = "Deleting image";
    /// `POST /1.0/images/FINGERPRINT/refresh`.
    pub const IMAGE_REFRESH: &str = "Refreshing image";
    /// A join token, as LXD describes it.
    pub const CERTIFICATE_TOKEN: &str = "Executing operation";
    /// `POST /1.0/images/FINGERPRINT/secret`.
    pub const IMAGE_TOKEN: &str = "Image download token";
    /// `POST /1.0/instances`.
    pub const INSTANCE_CREATE: &str = "Creating instance";
    /// State: start.
    pub const INSTANCE_START: &str = "Starting instance";
    /// State: stop.
    pub const INSTANCE_STOP: &str = "Stopping instance";
    /// State: restart.
    pub const INSTANCE_RESTART: &str = "Restarting instance";
    /// State: freeze.
    pub const INSTANCE_FREEZE: &str = "Freezing instance";
    /// State: unfreeze.
    pub const INSTANCE_UNFREEZE: &str = "Unfreezing instance";
    /// `DELETE /1.0/instances/NAME`.
    pub const INSTANCE_DELETE: &str = "Deleting instance";
    /// `PUT /1.0/instances/NAME`.
    pub const INSTANCE_UPDATE: &str = "Updating instance";
    /// `POST /1.0/instances/NAME`.
    pub const INSTANCE_RENAME: &str = "Renaming instance";
    /// `PUT /1.0/instances/NAME` with `restore`.
    pub const INSTANCE_RESTORE: &str = "Restoring snapshot";
    /// `POST /1.0/instances/NAME/exec`.
    pub const INSTANCE_EXEC: &str = "Executing command";
    /// `POST …/snapshots`.
    pub const SNAPSHOT_CREATE: &str = "Snapshotting instance";
    /// `DELETE …/snapshots/SNAPSHOT`.
    pub const SNAPSHOT_DELETE: &str = "Deleting snapshot";
    /// `POST …/snapshots/SNAPSHOT`.
    pub const SNAPSHOT_RENAME: &str = "Renaming snapshot";
    /// `PUT …/snapshots/SNAPSHOT`.
    pub const SNAPSHOT_UPDATE: &str = "Updating snapshot";
    /// `POST /1.0/mirrors/NAME/run`, or by its schedule.
    pub const MIRROR_RUN: &str = "Running mirror";
    /// `DELETE /1.0/mirrors/NAME`.
    pub const MIRROR_DELETE: &str = "Deleting mirror";
}
