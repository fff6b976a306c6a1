//! Why a template can't be rendered, and where in it.

/// Why a template can't be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text of the template is not a template.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// Where, counted from 1.
        line: usize,
        /// Where in the line, in characters, counted from 1.
        column: usize,
        /// What was expected and what is there.
        message: String,
    },
    /// A tag or a filter of the language that is not carried out here.
    #[error("line {line}, column {column}: `{name}` is refused: {reason}")]
    Refused {
        /// Where, counted from 1.
        line: usize,
        /// Where in the line, in characters, counted from 1.
        column: usize,
        /// The tag or filter.
        name: String,
        /// Why not, and what to write instead.
        reason: &'static str,
    },
    /// The template is well formed but asks for something that its values can't give.
    #[error("line {line}, column {column}: {message}")]
    Value {
        /// Where, counted from 1.
        line: usize,
        /// Where in the line, in characters, counted from 1.
        column: usize,
        /// What was asked of what.
        message: String,
    },
    /// The template is larger, deeper or works longer than any real one.
    #[error("line {line}, column {column}: the template goes over a limit: {limit}")]
    Limit {
        /// Where, counted from 1.
        line: usize,
        /// Where in the line, in characters, counted from 1.
        column: usize,
        /// Which limit.
        limit: &'static str,
    },
}

/// What went wrong at an offset, before it is known which line that is.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) kind: Kind,
}

/// The kinds of [`Error`] without their place.
#[derive(Debug)]
pub(super) enum Kind {
    Syntax(String),
    Refused { name: String, reason: &'static str },
    Value(String),
    Limit(&'static str),
}

impl Fault {
    pub(super) fn syntax(offset: usize, message: impl Into<String>) -> Self {
        Self { offset, kind: Kind::Syntax(message.into()) }
    }

    pub(super) fn refused(offset: usize, name: &str, reason: &'static str) -> Self {
        Self { offset, kind: Kind::Refused { name: name.to_owned(), reason } }
    }

    pub(super) fn value(offset: usize, message: impl Into<String>) -> Self {
        Self { offset, kind: Kind::Value(message.into()) }
    }

    pub(super) fn limit(offset: usize, limit: &'static str) -> Self {
        Self { offset, kind: Kind::Limit(limit) }
    }

    /// The error for users: the offset becomes a line and a column of `source`.
    pub(super) fn locate(self, source: &str) -> Error {
        let before = &source.as_bytes()[..self.offset.min(source.len())];
        let line = before.split(|byte| *byte == b'\n').count();
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        // Counts the first bytes of characters; the others are 10xxxxxx.
        let column = before[start..].iter().filter(|byte| **byte & 0xc0 != 0x80).count() + 1;
        match self.kind {
            Kind::Syntax(message) => Error::Syntax { line, column, message },
            Kind::Refused { name, reason } => Error::Refused { line, column, name, reason },
            Kind::Value(message) => Error::Value { line, column, message },
            Kind::Limit(limit) => Error::Limit { line, column, limit },
        }
    }
}
