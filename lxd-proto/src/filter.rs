//! The filter language of lists: `[not] FIELD OP VALUE` joined by `and` and `or`.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use crate::image::Image;
use crate::instance::Instance;

/// Memory a single pattern may compile to, in bytes.
const PATTERN_LIMIT: usize = 1 << 20;
/// Clauses a filter may have.
const MAX_CLAUSES: usize = 100;

/// A parsed filter; an empty one matches everything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    clauses: Vec<Clause>,
}

#[derive(Debug, Clone)]
struct Clause {
    /// How it joins what stands before it; the first is an `and`.
    or: bool,
    negated: bool,
    field: String,
    value: Pattern,
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    regex: Option<Regex>,
}

/// Why an expression is no filter. The texts are LXD's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Only a field.
    #[error("clause has no operator")]
    NoOperator,
    /// Only a field and an operator.
    #[error("clause has no value")]
    NoValue,
    /// Ends after `not`.
    #[error("incomplete not clause")]
    IncompleteNot,
    /// A quote is never closed.
    #[error("unterminated quote")]
    UnterminatedQuote,
    /// Two clauses without `and` or `or`.
    #[error("invalid clause composition")]
    Composition,
    /// Ends after `and` or `or`.
    #[error("unterminated compound clause")]
    UnterminatedCompound,
    /// More than [`MAX_CLAUSES`].
    #[error("more than {MAX_CLAUSES} clauses")]
    TooMany,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Field<'a> {
    /// Compared as a pattern.
    Text(Cow<'a, str>),
    /// Compared as `true` or `false`.
    Bool(bool),
    /// Compared as a whole number.
    Number(i64),
}

/// Something a filter can look into.
pub trait Fields {
    /// The field with this dotted JSON name; `None` where there is none.
    fn field(&self, name: &str) -> Option<Field<'_>>;
}

impl Filter {
    /// Reads an expression; the empty one is the filter that matches everything.
    pub fn parse(expression: &str) -> Result<Self, FilterError> {
        let words = words(expression)?;
        let mut words = words.into_iter().peekable();
        let mut clauses = Vec::new();
        let mut or = false;
        while let Some(mut word) = words.next() {
            if clauses.len() == MAX_CLAUSES {
                return Err(FilterError::TooMany);
            }
            let mut negated = false;
            if word.eq_ignore_ascii_case("not") {
                negated = true;
                word = words.next().ok_or(FilterError::IncompleteNot)?;
            }
            let operator = words.next().ok_or(FilterError::NoOperator)?;
            let value = words.next().ok_or(FilterError::NoValue)?;
            // LXD knows "ne" and takes every other operator for "eq".
            negated ^= operator.eq_ignore_ascii_case("ne");
            clauses.push(Clause { or, negated, field: word, value: Pattern::new(value) });
            let Some(join) = words.next() else { break };
            or = match join.to_ascii_lowercase().as_str() {
                "and" => false,
                "or" => true,
                _ => return Err(FilterError::Composition),
            };
            if words.peek().is_none() {
                return Err(FilterError::UnterminatedCompound);
            }
        }
        Ok(Self { clauses })
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.clauses.is_empty()
    }

    /// Whether `object` passes. Clauses join from left to right, without precedence, as in LXD.
    pub fn matches(&self, object: &impl Fields) -> bool {
        let mut verdict = true;
        for clause in &self.clauses {
            let here = object.field(&clause.field).is_some_and(|field| clause.value.equals(&field));
            let here = here != clause.negated;
            verdict = if clause.or { verdict || here } else { verdict && here };
        }
        verdict
    }
}

impl Pattern {
    fn new(text: String) -> Self {
        let anchored = text.contains(['^', '$']);
        let pattern = if anchored { text.clone() } else { format!("^(?:{text})$") };
        let regex =
            RegexBuilder::new(&pattern).case_insensitive(true).size_limit(PATTERN_LIMIT).build();
        Self { text, regex: regex.ok() }
    }

    fn equals(&self, field: &Field<'_>) -> bool {
        match field {
            Field::Bool(value) => {
                crate::config::parse_bool(&self.text).is_some_and(|wanted| wanted == *value)
            }
            Field::Number(value) => self.text.parse() == Ok(*value),
            Field::Text(value) => match &self.regex {
                Some(regex) => regex.is_match(value),
                // A broken pattern compares as plain text, as in LXD.
                None => value.eq_ignore_ascii_case(&self.text),
            },
        }
    }
}

