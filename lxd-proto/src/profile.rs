//! Profiles: only the built-in `default` one, read-only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The name of the one profile.
pub const DEFAULT: &str = "default";

/// A profile on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Instance configuration.
    pub config: BTreeMap<String, String>,
    /// Free text.
    pub description: String,
    /// Devices by name.
    pub devices: BTreeMap<String, BTreeMap<String, String>>,
    /// Its name.
    pub name: String,
    /// Paths of its users.
    pub used_by: Vec<String>,
}

impl Profile {
    /// The built-in profile: a root disk in the built-in pool.
    pub fn builtin() -> Self {
        let root = [("path", "/"), ("pool", crate::storage::DEFAULT), ("type", "disk")];
        let root = root.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self {
            config: BTreeMap::new(),
            description: "Default LXD profile".into(),
            devices: BTreeMap::from([("root".to_owned(), BTreeMap::from(root))]),
            name: DEFAULT.into(),
            used_by: Vec::new(),
        }
    }
}
