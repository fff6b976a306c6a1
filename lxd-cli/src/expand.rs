//! Command aliases of the user: the words of the command line with the first one replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use crate::failure::{Failure, Outcome};

/// Global flags that take the next word as their value.
const WITH_VALUE: &[&str] = &["--project", "--progress"];

/// Replaces the first command word when it is an alias. An alias is not expanded again, so
/// that it may have the name of the command that it begins with. No word that was typed is
/// lost: those that the alias does not place stand at its end.
pub(crate) fn expand(
    args: Vec<OsString>,
    aliases: &BTreeMap<String, String>,
) -> Outcome<Vec<OsString>> {
    let Some((at, length, target)) = find(&args, aliases) else { return Ok(args) };
    let typed = &args[at + length..];
    let target_words = words(target);
    let placed: BTreeSet<usize> = target_words.iter().flat_map(|word| numbers(word)).collect();
    if let Some(number) = placed.iter().find(|number| **number > typed.len()) {
        return Err(Failure::usage(format!("the alias needs an argument {number}: {target}")));
    }
    let mut rest: Vec<OsString> = typed
        .iter()
        .enumerate()
        .filter(|(index, _)| !placed.contains(&(index + 1)))
        .map(|(_, word)| word.clone())
        .collect();
    let mut expanded = args[..at].to_vec();
    for word in target_words {
        if word == "@ARGS@" {
            expanded.append(&mut rest);
        } else {
            expanded.push(fill(&word, typed));
        }
    }
    expanded.append(&mut rest);
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

/// The next `@ARGN@` in a word: where it begins and ends, and its `N`.
fn next_number(word: &str) -> Option<(usize, usize, usize)> {
    const MARK: &str = "@ARG";
    let mut from = 0;
    while let Some(found) = word[from..].find(MARK) {
        let start = from + found;
        let digits = start + MARK.len();
        if let Some(length) = word[digits..].find('@')
            && let Ok(number) = word[digits..digits + length].parse()
            && number > 0
        {
            return Some((start, digits + length + 1, number));
        }
        from = digits;
    }
    None
}

/// Every `N` of `@ARGN@` in a word.
fn numbers(mut word: &str) -> Vec<usize> {
    let mut found = Vec::new();
    while let Some((_, end, number)) = next_number(word) {
        found.push(number);
        word = &word[end..];
    }
    found
}

/// The word with every `@ARGN@` in it replaced.
fn fill(mut word: &str, typed: &[OsString]) -> OsString {
    let mut filled = OsString::new();
    while let Some((start, end, number)) = next_number(word) {
        filled.push(&word[..start]);
        filled.push(typed.get(number - 1).map_or(OsStr::new(""), OsString::as_os_str));
        word = &word[end..];
    }
    filled.push(word);
    filled
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
                ("os", "image list os=@ARG1@,@ARG1@ release=@ARG2@ @ARGS@ -f csv"),
                ("odd", "a @ARG0@ @ARGx@ @ARG"),
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
        check("x put name file --public a=b", "x image import file --alias name --public a=b");
        check("x sh c1", "x exec c1 -- su -l");
        check("x os a b c d", "x image list os=a,a release=b c d -f csv");
        check("x odd b", "x a @ARG0@ @ARGx@ @ARG b");
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
