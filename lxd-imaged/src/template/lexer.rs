//! Splits a template into text, `{{ outputs }}` and `{% tags %}`, and those into tokens.

use super::error::Fault;

/// A part of a template, in the order of the source.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// Text to copy; white space that a neighbour asked to drop is gone already.
    Text { offset: usize, text: &'a str },
    /// `{{ … }}`
    Output(Tokens<'a>),
    /// `{% … %}`
    Tag(Tokens<'a>),
}

/// The tokens between two delimiters.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    /// Where the opening delimiter is.
    pub(super) start: usize,
    /// Where the closing delimiter is.
    pub(super) end: usize,
    pub(super) list: Vec<Spot<'a>>,
}

/// A token and where it starts.
#[derive(Debug)]
pub(super) struct Spot<'a> {
    pub(super) offset: usize,
    pub(super) token: Token<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Name(&'a str),
    /// Digits, not yet a number: `1.2` is three tokens, `a.1` too.
    Digits(&'a str),
    Text(String),
    Symbol(&'static str),
}

impl Token<'_> {
    /// How an error calls it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Name(name) => format!("`{}`", excerpt(name)),
            Self::Digits(digits) => format!("the number {}", excerpt(digits)),
            Self::Text(text) => format!("the string {:?}", excerpt(text)),
            Self::Symbol(symbol) => format!("`{symbol}`"),
        }
    }
}

/// The beginning of a word, short enough for an error.
pub(super) fn excerpt(word: &str) -> &str {
    word.char_indices().nth(40).map_or(word, |(end, _)| &word[..end])
}

/// Longer ones first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 24] = [
    "==", ">=", "<=", "&&", "||", "!=", "<>", "(", ")", "[", "]", "+", "-", "*", "<", ">", "/",
    "^", ",", ".", "!", "|", ":", "=",
];

/// Splits `source`. An unfinished part is an error, and so is a line break inside of one, as for
/// every other renderer of this language.
pub(super) fn split(source: &str) -> Result<Vec<Piece<'_>>, Fault> {
    let mut lexer = Lexer { source, at: 0, pieces: Vec::new(), trim_next: false };
    lexer.run()?;
    Ok(lexer.pieces)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    pieces: Vec<Piece<'a>>,
    /// The last part ended with `-%}` or `-}}`.
    trim_next: bool,
}

