//! Command aliases of the user: the words of the command line with the first one replaced.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::failure::{Failure, Outcome};

/// Global flags that take the next word as their value.
const WITH_VALUE: &[&str] = &["--project", "--progress"];

/// Replaces the first command word when it is an alias. An alias is not expanded again, so
/// that it may have the name of the command that it begins with.
pub(crate) fn expand(
    args: Vec<OsString>,
    aliases: &BTreeMap<String, String>,
) -> Outcome<Vec<OsString>> {
    let Some((at, length, target)) = find(&args, aliases) else { return Ok(args) };
    let rest = &args[at + length..];
    let mut expanded = args[..at].to_vec();
    let mut all_used = false;
    for word in words(target) {
        if word == "@ARGS@" {
            expanded.extend_from_slice(rest);
            all_used = true;
        } else if let Some(number) = numbered(&word) {
            let value = rest.get(number - 1).ok_or_else(|| {
                Failure::usage(format!("the alias needs an argument {number}: {target}"))
            })?;
            expanded.push(value.clone());
            all_used = true;
        } else {
            expanded.push(word.into());
        }
    }
    if !all_used {
        expanded.extend_from_slice(rest);
    }
    Ok(expanded)
}

/// Where an alias stands, of how many words it is made, and what it stands for. The longest
/// alias wins.
fn find<'a>(
    args: &[OsString],
    aliases: &'a BTreeMap<String, String>,
) -> Option<(usize, usize, &'a str)> {
    let mut at = 1;
    while let Some(flag) = args.get(at).and_then(|arg| arg.to_str()).filter(|a| a.starts_with('-'))
    {
        at += if WITH_VALUE.contains(&flag) { 2 } else { 1 };
    }
    let typed: Vec<_> = args.get(at..)?.iter().map(|arg| arg.to_string_lossy()).collect();
    let matching = aliases.iter().filter_map(|(name, target)| {
        let name: Vec<_> = name.split_whitespace().collect();
        let here = !name.is_empty() && typed.len() >= name.len();
        (here && name.iter().zip(&typed).all(|(a, b)| a == b)).then_some((name.len(), target))
    });
    let (length, target) = matching.max_by_key(|(length, _)| *length)?;
    Some((at, length, target))
}

/// The `N` of `@ARGN@`.
fn numbered(word: &str) -> Option<usize> {
    let digits = word.strip_prefix("@ARG")?.strip_suffix('@')?;
    digits.parse().ok().filter(|number| *number > 0)
}

/// Words as a shell splits them: quotes keep spaces, a backslash keeps one character.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().extend(chars.next());
            }
            (c, Some(q)) if c == q => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let aliases = BTreeMap::from(
            [
                ("il", "image list -f csv"),
                ("list", "list -c ns"),
                ("my il", "image list 'a b'"),
                ("put", "image import @ARG2@ --alias @ARG1@"),
                ("sh", "exec @ARGS@ -- su -l"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        let args = line.split(' ').map(OsString::from).collect();
        let expanded = expand(args, &aliases).unwrap();
        let shown: Vec<_> = expanded.iter().map(|arg| arg.to_string_lossy()).collect();
        assert_eq!(shown.join(" "), expected, "{line}");
    }

    #[test]
    fn aliases_are_replaced_once() {
        check("x il -c lf", "x image list -f csv -c lf");
        check("x list a", "x list -c ns a");
        check("x -q --project p il", "x -q --project p image list -f csv");
        check("x my il os=x", "x image list a b os=x");
        check("x put name file", "x image import file --alias name");
        check("x sh c1", "x exec c1 -- su -l");
        check("x image il", "x image il");
        check("x", "x");
    }

    #[test]
    fn a_missing_argument_is_named() {
        let aliases = BTreeMap::from([("put".to_owned(), "a @ARG1@".to_owned())]);
        let args = vec!["x".into(), "put".into()];
        assert!(expand(args, &aliases).unwrap_err().error.contains("argument 1"));
    }
}
