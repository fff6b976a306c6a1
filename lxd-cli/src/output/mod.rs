//! What commands print: results on standard output, in the format that was asked for.

mod document;
mod natural;
mod table;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::str::FromStr;

use serde::Serialize;

use crate::failure::{Failure, Outcome};

pub(crate) use document::{Node, Times, from_yaml};
pub(crate) use natural::sort_rows;
pub(crate) use table::Table;

/// The shape of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A table, or text where the result is no list.
    Table,
    Csv,
    Json,
    Yaml,
    Compact,
}

/// A shape, and whether lists have a header line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) shape: Shape,
    pub(crate) header: bool,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, suffix) = match text.split_once(',') {
            Some((name, suffix)) => (name, Some(suffix)),
            None => (text, None),
        };
        let shape = match name {
            "table" => Shape::Table,
            "csv" => Shape::Csv,
            "json" => Shape::Json,
            "yaml" => Shape::Yaml,
            "compact" => Shape::Compact,
            _ => return Err(format!("Invalid format \"{text}\"")),
        };
        let header = match suffix {
            None => shape != Shape::Csv,
            Some(_) if matches!(shape, Shape::Json | Shape::Yaml) => {
                return Err(format!("Invalid format \"{text}\": {name} has no header"));
            }
            Some("header") => true,
            Some("noheader") => false,
            Some(other) => {
                return Err(format!("Invalid format \"{text}\": \"{other}\" is no suffix"));
            }
        };
        Ok(Self { shape, header })
    }
}

impl Format {
    /// The format of a single result, which has neither rows nor a header.
    pub(crate) fn of_result(text: &str) -> Result<Self, String> {
        let shape = match text {
            "text" => Shape::Table,
            "json" => Shape::Json,
            "yaml" => Shape::Yaml,
            _ => return Err(format!("Invalid format \"{text}\": it is text, json or yaml")),
        };
        Ok(Self { shape, header: false })
    }
}

/// Prints a list: its table for people and csv, the objects themselves for json and yaml.
pub(crate) fn print_list(format: Format, table: &Table, objects: &impl Serialize) -> Outcome {
    let text = match format.shape {
        Shape::Table => table.boxed(format.header),
        Shape::Compact => table.compact(format.header),
        Shape::Csv => table.csv(format.header),
        Shape::Json => json(objects)?,
        Shape::Yaml => yaml(objects)?,
    };
    emit(&text)
}

/// Prints one result: `text` for people, the object for json and yaml.
pub(crate) fn print_result(format: Format, object: &impl Serialize, text: &str) -> Outcome {
    match format.shape {
        Shape::Json => emit(&json(object)?),
        Shape::Yaml => emit(&yaml(object)?),
        // A program gets every character as it is.
        _ if io::stdout().is_terminal() => emit(&visible(text)),
        Shape::Table | Shape::Csv | Shape::Compact => emit(text),
    }
}

/// Text for people with its control characters spelled out, except line feeds and tabs: texts
/// of strangers must not command the terminal.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// One line of JSON.
pub(crate) fn json(object: &impl Serialize) -> Outcome<String> {
    let mut text = serde_json::to_string(object).map_err(unprintable)?;
    text.push('\n');
    Ok(text)
}

/// A YAML document.
pub(crate) fn yaml(object: &impl Serialize) -> Outcome<String> {
    Ok(Node::of(object).map_err(unprintable)?.yaml(Times::Plain))
}

fn unprintable(error: serde_json::Error) -> Failure {
    Failure::new(format!("this result can't be written: {error}"))
}

/// Writes to standard output. A reader that went away ends the program without a word, as it
/// does for every other tool in a pipeline.
pub(crate) fn emit(text: &str) -> Outcome {
    emit_bytes(text.as_bytes())
}

/// The same for what may be no text.
pub(crate) fn emit_bytes(bytes: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent()),
        Err(error) => Err(Failure::new(format!("cannot write to standard output: {error}"))),
    }
}

/// A stream of this program for asynchronous use; it stays open elsewhere.
pub(crate) fn async_stream(stream: &impl AsFd) -> Outcome<tokio::fs::File> {
    match stream.as_fd().try_clone_to_owned() {
        Ok(fd) => Ok(tokio::fs::File::from_std(std::fs::File::from(fd))),
        Err(error) => Err(Failure::new(format!("cannot use a standard stream: {error}"))),
    }
}

/// Writes a line for people to standard error; nobody may be reading it.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", visible(text));
}

/// `0.84MiB`.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.2}MiB", in_mebibytes(bytes))
}

/// A size in the unit that suits it: `348B`, `1.20KiB`, `58.21MiB`, `3.00GiB`.
#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
pub(crate) fn human_size(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    let in_unit = |unit: u64, name| format!("{:.2}{name}", bytes as f64 / unit as f64);
    match bytes {
        0..KIB => format!("{bytes}B"),
        KIB..MIB => in_unit(KIB, "KiB"),
        MIB..GIB => in_unit(MIB, "MiB"),
        GIB.. => in_unit(GIB, "GiB"),
    }
}

/// A size in MiB, for two decimals.
#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
pub(crate) fn in_mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_with_their_suffixes() {
        for (text, shape, header) in [
            ("table", Shape::Table, true),
            ("csv", Shape::Csv, false),
            ("csv,header", Shape::Csv, true),
            ("table,noheader", Shape::Table, false),
            ("compact", Shape::Compact, true),
        ] {
            assert_eq!(text.parse(), Ok(Format { shape, header }), "{text}");
        }
        for wrong in ["xml", "", "text", "csv,", "csv,headers", "json,header", "yaml,noheader"] {
            assert!(wrong.parse::<Format>().is_err(), "{wrong}");
        }
        for wrong in ["table", "csv", "csv,header", "compact", "json,", ""] {
            assert!(Format::of_result(wrong).is_err(), "{wrong}");
        }
        assert!(["text", "json", "yaml"].iter().all(|name| Format::of_result(name).is_ok()));
    }

    #[test]
    fn control_characters_are_spelled_out() {
        assert_eq!(visible("a\tb\nä"), "a\tb\nä");
        assert_eq!(visible("\x1b]0;x\x07\u{9b}\0"), "\\u{1b}]0;x\\u{7}\\u{9b}\\u{0}");
    }
}
