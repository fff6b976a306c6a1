//! From catalogs to images: which files make one, and what is told about it.

mod order;
#[cfg(test)]
mod tests;

use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use lxd_proto::arch::Architecture;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{Image, InstanceType, Properties, Verified};
use lxd_proto::time;

use crate::document::{Catalog, Item, Product, Version};
use crate::path::TreePath;
use crate::root::{INCUS, LXD, RootKind};

pub(crate) use order::compare;

/// Images that one catalog may have: items of one version multiply.
pub const MAX_IMAGES: usize = 200_000;
/// Deltas that one image may have.
const MAX_DELTAS: usize = 32;
/// The longest text, in bytes, that becomes a property of every image of a product.
const MAX_TEXT: usize = 1024;
/// Requirements of one product.
const MAX_REQUIREMENTS: usize = 64;
/// The longest list of names of one product, in bytes.
const MAX_NAMES: usize = 16 << 10;

/// An image of a catalog, without the aliases that it wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What is told about it; no aliases yet.
    pub image: Image,
    /// What it is made of.
    pub files: ImageFiles,
    /// The names of its product as the catalog has them: separated by commas.
    pub names: Arc<str>,
}

/// The files of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFiles {
    /// The metadata, or the whole of a unified image.
    pub metadata: RemoteFile,
    /// The root file system or disk of a split image.
    pub root: Option<RemoteFile>,
    /// Other ways to the root file.
    pub deltas: Vec<Delta>,
}

/// A file on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Where it is.
    pub path: TreePath,
    /// Its bytes; `None` where the catalog does not say.
    pub size: Option<u64>,
    /// Its SHA-256; `None` where the catalog has none that bytes could have.
    pub sha256: Option<Fingerprint>,
}

/// A VCDIFF file that makes the root file of an image from that of an older one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The older image.
    pub base: Fingerprint,
    /// The difference.
    pub file: RemoteFile,
}

/// All images of a catalog, at most [`MAX_IMAGES`], in no order that means anything.
///
/// What LXD passes over is passed over here: products of unknown architecture, versions whose
/// serial does not begin with a date, pairs of files without a combined hash. So is what LXD
/// stumbles over: hashes that are not 64 lower-case hex digits and paths that leave the tree.
pub fn images(catalog: &Catalog) -> Vec<Listed> {
    let mut found = Vec::new();
    for (id, product) in &catalog.products {
        if !is_bounded(product) {
            tracing::warn!(product = %clip(id), "a product with endless texts is passed over");
            continue;
        }
        // LXD 6 looks at the first word only.
        let name = product.arch.split_whitespace().next().unwrap_or_default();
        let Ok(architecture) = name.parse() else { continue };
        let names = Arc::from(product.aliases.as_str());
        for (serial, version) in &product.versions {
            let Some(created) = serial_date(serial) else { continue };
            if serial.len() > MAX_TEXT || version.label.len() > MAX_TEXT {
                continue;
            }
            let build = Build { product, architecture, serial, version, created, names: &names };
            build.images(&mut found);
            if found.len() >= MAX_IMAGES {
                tracing::warn!(
                    catalog = %catalog.content_id,
                    "only the first {MAX_IMAGES} images of the catalog are used"
                );
                found.truncate(MAX_IMAGES);
                return found;
            }
        }
    }
    found
}

/// Whether what every image of the product repeats is short enough to be repeated.
fn is_bounded(product: &Product) -> bool {
    let texts = [
        &product.arch,
        &product.os,
        &product.release,
        &product.release_title,
        &product.variant,
        &product.version,
    ];
    let requirements = product.lxd_requirements.iter().chain(&product.requirements);
    texts.iter().all(|text| text.len() <= MAX_TEXT)
        && product.aliases.len() <= MAX_NAMES
        && requirements.clone().all(|map| map.len() <= MAX_REQUIREMENTS)
        && requirements.flatten().all(|(key, value)| key.len().max(value.len()) <= MAX_TEXT)
}

/// The beginning of a stranger's text, for the log.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A version with all that its images have in common.
struct Build<'a> {
    product: &'a Product,
    architecture: Architecture,
    serial: &'a str,
    version: &'a Version,
    created: Timestamp,
    names: &'a Arc<str>,
}

