//! Objects as JSON and as YAML, with the keys in the order of their structs.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, ser};

/// A JSON value whose keys keep their order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// Reads YAML that a person wrote; the error is one line that says where and why.
pub(crate) fn from_yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| in_words(&error.to_string()))
}

/// The words of the parser without those that are for programmers.
fn in_words(error: &str) -> String {
    let error = error.strip_prefix("error: ").unwrap_or(error);
    if error.contains("multiple YAML documents") {
        return "there is more than one YAML document".to_owned();
    }
    let mut error = error.to_owned();
    for (theirs, ours) in [
        (", set DuplicateKeyPolicy in Options if acceptable", ""),
        ("expected string scalar", "expected a text"),
        ("duplicate mapping key", "the key is there twice"),
    ] {
        error = error.replace(theirs, ours);
    }
    error
}

/// What becomes of texts that are points in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// Written plainly, as times.
    Plain,
    /// Quoted, as the texts they are.
    Quoted,
}

impl Node {
    /// Any value as a node.
    pub(crate) fn of(value: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::from_str(&serde_json::to_string(value)?)
    }

    /// As a YAML document that ends with a line feed.
    pub(crate) fn yaml(&self, times: Times) -> String {
        let mut out = String::new();
        self.write(&mut out, 0, Place::Top, times);
        out
    }

    fn write(&self, out: &mut String, indent: usize, place: Place, times: Times) {
        match self {
            Self::List(items) if !items.is_empty() => {
                if place == Place::Value {
                    out.push('\n');
                }
                for (index, item) in items.iter().enumerate() {
                    if index > 0 || place != Place::Item {
                        out.extend(std::iter::repeat_n(' ', indent));
                    }
                    out.push_str("- ");
                    item.write(out, indent + 2, Place::Item, times);
                }
            }
            Self::Map(entries) if !entries.is_empty() => {
                if place == Place::Value {
                    out.push('\n');
                }
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 || place != Place::Item {
                        out.extend(std::iter::repeat_n(' ', indent));
                    }
                    out.push_str(&scalar(key, Times::Quoted));
                    out.push(':');
                    // Lists stand under their key, maps one step in.
                    let step = if matches!(value, Self::List(_)) { 0 } else { 2 };
                    if !value.has_children() {
                        out.push(' ');
                    }
                    value.write(out, indent + step, Place::Value, times);
                }
            }
            leaf => {
                leaf.write_leaf(out, indent, times);
                out.push('\n');
            }
        }
    }

    fn write_leaf(&self, out: &mut String, indent: usize, times: Times) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(value) => out.push_str(&value.to_string()),
            Self::Text(text) if is_block(text) => out.push_str(&block(text, indent)),
            Self::Text(text) => out.push_str(&scalar(text, times)),
            Self::List(_) => out.push_str("[]"),
            Self::Map(_) => out.push_str("{}"),
        }
    }

    fn has_children(&self) -> bool {
        match self {
            Self::List(items) => !items.is_empty(),
            Self::Map(entries) => !entries.is_empty(),
            _ => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    /// After `key:`.
    Value,
    /// After `- `.
    Item,
}

/// Several lines that can stand as they are under a `|`.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n'])
        && !text.ends_with("\n\n")
        && text.chars().all(|c| c == '\n' || !c.is_control())
        && text.lines().all(|line| !line.ends_with(' '))
}

fn block(text: &str, indent: usize) -> String {
    let mut out = String::from(if text.ends_with('\n') { "|" } else { "|-" });
    // A scalar after "- " or at the top is still one step further in.
    let indent = indent.max(2);
    for line in text.lines() {
        out.push('\n');
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str(line);
        }
    }
    out
}

