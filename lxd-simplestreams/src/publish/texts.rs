//! Texts that fit into documents: GnuPG does not read the end of a long line of a signed one, and a
//! line can only be broken between two values.

use lxd_proto::fingerprint::Fingerprint;
use sha2::{Digest, Sha256};

/// What a text is at most, in bytes of JSON.
const LONGEST: usize = 2 << 10;
/// The same for a list of names, and for a requirement with its name.
const LONGEST_LIST: usize = 8 << 10;
/// The same for the name of a product, of which others are made; dashes may follow.
const LONGEST_NAME: usize = 1 << 10;
/// What takes the place of an end.
const CUT: &str = "…";

/// Bytes of a character in a JSON text.
fn width(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        _ if character.is_ascii_control() => 6,
        _ => character.len_utf8(),
    }
}

fn length(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// As much of the beginning as fits.
fn beginning(text: &str, most: usize) -> &str {
    let mut left = most;
    let end = text.char_indices().find(|&(_, character)| {
        let (rest, over) = left.overflowing_sub(width(character));
        left = rest;
        over
    });
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

/// The text, or its beginning.
pub(super) fn short(text: &str) -> String {
    if length(text) <= LONGEST {
        return text.to_owned();
    }
    format!("{}{CUT}", beginning(text, LONGEST - CUT.len()))
}

/// Whether a requirement can be told. Half of one would be another one.
pub(super) fn is_tellable(key: &str, value: &str) -> bool {
    length(key) + length(value) <= LONGEST_LIST
}

/// The names as one text, without those for which there is no place.
pub(super) fn joined(names: &[String]) -> String {
    let mut left = LONGEST_LIST;
    let fitting = names.iter().filter(|name| {
        let rest = left.checked_sub(length(name) + 1);
        left = rest.unwrap_or(left);
        rest.is_some()
    });
    fitting.map(String::as_str).collect::<Vec<_>>().join(",")
}

/// The name of a product; the end of a long one gives way to its hash, so that two stay two.
pub(super) fn bounded(name: String) -> String {
    if length(&name) <= LONGEST_NAME {
        return name;
    }
    let hash = Fingerprint::from_bytes(Sha256::digest(name.as_bytes()).into());
    let mark = format!("{CUT}{}", hash.short());
    // Room for dashes that make it unique.
    format!("{}{mark}", beginning(&name, LONGEST_NAME - mark.len() - 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_or_left_out() {
        let long = "ä\u{1}".repeat(1000);
        assert_eq!(short("ä\u{1}"), "ä\u{1}");
        assert!(length(&short(&long)) <= LONGEST && short(&long).starts_with("ä\u{1}ä"));
        let (a, b) = (format!("{long}a"), format!("{long}b"));
        assert_ne!(bounded(a.clone()), bounded(b));
        assert_eq!(bounded(bounded(a.clone()) + "--"), bounded(a) + "--");
        let names = ["a".to_owned(), "b".repeat(9000), "c".to_owned()];
        assert_eq!(joined(&names), "a,c");
        assert!(is_tellable("a", "b") && !is_tellable("a", &"\"".repeat(5000)));
        // The widths are those of what is written.
        for character in (0..=0x100).filter_map(char::from_u32) {
            let written = crate::publish::document::json(&character.to_string());
            assert_eq!(written.len() - 2, width(character), "{character:?}");
        }
    }
}
