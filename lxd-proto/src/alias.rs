//! Aliases: names for images, free text with slashes and spaces.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::image::InstanceType;

/// The longest alias name, in bytes: what a file name could hold.
pub const MAX_NAME: usize = 255;

/// A name that an alias can have: 1 to 255 bytes, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AliasName(String);

/// Why a text cannot name an alias.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasNameError {
    /// The empty text.
    #[error("an alias needs a name")]
    Empty,
    /// Longer than [`MAX_NAME`].
    #[error("an alias name has at most {MAX_NAME} bytes, this one has {0}")]
    TooLong(usize),
    /// Holds a line break, a NUL or the like.
    #[error("an alias name holds no control characters")]
    Control,
}

impl AliasName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AliasName {
    type Error = AliasNameError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        if name.is_empty() {
            Err(AliasNameError::Empty)
        } else if name.len() > MAX_NAME {
            Err(AliasNameError::TooLong(name.len()))
        } else if name.chars().any(char::is_control) {
            Err(AliasNameError::Control)
        } else {
            Ok(Self(name))
        }
    }
}

impl FromStr for AliasName {
    type Err = AliasNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        name.to_owned().try_into()
    }
}

impl From<AliasName> for String {
    fn from(name: AliasName) -> Self {
        name.0
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// An alias as lists and `GET /1.0/images/aliases/NAME` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasEntry {
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// The image it stands for.
    pub target: Fingerprint,
    /// Its name.
    pub name: String,
    /// The type of that image.
    #[serde(rename = "type", default)]
    pub kind: InstanceType,
}

/// An alias inside an image object or an image request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageAlias {
    /// Its name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
}

/// Body of `POST /1.0/images/aliases`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AliasesPost {
    /// The new name.
    #[serde(default)]
    pub name: String,
    /// A fingerprint or the beginning of one.
    #[serde(default)]
    pub target: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Ignored: the type follows from the image.
    #[serde(rename = "type", default)]
    pub kind: String,
}

/// Body of `PUT` and `PATCH /1.0/images/aliases/NAME`; an absent field is unset in the first
/// and unchanged in the second.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AliasPut {
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A fingerprint or the beginning of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Body of `POST /1.0/images/aliases/NAME`: the new name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AliasPost {
    /// The new name.
    pub name: String,
}