impl Build<'_> {
    fn images(&self, found: &mut Vec<Listed>) {
        let has = |ftype| self.version.items.values().any(|item| item.ftype == ftype);
        let combined = if has(LXD.combined) { LXD.combined } else { INCUS.combined };
        let metadata = if has(LXD.metadata) { LXD.metadata } else { INCUS.metadata };
        for item in self.version.items.values() {
            if found.len() >= MAX_IMAGES {
                return;
            }
            if item.ftype == combined {
                found.extend(self.unified(item));
            } else if item.ftype == metadata {
                for root in self.version.items.values() {
                    if let Some(kind) = RootKind::from_ftype(&root.ftype) {
                        found.extend(self.split(item, kind, root));
                    }
                }
            }
        }
    }

    fn unified(&self, item: &Item) -> Option<Listed> {
        let fingerprint = strict(&item.sha256)?;
        let kind = InstanceType::from_str(&item.combined_type).unwrap_or_default();
        let files = ImageFiles { metadata: remote_file(item)?, root: None, deltas: Vec::new() };
        Some(self.listed(fingerprint, kind, "tar.gz", files))
    }

    fn split(&self, metadata: &Item, kind: RootKind, root: &Item) -> Option<Listed> {
        let fingerprint = strict(metadata.combined(kind))?;
        let files = ImageFiles {
            metadata: remote_file(metadata)?,
            root: Some(remote_file(root)?),
            deltas: self.deltas(&metadata.ftype, kind),
        };
        Some(self.listed(fingerprint, kind.kind(), kind.ftype(), files))
    }

    fn deltas(&self, metadata: &str, kind: RootKind) -> Vec<Delta> {
        if !matches!(kind, RootKind::Squashfs | RootKind::DiskKvm) {
            return Vec::new();
        }
        let items = self.version.items.values();
        items.filter_map(|item| self.delta(metadata, kind, item)).take(MAX_DELTAS).collect()
    }

    /// The delta in `item`, when it leads from another version of the product to a root file
    /// of this kind.
    fn delta(&self, metadata: &str, kind: RootKind, item: &Item) -> Option<Delta> {
        if item.ftype.strip_suffix(".vcdiff") != Some(kind.ftype()) {
            return None;
        }
        let base = self.product.versions.get(&item.delta_base)?;
        let base = base.items.values().find(|item| item.ftype == metadata)?;
        Some(Delta { base: strict(base.combined(kind))?, file: remote_file(item)? })
    }

    fn listed(
        &self,
        fingerprint: Fingerprint,
        kind: InstanceType,
        ftype: &str,
        files: ImageFiles,
    ) -> Listed {
        let size = |file: &RemoteFile| file.size.unwrap_or_default();
        let image = Image {
            auto_update: false,
            properties: self.properties(ftype),
            public: true,
            expires_at: expiry(&self.product.support_eol),
            profiles: Vec::new(),
            aliases: Vec::new(),
            architecture: self.architecture,
            cached: false,
            filename: files.metadata.path.file_name().to_owned(),
            fingerprint,
            size: size(&files.metadata).saturating_add(files.root.as_ref().map_or(0, size)),
            update_source: None,
            kind,
            created_at: self.created,
            last_used_at: time::zero(),
            uploaded_at: self.created,
            verified: Verified::Yes,
            refresh: None,
        };
        Listed { image, files, names: Arc::clone(self.names) }
    }

    fn properties(&self, ftype: &str) -> Properties {
        let Self { product, version, serial, .. } = self;
        let mut description = format!("{} {} {}", product.os, product.release_title, product.arch);
        if !version.label.is_empty() {
            description.push_str(&format!(" ({})", version.label));
        }
        description.push_str(&format!(" ({serial})"));
        let mut properties = Properties::new();
        for (key, value) in [
            ("architecture", product.arch.as_str()),
            ("description", &description),
            ("label", &version.label),
            ("os", &product.os),
            ("release", &product.release),
            ("serial", serial),
            ("type", ftype),
            ("variant", &product.variant),
            ("version", &product.version),
        ] {
            if !value.is_empty() {
                properties.insert(key.to_owned(), value.to_owned());
            }
        }
        let requirements = product.lxd_requirements.as_ref().or(product.requirements.as_ref());
        for (key, value) in requirements.into_iter().flatten() {
            if !value.is_empty() {
                properties.insert(format!("requirements.{key}"), value.clone());
            }
        }
        properties
    }
}

fn remote_file(item: &Item) -> Option<RemoteFile> {
    Some(RemoteFile {
        path: TreePath::parse(&item.path)?,
        size: u64::try_from(item.size).ok().filter(|size| *size > 0),
        sha256: strict(&item.sha256),
    })
}

/// The hash in a document: clients compare text, so upper case never matches anything.
fn strict(hash: &str) -> Option<Fingerprint> {
    let lower = !hash.bytes().any(|byte| byte.is_ascii_uppercase());
    if lower { hash.parse().ok() } else { None }
}

/// The day with which the serial of a version begins; a version without one is invisible.
pub(crate) fn serial_date(serial: &str) -> Option<Timestamp> {
    day(serial.as_bytes().get(..8)?, [0..4, 4..6, 6..8])
}

/// When an image whose support ends on this day expires; never when it is no day.
fn expiry(support_eol: &str) -> Timestamp {
    let bytes = support_eol.as_bytes();
    let dashes = bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-';
    let day = if dashes { day(bytes, [0..4, 5..7, 8..10]) } else { None };
    day.unwrap_or_else(time::epoch)
}

/// Midnight UTC of the day whose year, month and day of the month stand at these places.
fn day(text: &[u8], places: [std::ops::Range<usize>; 3]) -> Option<Timestamp> {
    let mut numbers = [0_i16; 3];
    for (number, place) in numbers.iter_mut().zip(places) {
        for digit in text.get(place)? {
            let digit = digit.is_ascii_digit().then(|| i16::from(digit - b'0'))?;
            *number = *number * 10 + digit;
        }
    }
    let [year, month, day] = numbers;
    let day = Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    TimeZone::UTC.to_timestamp(day.into()).ok()
}
