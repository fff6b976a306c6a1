//! Images on the wire: the object, what may be edited, and what creates one.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alias::ImageAlias;
use crate::arch::Architecture;
use crate::fingerprint::Fingerprint;
use crate::time;
use crate::wire::null_default;

/// Free `key=value` pairs of an image, such as `os` and `release`.
pub type Properties = BTreeMap<String, String>;

/// What an image makes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceType {
    /// A system container.
    #[default]
    Container,
    /// A virtual machine: stored and served, never started here.
    VirtualMachine,
}

impl InstanceType {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::VirtualMachine => "virtual-machine",
        }
    }
}

impl fmt::Display for InstanceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is neither `container` nor `virtual-machine`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an instance type is \"container\" or \"virtual-machine\", not \"{0}\"")]
pub struct UnknownInstanceType(String);

impl FromStr for InstanceType {
    type Err = UnknownInstanceType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Container, Self::VirtualMachine]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownInstanceType(text.to_owned()))
    }
}

/// What the deep check of an image's archive has found.
///
/// An extension of ours: the key is absent from an image that passed, so that
/// LXD's clients see the object they know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Verified {
    /// The whole archive was read and is sound.
    #[default]
    Yes,
    /// The check still runs.
    Pending,
    /// The archive is broken, and why.
    No(String),
}

impl Verified {
    fn is_yes(&self) -> bool {
        *self == Self::Yes
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::Pending => f.write_str("pending"),
            Self::No(reason) => write!(f, "no: {reason}"),
        }
    }
}

impl FromStr for Verified {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "yes" | "" => Self::Yes,
            "pending" => Self::Pending,
            other => Self::No(other.strip_prefix("no: ").unwrap_or(other).to_owned()),
        })
    }
}

impl Serialize for Verified {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Verified {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An image as the API shows it. Keys in the order LXD emits them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Kept current from its source.
    #[serde(default)]
    pub auto_update: bool,
    /// Never `null`.
    #[serde(default, deserialize_with = "null_default")]
    pub properties: Properties,
    /// Shown to strangers.
    #[serde(default)]
    pub public: bool,
    /// The epoch or Go's zero time when it never expires.
    #[serde(default = "time::epoch", deserialize_with = "time::deserialize")]
    pub expires_at: Timestamp,
    /// Profiles of instances made from it.
    #[serde(default, deserialize_with = "null_default")]
    pub profiles: Vec<String>,
    /// Its names.
    #[serde(default, deserialize_with = "null_default")]
    pub aliases: Vec<ImageAlias>,
    /// Canonical architecture name.
    pub architecture: Architecture,
    /// Downloaded for an instance; removed when unused.
    #[serde(default)]
    pub cached: bool,
    /// The file name given at upload.
    #[serde(default)]
    pub filename: String,
    /// Its identity.
    pub fingerprint: Fingerprint,
    /// Bytes; metadata and root file system together.
    #[serde(default)]
    pub size: u64,
    /// Where it came from, if it follows an alias there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_source: Option<UpdateSource>,
    /// What it makes.
    #[serde(rename = "type", default)]
    pub kind: InstanceType,
    /// From its metadata.
    #[serde(default = "time::zero", deserialize_with = "time::deserialize")]
    pub created_at: Timestamp,
    /// Go's zero time until an instance is made from it.
    #[serde(default = "time::zero", deserialize_with = "time::deserialize")]
    pub last_used_at: Timestamp,
    /// When it entered the store.
    #[serde(default = "time::zero", deserialize_with = "time::deserialize")]
    pub uploaded_at: Timestamp,
    /// Result of the deep check; absent when it passed.
    #[serde(default, skip_serializing_if = "Verified::is_yes")]
    pub verified: Verified,
    /// How following its source goes; absent until the source was asked once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
}

/// How following an image's source goes. An extension of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// When the source was last asked.
    #[serde(default = "time::zero")]
    pub checked_at: Timestamp,
    /// When it will be asked again; Go's zero time when it will not.
    #[serde(default = "time::zero")]
    pub next_check_at: Timestamp,
    /// Why the last time failed; empty when it did not.
    #[serde(default)]
    pub error: String,
}

/// One version in `GET /1.0/images/FINGERPRINT/history`. An extension of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageVersion {
    /// The image as it is.
    #[serde(flatten)]
    pub image: Image,
    /// When another version took its aliases; absent from the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_at: Option<Timestamp>,
}

