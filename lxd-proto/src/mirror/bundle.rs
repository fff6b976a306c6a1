//! Bundles: a mirror in one file, for machines without a network.
//!
//! A bundle is a tar archive. First comes its manifest, which tells every other entry beforehand and
//! whose name has the hash of its text ([`manifest_name`]); then each file of [`Manifest::files`], in that order, as `files/SHA256`. Nothing else may be in
//! it, so where each file lies follows from the manifest alone.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{InvalidMirror, MAX_KEEP, MirrorName};
use crate::alias::{AliasName, ImageAlias};
use crate::arch::Architecture;
use crate::fingerprint::Fingerprint;
use crate::image::{Image, InstanceType, Properties};

/// Names of the first entry begin and end so.
const MANIFEST: (&str, &str) = ("manifest-", ".json");
/// The largest manifest, in bytes.
pub const MAX_MANIFEST: u64 = 64 << 20;
/// What [`Manifest::format`] is.
pub const FORMAT: &str = "lxd-imaged-mirror:1";
/// Bytes of a tar block.
pub const BLOCK: u64 = 512;
/// Images of one bundle.
const MAX_IMAGES: usize = 100_000;
/// The largest file, in bytes.
const MAX_FILE: u64 = 1 << 40;
/// Aliases of one image: no catalog that can be read has more.
const MAX_ALIASES: usize = 100_000;
/// Bytes of all properties of an image.
const MAX_PROPERTIES: usize = 256 << 10;

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// The mirror it was made of.
    pub mirror: MirrorName,
    /// Versions that it keeps of each product.
    pub keep: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its images.
    pub images: Vec<BundledImage>,
    /// Every file, in the order of the archive.
    pub files: Vec<BundledFile>,
}

/// A file of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundledFile {
    /// Of its bytes.
    pub sha256: Fingerprint,
    /// Bytes.
    pub size: u64,
}

/// An image of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundledImage {
    /// SHA-256 of its files together.
    pub fingerprint: Fingerprint,
    /// Its product.
    pub product: String,
    /// Which version of that.
    pub serial: String,
    /// What it makes.
    #[serde(rename = "type")]
    pub kind: InstanceType,
    /// What it runs on.
    pub architecture: Architecture,
    /// As the mirror has them.
    #[serde(default)]
    pub properties: Properties,
    /// Names that the mirror has given it.
    #[serde(default)]
    pub aliases: Vec<AliasName>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires; the epoch for never.
    pub expires_at: Timestamp,
    /// File name, for people.
    #[serde(default)]
    pub filename: String,
    /// Bytes of its files.
    pub size: u64,
    /// The unified file, or the metadata file.
    pub metadata: Fingerprint,
    /// The root file system of a split image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Fingerprint>,
}

impl BundledImage {
    /// The image as a server would describe it.
    pub fn described(&self) -> Image {
        let alias =
            |name: &AliasName| ImageAlias { name: name.to_string(), description: String::new() };
        Image {
            auto_update: false,
            properties: self.properties.clone(),
            public: false,
            expires_at: self.expires_at,
            profiles: Vec::new(),
            aliases: self.aliases.iter().map(alias).collect(),
            architecture: self.architecture,
            cached: false,
            filename: self.filename.clone(),
            fingerprint: self.fingerprint,
            size: self.size,
            update_source: None,
            kind: self.kind,
            created_at: self.created_at,
            last_used_at: crate::time::zero(),
            uploaded_at: self.created_at,
            verified: crate::image::Verified::Yes,
            refresh: None,
        }
    }

    /// Its files, in the order in which they are hashed.
    pub fn files(&self) -> impl Iterator<Item = Fingerprint> {
        std::iter::once(self.metadata).chain(self.root)
    }
}

/// The name of the first entry, by the SHA-256 of its text: what was damaged on the way is noticed.
pub fn manifest_name(sha256: &Fingerprint) -> String {
    format!("{}{sha256}{}", MANIFEST.0, MANIFEST.1)
}

/// The hash in the name of a first entry; `None` when it is none.
pub fn manifest_hash(name: &str) -> Option<Fingerprint> {
    name.strip_prefix(MANIFEST.0)?.strip_suffix(MANIFEST.1)?.parse().ok()
}

/// The name of the entry that holds a file.
pub fn entry_name(sha256: &Fingerprint) -> String {
    format!("files/{sha256}")
}

/// Bytes that an entry of so many bytes takes behind its header.
pub const fn padded(size: u64) -> u64 {
    size.div_ceil(BLOCK) * BLOCK
}

