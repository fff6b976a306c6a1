//! Where an image belongs in a tree: `images/OS/RELEASE/ARCH/VARIANT/SERIAL`.

use std::path::Path;

use lxd_proto::arch::Architecture;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::Properties;
use lxd_proto::metadata::Metadata;
use lxd_proto::time;
use sha2::{Digest, Sha256};

use crate::publish::{self, Place, architecture_name};

/// The directory that all images of a tree are below.
pub const IMAGES: &str = "images";
/// The variant of an image that names none.
const NO_VARIANT: &str = "default";
/// What an image is one of that does not say what system it is.
const NO_OS: &str = "image";
/// The longest word that becomes a directory, in bytes.
const LONGEST: usize = 100;

/// What stands before the number of a build in a directory, where a plus would be a blank to some
/// web servers, and in a serial.
const NUMBERED: (&str, &str) = ("~", "+");

/// The five names that tell where a version belongs, each fit to be one of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coordinates {
    pub(super) os: String,
    pub(super) release: String,
    pub(super) architecture: Architecture,
    pub(super) variant: String,
    pub(super) serial: String,
    /// Whether system and release have names, from which aliases can be made.
    named: bool,
}

impl Coordinates {
    /// What the last five directories of `path` say, when they have the shape.
    pub(super) fn of_directories(path: &Path) -> Option<Self> {
        let names: Option<Vec<&str>> =
            path.iter().rev().take(5).map(std::ffi::OsStr::to_str).collect();
        let Some([serial, variant, arch, release, os]) = names.as_deref() else { return None };
        let fits = [os, release, variant].iter().all(|name| word(name).as_deref() == Some(**name));
        let architecture = arch.parse().ok()?;
        let serial = serial.replace(NUMBERED.0, NUMBERED.1);
        (fits && publish::is_serial(&serial)).then(|| Self {
            os: (*os).to_owned(),
            release: (*release).to_owned(),
            architecture,
            variant: (*variant).to_owned(),
            serial,
            named: true,
        })
    }

    /// What the image says about itself; `hints` (what others say about it) where it is silent,
    /// and in the end `name`, so that unrelated images are no versions of each other.
    pub(super) fn of_image(metadata: &Metadata, hints: &Properties, name: &str) -> Self {
        let said = |key: &str| {
            let of =
                |properties: &Properties| properties.get(key).and_then(|text| plain_word(text));
            of(&metadata.properties).or_else(|| of(hints))
        };
        let serial = [metadata.properties.get("serial"), hints.get("serial")];
        let serial = serial.into_iter().flatten().find(|text| publish::is_serial(text));
        let created = time::from_seconds(metadata.creation_date).unwrap_or_else(time::epoch);
        let (os, release) = (said("os"), said("release").or_else(|| said("version")));
        Self {
            named: os.is_some() && release.is_some(),
            os: os.unwrap_or_else(|| NO_OS.to_owned()),
            release: release.or_else(|| plain_word(name)).unwrap_or_else(|| NO_OS.to_owned()),
            architecture: metadata.architecture,
            variant: said("variant").unwrap_or_else(|| NO_VARIANT.to_owned()),
            serial: serial.cloned().unwrap_or_else(|| publish::from_time(created)),
        }
    }

    /// Product and version.
    pub(super) fn place(&self) -> Place {
        Place { product: self.product(), serial: self.serial.clone() }
    }

    pub(super) fn product(&self) -> String {
        let architecture = architecture_name(self.architecture);
        [&self.os, &self.release, architecture, &self.variant].map(|name| name as &str).join(":")
    }

    /// The directory, from the root of the tree.
    pub(super) fn directory(&self) -> String {
        let architecture = architecture_name(self.architecture);
        // A tree may land where a colon is no part of a name.
        let serial = self.serial.replace(':', "").replace(NUMBERED.1, NUMBERED.0);
        let Self { os, release, variant, .. } = self;
        format!("{IMAGES}/{os}/{release}/{architecture}/{variant}/{serial}")
    }