/// A text on one line, quoted where YAML would read something else.
fn scalar(text: &str, times: Times) -> String {
    if text.chars().any(|c| c.is_control() || c == '\u{feff}') {
        return ser_double(text);
    }
    let is_time = looks_like_time(text);
    if (is_time && times == Times::Plain) || (!is_time && is_plain(text) && !is_other_type(text)) {
        text.to_owned()
    } else if is_plain(text) || text.is_empty() {
        ser_double(text)
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// JSON's double quotes are YAML's.
fn ser_double(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn is_plain(text: &str) -> bool {
    let first = text.chars().next();
    let bad_start = first.is_none_or(|c| "!&*|>@`%'\"#{}[],".contains(c))
        || (text.starts_with(['-', '?', ':'])
            && text[1..].chars().next().is_none_or(char::is_whitespace));
    !bad_start
        && !text.starts_with(char::is_whitespace)
        && !text.ends_with(char::is_whitespace)
        && !text.ends_with(':')
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.starts_with("---")
        && !text.starts_with("...")
}

/// Whether a plain text would be read as a bool, a number or nothing.
fn is_other_type(text: &str) -> bool {
    const WORDS: &[&str] =
        &["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "=", "<<"];
    let lower = text.to_ascii_lowercase();
    WORDS.contains(&lower.as_str()) || is_number(&lower)
}

fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    if matches!(digits, ".inf" | ".nan" | "inf" | "nan") {
        return true;
    }
    let starts = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let radix = ["0x", "0b", "0o"].iter().any(|p| digits.starts_with(p));
    // Underscores and colons (base 60) are digits too for YAML 1.1.
    starts
        && digits.contains(|c: char| c.is_ascii_digit())
        && (radix && digits[2..].chars().all(|c| c.is_ascii_hexdigit() || c == '_')
            || digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '_' | ':' | '.'))
                && digits.matches('.').count() <= 1
            || digits.parse::<f64>().is_ok())
}

fn looks_like_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let date = bytes.len() >= 10
        && bytes[..10].iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    date && (bytes.len() == 10 || text.parse::<jiff::Timestamp>().is_ok())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Nodes;

        impl<'de> Visitor<'de> for Nodes {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Number(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Number(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(serde_json::Number::from_f64(value).map_or(Node::Null, Node::Number))
            }

            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Map(entries))
            }
        }

        deserializer.deserialize_any(Nodes)
    }
}

impl Serialize for Node {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(entries) => serializer.collect_map(entries.iter().map(|(k, v)| (k, v))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(json: &str) -> String {
        serde_json::from_str::<Node>(json).unwrap().yaml(Times::Plain)
    }

    #[test]
    fn objects_look_as_recorded() {
        let json = r#"[{"auto_update":false,"properties":{"description":"BusyBox split x86_64","release":"2"},
            "expires_at":"1970-01-01T00:00:00Z","profiles":["default"],"empty":[],"none":{},"nothing":null,
            "aliases":[{"name":"split","description":""}],"size":1040776}]"#;
        let expected = "\
- auto_update: false
  properties:
    description: BusyBox split x86_64
    release: \"2\"
  expires_at: 1970-01-01T00:00:00Z
  profiles:
  - default
  empty: []
  none: {}
  nothing: null
  aliases:
  - name: split
    description: \"\"
  size: 1040776
";
        assert_eq!(yaml(json), expected);
        assert_eq!(yaml("[]"), "[]\n");
        assert_eq!(yaml(r#"{"c":"BEGIN\nx\nEND\n"}"#), "c: |\n  BEGIN\n  x\n  END\n");
    }

    #[test]
    fn texts_are_read_back_as_the_same_texts() {
        let texts = [
            "",
            "1",
            "1.0",
            "0x1F",
            "1_000",
            "yes",
            "No",
            "null",
            "~",
            "@",
            "a: b",
            "a #b",
            "#a",
            "- a",
            "-",
            "-a",
            "a:",
            " a",
            "a ",
            "'a'",
            "\"a\"",
            "*x",
            "&y",
            "!z",
            "{a",
            "[a",
            "a\tb",
            "a\nb",
            "\n",
            "a\n\nb\n",
            "two\n  more",
            "é",
            "2024-01-02",
            "2024-01-02T03:04:05Z",
            "1e3",
            ".inf",
            "12:30",
            "a, b",
            "---",
            "%",
            "|",
            ">",
            "?",
            "? a",
            "=",
            "0o7",
            "a\\b",
            "a'b",
            ": ",
        ];
        for text in texts {
            let node = Node::Map(vec![("k".into(), Node::Text(text.into()))]);
            let yaml = node.yaml(Times::Quoted);
            let read: std::collections::BTreeMap<String, String> =
                serde_saphyr::from_str(&yaml).unwrap_or_else(|e| panic!("{text:?}: {yaml}: {e}"));
            assert_eq!(read["k"], text, "{yaml}");
        }
    }
}
