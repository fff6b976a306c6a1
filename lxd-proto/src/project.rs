//! Projects: only the built-in `default` one, read-only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The name of the one project.
pub const DEFAULT: &str = "default";

/// A project on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Its features.
    pub config: BTreeMap<String, String>,
    /// Free text.
    pub description: String,
    /// Its name.
    pub name: String,
    /// Paths of what it holds.
    pub used_by: Vec<String>,
}

impl Project {
    /// The built-in project, holding what `used_by` names.
    pub fn builtin(used_by: Vec<String>) -> Self {
        let features = ["images", "networks", "profiles", "storage.volumes"];
        Self {
            config: features.map(|name| (format!("features.{name}"), "true".into())).into(),
            description: "Default LXD project".into(),
            name: DEFAULT.into(),
            used_by,
        }
    }
}