/// The alias on another server that an image follows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UpdateSource {
    /// The alias there.
    pub alias: String,
    /// The server's certificate, PEM; may be empty.
    pub certificate: String,
    /// `lxd` or `simplestreams`.
    pub protocol: String,
    /// The server's URL.
    pub server: String,
    /// Stored empty by LXD.
    #[serde(default)]
    pub image_type: String,
}

/// The editable part of an image: body of `PUT /1.0/images/FINGERPRINT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePut {
    /// Kept current from its source.
    #[serde(default)]
    pub auto_update: bool,
    /// Replaces all properties; an empty value removes its key.
    #[serde(default, deserialize_with = "null_default")]
    pub properties: Properties,
    /// Shown to strangers.
    #[serde(default)]
    pub public: bool,
    /// Go's zero time leaves it as it is.
    #[serde(default = "time::zero", deserialize_with = "time::deserialize")]
    pub expires_at: Timestamp,
    /// `None` means the default profile.
    #[serde(default)]
    pub profiles: Option<Vec<String>>,
}

impl From<&Image> for ImagePut {
    fn from(image: &Image) -> Self {
        Self {
            auto_update: image.auto_update,
            properties: image.properties.clone(),
            public: image.public,
            expires_at: image.expires_at,
            profiles: Some(image.profiles.clone()),
        }
    }
}

/// Body of `PATCH /1.0/images/FINGERPRINT`: what is absent stays as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ImagePatch {
    /// Kept current from its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_update: Option<bool>,
    /// Merged key by key; an empty value removes its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<Properties>,
    /// Shown to strangers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// LXD ignores it in a PATCH; we apply it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "time::deserialize_option"
    )]
    pub expires_at: Option<Timestamp>,
    /// LXD ignores it in a PATCH; we apply it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<Vec<String>>,
}

/// JSON body of `POST /1.0/images`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImagesPost {
    /// Kept current from its source.
    #[serde(default)]
    pub auto_update: bool,
    /// `None` keeps the image's own.
    #[serde(default)]
    pub properties: Option<Properties>,
    /// Shown to strangers.
    #[serde(default)]
    pub public: bool,
    /// Go's zero time means unset.
    #[serde(default = "time::zero", deserialize_with = "time::deserialize")]
    pub expires_at: Timestamp,
    /// Profiles of instances made from it.
    #[serde(default)]
    pub profiles: Option<Vec<String>>,
    /// The file name to record.
    #[serde(default)]
    pub filename: String,
    /// Where the image comes from.
    #[serde(default)]
    pub source: Option<ImageSource>,
    /// For publishing.
    #[serde(default)]
    pub compression_algorithm: String,
    /// Names for the new image.
    #[serde(default, deserialize_with = "null_default")]
    pub aliases: Vec<ImageAlias>,
}

/// Body of `POST /1.0/images/FINGERPRINT/export`: the server pushes the image to another one.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageExportPost {
    /// The other server's URL.
    pub target: String,
    /// Of the other server's push token.
    pub secret: String,
    /// PEM of the other server's certificate.
    pub certificate: String,
    /// Names for the image there.
    #[serde(deserialize_with = "null_default")]
    pub aliases: Vec<ImageAlias>,
    /// Project there.
    pub project: String,
    /// Profiles of instances made from it there.
    pub profiles: Option<Vec<String>>,
}

impl fmt::Debug for ImageExportPost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageExportPost")
            .field("target", &self.target)
            .field("aliases", &self.aliases)
            .finish_non_exhaustive()
    }
}

/// `source` of [`ImagesPost`]; every field may be absent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageSource {
    /// An alias at the server.
    pub alias: String,
    /// PEM of the server's certificate.
    pub certificate: String,
    /// `lxd` or `simplestreams`.
    pub protocol: String,
    /// The server's URL.
    pub server: String,
    /// `container` or `virtual-machine`; may be empty.
    pub image_type: String,
    /// `pull` or `push`.
    pub mode: String,
    /// `image`, `url`, `instance`, `container`, `virtual-machine` or `snapshot`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For `url`.
    pub url: String,
    /// Instance or `instance/snapshot`.
    pub name: String,
    /// A fingerprint, or (from some clients) an alias.
    pub fingerprint: String,
    /// One-time secret of a private image.
    pub secret: String,
    /// Project at the server.
    pub project: String,
    /// Of ours: armoured OpenPGP keys, one of which must have signed what the server says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub keyring: String,
}
