//! Mirrors, an extension of ours: a selection of another server's images that a daemon keeps.
//!
//! A product is what images of one system, release, architecture, variant and kind have in common;
//! its versions differ in their serial. A mirror keeps the newest versions of each product that it
//! selects.

pub mod bundle;
mod glob;
mod product;
mod report;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::image::{Image, InstanceType};

pub use glob::Globs;
pub use product::{product, serial};
pub use report::{
    MirrorAction, MirrorConflict, MirrorCounts, MirrorFault, MirrorItem, MirrorReport, MirrorRun,
    RunOutcome,
};

/// The longest name of a mirror, in bytes.
pub const MAX_NAME: usize = 63;
/// Versions of a product that are kept at most.
pub const MAX_KEEP: u32 = 1000;
/// Downloads at once of one mirror, at most.
pub const MAX_PARALLEL: u32 = 8;
/// The lowest limit of bytes a second: below it servers take us for dead.
pub const MIN_BANDWIDTH: u64 = 4096;
/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 16 << 10;
/// The longest alias prefix, in bytes.
const MAX_PREFIX: usize = 100;

/// The name of a mirror: letters, digits, `-`, `_` and `.`, at most 63 bytes, a letter or digit first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MirrorName(String);

/// Something about a mirror is not what it can be; the text says what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidMirror(String);

impl MirrorName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MirrorName {
    type Err = InvalidMirror;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let sound = text.len() <= MAX_NAME
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(inner);
        if sound {
            return Ok(Self(text.to_owned()));
        }
        let text: String = text.chars().take(MAX_NAME).collect();
        Err(InvalidMirror(format!(
            "\"{text}\" is no name for a mirror: 1 to {MAX_NAME} letters, digits, '-', '_' and '.', \
             a letter or digit first"
        )))
    }
}

impl TryFrom<String> for MirrorName {
    type Error = InvalidMirror;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MirrorName> for String {
    fn from(name: MirrorName) -> Self {
        name.0
    }
}

impl fmt::Display for MirrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a person decides about a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MirrorConfig {
    /// Free text.
    pub description: String,
    /// Whether the schedule counts; by hand it runs all the same.
    pub enabled: bool,
    /// `https://HOST[:PORT][/PATH]`; empty for a mirror that is fed by bundles only.
    pub server: String,
    /// `simplestreams` or `lxd`.
    pub protocol: String,
    /// PEM of the server's certificate; empty trusts the system's authorities.
    pub certificate: String,
    /// Project at the server; empty means its default.
    pub project: String,
    /// OpenPGP keys, armored, one of which must have signed what a simplestreams server says; empty
    /// asks for no signature.
    pub keyring: String,
    /// Systems.
    pub os: Globs,
    /// Releases.
    pub release: Globs,
    /// Architectures, under any of their names.
    pub architecture: Globs,
    /// Variants; images without one have `default`.
    pub variant: Globs,
    /// `container`, `virtual-machine`.
    #[serde(rename = "type")]
    pub kind: Globs,
    /// File types of root file systems: `squashfs`, `root.tar.xz`, `disk-kvm.img`, …
    pub ftype: Globs,
    /// Versions that are kept of each product.
    pub keep: u32,
    /// Cron with five fields, or `@hourly`, `@daily`, `@weekly`, `@monthly`, in UTC; empty runs by
    /// hand only.
    pub schedule: String,
    /// Put before every alias.
    pub alias_prefix: String,
    /// Whether aliases are taken over.
    pub aliases: bool,
    /// Whether strangers see the images.
    pub public: bool,
    /// Downloads at once.
    pub parallel: u32,
    /// Bytes a second of all its downloads together; 0 for no limit.
    pub bandwidth: u64,
}

impl Default for MirrorConfig {
    fn default() -> Self {
        Self {
            description: String::new(),
            enabled: true,
            server: String::new(),
            protocol: "simplestreams".to_owned(),
            certificate: String::new(),
            project: String::new(),
            keyring: String::new(),
            os: Globs::default(),
            release: Globs::default(),
            architecture: Globs::default(),
            variant: Globs::default(),
            kind: Globs::default(),
            ftype: Globs::default(),
            keep: 1,
            schedule: String::new(),
            alias_prefix: String::new(),
            aliases: true,
            public: false,
            parallel: 2,
            bandwidth: 0,
        }
    }
}

impl MirrorConfig {
    /// Refuses values out of range. Address and schedule are not looked at.
    pub fn check(&self) -> Result<(), InvalidMirror> {
        let no = |text: String| Err(InvalidMirror(text));
        if !(1..=MAX_KEEP).contains(&self.keep) {
            return no(format!("keep is {}, but 1 to {MAX_KEEP} versions can be kept", self.keep));
        }
        if !(1..=MAX_PARALLEL).contains(&self.parallel) {
            let given = self.parallel;
            return no(format!("parallel is {given}, but it goes from 1 to {MAX_PARALLEL}"));
        }
        if self.bandwidth > 0 && self.bandwidth < MIN_BANDWIDTH {
            return no(format!(
                "bandwidth is {} bytes a second; it is 0 for no limit, or at least {MIN_BANDWIDTH}",
                self.bandwidth
            ));
        }
        if self.description.len() > MAX_DESCRIPTION {
            return no(format!("the description has more than {MAX_DESCRIPTION} bytes"));
        }
        if self.alias_prefix.len() > MAX_PREFIX || self.alias_prefix.contains(char::is_control) {
            return no(format!(
                "the alias prefix has at most {MAX_PREFIX} bytes, none of them a control character"
            ));
        }
        for (name, globs) in self.filters() {
            globs.check().map_err(|error| InvalidMirror(format!("{name}: {error}")))?;
        }
        let kinds = [InstanceType::Container, InstanceType::VirtualMachine];
        if !kinds.iter().any(|kind| self.kind.matches(&[kind.as_str()])) {
            let given = self.kind.as_slice().join(", ");
            return no(format!(
                "type: \"{given}\" selects nothing; there are container and virtual-machine"
            ));
        }
        Ok(())
    }

