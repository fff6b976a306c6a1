//! The JSON documents of a simplestreams tree, read with exactly the leniency of LXD's client.

mod lenient;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::{DeserializeSeed, MapAccess};

use crate::root::RootKind;
use lenient::{Budget, Fields, Place, Take, Value};

/// The largest document that is read, in bytes after decompression.
pub const MAX_DOCUMENT: usize = 64 << 20;
/// Products, versions, items, requirements and listed names that a document may have together.
pub const MAX_ENTRIES: usize = 600_000;
/// The only kind of catalog that lists images.
pub const IMAGE_DOWNLOADS: &str = "image-downloads";

/// Why a document cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Longer than [`MAX_DOCUMENT`].
    #[error("it is larger than {MAX_DOCUMENT} bytes")]
    TooLarge,
    /// Not JSON, or a known field has the wrong type: that breaks the whole document.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// `streams/v1/index.json`: which catalogs there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Index {
    /// `index:1.0`.
    pub format: String,
    /// RFC 2822; for information.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub updated: String,
    /// Catalogs by content id.
    pub index: BTreeMap<String, IndexEntry>,
}

/// One catalog in the index.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct IndexEntry {
    /// Anything but [`IMAGE_DOWNLOADS`] is not for us.
    pub datatype: String,
    /// Where the catalog is, from the root of the tree.
    pub path: String,
    /// `products:1.0`.
    pub format: String,
    /// For information.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub updated: String,
    /// Names of the products; a catalog without any is never fetched.
    pub products: Vec<String>,
}

/// A catalog: the products of one content id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Catalog {
    /// The key in the index.
    pub content_id: String,
    /// [`IMAGE_DOWNLOADS`].
    pub datatype: String,
    /// `products:1.0`.
    pub format: String,
    /// RFC 2822; for information.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub updated: String,
    /// For information.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub license: String,
    /// Products by name.
    pub products: BTreeMap<String, Product>,
}

/// One system for one architecture, in all its versions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Product {
    /// Names separated by commas, without blanks.
    pub aliases: String,
    /// Any name of an architecture.
    pub arch: String,
    /// Such as `ubuntu`.
    pub os: String,
    /// Such as `noble`.
    pub release: String,
    /// Such as `Noble Numbat`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub release_codename: String,
    /// Such as `24.04 LTS`; part of the description.
    pub release_title: String,
    /// Such as `cloud`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Such as `24.04`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// For information.
    #[serde(skip_serializing_if = "is_false")]
    pub supported: bool,
    /// `YYYY-MM-DD`, when the images expire.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub support_eol: String,
    /// What LXD asks of an instance; wins over `requirements` when it is there at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lxd_requirements: Option<BTreeMap<String, String>>,
    /// What an instance needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requirements: Option<BTreeMap<String, String>>,
    /// Versions by serial; the newest sorts last.
    pub versions: BTreeMap<String, Version>,
}

/// One build of a product.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Version {
    /// Such as `release` or `daily`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// For information.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pubname: String,
    /// Files; the keys are free.
    pub items: BTreeMap<String, Item>,
}

/// One file of a build.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Item {
    /// What it is.
    pub ftype: String,
    /// Where it is, from the root of the tree.
    pub path: String,
    /// Bytes; 0 is unknown.
    pub size: i64,
    /// Lower-case hex.
    pub sha256: String,
    /// Read by others.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub md5: String,
    /// On metadata: the fingerprint together with `root.tar.xz`, by its old name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub combined_sha256: String,
    /// On metadata: the fingerprint together with `root.tar.xz`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub combined_rootxz_sha256: String,
    /// On metadata: the fingerprint together with `squashfs`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub combined_squashfs_sha256: String,
    /// On metadata: the fingerprint together with `disk1.img`.
    #[serde(rename = "combined_disk1-img_sha256", skip_serializing_if = "String::is_empty")]
    pub combined_disk1_img_sha256: String,
    /// On metadata: the fingerprint together with `disk-kvm.img`.
    #[serde(rename = "combined_disk-kvm-img_sha256", skip_serializing_if = "String::is_empty")]
    pub combined_disk_kvm_img_sha256: String,
    /// On metadata: the fingerprint together with `uefi1.img`.
    #[serde(rename = "combined_uefi1-img_sha256", skip_serializing_if = "String::is_empty")]
    pub combined_uefi1_img_sha256: String,
    /// On `incus_combined.tar.gz`: what it makes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub combined_type: String,
    /// On a delta: the version it starts from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub delta_base: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl Index {
    /// Reads `streams/v1/index.json`.
    pub fn parse(document: &[u8]) -> Result<Self, ParseError> {
        parse(document)
    }

    /// The paths of the catalogs that list images, each once, in the order of their content ids.
    ///
    /// As in LXD an entry without product names does not count: its catalog is never fetched.
    pub fn catalogs(&self) -> Vec<&str> {
        let mut paths = Vec::new();
        for entry in self.index.values() {
            let counts = entry.datatype == IMAGE_DOWNLOADS && !entry.products.is_empty();
            if counts && !paths.contains(&entry.path.as_str()) {
                paths.push(&entry.path);
            }
        }
        paths
    }
}

