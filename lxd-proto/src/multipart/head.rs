//! The headers of a part, and the boundary in the header of a form.

use percent_encoding::percent_decode_str;

use crate::multipart::MultipartError;

/// Keys in lower case, and values.
type Parameters = Vec<(String, String)>;

/// What the headers of a part say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartHead {
    /// Name of the field.
    pub name: Option<String>,
    /// Name of the file, as the sender calls it: it may hold a path, and anything else.
    pub filename: Option<String>,
    /// The `Content-Type` header.
    pub content_type: Option<String>,
    /// The `Content-Length` header: what the sender says, nothing that was counted.
    pub length: Option<u64>,
}

impl PartHead {
    /// Reads the headers up to and with the empty line that ends them.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, MultipartError> {
        let text = String::from_utf8_lossy(bytes);
        let mut head = Self::default();
        for line in text.split("\r\n").filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or(MultipartError::Header)?;
            let value = value.trim();
            match name.trim_end().to_ascii_lowercase().as_str() {
                "content-disposition" => {
                    let (_, parameters) = parameters(value)?;
                    head.name = find(&parameters, "name");
                    head.filename = find(&parameters, "filename");
                }
                "content-type" => head.content_type = Some(value.to_owned()),
                "content-length" => head.length = value.parse().ok(),
                _ => {}
            }
        }
        Ok(head)
    }
}

/// The boundary that a `Content-Type` header names; `None` when it is no form's.
pub fn boundary_of(content_type: &str) -> Option<String> {
    let (kind, parameters) = parameters(content_type).ok()?;
    kind.eq_ignore_ascii_case("multipart/form-data").then(|| find(&parameters, "boundary"))?
}

/// The value of a parameter of a header such as `Content-Disposition`.
pub fn parameter_of(header: &str, name: &str) -> Option<String> {
    find(&parameters(header).ok()?.1, name)
}

/// `key*=charset'language'percent-encoded` wins over `key=`.
fn find(parameters: &[(String, String)], wanted: &str) -> Option<String> {
    let get = |key: &str| parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    let extended = get(&format!("{wanted}*")).and_then(|value| {
        let (charset, rest) = value.split_once('\'')?;
        let (_, encoded) = rest.split_once('\'')?;
        let known = charset.eq_ignore_ascii_case("utf-8");
        known.then(|| percent_decode_str(encoded).decode_utf8_lossy().into_owned())
    });
    extended.or_else(|| get(wanted).cloned())
}

/// `value; key=token; key="quoted \" text"`, with keys in lower case.
fn parameters(header: &str) -> Result<(&str, Parameters), MultipartError> {
    let (value, mut rest) = header.split_once(';').unwrap_or((header, ""));
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return Ok((value.trim(), found));
        }
        let (key, after) = rest.split_once('=').ok_or(MultipartError::Header)?;
        let after = after.trim_start();
        let (text, after) = if let Some(quoted) = after.strip_prefix('"') {
            unquote(quoted)?
        } else {
            let end = after.find(';').unwrap_or(after.len());
            (after[..end].trim_end().to_owned(), &after[end..])
        };
        found.push((key.trim().to_ascii_lowercase(), text));
        rest = after;
    }
}

/// The text up to the closing quote, and what follows that.
fn unquote(text: &str) -> Result<(String, &str), MultipartError> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                // Some senders put Windows paths in without escaping.
                Some((_, other)) => value.extend(['\\', other]),
                None => return Err(MultipartError::Header),
            },
            other => value.push(other),
        }
    }
    Err(MultipartError::Header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_found_quoted_and_plain() {
        for (header, boundary) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data;charset=x; Boundary=\"a b\"", Some("a b")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=\"abc", None),
            ("multipart/byteranges; boundary=abc", None),
            ("application/octet-stream", None),
            ("", None),
        ] {
            assert_eq!(boundary_of(header).as_deref(), boundary, "{header}");
        }
    }

    #[test]
    fn names_are_read_in_every_spelling() {
        for (header, name, filename) in [
            (r#"form-data; name="rootfs"; filename="a.tar.xz""#, Some("rootfs"), Some("a.tar.xz")),
            ("form-data; name=rootfs.img; filename=a", Some("rootfs.img"), Some("a")),
            (r#"form-data; name="a\"b\\c"; filename="d;e""#, Some("a\"b\\c"), Some("d;e")),
            (r#"form-data; name="x"; filename="C:\a\b""#, Some("x"), Some(r"C:\a\b")),
            (r#"form-data; name="x"; filename="""#, Some("x"), Some("")),
            (
                r#"form-data; name="x"; filename="p"; filename*=utf-8''%C3%A4.tar"#,
                Some("x"),
                Some("ä.tar"),
            ),
            ("form-data", None, None),
        ] {
            let head = format!("Content-Disposition: {header}\r\nX-Other: 1\r\n\r\n");
            let head = PartHead::parse(head.as_bytes()).unwrap();
            assert_eq!(
                (head.name.as_deref(), head.filename.as_deref()),
                (name, filename),
                "{header}"
            );
        }
        for broken in
            ["no colon", "Content-Disposition: form-data; name=\"x", "Content-Disposition: f; x"]
        {
            assert_eq!(PartHead::parse(broken.as_bytes()), Err(MultipartError::Header), "{broken}");
        }
    }
}
