//! The filters of `image list`: words, and `KEY=VALUE` on fields and properties.

use lxd_proto::arch::Architecture;
use lxd_proto::config::parse_bool;
use lxd_proto::filter::{Field, Fields};
use lxd_proto::image::Image;
use regex::{Regex, RegexBuilder};

use crate::failure::{Failure, Outcome};
use crate::suggest::did_you_mean;

/// Fields of an image that a key may name.
const FIELDS: &[&str] = &[
    "architecture",
    "auto_update",
    "cached",
    "created_at",
    "expires_at",
    "filename",
    "fingerprint",
    "last_used_at",
    "public",
    "size",
    "type",
    "uploaded_at",
    "verified",
    "update_source.alias",
    "update_source.protocol",
    "update_source.server",
];
const BOOLEANS: &[&str] = &["auto_update", "cached", "public"];

/// Filters that must all match.
#[derive(Debug)]
pub(crate) struct Filters(Vec<Clause>);

#[derive(Debug)]
enum Clause {
    /// Part of an alias or of the fingerprint.
    Word(String),
    Bool(String, bool),
    Number(String, i64),
    Architecture(Architecture),
    Text(String, Pattern),
    Property(String, Pattern),
}

/// A regular expression for a whole value, or plain text where it is none.
#[derive(Debug)]
struct Pattern {
    text: String,
    regex: Option<Regex>,
}

impl Pattern {
    fn new(text: &str, ignore_case: bool) -> Self {
        let build = |pattern: String| {
            RegexBuilder::new(&pattern).case_insensitive(ignore_case).build().ok()
        };
        let regex = if text.contains(['^', '$']) {
            build(text.to_owned())
        } else {
            // lxc groups nothing: a star alone repeats the beginning and matches everything.
            build(format!("^(?:{text})$")).or_else(|| build(format!("^{text}$")))
        };
        Self { text: text.to_owned(), regex }
    }

    fn matches(&self, value: &str) -> bool {
        self.regex.as_ref().map_or(value == self.text, |regex| regex.is_match(value))
    }
}

impl Filters {
    pub(crate) fn parse(words: &[String]) -> Outcome<Self> {
        words.iter().map(|word| clause(word)).collect::<Outcome<_>>().map(Self)
    }

    pub(crate) fn matches(&self, image: &Image) -> bool {
        self.0.iter().all(|clause| clause.matches(image))
    }

    /// What is odd about the keys with these images: one that is no field and no property of any
    /// image may be a mistake. It is none for sure: whether it is must not depend on the images.
    pub(crate) fn doubts<'a>(
        &self,
        images: impl Iterator<Item = &'a Image> + Clone,
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        for clause in &self.0 {
            let Clause::Property(key, _) = clause else { continue };
            let mut all = images.clone().peekable();
            if all.peek().is_none() || all.any(|image| has_property(image, key)) {
                continue;
            }
            let mut warning = format!("Note: no image has a field or a property \"{key}\".");
            if let Some(hint) = did_you_mean(key, FIELDS.iter().copied()) {
                warning.push(' ');
                warning.push_str(&hint);
            }
            warnings.push(warning);
        }
        warnings
    }
}

fn clause(word: &str) -> Outcome<Clause> {
    let Some((key, value)) = word.split_once('=') else {
        return Ok(Clause::Word(word.to_owned()));
    };
    if let Some(property) = key.strip_prefix("properties.") {
        return Ok(Clause::Property(property.to_owned(), Pattern::new(value, false)));
    }
    let wrong = |wanted: &str| {
        Failure::usage(format!("the filter \"{word}\": {key} is {wanted}, not \"{value}\""))
    };
    let key = key.to_owned();
    Ok(match key.as_str() {
        name if BOOLEANS.contains(&name) => {
            let wanted = parse_bool(value).ok_or_else(|| wrong("true or false"))?;
            Clause::Bool(key, wanted)
        }
        "size" => {
            let bytes = value.parse().map_err(|_| wrong("a number of bytes"))?;
            Clause::Number(key, bytes)
        }
        "architecture" => match value.parse() {
            Ok(architecture) => Clause::Architecture(architecture),
            Err(_) => Clause::Text(key, Pattern::new(value, true)),
        },
        name if FIELDS.contains(&name) => Clause::Text(key, Pattern::new(value, true)),
        _ => Clause::Property(key, Pattern::new(value, false)),
    })
}

impl Clause {
    fn matches(&self, image: &Image) -> bool {
        match self {
            Self::Word(word) => {
                let in_alias = image.aliases.iter().any(|alias| alias.name.contains(word));
                in_alias || image.fingerprint.to_string().contains(word)
            }
            Self::Bool(key, wanted) => image.field(key) == Some(Field::Bool(*wanted)),
            Self::Number(key, wanted) => image.field(key) == Some(Field::Number(*wanted)),
            Self::Architecture(wanted) => image.architecture == *wanted,
            Self::Text(key, pattern) => {
                matches!(image.field(key), Some(Field::Text(text)) if pattern.matches(&text))
            }
            Self::Property(key, pattern) => image
                .properties
                .iter()
                .any(|(name, value)| abbreviates(key, name) && pattern.matches(value)),
        }
    }
}

fn has_property(image: &Image, key: &str) -> bool {
    image.properties.keys().any(|name| abbreviates(key, name))
}

/// Whether every dotted component of `full` begins with that of `short`.
fn abbreviates(short: &str, full: &str) -> bool {
    let (short, full): (Vec<_>, Vec<_>) = (short.split('.').collect(), full.split('.').collect());
    short.len() == full.len() && short.iter().zip(&full).all(|(s, f)| f.starts_with(s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::image::list::tests::sample;

    fn filters(words: &[&str]) -> Outcome<Filters> {
        Filters::parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn filters_match_as_documented() {
        for (words, expected) in [
            (&[][..], true),
            (&["bus"], true),
            (&["a658"], true),
            (&["f624"], true),
            (&["zzz"], false),
            (&["bus", "os=busybox"], true),
            (&["bus", "os=x"], false),
            (&["o=busybox"], true),
            (&["os=busy.*"], true),
            (&["os=busy"], false),
            (&["os=^busy"], true),
            (&["os=Busybox"], false),
            (&["os=busybox["], false),
            (&["os=*"], true),
            (&["os=*x"], true),
            (&["os=*y"], false),
            (&["none=*"], false),
            (&["public=false"], true),
            (&["public=true"], false),
            (&["cached=no"], true),
            (&["type=container"], true),
            (&["type=virtual-machine"], false),
            (&["architecture=amd64"], true),
            (&["architecture=x86.*"], true),
            (&["architecture=arm64"], false),
            (&["properties.release=1"], true),
            (&["filename=bb.tar.xz"], true),
            (&["size=878472"], true),
        ] {
            assert_eq!(filters(words).unwrap().matches(&sample()), expected, "{words:?}");
        }
    }

    #[test]
    fn values_are_typed_and_mistyped_fields_are_errors() {
        assert!(filters(&["public=maybe"]).is_err());
        assert!(filters(&["size=big"]).is_err());
        let images = [sample()];
        let check = |word| filters(&[word]).unwrap().doubts(images.iter());
        assert_eq!(
            check("publik=true"),
            ["Note: no image has a field or a property \"publik\". Did you mean \"public\"?"]
        );
        assert_eq!(check("build=7").len(), 1);
        assert!(check("rel=1").is_empty());
        assert!(filters(&["publik=x"]).unwrap().doubts([].iter()).is_empty());
    }
}
