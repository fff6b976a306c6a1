//! `metadata.yaml`: what an image says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arch::Architecture;
#[cfg(feature = "format")]
use crate::arch::UnknownArchitecture;

/// The content of an image's `metadata.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// What the image runs on.
    pub architecture: Architecture,
    /// When the image was made, in Unix seconds; never 0.
    pub creation_date: i64,
    /// When the image should no longer be used, in Unix seconds; 0 = never.
    #[serde(default)]
    pub expiry_date: i64,
    /// Free-form description: `os`, `release`, `description` and the like.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Files written into an instance, by their path inside it.
    #[serde(default)]
    pub templates: BTreeMap<String, Template>,
}

/// One file that is made from a template when an instance is created, copied or started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The occasions: `create`, `copy`, `start`.
    #[serde(default)]
    pub when: Vec<String>,
    /// Leave a file that is there already as it is.
    #[serde(default)]
    pub create_only: bool,
    /// The template's name below `templates/` of the image.
    #[serde(default)]
    pub template: String,
    /// Values for the template.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// Why a `metadata.yaml` is not usable.
#[cfg(feature = "format")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// More than [`Metadata::MAX_BYTES`].
    #[error("metadata.yaml is too large: more than {} bytes", Metadata::MAX_BYTES)]
    TooLarge,
    /// Not YAML, or values of the wrong type.
    #[error("metadata.yaml can't be read: {0}")]
    Yaml(String),
    /// No architecture, or one with a name that nobody knows.
    #[error(transparent)]
    Architecture(#[from] UnknownArchitecture),
    /// `creation_date` is missing or 0.
    #[error("Missing creation date")]
    MissingCreationDate,
    /// A template would be read from, or written to, a place outside of the image.
    #[error(
        "metadata.yaml has a template {what} that leaves the image: {path:?}; \
         use a path without `..`"
    )]
    TemplatePath {
        /// `source` or `target`.
        what: &'static str,
        /// The path as written.
        path: String,
    },
}

#[cfg(feature = "format")]
mod yaml {
    //! Reading and writing `metadata.yaml`, bounded in size, depth and aliases.

    use std::collections::BTreeMap;
    use std::fmt;

    use serde::de::{self, Deserialize, Deserializer, Visitor};
    use serde_saphyr::options::DuplicateKeyPolicy;

    use super::{Metadata, MetadataError, Template};

    /// A map whose values are scalars of any type, taken as they are written.
    type Scalars = BTreeMap<String, Option<String>>;

    /// The file as it is written: every key may be missing, and any other is ignored.
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Document {
        architecture: Option<String>,
        creation_date: Seconds,
        expiry_date: Seconds,
        properties: Option<Scalars>,
        templates: Option<BTreeMap<String, Option<TemplateDocument>>>,
    }

    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct TemplateDocument {
        when: Option<Vec<Option<String>>>,
        create_only: Option<bool>,
        template: Option<String>,
        properties: Option<Scalars>,
    }

    /// A time in Unix seconds, 0 when empty. A quoted number is text and refused, as LXD does.
    #[derive(Default)]
    struct Seconds(i64);

