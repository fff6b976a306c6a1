//! The server object: `GET /1.0`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The API version in paths and in the object.
pub const API_VERSION: &str = "1.0";
/// The LXD version whose protocol we speak; clients print it and compare it.
pub const SPOKEN_VERSION: &str = "5.0.2";
/// Port of a network address given without one.
pub const DEFAULT_PORT: u16 = 8443;

/// What a caller learns about the server. Strangers get no `config` and no `environment`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Configuration keys that differ from their default. Values are strings, but a set
    /// password is the boolean `true` for LXD's own clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<BTreeMap<String, Value>>,
    /// API extensions.
    pub api_extensions: Vec<String>,
    /// `stable`.
    pub api_status: String,
    /// `1.0`.
    pub api_version: String,
    /// `trusted` or `untrusted`.
    pub auth: String,
    /// Always false here: a client would store the remote as public.
    pub public: bool,
    /// `tls`.
    pub auth_methods: Vec<String>,
    /// About the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
}

/// About the machine and the daemon.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// `host:port` where the server listens.
    pub addresses: Vec<String>,
    /// Native architecture first.
    pub architectures: Vec<String>,
    /// PEM of the server's certificate, on the unix socket too: clients compare it.
    pub certificate: String,
    /// SHA-256 of its DER.
    pub certificate_fingerprint: String,
    /// Instance driver.
    pub driver: String,
    /// Its version.
    pub driver_version: String,
    /// Firewall driver.
    pub firewall: String,
    /// Kernel name.
    pub kernel: String,
    /// Kernel architecture.
    pub kernel_architecture: String,
    /// Kernel features.
    pub kernel_features: Option<BTreeMap<String, String>>,
    /// Kernel release.
    pub kernel_version: String,
    /// liblxc features.
    pub lxc_features: Option<BTreeMap<String, String>>,
    /// Distribution.
    pub os_name: String,
    /// Its version.
    pub os_version: String,
    /// The requested project.
    pub project: String,
    /// `lxd`; anything else changes how clients behave.
    pub server: String,
    /// Always false.
    pub server_clustered: bool,
    /// `full-mesh`.
    pub server_event_mode: String,
    /// Host name.
    pub server_name: String,
    /// Process id of the daemon.
    pub server_pid: u32,
    /// The spoken LXD version.
    pub server_version: String,
    /// Storage drivers in use; empty makes `lxc` print a set-up hint.
    pub storage: String,
    /// Known storage drivers.
    pub storage_supported_drivers: Vec<StorageDriver>,
    /// Their version.
    pub storage_version: String,
}

/// A storage driver; its keys are capitalised on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StorageDriver {
    /// `dir`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether it is on another machine.
    pub remote: bool,
}

/// Body of `PUT` and `PATCH /1.0`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ServerPut {
    /// Values are strings, `null` to unset, or `true` for an unchanged password.
    #[serde(default)]
    pub config: Option<BTreeMap<String, Value>>,
}