impl<'a> Lexer<'a> {
    fn run(&mut self) -> Result<(), Fault> {
        while self.at < self.source.len() {
            let rest = self.rest();
            let Some(open) = find_opening(rest) else {
                self.text(rest, false);
                break;
            };
            if self.pieces.len() >= super::MAX_PARTS {
                return Err(Fault::limit(self.at + open, super::PARTS_LIMIT));
            }
            let trims = rest[open + 2..].starts_with('-') && !rest[open..].starts_with("{#");
            self.text(&rest[..open], trims);
            self.at += open;
            match &rest[open..open + 2] {
                "{#" => self.remark()?,
                "{{" => {
                    let tokens = self.tokens("}}")?;
                    self.pieces.push(Piece::Output(tokens));
                }
                _ => {
                    let tokens = self.tokens("%}")?;
                    self.tag(tokens)?;
                }
            }
        }
        Ok(())
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    /// Adds text up to the next part; `trim_end` when that part starts with `{%-` or `{{-`.
    fn text(&mut self, mut text: &'a str, trim_end: bool) {
        const SPACE: [char; 4] = [' ', '\n', '\r', '\t'];
        if text.is_empty() {
            return;
        }
        if std::mem::take(&mut self.trim_next) {
            text = text.trim_start_matches(SPACE);
        }
        if trim_end {
            text = text.trim_end_matches(SPACE);
        }
        self.pieces.push(Piece::Text { offset: self.at, text });
    }

    /// `{# … #}`, which ends in its line.
    fn remark(&mut self) -> Result<(), Fault> {
        let rest = self.rest();
        let line = rest.lines().next().unwrap_or_default();
        match line[2..].find("#}") {
            Some(end) => {
                self.at += end + 4;
                Ok(())
            }
            None => Err(Fault::syntax(
                self.at,
                "expected `#}` in the same line; use `{% comment %}` for several lines",
            )),
        }
    }

    /// A tag. The text inside of `comment` and `verbatim` is not looked at, so those end here.
    fn tag(&mut self, tokens: Tokens<'a>) -> Result<(), Fault> {
        let (end_name, keep) = match tokens.list.as_slice() {
            [Spot { token: Token::Name("comment"), .. }, ..] => ("endcomment", false),
            [Spot { token: Token::Name("verbatim"), .. }, ..] => ("endverbatim", true),
            _ => {
                self.pieces.push(Piece::Tag(tokens));
                return Ok(());
            }
        };
        let rest = self.rest();
        let (inside, length) = find_end_tag(rest, end_name).ok_or_else(|| {
            Fault::syntax(tokens.start, format!("expected `{{% {end_name} %}}` further down"))
        })?;
        if keep {
            self.text(&rest[..inside], rest[inside + 2..].starts_with('-'));
        }
        self.trim_next = rest[..length].ends_with("-%}");
        self.at += length;
        Ok(())
    }

    /// The tokens from an opening delimiter up to `closing`.
    fn tokens(&mut self, closing: &'static str) -> Result<Tokens<'a>, Fault> {
        let start = self.at;
        self.at += 2;
        if self.rest().starts_with('-') {
            self.at += 1;
        }
        let mut list = Vec::new();
        loop {
            let rest = self.rest();
            let offset = self.at;
            let Some(first) = rest.chars().next() else {
                return Err(Fault::syntax(start, format!("expected `{closing}` further on")));
            };
            let trims = rest.starts_with('-') && rest[1..].starts_with(closing);
            if trims || rest.starts_with(closing) {
                self.trim_next = trims;
                self.at += closing.len() + usize::from(trims);
                return Ok(Tokens { start, end: offset, list });
            }
            if list.len() >= super::MAX_TOKENS {
                return Err(Fault::limit(offset, super::TOKENS_LIMIT));
            }
            match first {
                ' ' | '\t' | '\r' => self.at += 1,
                '\n' => {
                    return Err(Fault::syntax(
                        offset,
                        format!("expected `{closing}` before the end of the line"),
                    ));
                }
                '"' | '\'' => {
                    let text = self.string(first)?;
                    list.push(Spot { offset, token: Token::Text(text) });
                }
                _ => {
                    let (token, length) = word(rest).ok_or_else(|| {
                        Fault::syntax(
                            offset,
                            format!("expected a name, a value or `{closing}`, found {first:?}"),
                        )
                    })?;
                    if length > super::MAX_WORD {
                        return Err(Fault::limit(offset, super::WORD_LIMIT));
                    }
                    self.at += length;
                    list.push(Spot { offset, token });
                }
            }
        }
    }

    /// A quoted string; `\"` and `\\` are its only escapes.
    fn string(&mut self, quote: char) -> Result<String, Fault> {
        let start = self.at;
        let mut text = String::new();
        let mut characters = self.rest().char_indices().skip(1);
        while let Some((index, character)) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    _ => {
                        return Err(Fault::syntax(
                            start + index,
                            "expected `\\\"` or `\\\\`: a string has no other escapes",
                        ));
                    }
                },
                '\n' => break,
                _ if character == quote => {
                    self.at = start + index + 1;
                    return Ok(text);
                }
                _ => text.push(character),
            }
        }
        Err(Fault::syntax(start, format!("expected a closing {quote} in the same line")))
    }
}

/// Where the next `{{`, `{%` or `{#` is.
fn find_opening(text: &str) -> Option<usize> {
    text.as_bytes().windows(2).position(|pair| matches!(pair, b"{{" | b"{%" | b"{#"))
}

/// Where `{% name %}` begins and ends in `text`.
fn find_end_tag(text: &str, name: &str) -> Option<(usize, usize)> {
    for (index, _) in text.match_indices("{%") {
        let inner = &text[index + 2..];
        let inner = inner.strip_prefix('-').unwrap_or(inner);
        let inner = inner.trim_start_matches([' ', '\t', '\r']);
        let Some(inner) = inner.strip_prefix(name) else { continue };
        let inner = inner.trim_start_matches([' ', '\t', '\r']);
        let inner = inner.strip_prefix('-').unwrap_or(inner);
        if let Some(after) = inner.strip_prefix("%}") {
            return Some((index, text.len() - after.len()));
        }
    }
    None
}

/// A name, digits or a symbol at the beginning of `rest`, and its length.
fn word(rest: &str) -> Option<(Token<'_>, usize)> {
    let length = rest
        .bytes()
        .position(|byte| !(byte.is_ascii_alphanumeric() || byte == b'_'))
        .unwrap_or(rest.len());
    if length > 0 {
        let word = &rest[..length];
        let token = if word.bytes().all(|byte| byte.is_ascii_digit()) {
            Token::Digits(word)
        } else {
            Token::Name(word)
        };
        return Some((token, length));
    }
    // `%` is an operator, unless it closes the tag; that was looked for before.
    let symbol = SYMBOLS.into_iter().chain(["%"]).find(|symbol| rest.starts_with(symbol))?;
    Some((Token::Symbol(symbol), symbol.len()))
}