    /// The filters by their names.
    pub fn filters(&self) -> [(&'static str, &Globs); 6] {
        [
            ("os", &self.os),
            ("release", &self.release),
            ("architecture", &self.architecture),
            ("variant", &self.variant),
            ("type", &self.kind),
            ("ftype", &self.ftype),
        ]
    }

    /// Whether the filters let an image pass.
    pub fn selects(&self, image: &Image) -> bool {
        let property = |key| image.properties.get(key).map_or("", String::as_str);
        let mut architectures = vec![image.architecture.as_str(), property("architecture")];
        architectures.extend(image.architecture.aliases());
        self.os.matches(&[property("os")])
            && self.release.matches(&[property("release"), property("version")])
            && self.architecture.matches(&architectures)
            && self.variant.matches(&[product::variant(image)])
            && self.kind.matches(&[image.kind.as_str()])
            && self.ftype.matches(&[property("type")])
    }
}

/// A mirror on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Its name.
    pub name: MirrorName,
    /// What a person has decided.
    pub config: MirrorConfig,
    /// Whether it stands in the daemon's file of mirrors, and is changed there only.
    #[serde(default)]
    pub declared: bool,
    /// How it goes.
    #[serde(default)]
    pub state: MirrorState,
}

/// How a mirror goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MirrorState {
    /// Images that it keeps.
    pub images: u64,
    /// Products that they belong to.
    pub products: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Operation of the run that goes on; empty when there is none.
    pub operation: String,
    /// The last run, which may still go on.
    pub last_run: Option<MirrorRun>,
    /// When it runs by itself.
    pub next_run: Option<Timestamp>,
}

/// Body of `POST /1.0/mirrors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorsPost {
    /// Its name.
    pub name: String,
    /// What is not named has its default.
    #[serde(default)]
    pub config: MirrorConfig,
}

/// Body of `PUT /1.0/mirrors/NAME`; fields of the whole object that cannot be changed are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorPut {
    /// What is not named goes back to its default.
    pub config: MirrorConfig,
}

/// Body of `PATCH /1.0/mirrors/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MirrorPatch {
    /// Keys of [`MirrorConfig`] that change.
    #[serde(default)]
    pub config: Map<String, Value>,
}

