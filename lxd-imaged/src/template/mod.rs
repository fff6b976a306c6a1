//! Templates of images: a renderer for pongo2, the language that LXD's images use.
//!
//! A template comes from an image and is hostile until proven otherwise. So this is a pure
//! function from text to text: no clock, no randomness, and above all no files; its work, its
//! memory and its stack are bounded. Where versions of pongo2 differ this follows version 4, which
//! LXD 5.0 uses; `a[b]` and `+` between texts are of later ones. Loops differ in two ways: over a
//! map they follow its keys in order, over a text its characters, not bytes.

mod compute;
mod document;
mod error;
mod evaluate;
mod expression;
mod filters;
mod format;
mod lexer;
mod text;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use error::Error;
use error::Fault;

/// The largest template that is read, in bytes.
pub const MAX_SOURCE: usize = 1 << 20;
/// The largest file that a template may become, in bytes.
pub const MAX_OUTPUT: usize = 1 << 20;
/// How much work a template may be: a step is an operation, or 16 bytes that it makes.
pub const MAX_STEPS: usize = 1_000_000;

/// Tags inside of tags.
const MAX_NESTING: usize = 50;
/// Brackets inside of brackets.
const MAX_EXPRESSION_DEPTH: usize = 50;
/// Texts, outputs and tags in a template.
const MAX_PARTS: usize = 50_000;
/// Tokens between two delimiters.
const MAX_TOKENS: usize = 5_000;
/// Bytes in a name or a number.
const MAX_WORD: usize = 500;

const SOURCE_LIMIT: &str = "it may have 1 MiB";
const OUTPUT_LIMIT: &str = "the file made from it may have 1 MiB";
const STEPS_LIMIT: &str = "it takes more than 1000000 steps";
const NESTING_LIMIT: &str = "tags may be nested 50 deep";
const EXPRESSION_LIMIT: &str = "brackets may be nested 50 deep";
const PARTS_LIMIT: &str = "it may have 50000 texts, tags and outputs";
const WORD_LIMIT: &str = "a name may have 500 characters";
const TOKENS_LIMIT: &str = "a tag may have 5000 words";

/// What a template is told about the instance; the fields are the names that it uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The occasion: `create`, `copy`, `start` or `rename`.
    pub trigger: String,
    /// The file that is made, as a path inside the instance.
    pub path: String,
    /// `name`, `type`, `architecture`, `ephemeral`, `privileged`; also known as `container`.
    pub instance: BTreeMap<String, String>,
    /// The instance's configuration with that of its profiles, for `config_get`.
    pub config: BTreeMap<String, String>,
    /// The instance's devices with those of its profiles.
    pub devices: BTreeMap<String, BTreeMap<String, String>>,
    /// The properties of this template in the image's metadata.
    pub properties: BTreeMap<String, String>,
}

/// Renders a template. Names that are not known are empty.
///
/// # Errors
/// See [`Error`]; each names the line and the column. A template over a limit is refused: it is
/// never cut short.
pub fn render(source: &str, context: &Context) -> Result<String, Error> {
    run(source, context).map_err(|fault| fault.locate(source))
}

fn run(source: &str, context: &Context) -> Result<String, Fault> {
    if source.len() > MAX_SOURCE {
        return Err(Fault::limit(0, SOURCE_LIMIT));
    }
    let pieces = lexer::split(source)?;
    let nodes = document::parse(&pieces)?;
    evaluate::evaluate(&nodes, context)
}
