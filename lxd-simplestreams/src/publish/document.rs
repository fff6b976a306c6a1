//! The documents: the structures that the reader reads, written.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use lxd_proto::time;

use super::group::Facts;
use super::texts;
use super::{
    CATALOG, Products, PublishedFile, PublishedImage, PublishedProduct, SIGNED_CATALOG,
    architecture_name,
};
use crate::document::{Catalog, IMAGE_DOWNLOADS, Index, IndexEntry, Item, Product, Version};
use crate::root::{INCUS, LXD, RootKind};

/// The name of the catalog among those of an index.
pub const CONTENT_ID: &str = "images";
/// What the simplestreams tools know a catalog by.
const PRODUCTS_FORMAT: &str = "products:1.0";
/// The one control character that JSON leaves as it is.
const DELETE: u8 = 0x7f;
const INDEX_FORMAT: &str = "index:1.0";

/// Which catalogs an index names: the tools that check signatures want every document signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// The plain ones.
    No,
    /// Their signed twins.
    Yes,
}

pub(super) fn index(names: Vec<String>, updated: Timestamp, signed: Signed) -> Vec<u8> {
    let updated = date(updated);
    let entry = IndexEntry {
        datatype: IMAGE_DOWNLOADS.into(),
        path: if signed == Signed::Yes { SIGNED_CATALOG } else { CATALOG }.into(),
        format: PRODUCTS_FORMAT.into(),
        updated: updated.clone(),
        products: names,
    };
    let index = BTreeMap::from([(CONTENT_ID.to_owned(), entry)]);
    json(&Index { format: INDEX_FORMAT.into(), updated, index })
}

pub(super) fn catalog(products: &Products, updated: Timestamp) -> Vec<u8> {
    let products = products.products.iter();
    let products = products.filter_map(|(name, it)| Some((name.clone(), product(it)?)));
    json(&catalog_with(products.collect(), updated))
}

pub(super) fn catalog_with(products: BTreeMap<String, Product>, updated: Timestamp) -> Catalog {
    Catalog {
        content_id: CONTENT_ID.into(),
        datatype: IMAGE_DOWNLOADS.into(),
        format: PRODUCTS_FORMAT.into(),
        updated: date(updated),
        license: String::new(),
        products,
    }
}

pub(super) fn product(published: &PublishedProduct) -> Option<Product> {
    let newest = published.newest()?;
    let facts = Facts::of(newest);
    let requirements = requirements(newest);
    Some(Product {
        aliases: texts::joined(&published.aliases),
        arch: architecture_name(newest.architecture).into(),
        os: texts::short(facts.os),
        release: texts::short(facts.release),
        release_codename: String::new(),
        // Clients put it in the description, where nothing would leave a hole.
        release_title: texts::short(property(newest, "release_title").unwrap_or(facts.release)),
        variant: texts::short(facts.variant),
        version: texts::short(property(newest, "version").unwrap_or_default()),
        supported: false,
        support_eol: support_eol(newest),
        lxd_requirements: requirements.clone(),
        requirements,
        versions: published
            .versions
            .iter()
            .map(|(serial, images)| (serial.clone(), version(published, images)))
            .collect(),
    })
}

fn version(product: &PublishedProduct, images: &[PublishedImage]) -> Version {
    let label = images.first().and_then(|image| property(image, "label")).unwrap_or_default();
    let mut items = BTreeMap::new();
    for image in images {
        match &image.root {
            None => unified(image, &mut items),
            Some((root, file)) => split(product, image, *root, file, &mut items),
        }
    }
    Version { label: texts::short(label), pubname: String::new(), items }
}

fn unified(image: &PublishedImage, items: &mut BTreeMap<String, Item>) {
    for (ftype, combined_type) in
        [(LXD.combined, String::new()), (INCUS.combined, image.kind.to_string())]
    {
        items.insert(ftype.into(), Item { combined_type, ..item(ftype, &image.metadata) });
    }
}

fn split(
    product: &PublishedProduct,
    image: &PublishedImage,
    root: RootKind,
    file: &PublishedFile,
    items: &mut BTreeMap<String, Item>,
) {
    for ftype in [LXD.metadata, INCUS.metadata] {
        let item = items.entry(ftype.into()).or_insert_with(|| item(ftype, &image.metadata));
        let fingerprint = image.fingerprint.to_string();
        match root {
            RootKind::Squashfs => item.combined_squashfs_sha256 = fingerprint,
            RootKind::Tarball => {
                item.combined_sha256.clone_from(&fingerprint);
                item.combined_rootxz_sha256 = fingerprint;
            }
            RootKind::DiskKvm => item.combined_disk_kvm_img_sha256 = fingerprint,
            RootKind::Uefi1 => item.combined_uefi1_img_sha256 = fingerprint,
            RootKind::Disk1 => item.combined_disk1_img_sha256 = fingerprint,
        }
    }
    // Some tools that edit catalogs want the key to be the ftype.
    items.insert(root.ftype().into(), item(root.ftype(), file));
    for delta in &image.deltas {
        let is_base = |other: &PublishedImage| {
            other.fingerprint == delta.base && other.root.as_ref().is_some_and(|it| it.0 == root)
        };
        let mut versions = product.versions.iter();
        let Some((base, _)) = versions.find(|(_, images)| images.iter().any(is_base)) else {
            continue;
        };
        let ftype = format!("{}.vcdiff", root.ftype());
        let delta = Item { delta_base: base.clone(), ..item(&ftype, &delta.file) };
        items.insert(format!("{}.{base}.vcdiff", root.ftype()), delta);
    }
}

fn item(ftype: &str, file: &PublishedFile) -> Item {
    Item {
        ftype: ftype.into(),
        path: file.path.clone(),
        // No file has more than 2^63 bytes.
        size: i64::try_from(file.size).unwrap_or(i64::MAX),
        sha256: file.sha256.to_string(),
        ..Item::default()
    }
}

fn property<'a>(image: &'a PublishedImage, key: &str) -> Option<&'a str> {
    image.properties.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

fn requirements(image: &PublishedImage) -> Option<BTreeMap<String, String>> {
    let found = image.properties.iter().filter_map(|(key, value)| {
        let key = key.strip_prefix("requirements.")?;
        texts::is_tellable(key, value).then(|| (key.to_owned(), value.clone()))
    });
    let found: BTreeMap<_, _> = found.collect();
    (!found.is_empty()).then_some(found)
}

fn support_eol(image: &PublishedImage) -> String {
    if time::is_unset(image.expires_at) {
        return String::new();
    }
    image.expires_at.to_zoned_datetime(TimeZone::UTC).strftime("%Y-%m-%d").to_string()
}

fn date(time: Timestamp) -> String {
    rfc2822::to_string(&time.to_zoned_datetime(TimeZone::UTC)).unwrap_or_default()
}

pub(super) fn json(value: &impl serde::Serialize) -> Vec<u8> {
    // Maps with text for keys, texts and numbers: serialising cannot fail.
    let json = serde_json::to_vec(value).unwrap_or_default();
    if !json.contains(&DELETE) {
        return json;
    }
    // JSON allows this control character in a text, signed documents do not.
    let mut escaped = Vec::with_capacity(json.len() + 16);
    for byte in json {
        match byte {
            DELETE => escaped.extend_from_slice(br"\u007f"),
            byte => escaped.push(byte),
        }
    }
    escaped
}
