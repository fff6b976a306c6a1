//! The frame of a cleartext signature: which lines are signed, and which bytes that makes.
//!
//! Readers of such documents have been fooled by whatever two programs read differently. So this
//! one takes what `gpg --clearsign` writes and refuses every line that needs an opinion.

use std::borrow::Cow;

use super::Refused;

const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END: &str = "-----END PGP SIGNATURE-----";
const HASH: &str = "Hash: ";
/// Hash headers before the text.
const MOST_HEADERS: usize = 8;
/// The largest signature block, in bytes.
const MAX_SIGNATURE: usize = 64 << 10;
/// GnuPG cuts longer lines off, in bytes.
pub(super) const MAX_LINE: usize = 19_995;
/// Where lines of JSON are broken, in bytes.
const BROKEN_AT: usize = 16 << 10;

/// A document in its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    /// What is signed: lines without blanks at their ends, joined by line feeds.
    pub(super) payload: Vec<u8>,
    /// The hashes that are announced.
    pub(super) hashes: Vec<String>,
    /// The armoured signature, from its first line to its last.
    pub(super) signature: String,
}

impl Text {
    /// Takes a document apart.
    ///
    /// # Errors
    /// [`Refused::Unsigned`] when it does not begin as a signed message; [`Refused::Form`] when
    /// anything stands before or after the one signed block, or two readers could read it
    /// differently.
    pub(super) fn parse(document: &[u8]) -> Result<Self, Refused> {
        let mut lines = Lines { rest: document };
        if lines.next()? != Some(BEGIN.as_bytes()) {
            let marker = BEGIN.as_bytes();
            let inside = document.windows(marker.len()).any(|window| window == marker);
            return Err(if inside { odd("something stands before it") } else { Refused::Unsigned });
        }
        let hashes = hashes(&mut lines)?;
        let payload = payload(&mut lines, document.len())?;
        let signature = signature(&mut lines)?;
        Ok(Self { payload, hashes, signature })
    }

    /// Puts a text in its frame, all but the signature, which goes between the two results.
    pub(super) fn frame(text: &[u8], hash: &str) -> Vec<u8> {
        let mut framed = Vec::with_capacity(text.len() + text.len() / 64 + 256);
        framed.extend_from_slice(BEGIN.as_bytes());
        framed.push(b'\n');
        framed.extend_from_slice(HASH.as_bytes());
        framed.extend_from_slice(hash.as_bytes());
        framed.extend_from_slice(b"\n\n");
        for line in text.split(|byte| *byte == b'\n') {
            if line.starts_with(b"-") {
                framed.extend_from_slice(b"- ");
            }
            framed.extend_from_slice(line);
            framed.push(b'\n');
        }
        framed
    }
}

fn odd(reason: &str) -> Refused {
    Refused::Form(reason.to_owned())
}

/// Lines without their ends; the last one must have one, too.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// The next line; `None` at the end of the document.
    fn next(&mut self) -> Result<Option<&'a [u8]>, Refused> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let (line, rest) = match end {
            Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // A line's end to one reader, a part of the line to another.
        let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        if line.iter().any(control) {
            return Err(odd("it has control characters"));
        }
        Ok(Some(line))
    }

    /// The next line, which must be there.
    fn expect(&mut self) -> Result<&'a [u8], Refused> {
        self.next()?.ok_or_else(|| odd("it breaks off"))
    }
}

/// The headers up to the empty line. One that is no hash could be a text that pretends to be signed.
fn hashes(lines: &mut Lines<'_>) -> Result<Vec<String>, Refused> {
    let mut hashes = Vec::new();
    for _ in 0..MOST_HEADERS {
        let line = lines.expect()?;
        if line.is_empty() {
            return Ok(hashes);
        }
        let named = line.strip_prefix(HASH.as_bytes()).and_then(|line| str::from_utf8(line).ok());
        let Some(named) = named else { return Err(odd("it has headers other than \"Hash\"")) };
        hashes.extend(named.split(',').map(|name| name.trim().to_ascii_uppercase()));
    }
    Err(odd("it has too many headers"))
}

/// The signed lines, up to the signature.
fn payload(lines: &mut Lines<'_>, most: usize) -> Result<Vec<u8>, Refused> {
    let mut payload = Vec::with_capacity(most);
    let mut first = true;
    loop {
        let line = lines.expect()?;
        let line = match line.strip_prefix(b"-") {
            None => line,
            Some(_) if line == SIGNATURE.as_bytes() => return Ok(payload),
            Some(rest) => rest
                .strip_prefix(b" ")
                .ok_or_else(|| odd("a line begins with a dash that is not escaped"))?,
        };
        if !first {
            payload.push(b'\n');
        }
        first = false;
        // Not signed, so not there.
        let blanks = line.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        payload.extend_from_slice(&line[..line.len() - blanks]);
    }
}

/// The armoured signature; nothing comes after it.
fn signature(lines: &mut Lines<'_>) -> Result<String, Refused> {
    let mut signature = format!("{SIGNATURE}\n");
    loop {
        let line = str::from_utf8(lines.expect()?).map_err(|_| odd("its signature is damaged"))?;
        signature.push_str(line);
        signature.push('\n');
        if line == END {
            break;
        }
        if line.starts_with('-') {
            return Err(odd("its signature is damaged"));
        }
        if signature.len() > MAX_SIGNATURE {
            return Err(odd("its signature is too large"));
        }
    }
    if lines.rest.is_empty() { Ok(signature) } else { Err(odd("something stands after it")) }
}

/// Whether a signed document has this JSON in its frame; the signature is not looked at.
pub(crate) fn says(document: &[u8], json: &[u8]) -> bool {
    let text = broken(json);
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    Text::parse(document).is_ok_and(|found| found.payload == text)
}

/// Whether a document is one signed block; the signature is not looked at.
pub(crate) fn form(document: &[u8]) -> Result<(), Refused> {
    Text::parse(document).map(drop)
}

/// JSON whose lines GnuPG reads whole: long ones are broken after a comma between two values,
/// which means the same. Other text comes back as it is.
pub(super) fn broken(json: &[u8]) -> Cow<'_, [u8]> {
    if json.split(|byte| *byte == b'\n').all(|line| line.len() <= BROKEN_AT) {
        return Cow::Borrowed(json);
    }
    let mut broken = Vec::with_capacity(json.len() + json.len() / BROKEN_AT * 2 + 16);
    // Where the current line begins in the result, and the last place where it can end.
    let (mut begin, mut comma) = (0, None);
    let (mut text, mut escaped) = (false, false);
    for &byte in json {
        if byte == b'\n' {
            begin = broken.len() + 1;
            comma = None;
        } else if broken.len() - begin >= BROKEN_AT
            && let Some(at) = comma.take()
        {
            broken.insert(at, b'\n');
            begin = at + 1;
        }
        broken.push(byte);
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b',' if !text => comma = Some(broken.len()),
            _ => {}
        }
    }
    Cow::Owned(broken)
}