impl Item {
    /// Of metadata: the hash of it together with a root file of this kind, as it is written.
    pub fn combined(&self, root: RootKind) -> &str {
        match root {
            RootKind::Squashfs => &self.combined_squashfs_sha256,
            RootKind::Tarball if self.combined_rootxz_sha256.is_empty() => &self.combined_sha256,
            RootKind::Tarball => &self.combined_rootxz_sha256,
            RootKind::DiskKvm => &self.combined_disk_kvm_img_sha256,
            RootKind::Uefi1 => &self.combined_uefi1_img_sha256,
            RootKind::Disk1 => &self.combined_disk1_img_sha256,
        }
    }
}

impl Catalog {
    /// Reads a catalog.
    pub fn parse(document: &[u8]) -> Result<Self, ParseError> {
        parse(document)
    }
}

fn parse<T: Take + Default>(document: &[u8]) -> Result<T, ParseError> {
    if document.len() > MAX_DOCUMENT {
        return Err(ParseError::TooLarge);
    }
    let mut value = T::default();
    let mut json = serde_json::Deserializer::from_slice(document);
    Place(&mut value, &Budget::new(MAX_ENTRIES)).deserialize(&mut json)?;
    json.end()?;
    Ok(value)
}

/// Reads the fields with these names, as they stand in the documents, and skips all others.
macro_rules! fields {
    ($type:ty, $what:literal, { $($name:literal => $field:ident),+ $(,)? }) => {
        impl Fields for $type {
            const WHAT: &str = $what;

            fn field<'de, A: MapAccess<'de>>(
                &mut self,
                name: &str,
                value: Value<'_, A>,
            ) -> Result<(), A::Error> {
                match name {
                    $($name => value.into(&mut self.$field),)+
                    _ => value.skip(),
                }
            }
        }
    };
}

fields!(Index, "an index", {
    "format" => format,
    "updated" => updated,
    "index" => index,
});

fields!(IndexEntry, "an entry of the index", {
    "datatype" => datatype,
    "path" => path,
    "format" => format,
    "updated" => updated,
    "products" => products,
});

fields!(Catalog, "a catalog", {
    "content_id" => content_id,
    "datatype" => datatype,
    "format" => format,
    "updated" => updated,
    "license" => license,
    "products" => products,
});

fields!(Product, "a product", {
    "aliases" => aliases,
    "arch" => arch,
    "os" => os,
    "release" => release,
    "release_codename" => release_codename,
    "release_title" => release_title,
    "variant" => variant,
    "version" => version,
    "supported" => supported,
    "support_eol" => support_eol,
    "lxd_requirements" => lxd_requirements,
    "requirements" => requirements,
    "versions" => versions,
});

fields!(Version, "a version", {
    "label" => label,
    "pubname" => pubname,
    "items" => items,
});

fields!(Item, "an item", {
    "ftype" => ftype,
    "path" => path,
    "size" => size,
    "sha256" => sha256,
    "md5" => md5,
    "combined_sha256" => combined_sha256,
    "combined_rootxz_sha256" => combined_rootxz_sha256,
    "combined_squashfs_sha256" => combined_squashfs_sha256,
    "combined_disk1-img_sha256" => combined_disk1_img_sha256,
    "combined_disk-kvm-img_sha256" => combined_disk_kvm_img_sha256,
    "combined_uefi1-img_sha256" => combined_uefi1_img_sha256,
    "combined_type" => combined_type,
    "delta_base" => delta_base,
});