impl Manifest {
    /// Refuses a manifest that contradicts itself or asks for too much. After this each image has
    /// its files, and the sizes add up.
    pub fn check(&self) -> Result<(), InvalidMirror> {
        let no = |text: String| Err(InvalidMirror(format!("the bundle is not sound: {text}")));
        if self.format != FORMAT {
            let format: String = self.format.chars().take(80).collect();
            return Err(InvalidMirror(format!(
                "this is no bundle that is understood here: its format is \"{format}\", not \"{FORMAT}\""
            )));
        }
        if self.images.len() > MAX_IMAGES || self.files.len() > 2 * MAX_IMAGES {
            return no(format!("it has more than {MAX_IMAGES} images"));
        }
        if !(1..=MAX_KEEP).contains(&self.keep) {
            return no(format!("it keeps {} versions", self.keep));
        }
        let mut sizes = HashMap::new();
        for file in &self.files {
            if file.size == 0 || file.size > MAX_FILE {
                return no(format!("file {} has {} bytes", file.sha256, file.size));
            }
            if sizes.insert(file.sha256, file.size).is_some() {
                return no(format!("file {} comes twice", file.sha256));
            }
        }
        let mut used = HashSet::new();
        let mut seen = HashSet::new();
        for image in &self.images {
            let name = image.fingerprint;
            if !seen.insert(name) {
                return no(format!("image {name} comes twice"));
            }
            let mut size = 0;
            for file in image.files() {
                let Some(known) = sizes.get(&file) else {
                    return no(format!("file {file} of image {name} is missing"));
                };
                used.insert(file);
                size += known;
            }
            if size != image.size {
                return no(format!("image {name} has {size} bytes, not {}", image.size));
            }
            if image.root.is_none() && image.metadata != name {
                return no(format!("image {name} is in one file, but has another hash than that"));
            }
            if image.root == Some(image.metadata) {
                return no(format!("image {name} has one file twice"));
            }
            let text: usize = image.properties.iter().map(|(k, v)| k.len() + v.len()).sum();
            if text > MAX_PROPERTIES || image.aliases.len() > MAX_ALIASES {
                return no(format!("image {name} has too many properties or aliases"));
            }
        }
        match self.files.iter().find(|file| !used.contains(&file.sha256)) {
            Some(file) => no(format!("file {} belongs to no image", file.sha256)),
            None => Ok(()),
        }
    }
}

/// Body of `POST /1.0/mirrors/NAME/import`: what has arrived, or should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorImportPost {
    /// All images of the bundle.
    pub images: Vec<BundledImage>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(n: u8) -> Fingerprint {
        Fingerprint::from_bytes([n; 32])
    }

    fn image(n: u8, metadata: u8, root: Option<u8>) -> BundledImage {
        BundledImage {
            fingerprint: print(n),
            product: "p".into(),
            serial: "20260101".into(),
            kind: InstanceType::Container,
            architecture: Architecture::X86_64,
            properties: Properties::new(),
            aliases: Vec::new(),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH,
            filename: String::new(),
            size: 10 + root.map_or(0, |_| 10),
            metadata: print(metadata),
            root: root.map(print),
        }
    }

    fn manifest(images: Vec<BundledImage>, files: &[u8]) -> Manifest {
        Manifest {
            format: FORMAT.into(),
            mirror: "m".parse().unwrap(),
            keep: 1,
            created_at: Timestamp::UNIX_EPOCH,
            images,
            files: files.iter().map(|n| BundledFile { sha256: print(*n), size: 10 }).collect(),
        }
    }

    #[test]
    fn only_what_adds_up_is_a_bundle() {
        let sound = || manifest(vec![image(1, 1, None), image(2, 3, Some(4))], &[1, 3, 4]);
        assert_eq!(sound().check(), Ok(()));
        // Two images may share their metadata.
        let shared = vec![image(1, 3, Some(4)), image(2, 3, Some(5))];
        assert_eq!(manifest(shared, &[3, 4, 5]).check(), Ok(()));
        for (what, broken) in [
            ("an image twice", manifest(vec![image(1, 1, None), image(1, 1, None)], &[1])),
            ("a file twice", manifest(vec![image(1, 1, None)], &[1, 1])),
            ("a file of nobody", manifest(vec![image(1, 1, None)], &[1, 2])),
            ("a missing file", manifest(vec![image(2, 3, Some(4))], &[3])),
            ("a wrong name", manifest(vec![image(1, 2, None)], &[2])),
            ("one file for two", manifest(vec![image(1, 2, Some(2))], &[2])),
            ("another format", Manifest { format: "x".into(), ..sound() }),
            ("nothing kept", Manifest { keep: 0, ..sound() }),
        ] {
            assert!(broken.check().is_err(), "{what}");
        }
        let mut sizes = sound();
        sizes.files[1].size = 11;
        assert!(sizes.check().is_err());
        sizes.files[1].size = 0;
        assert!(sizes.check().is_err());
        assert_eq!((padded(0), padded(1), padded(512), padded(513)), (0, 512, 512, 1024));
    }
}
