//! What commands print: results on standard output, in the format that was asked for.

mod document;
mod natural;
mod table;

use std::io::{self, Write};
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
        let (name, suffix) = text.split_once(',').unwrap_or((text, ""));
        let shape = match name {
            "table" | "text" => Shape::Table,
            "csv" => Shape::Csv,
            "json" => Shape::Json,
            "yaml" => Shape::Yaml,
            "compact" => Shape::Compact,
            _ => return Err(format!("Invalid format \"{text}\"")),
        };
        let header = match suffix {
            "" => shape != Shape::Csv,
            "header" => true,
            "noheader" => false,
            _ => return Err(format!("Invalid format \"{text}\": \"{suffix}\" is no suffix")),
        };
        Ok(Self { shape, header })
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
        Shape::Table | Shape::Csv | Shape::Compact => emit(text),
    }
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
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent()),
        Err(error) => Err(Failure::new(format!("cannot write to standard output: {error}"))),
    }
}

/// Writes a line for people to standard error; nobody may be reading it.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
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
        for wrong in ["xml", "", "csv,", "csv,headers"] {
            if wrong == "csv," {
                continue;
            }
            assert!(wrong.parse::<Format>().is_err(), "{wrong}");
        }
    }
}