    impl<'de> Deserialize<'de> for Seconds {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(SecondsVisitor)
        }
    }

    struct SecondsVisitor;

    impl Visitor<'_> for SecondsVisitor {
        type Value = Seconds;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of seconds since 1970")
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<Seconds, E> {
            Ok(Seconds(value))
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<Seconds, E> {
            i64::try_from(value)
                .map(Seconds)
                .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
        }

        fn visit_unit<E: de::Error>(self) -> Result<Seconds, E> {
            Ok(Seconds(0))
        }
    }

    impl Metadata {
        /// The largest `metadata.yaml` that is read.
        pub const MAX_BYTES: usize = 1 << 20;

        /// Reads a `metadata.yaml` as LXD does: unknown keys are ignored, the last of two equal
        /// keys wins, property values of other types are taken as text.
        ///
        /// # Errors
        /// See [`MetadataError`]; its text is what a user reads.
        pub fn parse(yaml: &[u8]) -> Result<Self, MetadataError> {
            if yaml.len() > Self::MAX_BYTES {
                return Err(MetadataError::TooLarge);
            }
            let document: Option<Document> = serde_saphyr::from_slice_with_options(yaml, options())
                .map_err(|error| MetadataError::Yaml(error.to_string()))?;
            let document = document.unwrap_or_default();
            let architecture = document.architecture.unwrap_or_default().parse()?;
            let creation_date = document.creation_date.0;
            if creation_date == 0 {
                return Err(MetadataError::MissingCreationDate);
            }
            let mut templates = BTreeMap::new();
            for (target, template) in document.templates.unwrap_or_default() {
                let template = template.unwrap_or_default().checked(&target)?;
                templates.insert(target, template);
            }
            Ok(Self {
                architecture,
                creation_date,
                expiry_date: document.expiry_date.0,
                properties: texts(document.properties),
                templates,
            })
        }

        /// The file for this metadata; [`Metadata::parse`] reads it back to an equal value.
        ///
        /// # Errors
        /// None in practice: every value of these types has a YAML form.
        pub fn to_yaml(&self) -> Result<String, MetadataError> {
            serde_saphyr::to_string(self).map_err(|error| MetadataError::Yaml(error.to_string()))
        }
    }

    impl TemplateDocument {
        fn checked(self, target: &str) -> Result<Template, MetadataError> {
            let source = self.template.unwrap_or_default();
            // A target starts at the root of the instance, with or without the slash.
            if !confined(target.trim_start_matches('/')) {
                return Err(MetadataError::TemplatePath { what: "target", path: target.into() });
            }
            if !confined(&source) {
                return Err(MetadataError::TemplatePath { what: "source", path: source });
            }
            Ok(Template {
                when: self.when.unwrap_or_default().into_iter().flatten().collect(),
                create_only: self.create_only.unwrap_or_default(),
                template: source,
                properties: texts(self.properties),
            })
        }
    }

    /// Whether a path names something strictly below where it starts.
    fn confined(path: &str) -> bool {
        !path.is_empty()
            && !path.contains('\0')
            && !path.starts_with('/')
            && path.split('/').all(|part| part != "..")
            && path.split('/').any(|part| !part.is_empty() && part != ".")
    }

    fn texts(scalars: Option<Scalars>) -> BTreeMap<String, String> {
        scalars
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, value.unwrap_or_default()))
            .collect()
    }

    /// Far above what any image has, far below what hurts.
    fn options() -> serde_saphyr::Options {
        serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_events: 200_000,
                max_nodes: 100_000,
                max_depth: 32,
                max_aliases: 100,
                max_anchors: 100,
                max_recorded_anchor_events: 10_000,
                max_recorded_anchor_bytes: Metadata::MAX_BYTES,
            },
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: 10_000,
                max_replay_stack_depth: 8,
                max_alias_expansions_per_anchor: 100,
            },
            duplicate_keys: DuplicateKeyPolicy::LastWins,
            with_snippet: false,
        }
    }
}

#[cfg(test)]
#[cfg(feature = "format")]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn parse(yaml: &str) -> Result<Metadata, String> {
        Metadata::parse(yaml.as_bytes()).map_err(|error| error.to_string())
    }

    fn parse_properties(lines: &str) -> BTreeMap<String, String> {
        let yaml = format!("architecture: amd64\ncreation_date: 1\nproperties:\n{lines}");
        parse(&yaml).unwrap().properties
    }

    const FULL: &str = "\
architecture: amd64
creation_date: 1424284563
expiry_date: 1735689600
properties: {os: Debian, description: 'Debian sid'}
templates:
  /etc/hostname:
    when: [create, copy]
    create_only: yes
    template: hostname.tpl
    properties: {a: 1}
