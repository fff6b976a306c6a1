//! From images to catalogs: what a server of images writes so that LXD, Incus and the simplestreams
//! tools read it alike.
//!
//! Pure: images in, documents out, the same bytes for the same images in any order. Each image
//! has items in LXD's and in Incus' names on the same files, and an alias never leads to another
//! image than the one that has it.

mod document;
mod group;
mod pieces;
mod serial;
#[cfg(test)]
mod tests;
mod texts;

use std::collections::BTreeMap;

use jiff::Timestamp;
use lxd_proto::arch::Architecture;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{InstanceType, Properties};

use crate::root::{LXD, RootKind};

pub use document::{CONTENT_ID, Signed};
pub(crate) use group::numbered;
pub use pieces::{Assembled, assemble, index_of};
pub(crate) use serial::of as serial_of;
pub use serial::{from_time, is_serial};

/// Where the index of a tree is: the one path that every client knows.
pub const INDEX: &str = "streams/v1/index.json";
/// Where the one catalog is that [`Products`] make.
pub const CATALOG: &str = "streams/v1/images.json";
/// Where the signed index is. It names signed catalogs.
pub const SIGNED_INDEX: &str = "streams/v1/index.sjson";
/// Where the signed catalog is.
pub const SIGNED_CATALOG: &str = "streams/v1/images.sjson";

/// A file of a published tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedFile {
    /// Where it is, from the root of the tree. What is there never changes.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Fingerprint,
}

/// A VCDIFF file that makes the root file of an image from that of an older one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedDelta {
    /// The older image. One that is no version of the same product leaves the delta out.
    pub base: Fingerprint,
    /// The difference.
    pub file: PublishedFile,
}

/// Product and serial of an image whose tree says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The product's name: `os:release:arch:variant`.
    pub product: String,
    /// The version's name, which begins with a date.
    pub serial: String,
}

/// An image that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedImage {
    /// Over the metadata file and the root file.
    pub fingerprint: Fingerprint,
    /// What starts from it.
    pub kind: InstanceType,
    /// What it runs on.
    pub architecture: Architecture,
    /// Of which `os`, `release`, `variant`, `version`, `label`, `serial` and `requirements.*` are
    /// published.
    pub properties: Properties,
    /// Its names. A name with a comma cannot be published, and is left out.
    pub aliases: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The day on which its support ends; unset when it does not.
    pub expires_at: Timestamp,
    /// The metadata of a split image, or all of a unified one.
    pub metadata: PublishedFile,
    /// The root file of a split image.
    pub root: Option<(RootKind, PublishedFile)>,
    /// Other ways to the root file.
    pub deltas: Vec<PublishedDelta>,
    /// Images that share it are versions of each other.
    pub lineage: Option<String>,
    /// Where it belongs; `None` to tell it from the properties.
    pub place: Option<Place>,
}

impl PublishedImage {
    /// Whether clients would understand it. LXD takes every unified image for a container.
    pub fn is_publishable(&self) -> bool {
        match &self.root {
            Some((root, _)) => root.kind() == self.kind,
            None => self.kind == InstanceType::Container,
        }
    }
}

/// The images of a tree as products and versions.
#[derive(Debug, Clone, Default)]
pub struct Products {
    products: BTreeMap<String, PublishedProduct>,
}

/// One system for one architecture, in all its versions.
#[derive(Debug, Clone, Default)]
pub struct PublishedProduct {
    /// Names of the newest version, sorted.
    aliases: Vec<String>,
    /// The images of each version, by serial. They have one metadata file in common.
    versions: BTreeMap<String, Vec<PublishedImage>>,
}

impl PublishedProduct {
    /// The names that lead to its newest version.
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// Serials with their images, newest first.
    pub fn versions(&self) -> impl Iterator<Item = (&str, &[PublishedImage])> {
        self.versions.iter().rev().map(|(serial, images)| (serial.as_str(), images.as_slice()))
    }

    /// The newest version.
    fn newest(&self) -> Option<&PublishedImage> {
        self.versions.values().next_back()?.first()
    }
}

impl Products {
    /// Sorts images into products and versions; what no client would understand is left out.
    ///
    /// The product of an image without a [`Place`] is `os:release:arch:variant` of its properties.
    /// An older image without a name is an older version of the one that has names there. Where
    /// several images have names, each of them is a product of its own, with one of its names
    /// behind the product's; so is what has no name and is newer. Virtual machines have products
    /// of their own.
    pub fn group(images: Vec<PublishedImage>) -> Self {
        group::group(images)
    }

    /// The products by name.
    pub fn products(&self) -> impl Iterator<Item = (&str, &PublishedProduct)> {
        self.products.iter().map(|(name, product)| (name.as_str(), product))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.products.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.products.is_empty()
    }

    /// The document for [`CATALOG`].
    pub fn catalog(&self, updated: Timestamp) -> Vec<u8> {
        document::catalog(self, updated)
    }

    /// The document for [`INDEX`] or [`SIGNED_INDEX`].
    pub fn index(&self, updated: Timestamp, signed: Signed) -> Vec<u8> {
        document::index(self.products.keys().cloned().collect(), updated, signed)
    }
}

/// The name of the metadata file of a split image, or of a unified image, in a tree.
pub const fn metadata_name(is_unified: bool) -> &'static str {
    if is_unified { LXD.combined } else { LXD.metadata }
}

/// The name of a root file in a tree.
pub const fn root_name(root: RootKind) -> &'static str {
    match root {
        RootKind::Squashfs => "rootfs.squashfs",
        RootKind::Tarball => "root.tar.xz",
        RootKind::DiskKvm => "disk.qcow2",
        RootKind::Uefi1 => "uefi1.img",
        RootKind::Disk1 => "disk1.img",
    }
}

/// What catalogs call an architecture: Debian's name, since clients make `NAME/ARCH` of it.
pub fn architecture_name(architecture: Architecture) -> &'static str {
    architecture.aliases().first().copied().unwrap_or(architecture.as_str())
}
