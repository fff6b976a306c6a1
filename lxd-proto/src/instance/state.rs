//! State of an instance: whether it runs and what it uses, and the actions that change it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::wire::null_default;

/// How an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InstanceStatus {
    /// Not running (102).
    Stopped,
    /// Running (103).
    Running,
    /// On its way up (106).
    Starting,
    /// On its way down (107).
    Stopping,
    /// Could not be started (108).
    Aborting,
    /// On its way to frozen (109).
    Freezing,
    /// Paused (110).
    Frozen,
    /// On its way to running again (111).
    Thawed,
    /// Cannot be told (112).
    Error,
    /// Running, and said to be ready (113).
    Ready,
}

impl InstanceStatus {
    /// Every status.
    pub const ALL: [Self; 10] = [
        Self::Stopped,
        Self::Running,
        Self::Starting,
        Self::Stopping,
        Self::Aborting,
        Self::Freezing,
        Self::Frozen,
        Self::Thawed,
        Self::Error,
        Self::Ready,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::Stopped => 102,
            Self::Running => 103,
            Self::Starting => 106,
            Self::Stopping => 107,
            Self::Aborting => 108,
            Self::Freezing => 109,
            Self::Frozen => 110,
            Self::Thawed => 111,
            Self::Error => 112,
            Self::Ready => 113,
        }
    }

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "Stopped",
            Self::Running => "Running",
            Self::Starting => "Starting",
            Self::Stopping => "Stopping",
            Self::Aborting => "Aborting",
            Self::Freezing => "Freezing",
            Self::Frozen => "Frozen",
            Self::Thawed => "Thawed",
            Self::Error => "Error",
            Self::Ready => "Ready",
        }
    }

    /// Whether processes of it exist, frozen or not.
    pub const fn is_up(self) -> bool {
        !matches!(self, Self::Stopped | Self::Error | Self::Starting)
    }
}

impl fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for InstanceStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for InstanceStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::ALL
            .into_iter()
            .find(|status| status.name() == name)
            .ok_or_else(|| de::Error::custom(format!("\"{name}\" is no status of an instance")))
    }
}

/// `GET /1.0/instances/NAME/state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceState {
    /// Whether it runs.
    pub status: InstanceStatus,
    /// The same as a number.
    pub status_code: u16,
    /// By device name.
    #[serde(default, deserialize_with = "null_default")]
    pub disk: BTreeMap<String, Disk>,
    /// Memory in use.
    #[serde(default)]
    pub memory: Memory,
    /// By interface; `null` when it does not run.
    #[serde(default)]
    pub network: Option<BTreeMap<String, Network>>,
    /// Of its init, as the host sees it; 0 when it does not run.
    #[serde(default)]
    pub pid: i64,
    /// How many processes it has.
    #[serde(default)]
    pub processes: i64,
    /// Processor time.
    #[serde(default)]
    pub cpu: Cpu,
}

impl InstanceState {
    /// The state of what does not run.
    pub fn down(status: InstanceStatus) -> Self {
        Self {
            status,
            status_code: status.code(),
            disk: BTreeMap::new(),
            memory: Memory::default(),
            network: None,
            pid: 0,
            processes: 0,
            cpu: Cpu::default(),
        }
    }
}

/// Use of one disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Bytes.
    #[serde(default)]
    pub usage: i64,
}

/// Use of memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Now.
    pub usage: i64,
    /// At most, so far.
    pub usage_peak: i64,
    /// Swap now.
    pub swap_usage: i64,
    /// Swap at most, so far.
    pub swap_usage_peak: i64,
}

/// Use of processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// Nanoseconds.
    pub usage: i64,
}

/// One interface of a running instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Its addresses; never `null`.
    #[serde(deserialize_with = "null_default")]
    pub addresses: Vec<Address>,
    /// Its traffic.
    pub counters: Counters,
    /// Its hardware address.
    pub hwaddr: String,
    /// The other end's name on the host.
    pub host_name: String,
    /// Bytes.
    pub mtu: i64,
    /// `up` or `down`.
    pub state: String,
    /// `broadcast`, `loopback` or `point-to-point`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// One address of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Address {
    /// `inet` or `inet6`.
    pub family: String,
    /// The address.
    pub address: String,
    /// Length of the network's prefix.
    pub netmask: String,
    /// `global`, `link` or `local`.
    pub scope: String,
}

/// Traffic of an interface since it came up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Bytes in.
    pub bytes_received: i64,
    /// Bytes out.
    pub bytes_sent: i64,
    /// Packets in.
    pub packets_received: i64,
    /// Packets out.
    pub packets_sent: i64,
    /// Broken packets in.
    pub errors_received: i64,
    /// Broken packets out.
    pub errors_sent: i64,
    /// Dropped packets out.
    pub packets_dropped_outbound: i64,
    /// Dropped packets in.
    pub packets_dropped_inbound: i64,
}

/// What can be done to the state of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Starts it.
    Start,
    /// Stops it.
    Stop,
    /// Stops and starts it.
    Restart,
    /// Pauses it.
    Freeze,
    /// Lets it go on.
    Unfreeze,
}

impl Action {
    const ALL: [Self; 5] = [Self::Start, Self::Stop, Self::Restart, Self::Freeze, Self::Unfreeze];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Freeze => "freeze",
            Self::Unfreeze => "unfreeze",
        }
    }
}

/// The text is no [`Action`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Unknown action: '{0}'")]
pub struct UnknownAction(String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let mut all = Self::ALL.into_iter();
        all.find(|action| action.as_str() == text).ok_or_else(|| UnknownAction(text.to_owned()))
    }
}

/// Body of `PUT /1.0/instances/NAME/state`.
///
/// What is absent is zero, as Go reads it: a stop without a timeout kills at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatePut {
    /// An [`Action`]; parsed by the server, so that it can say which one it does not know.
    pub action: String,
    /// Seconds to wait for a clean stop; -1 waits for ever, 0 kills at once.
    pub timeout: i64,
    /// Kills at once.
    pub force: bool,
    /// Saves or restores the running state.
    pub stateful: bool,
}

impl StatePut {
    /// `action` with all the time it takes.
    pub fn new(action: Action) -> Self {
        Self { action: action.as_str().into(), timeout: -1, ..Self::default() }
    }
}