/// Splits at white space, keeping what stands in double quotes together.
fn words(expression: &str) -> Result<Vec<String>, FilterError> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quoted = false;
    for c in expression.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err(FilterError::UnterminatedQuote);
    }
    words.extend(word);
    Ok(words)
}

impl Fields for Instance {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        let borrowed = |value| Some(Field::Text(Cow::Borrowed(value)));
        match name {
            "name" => borrowed(&self.name),
            "status" => borrowed(self.status.name()),
            "type" => borrowed(self.kind.as_str()),
            "architecture" => borrowed(&self.architecture),
            "description" => borrowed(&self.description),
            "ephemeral" => Some(Field::Bool(self.ephemeral)),
            "created_at" => Some(Field::Text(Cow::Owned(self.created_at.to_string()))),
            _ => {
                let value = |map: &'_ str| name.strip_prefix(map);
                let key = value("config.").or_else(|| value("expanded_config."))?;
                self.expanded_config.get(key).map(|text| Field::Text(Cow::Borrowed(text)))
            }
        }
    }
}

impl Fields for Image {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        let text = |value: String| Some(Field::Text(Cow::Owned(value)));
        let borrowed = |value| Some(Field::Text(Cow::Borrowed(value)));
        match name {
            "auto_update" => Some(Field::Bool(self.auto_update)),
            "public" => Some(Field::Bool(self.public)),
            "cached" => Some(Field::Bool(self.cached)),
            "size" => i64::try_from(self.size).ok().map(Field::Number),
            "architecture" => borrowed(self.architecture.as_str()),
            "filename" => borrowed(&self.filename),
            "type" => borrowed(self.kind.as_str()),
            "fingerprint" => text(self.fingerprint.to_string()),
            "created_at" => text(self.created_at.to_string()),
            "expires_at" => text(self.expires_at.to_string()),
            "last_used_at" => text(self.last_used_at.to_string()),
            "uploaded_at" => text(self.uploaded_at.to_string()),
            "verified" => text(self.verified.to_string()),
            _ => {
                if let Some(key) = name.strip_prefix("properties.") {
                    return self.properties.get(key).map(|v| Field::Text(Cow::Borrowed(v)));
                }
                let source = self.update_source.as_ref()?;
                match name.strip_prefix("update_source.")? {
                    "alias" => borrowed(&source.alias),
                    "protocol" => borrowed(&source.protocol),
                    "server" => borrowed(&source.server),
                    _ => None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing;

    impl Fields for Thing {
        fn field(&self, name: &str) -> Option<Field<'_>> {
            match name {
                "os" => Some(Field::Text("Debian GNU".into())),
                "public" => Some(Field::Bool(true)),
                "size" => Some(Field::Number(7)),
                _ => None,
            }
        }
    }

    #[test]
    fn expressions_match_as_documented() {
        let cases = [
            ("", true),
            ("public eq true", true),
            ("public eq yes", true),
            ("public eq false", false),
            ("public ne true", false),
            ("size eq 7", true),
            ("os eq debian", false),
            ("os eq \"debian gnu\"", true),
            ("os eq debian.*", true),
            ("os eq ^deb", true),
            ("os eq debian[", false),
            ("not os eq ^deb", false),
            ("nothing eq x", false),
            ("nothing ne x", true),
            ("nothing eq x or public eq true", true),
            ("public eq true or size eq 7 and os eq x", false),
        ];
        for (expression, expected) in cases {
            assert_eq!(
                Filter::parse(expression).unwrap().matches(&Thing),
                expected,
                "{expression}"
            );
        }
    }

    #[test]
    fn errors_are_lxds() {
        let cases = [
            ("foo", FilterError::NoOperator),
            ("foo eq", FilterError::NoValue),
            ("not", FilterError::IncompleteNot),
            ("a eq \"b", FilterError::UnterminatedQuote),
            ("a eq b c", FilterError::Composition),
            ("a eq b and", FilterError::UnterminatedCompound),
        ];
        for (expression, expected) in cases {
            assert_eq!(Filter::parse(expression).unwrap_err(), expected, "{expression}");
        }
    }
}
