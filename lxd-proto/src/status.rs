//! Status codes of operations and envelopes, with the names LXD gives them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How an operation stands. Final states have a code of 200 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OperationStatus {
    /// Created, not yet started (105).
    Pending,
    /// At work (103).
    Running,
    /// Asked to stop (104).
    Cancelling,
    /// Done (200).
    Success,
    /// Failed; `err` says why (400).
    Failure,
    /// Stopped on request (401).
    Cancelled,
}

impl OperationStatus {
    /// Every status, in the order lists show them.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Running,
        Self::Cancelling,
        Self::Success,
        Self::Failure,
        Self::Cancelled,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::Running => 103,
            Self::Cancelling => 104,
            Self::Pending => 105,
            Self::Success => 200,
            Self::Failure => 400,
            Self::Cancelled => 401,
        }
    }

    /// The status with this number, if it is one an operation can have.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Cancelling => "Cancelling",
            Self::Success => "Success",
            Self::Failure => "Failure",
            Self::Cancelled => "Cancelled",
        }
    }

    /// Whether nothing can change any more.
    pub const fn is_final(self) -> bool {
        self.code() >= 200
    }
}

impl Serialize for OperationStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for OperationStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::ALL
            .into_iter()
            .find(|status| status.name() == name)
            .ok_or_else(|| de::Error::custom(format!("\"{name}\" is no operation status")))
    }
}