impl MirrorPatch {
    /// The configuration after the change.
    pub fn apply(self, to: &MirrorConfig) -> Result<MirrorConfig, InvalidMirror> {
        let wrong = |error: serde_json::Error| InvalidMirror(error.to_string());
        let mut all = serde_json::to_value(to).map_err(wrong)?;
        if let Value::Object(all) = &mut all {
            all.extend(self.config);
        }
        serde_json::from_value(all).map_err(wrong)
    }
}

/// Body of `POST /1.0/mirrors/NAME/run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MirrorRunPost {
    /// Only tells what a run would do.
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(properties: &[(&str, &str)]) -> Image {
        let mut image: Image = serde_json::from_value(serde_json::json!({
            "fingerprint": "0".repeat(64), "architecture": "x86_64",
            "created_at": "2026-01-10T07:30:00Z",
        }))
        .unwrap();
        for (key, value) in properties {
            image.properties.insert((*key).into(), (*value).into());
        }
        image
    }

    #[test]
    fn filters_select_by_every_name_of_a_thing() {
        let debian = image(&[
            ("os", "Debian"),
            ("release", "bookworm"),
            ("version", "12"),
            ("architecture", "amd64"),
            ("type", "squashfs"),
        ]);
        for (config, selected) in [
            ("{}", true),
            (r#"{"os": ["debian"]}"#, true),
            (r#"{"os": ["ubuntu", "deb*"], "release": ["12"]}"#, true),
            (r#"{"os": ["ubuntu"]}"#, false),
            (r#"{"os": ["*", "!debian"]}"#, false),
            (r#"{"os": ["!ubuntu"]}"#, true),
            (r#"{"architecture": ["amd64"], "variant": ["default"]}"#, true),
            (r#"{"architecture": ["x86_64"], "variant": ["cloud"]}"#, false),
            (r#"{"type": ["container"], "ftype": ["squash*"]}"#, true),
            (r#"{"type": ["virtual-*"]}"#, false),
            (r#"{"ftype": ["root.tar.?z"]}"#, false),
        ] {
            let config: MirrorConfig = serde_json::from_str(config).unwrap();
            assert_eq!(config.selects(&debian), selected, "{config:?}");
        }
    }

    #[test]
    fn images_of_one_kind_are_versions_of_one_product() {
        let one = image(&[("os", "debian"), ("release", "12"), ("serial", "20260110_07:30")]);
        assert_eq!(product(&one), "debian:12:x86_64:default:container");
        assert_eq!(serial(&one), "20260110_07:30");
        let odd = image(&[("os", "a:b\n"), ("variant", "cloud"), ("type", "squashfs")]);
        assert_eq!(product(&odd), "a_b_::x86_64:cloud:container:squashfs");
        assert_eq!(serial(&image(&[("serial", "latest")])), "20260110_073000");
        assert_eq!(serial(&image(&[])), "20260110_073000");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert_eq!(MirrorConfig::default().check(), Ok(()));
        for config in [
            r#"{"keep": 0}"#,
            r#"{"keep": 1001}"#,
            r#"{"parallel": 9}"#,
            r#"{"parallel": 0}"#,
            r#"{"bandwidth": 100}"#,
            r#"{"os": [""]}"#,
            r#"{"alias_prefix": "a\u0007"}"#,
        ] {
            let config: MirrorConfig = serde_json::from_str(config).unwrap();
            assert!(config.check().is_err(), "{config:?}");
        }
        assert!(serde_json::from_str::<MirrorConfig>(r#"{"kep": 1}"#).is_err());
        for name in ["", "-a", "a/b", "a b", "../x", &"a".repeat(64)] {
            assert!(name.parse::<MirrorName>().is_err(), "{name}");
        }
        assert!("debian-12.daily_1".parse::<MirrorName>().is_ok());
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let before = MirrorConfig { keep: 3, ..MirrorConfig::default() };
        let patch: MirrorPatch =
            serde_json::from_str(r#"{"config": {"os": ["debian"], "type": []}}"#).unwrap();
        let after = patch.apply(&before).unwrap();
        assert_eq!((after.keep, after.os.is_empty()), (3, false));
        let wrong: MirrorPatch = serde_json::from_str(r#"{"config": {"x": 1}}"#).unwrap();
        assert!(wrong.apply(&before).is_err());
    }
}