unknown: [1, {two: 3}]
";

    #[test]
    fn a_full_document_is_read_and_written_back() {
        let metadata = parse(FULL).unwrap();
        assert_eq!(metadata.architecture, Architecture::X86_64);
        assert_eq!(metadata.creation_date, 1_424_284_563);
        assert_eq!(metadata.expiry_date, 1_735_689_600);
        assert_eq!(metadata.properties["description"], "Debian sid");
        let template = &metadata.templates["/etc/hostname"];
        assert_eq!(template.when, ["create", "copy"]);
        assert!(template.create_only);
        assert_eq!(template.properties["a"], "1");
        let yaml = metadata.to_yaml().unwrap();
        assert_eq!(parse(&yaml).unwrap(), metadata, "{yaml}");
    }

    #[test]
    fn awkward_values_survive_writing() {
        let mut metadata = parse("architecture: amd64\ncreation_date: 1\n").unwrap();
        for value in [
            "",
            "yes",
            "null",
            "~",
            "1_000",
            "22.04",
            "a: b",
            "# no",
            "två\nrader",
            "'",
            "\"",
            "0x1f",
            "\t",
            " lead",
            "*x",
            "&y",
            "!z",
        ] {
            metadata.properties.insert(format!("k{value}"), value.to_owned());
        }
        let yaml = metadata.to_yaml().unwrap();
        assert_eq!(parse(&yaml).unwrap(), metadata, "{yaml}");
    }

    #[test]
    fn scalars_of_other_types_become_text() {
        for (written, read) in [
            ("20", "20"),
            ("22.04", "22.04"),
            ("true", "true"),
            ("yes", "yes"),
            ("2024-01-02", "2024-01-02"),
            ("0x1F", "0x1F"),
            ("'20'", "20"),
            ("null", ""),
            ("~", ""),
            ("", ""),
            ("\"\"", ""),
        ] {
            assert_eq!(parse_properties(&format!("  k: {written}\n"))["k"], read, "{written:?}");
        }
        assert_eq!(parse_properties("  n: 1\n  n: 2\n")["n"], "2");
        assert_eq!(parse_properties("  1: one\n  yes: two\n")["1"], "one");
    }

    #[test]
    fn occasions_of_a_template_are_words() {
        let occasions = |when: &str| {
            parse(&format!(
                "architecture: amd64\ncreation_date: 1\ntemplates:\n  /x:\n    template: a\n{when}"
            ))
            .map(|metadata| metadata.templates["/x"].when.clone())
        };
        for (when, read) in [
            ("", vec![]),
            ("    when:\n", vec![]),
            ("    when: []\n", vec![]),
            ("    when:\n    - create\n    - copy\n", vec!["create", "copy"]),
            (
                "    when: [create, create, 1, yes, Start]\n",
                vec!["create", "create", "1", "yes", "Start"],
            ),
            ("    when: [null, start, ~]\n", vec!["start"]),
        ] {
            assert_eq!(occasions(when).unwrap(), read, "{when:?}");
        }
        for when in ["    when: create\n", "    when: {create: true}\n", "    when: [[create]]\n"] {
            assert!(occasions(when).is_err(), "{when:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named_as_lxd_does() {
        let missing = "Missing creation date";
        let unsupported = "Architecture isn't supported: ";
        for (yaml, error) in [
            ("architecture: amd64\n", missing),
            ("architecture: amd64\ncreation_date: 0\n", missing),
            ("architecture: amd64\ncreation_date:\n", missing),
            ("creation_date: 1\n", unsupported),
            ("", unsupported),
            ("architecture: vax\ncreation_date: 1\n", "Architecture isn't supported: vax"),
        ] {
            assert_eq!(parse(yaml).unwrap_err(), error, "{yaml:?}");
        }
    }

    #[test]
    fn wrong_types_and_broken_yaml_are_refused() {
        for yaml in [
            "architecture: amd64\ncreation_date: '1424284563'\n",
            "architecture: amd64\ncreation_date: soon\n",
            "architecture: amd64\ncreation_date: 1\nproperties: [a, b]\n",
            "architecture: amd64\ncreation_date: 1\nproperties: {a: {b: c}}\n",
            "architecture: amd64\ncreation_date: 1\ntemplates: {/x: 3}\n",
            "architecture: [amd64]\ncreation_date: 1\n",
            "- a\n- b\n",
            "plain words",
            "architecture: \"amd64\ncreation_date: 1\n",
            "a: b: c: d",
            "\0\u{1}\u{2}",
        ] {
            let error = parse(yaml).unwrap_err();
            assert!(error.starts_with("metadata.yaml can't be read: "), "{yaml:?}: {error}");
        }
        assert!(Metadata::parse(b"architecture: \xff\xfe\n").is_err());
    }

    #[test]
    fn template_paths_stay_inside() {
        let with = |target: &str, source: &str| {
            parse(&format!(
                "architecture: amd64\ncreation_date: 1\ntemplates:\n  \"{target}\":\n    template: \"{source}\"\n"
            ))
        };
        for (target, source) in [("/etc/hosts", "hosts.tpl"), ("etc/a..b", "sub/x.tpl")] {
            with(target, source).unwrap();
        }
        for (target, source) in [
            ("../etc/hosts", "a"),
            ("/../../etc/shadow", "a"),
            ("/etc/../../x", "a"),
            ("/", "a"),
            ("/etc/hosts", "../metadata.yaml"),
            ("/etc/hosts", "/etc/shadow"),
            ("/etc/hosts", "a/../../b"),
            ("/etc/hosts", ".."),
            ("/etc/hosts", ""),
            ("/etc/hosts", "a\\0b"),
        ] {
            let error = with(target, source).unwrap_err();
            assert!(error.contains("leaves the image"), "{target} {source}: {error}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        assert!(matches!(
            Metadata::parse(&vec![b' '; Metadata::MAX_BYTES + 1]),
            Err(MetadataError::TooLarge)
        ));
        let mut laughs = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let previous = format!("*a{}", i - 1);
            writeln!(laughs, "a{i}: &a{i} [{}]", vec![previous; 10].join(",")).unwrap();
        }
        parse(&format!("architecture: amd64\ncreation_date: 1\n{laughs}")).unwrap_err();
        let deep = format!("x: {}{}\n", "[".repeat(10_000), "]".repeat(10_000));
        parse(&format!("architecture: amd64\ncreation_date: 1\n{deep}")).unwrap_err();
        let wide = "- {}\n".repeat(150_000);
        parse(&format!("architecture: amd64\ncreation_date: 1\nx:\n{wide}")).unwrap_err();
    }
}
