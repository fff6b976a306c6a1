//! Storage pools: only the built-in `default` one, read-only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The name of the one pool.
pub const DEFAULT: &str = "default";

/// A storage pool on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoragePool {
    /// Where it is.
    pub config: BTreeMap<String, String>,
    /// Free text.
    pub description: String,
    /// Its name.
    pub name: String,
    /// Storage driver.
    pub driver: String,
    /// Paths of its users.
    pub used_by: Vec<String>,
    /// `Created`.
    pub status: String,
    /// `none`: not clustered.
    pub locations: Vec<String>,
}

impl StoragePool {
    /// The built-in pool in the directory `source`.
    pub fn builtin(source: String) -> Self {
        Self {
            config: BTreeMap::from([("source".to_owned(), source)]),
            description: String::new(),
            name: DEFAULT.into(),
            driver: "dir".into(),
            used_by: vec!["/1.0/profiles/default".into()],
            status: "Created".into(),
            locations: vec!["none".into()],
        }
    }
}
