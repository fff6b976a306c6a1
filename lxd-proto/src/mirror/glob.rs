//! Lists of patterns: `*` stands for any characters, `?` for one; case does not matter. With `!` in
//! front a pattern excludes what it matches.

use serde::{Deserialize, Serialize};

use crate::wire::null_default;

/// Patterns of one filter, at most.
const MAX_GLOBS: usize = 1000;
/// The longest pattern, in bytes.
const MAX_GLOB: usize = 255;

/// A list of patterns. Empty, or with exclusions only, it selects everything that is not excluded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Globs(#[serde(deserialize_with = "null_default")] Vec<String>);

impl Globs {
    /// These patterns.
    pub fn new(globs: Vec<String>) -> Self {
        Self(globs)
    }

    /// The patterns as they were given.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says what is wrong with them, if anything is.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.0.len() > MAX_GLOBS {
            return Err(format!("more than {MAX_GLOBS} patterns"));
        }
        match self.0.iter().find(|glob| {
            let pattern = glob.strip_prefix('!').unwrap_or(glob);
            pattern.is_empty() || pattern.len() > MAX_GLOB || pattern.contains(char::is_control)
        }) {
            Some(glob) => {
                Err(format!("\"{}\" is no pattern", glob.chars().take(80).collect::<String>()))
            }
            None => Ok(()),
        }
    }

    /// Whether something with these names is selected.
    pub fn matches(&self, names: &[&str]) -> bool {
        let any = |glob: &str| names.iter().any(|name| matches(glob, name));
        let (mut positive, mut selected) = (false, false);
        for glob in &self.0 {
            match glob.strip_prefix('!') {
                Some(excluded) if any(excluded) => return false,
                Some(_) => {}
                None => {
                    positive = true;
                    selected |= any(glob);
                }
            }
        }
        selected || !positive
    }
}

impl FromIterator<String> for Globs {
    fn from_iter<T: IntoIterator<Item = String>>(globs: T) -> Self {
        Self(globs.into_iter().collect())
    }
}

/// Whether the whole text matches the pattern. Takes at most pattern × text steps.
fn matches(glob: &str, text: &str) -> bool {
    let lower = |text: &str| -> Vec<char> { text.chars().flat_map(char::to_lowercase).collect() };
    let (glob, text) = (lower(glob), lower(text));
    let (mut at, mut place) = (0, 0);
    // The last star, and the first character that it does not stand for yet.
    let mut star: Option<(usize, usize)> = None;
    while place < text.len() {
        match glob.get(at) {
            Some('*') => {
                star = Some((at + 1, place));
                at += 1;
            }
            Some(c) if *c == '?' || *c == text[place] => {
                at += 1;
                place += 1;
            }
            _ => {
                let Some((after, begin)) = star else { return false };
                star = Some((after, begin + 1));
                at = after;
                place = begin + 1;
            }
        }
    }
    glob[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (glob, text, is) in [
            ("debian", "Debian", true),
            ("debian", "debian2", false),
            ("deb*", "debian", true),
            ("*bian", "debian", true),
            ("d*b*n", "debian", true),
            ("d*x*n", "debian", false),
            ("1?", "12", true),
            ("1?", "1", false),
            ("*", "", true),
            ("?", "", false),
            ("a**b", "ab", true),
            ("[ab]", "a", false),
        ] {
            assert_eq!(matches(glob, text), is, "{glob} {text}");
        }
        // Many stars do not take for ever.
        assert!(!matches(&"*a".repeat(100), &"a".repeat(99)));
    }
}
