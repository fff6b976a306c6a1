//! Names of instances and snapshots, checked once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name of an instance, in bytes: it becomes a host name.
const LONGEST: usize = 63;
/// The longest name of a snapshot, in bytes.
const LONGEST_SNAPSHOT: usize = 128;

/// A valid name of an instance: letters, digits and hyphens, not a hyphen at either end nor a
/// digit in front, at most 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceName(String);

/// A valid name of a snapshot: printable ASCII without blanks, slashes and quotes, beginning with
/// a letter, digit or underscore, at most 128 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotName(String);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid {what} name: {reason}")]
pub struct InvalidName {
    what: &'static str,
    reason: &'static str,
}

impl InstanceName {
    fn check(name: &str) -> Result<(), &'static str> {
        if name.is_empty() || name.len() > LONGEST {
            return Err("Name must be 1-63 characters long");
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err("Name can only contain alphanumeric and hyphen characters");
        }
        if name.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
            return Err("Name must not start with a digit or a hyphen");
        }
        if name.ends_with('-') {
            return Err("Name must not end with a hyphen");
        }
        Ok(())
    }
}

impl SnapshotName {
    fn check(name: &str) -> Result<(), &'static str> {
        if name.is_empty() || name.len() > LONGEST_SNAPSHOT {
            return Err("Name must be 1-128 characters long");
        }
        if name.contains(|c: char| !c.is_ascii_graphic() || matches!(c, '/' | '\\' | '"' | '\'')) {
            return Err("Name cannot contain slashes, blanks, quotes or other than ASCII");
        }
        if !name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_') {
            return Err("Name must start with a letter, a digit or an underscore");
        }
        Ok(())
    }
}

macro_rules! checked {
    ($name:ident, $what:literal) => {
        impl $name {
            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(name: String) -> Result<Self, InvalidName> {
                match Self::check(&name) {
                    Ok(()) => Ok(Self(name)),
                    Err(reason) => Err(InvalidName { what: $what, reason }),
                }
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                name.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

checked!(InstanceName, "instance");
checked!(SnapshotName, "snapshot");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_instances_are_host_names() {
        let longest = "a".repeat(63);
        for name in ["c1", "a", "web-Server-2", longest.as_str()] {
            assert_eq!(name.parse::<InstanceName>().unwrap().as_str(), name);
        }
        let too_long = "a".repeat(64);
        for name in
            ["", "1c", "-c", "c-", "c_1", "c.1", "c/1", "..", "c 1", "é", "c\n", too_long.as_str()]
        {
            let error = name.parse::<InstanceName>().unwrap_err().to_string();
            assert!(error.starts_with("Invalid instance name: Name "), "{name:?}: {error}");
        }
        let error = "a_b".parse::<InstanceName>().unwrap_err();
        let said =
            "Invalid instance name: Name can only contain alphanumeric and hyphen characters";
        assert_eq!(error.to_string(), said);
    }

    #[test]
    fn names_of_snapshots_are_one_segment_of_a_path() {
        for name in ["s0", "2026-11-24T10:00", "before_update", "a+b@c"] {
            assert_eq!(name.parse::<SnapshotName>().unwrap().as_str(), name);
        }
        let too_long = "s".repeat(129);
        for name in ["", ".", "..", ".x", "-x", "a/b", "a b", "a\0", "é", "a'b", too_long.as_str()]
        {
            assert!(name.parse::<SnapshotName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn json_is_checked_too() {
        assert!(serde_json::from_str::<InstanceName>("\"../c\"").is_err());
        let name: InstanceName = serde_json::from_str("\"c1\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"c1\"");
    }
}
