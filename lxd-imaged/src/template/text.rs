//! What filters do to text.

fn replaced(text: &str, replacement: fn(char) -> Option<&'static str>) -> String {
    let mut result = String::with_capacity(text.len());
    for character in text.chars() {
        match replacement(character) {
            Some(other) => result.push_str(other),
            None => result.push(character),
        }
    }
    result
}

/// Text with the five characters that HTML gives a meaning.
pub(super) fn escaped(text: &str) -> String {
    replaced(text, |character| match character {
        '&' => Some("&amp;"),
        '>' => Some("&gt;"),
        '<' => Some("&lt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        _ => None,
    })
}

fn slashed(character: char) -> Option<&'static str> {
    match character {
        '\\' => Some("\\\\"),
        '"' => Some("\\\""),
        '\'' => Some("\\'"),
        _ => None,
    }
}

/// Text without the white space between a `>` and the next `<`.
pub(super) fn spaceless(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(end) = rest.find('>') {
        result.push_str(&rest[..=end]);
        rest = &rest[end + 1..];
        let trimmed = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
        if trimmed.starts_with('<') {
            rest = trimmed;
        }
    }
    result.push_str(rest);
    result
}

/// One character stays one, as in Go; Rust would make `ß` two.
pub(super) fn upper(character: char) -> char {
    single(character.to_uppercase()).unwrap_or(character)
}

pub(super) fn lower(character: char) -> char {
    single(character.to_lowercase()).unwrap_or(character)
}

fn single(mut characters: impl Iterator<Item = char>) -> Option<char> {
    let first = characters.next();
    if characters.next().is_none() { first } else { None }
}

pub(super) fn capfirst(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(upper).into_iter().chain(characters).collect()
}

pub(super) fn title(text: &str) -> String {
    let mut inside = false;
    text.chars()
        .map(|character| {
            let character = lower(character);
            let letter = character.is_alphanumeric() || character == '_';
            let first = letter && !inside;
            inside = letter;
            if first { upper(character) } else { character }
        })
        .collect()
}

pub(super) fn escapejs(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let (character, length) = match rest.as_bytes() {
            [b'\\', b'r', ..] => ('\r', 2),
            [b'\\', b'n', ..] => ('\n', 2),
            _ => (character, character.len_utf8()),
        };
        rest = &rest[length..];
        if character.is_ascii_alphabetic() || matches!(character, ' ' | '/') {
            result.push(character);
        } else {
            result.push_str(&format!("\\u{:04X}", u32::from(character)));
        }
    }
    result
}

/// Text as it stands in the query of a URL, but for what is in `kept`.
pub(super) fn encoded(text: &str, kept: &str) -> String {
    let mut result = String::new();
    for character in text.chars() {
        let plain = character.is_ascii_alphanumeric() || "-_.~".contains(character);
        if plain || kept.contains(character) {
            result.push(character);
        } else if character == ' ' {
            result.push('+');
        } else {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                result.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    result
}

pub(super) fn linebreaks(text: &str) -> String {
    let lines: Vec<&str> = text.split('\n').collect();
    let blank = |index: usize| lines.get(index).is_none_or(|line| line.trim().is_empty());
    let mut result = String::new();
    let mut open = false;
    for (index, line) in lines.iter().enumerate() {
        if !open {
            result.push_str("<p>");
            open = true;
        }
        result.push_str(line);
        if index + 1 < lines.len() && !blank(index) {
            if blank(index + 1) {
                result.push_str("</p>");
                open = false;
            } else {
                result.push_str("<br />");
            }
        }
    }
    if open {
        result.push_str("</p>");
    }
    result
}

pub(super) fn linenumbers(text: &str) -> String {
    let lines = text.split('\n').enumerate();
    lines.map(|(index, line)| format!("{}. {line}", index + 1)).collect::<Vec<_>>().join("\n")
}

pub(super) fn phone_digit(character: char) -> char {
    match character.to_ascii_lowercase() {
        'a'..='c' => '2',
        'd'..='f' => '3',
        'g'..='i' => '4',
        'j'..='l' => '5',
        'm'..='o' => '6',
        'p'..='s' => '7',
        't'..='v' => '8',
        'w'..='z' => '9',
        _ => character,
    }
}

pub(super) fn striptags(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, tag)) = rest.split_once('<') {
        let Some((_, after)) = tag.split_once('>') else { break };
        result.push_str(before);
        rest = after;
    }
    result.push_str(rest);
    result
}

/// Text with a backslash before each quote and backslash.
pub(super) fn addslashes(text: &str) -> String {
    replaced(text, slashed)
}
