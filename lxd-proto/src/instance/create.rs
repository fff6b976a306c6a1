//! What creates an instance: `POST /1.0/instances`, and the forms its source may have.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::InstancePut;
use crate::image::{InstanceType, Properties};
use crate::wire::null_default;

/// Body of `POST /1.0/instances`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstancesPost {
    /// Configuration, devices, profiles.
    #[serde(flatten)]
    pub put: InstancePut,
    /// Empty: the server makes one up.
    pub name: String,
    /// What it is made from.
    #[serde(deserialize_with = "null_default")]
    pub source: InstanceSource,
    /// A size such as `t2.micro`; not known here.
    pub instance_type: String,
    /// Container or virtual machine; empty on the wire means container.
    #[serde(rename = "type", deserialize_with = "kind")]
    pub kind: InstanceType,
    /// Start it at once, as LXD 6 asks for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub start: bool,
}

fn kind<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<InstanceType, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(InstanceType::Container),
        Some(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// `source` of [`InstancesPost`] as it is written; [`InstanceSource::parse`] makes sense of it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceSource {
    /// `image`, `copy`, `none` or `migration`.
    #[serde(rename = "type")]
    pub kind: String,
    /// PEM of the server's certificate.
    pub certificate: String,
    /// Alias of an image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias: String,
    /// Fingerprint of an image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// The newest local image that has them all.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub properties: Properties,
    /// URL of the server that has the image; empty: this one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// One-time secret of a private image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub secret: String,
    /// `lxd` or `simplestreams`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// Fingerprint of the image that the source of a copy was made from.
    #[serde(rename = "base-image", skip_serializing_if = "String::is_empty")]
    pub base_image: String,
    /// `pull`, `local`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Operation of a migration.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// Secrets of a migration.
    #[serde(
        rename = "secrets",
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_default"
    )]
    pub websockets: BTreeMap<String, String>,
    /// Instance, or `instance/snapshot`, of a copy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// With its running state.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub live: bool,
    /// Without its snapshots.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub instance_only: bool,
    /// The older name of `instance_only`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub container_only: bool,
    /// Brings an existing copy up to date.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refresh: bool,
    /// Project of the source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// Copy although files may change meanwhile.
    pub allow_inconsistent: bool,
    /// Of ours: armoured OpenPGP keys, one of which must have signed what the server says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub keyring: String,
}

/// A secret is in it.
impl fmt::Debug for InstanceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceSource")
            .field("kind", &self.kind)
            .field("alias", &self.alias)
            .field("fingerprint", &self.fingerprint)
            .field("server", &self.server)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// What an instance is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// An image of this server.
    Local(ImageOf<'a>),
    /// An image of another server, fetched first.
    Remote(ImageOf<'a>, Server<'a>),
    /// Another instance of this server.
    Copy {
        /// The instance.
        instance: &'a str,
        /// One of its snapshots instead of the instance as it is.
        snapshot: Option<&'a str>,
        /// Without its snapshots.
        instance_only: bool,
    },
    /// Nothing: an empty root file system.
    Nothing,
}

/// Which image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageOf<'a> {
    /// By alias.
    Alias(&'a str),
    /// By fingerprint, or the beginning of one. Some clients put an alias here.
    Fingerprint(&'a str),
    /// The newest that has all of these.
    Properties(&'a Properties),
}

/// Another server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Server<'a> {
    /// Its URL.
    pub url: &'a str,
    /// `lxd` (empty means this one) or `simplestreams`.
    pub protocol: &'a str,
    /// PEM of its certificate; may be empty.
    pub certificate: &'a str,
    /// One-time secret of a private image; may be empty.
    pub secret: &'a str,
    /// Project there; may be empty.
    pub project: &'a str,
    /// Armoured OpenPGP keys, one of which must have signed what it says; may be empty.
    pub keyring: &'a str,
}

impl fmt::Debug for Server<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Why an [`InstanceSource`] makes no sense, in LXD's words where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// `type` is none of those known.
    #[error("Unknown source type {0}")]
    Kind(String),
    /// An image was asked for, but not which.
    #[error("Must specify one of alias, fingerprint or properties for init from image")]
    NoImage,
    /// More than one of them was said.
    #[error("Only one of alias, fingerprint or properties can be given for init from image")]
    ManyImages,
    /// A copy was asked for, but not of what.
    #[error("must specify a source instance")]
    NoSource,
    /// A form that is known but not supported.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl InstanceSource {
    /// What it asks for.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn parse(&self) -> Result<Source<'_>, Invalid> {
        match self.kind.as_str() {
            "image" => self.image(),
            "none" => Ok(Source::Nothing),
            "copy" => self.copy(),
            "migration" => Err(Invalid::Unsupported(
                "instances cannot be migrated to this server: publish an image and launch it here",
            )),
            other => Err(Invalid::Kind(other.to_owned())),
        }
    }

    fn image(&self) -> Result<Source<'_>, Invalid> {
        let image = match (self.alias.as_str(), self.fingerprint.as_str()) {
            ("", "") if self.properties.is_empty() => return Err(Invalid::NoImage),
            ("", "") => ImageOf::Properties(&self.properties),
            _ if !self.properties.is_empty() => return Err(Invalid::ManyImages),
            ("", fingerprint) => ImageOf::Fingerprint(fingerprint),
            // LXD's client may send both for a private image: the fingerprint is the exact one.
            (_, fingerprint) if !fingerprint.is_empty() => ImageOf::Fingerprint(fingerprint),
            (alias, _) => ImageOf::Alias(alias),
        };
        if self.server.is_empty() {
            return Ok(Source::Local(image));
        }
        if matches!(image, ImageOf::Properties(_)) {
            return Err(Invalid::Unsupported(
                "an image of another server is named by alias or fingerprint, not by properties",
            ));
        }
        let server = Server {
            url: &self.server,
            protocol: &self.protocol,
            certificate: &self.certificate,
            secret: &self.secret,
            project: &self.project,
            keyring: &self.keyring,
        };
        Ok(Source::Remote(image, server))
    }

    fn copy(&self) -> Result<Source<'_>, Invalid> {
        if self.refresh {
            return Err(Invalid::Unsupported("an existing copy cannot be refreshed; copy anew"));
        }
        let (instance, snapshot) = match self.source.split_once('/') {
            Some((instance, snapshot)) => (instance, Some(snapshot)),
            None => (self.source.as_str(), None),
        };
        if instance.is_empty() || snapshot == Some("") {
            return Err(Invalid::NoSource);
        }
        let instance_only = self.instance_only || self.container_only;
        Ok(Source::Copy { instance, snapshot, instance_only })
    }
}