    /// The names that people expect: with the variant, and without it where it is the usual one.
    pub(super) fn aliases(&self) -> Vec<String> {
        let Self { os, release, variant, .. } = self;
        let mut aliases = Vec::new();
        if self.named {
            if variant == NO_VARIANT {
                aliases.push(format!("{os}/{release}"));
            }
            aliases.push(format!("{os}/{release}/{variant}"));
        }
        aliases
    }

    /// Puts in what directories know better: which product this is and which version.
    pub(super) fn within(self, directories: Option<Self>) -> Self {
        directories.unwrap_or(self)
    }
}

/// A text as a name that a directory, a product and an alias can have; `None` for nothing. A longer
/// one is cut and told apart by a hash: what begins alike is not one product.
fn word(text: &str) -> Option<String> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '~');
    let word: String =
        text.trim().to_lowercase().chars().map(|c| if plain(c) { c } else { '-' }).collect();
    let word = word.trim_start_matches('.').trim_matches('-');
    if word.len() <= LONGEST {
        return (!word.is_empty()).then(|| word.to_owned());
    }
    let hash = Fingerprint::from_bytes(Sha256::digest(word).into()).short();
    let end = word.floor_char_boundary(LONGEST - hash.len() - 1);
    Some(format!("{}-{hash}", word[..end].trim_end_matches('-')))
}

/// The same of characters that stand for themselves in every address.
fn plain_word(text: &str) -> Option<String> {
    let ascii: String = text.trim().chars().map(|c| if c.is_ascii() { c } else { '-' }).collect();
    word(&ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(properties: &[(&str, &str)]) -> Metadata {
        Metadata {
            architecture: Architecture::Aarch64,
            creation_date: 1_458_040_200,
            expiry_date: 0,
            properties: pairs(properties),
            templates: std::collections::BTreeMap::new(),
        }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Properties {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn images_go_where_their_metadata_says() {
        for (properties, hints, directory, aliases) in [
            (
                &[("os", "Alpine"), ("release", "3.20"), ("serial", "20260101_13:00")][..],
                &[][..],
                "images/alpine/3.20/arm64/default/20260101_1300",
                &["alpine/3.20", "alpine/3.20/default"][..],
            ),
            (
                &[("os", "My OS/../x"), ("version", "12"), ("variant", "cloud")],
                &[("release", "hinted"), ("serial", "20270101")],
                "images/my-os-..-x/hinted/arm64/cloud/20270101",
                &["my-os-..-x/hinted/cloud"],
            ),
            (
                &[("os", "Größe#1?"), ("release", "50%41"), ("serial", "20260101")],
                &[],
                "images/gr--e-1/50-41/arm64/default/20260101",
                &["gr--e-1/50-41", "gr--e-1/50-41/default"],
            ),
            (
                &[("os", ".."), ("serial", "latest")],
                &[],
                "images/image/abc/arm64/default/20160315_1110",
                &[],
            ),
        ] {
            let found = Coordinates::of_image(&metadata(properties), &pairs(hints), "abc");
            assert_eq!(found.directory(), directory);
            assert_eq!(found.aliases(), aliases);
        }
    }

    #[test]
    fn long_names_stay_apart() {
        let name = "noble-super-long-release-name";
        assert_eq!(word(&format!("{name}-1")), Some(format!("{name}-1")));
        let long = |end: &str| word(&format!("{}{end}", "ä-".repeat(60))).unwrap();
        assert_ne!(long("1"), long("2"));
        assert!(long("1").len() <= LONGEST);
        assert_eq!(word(&long("1")), Some(long("1")));
    }

    #[test]
    fn directories_count_when_they_have_the_shape() {
        let of = |path: &str| {
            Coordinates::of_directories(Path::new(path))
                .map(|found| (found.product(), found.place().serial))
        };
        let expected = ("alpine:3.20:amd64:default".to_owned(), "20260101_13:00".to_owned());
        assert_eq!(of("images/alpine/3.20/amd64/default/20260101_13:00"), Some(expected.clone()));
        assert_eq!(of("/srv/alpine/3.20/x86_64/default/20260101_13:00"), Some(expected));
        for other in [
            "3.20/amd64/default/20260101",
            "alpine/3.20/vax/default/20260101",
            "alpine/3.20/amd64/default/latest",
            "Alpine/3.20/amd64/default/20260101",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
