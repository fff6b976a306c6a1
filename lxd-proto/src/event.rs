//! Events: what `GET /1.0/events` sends over its websocket.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// The three kinds of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventType {
    /// An operation changed; metadata is the operation.
    Operation,
    /// Something happened to an image, an alias, the configuration.
    Lifecycle,
    /// A log line.
    Logging,
}

impl EventType {
    /// The type with this name on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "operation" => Some(Self::Operation),
            "lifecycle" => Some(Self::Lifecycle),
            "logging" => Some(Self::Logging),
            _ => None,
        }
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Lifecycle => "lifecycle",
            Self::Logging => "logging",
        }
    }
}

/// One event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Which kind.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// When.
    pub timestamp: Timestamp,
    /// An operation, a [`Lifecycle`] or a [`Logging`], unparsed.
    pub metadata: Box<RawValue>,
    /// `none`: not clustered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// Empty for logging.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project: String,
}

/// Metadata of a lifecycle event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lifecycle {
    /// For example `image-created`.
    pub action: String,
    /// Path of the thing.
    pub source: String,
    /// More facts, by action.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, Value>,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requestor: Option<Requestor>,
}

/// Who caused a lifecycle event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requestor {
    /// User name, or the fingerprint of the client's certificate.
    pub username: String,
    /// `unix` or `tls`.
    pub protocol: String,
    /// `@` for the unix socket, else `ip:port`.
    pub address: String,
}

/// Metadata of a logging event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Logging {
    /// The line.
    pub message: String,
    /// `debug`, `info`, `warning`, `error`.
    pub level: String,
    /// Its fields.
    #[serde(default)]
    pub context: BTreeMap<String, String>,
}

/// Lifecycle actions.
pub mod action {
    /// An image entered the store.
    pub const IMAGE_CREATED: &str = "image-created";
    /// An image was edited.
    pub const IMAGE_UPDATED: &str = "image-updated";
    /// An image was deleted.
    pub const IMAGE_DELETED: &str = "image-deleted";
    /// An image was exported.
    pub const IMAGE_RETRIEVED: &str = "image-retrieved";
    /// An image was replaced by a newer version of its source; told about the old one.
    pub const IMAGE_REFRESHED: &str = "image-refreshed";
    /// A one-time secret for an image was made.
    pub const IMAGE_SECRET_CREATED: &str = "image-secret-created";
    /// Of ours: an earlier version took the aliases back; told about that one.
    pub const IMAGE_ROLLED_BACK: &str = "image-rolled-back";
    /// An alias was created.
    pub const ALIAS_CREATED: &str = "image-alias-created";
    /// An alias was edited.
    pub const ALIAS_UPDATED: &str = "image-alias-updated";
    /// An alias was renamed.
    pub const ALIAS_RENAMED: &str = "image-alias-renamed";
    /// An alias was deleted.
    pub const ALIAS_DELETED: &str = "image-alias-deleted";
    /// The server's configuration changed.
    pub const CONFIG_UPDATED: &str = "config-updated";
    /// A client became trusted.
    pub const CERTIFICATE_CREATED: &str = "certificate-created";
    /// What is known of a trusted client was edited.
    pub const CERTIFICATE_UPDATED: &str = "certificate-updated";
    /// A client is not trusted any more.
    pub const CERTIFICATE_DELETED: &str = "certificate-deleted";
    /// Of ours: a mirror was made.
    pub const MIRROR_CREATED: &str = "mirror-created";
    /// Of ours: a mirror was edited.
    pub const MIRROR_UPDATED: &str = "mirror-updated";
    /// Of ours: a mirror was deleted.
    pub const MIRROR_DELETED: &str = "mirror-deleted";
    /// Of ours: a run of a mirror ended; context `outcome`.
    pub const MIRROR_RUN: &str = "mirror-run";
    /// An operation was cancelled.
    pub const OPERATION_CANCELLED: &str = "operation-cancelled";
    /// An instance was made.
    pub const INSTANCE_CREATED: &str = "instance-created";
    /// An instance was started.
    pub const INSTANCE_STARTED: &str = "instance-started";
    /// An instance was stopped by a request, or was killed.
    pub const INSTANCE_STOPPED: &str = "instance-stopped";
    /// An instance stopped in good order.
    pub const INSTANCE_SHUTDOWN: &str = "instance-shutdown";
    /// An instance was restarted.
    pub const INSTANCE_RESTARTED: &str = "instance-restarted";
    /// An instance was frozen.
    pub const INSTANCE_PAUSED: &str = "instance-paused";
    /// An instance goes on.
    pub const INSTANCE_RESUMED: &str = "instance-resumed";
    /// An instance was deleted.
    pub const INSTANCE_DELETED: &str = "instance-deleted";
    /// An instance was edited.
    pub const INSTANCE_UPDATED: &str = "instance-updated";
    /// An instance has another name; context `old_name`.
    pub const INSTANCE_RENAMED: &str = "instance-renamed";
    /// An instance went back to a snapshot; context `snapshot`.
    pub const INSTANCE_RESTORED: &str = "instance-restored";
    /// A command was run in an instance; context `command`.
    pub const INSTANCE_EXEC: &str = "instance-exec";
    /// A file was read; context `file-source`.
    pub const INSTANCE_FILE_RETRIEVED: &str = "instance-file-retrieved";
    /// A file was written; context `file-destination`.
    pub const INSTANCE_FILE_PUSHED: &str = "instance-file-pushed";
    /// A file was deleted; context `file`.
    pub const INSTANCE_FILE_DELETED: &str = "instance-file-deleted";
    /// The console's log was read.
    pub const INSTANCE_CONSOLE_RETRIEVED: &str = "instance-console-retrieved";
    /// The console's log was cleared.
    pub const INSTANCE_CONSOLE_RESET: &str = "instance-console-reset";
    /// A log file was read.
    pub const INSTANCE_LOG_RETRIEVED: &str = "instance-log-retrieved";
    /// Metadata or a template was read.
    pub const INSTANCE_METADATA_RETRIEVED: &str = "instance-metadata-retrieved";
    /// Metadata was edited.
    pub const INSTANCE_METADATA_UPDATED: &str = "instance-metadata-updated";
    /// A snapshot was made.
    pub const INSTANCE_SNAPSHOT_CREATED: &str = "instance-snapshot-created";
    /// A snapshot was deleted.
    pub const INSTANCE_SNAPSHOT_DELETED: &str = "instance-snapshot-deleted";
    /// A snapshot has another name; context `old_name`.
    pub const INSTANCE_SNAPSHOT_RENAMED: &str = "instance-snapshot-renamed";
    /// A snapshot was edited.
    pub const INSTANCE_SNAPSHOT_UPDATED: &str = "instance-snapshot-updated";
}
