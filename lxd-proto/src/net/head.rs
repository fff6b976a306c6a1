//! What an answer says about the file that comes with it.

use reqwest::Response;
use reqwest::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED,
};

/// Status and headers of an answer.
#[derive(Debug, Clone)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    headers: HeaderMap,
}

impl Head {
    /// Of no answer yet.
    pub(super) fn none() -> Self {
        Self { status: 0, headers: HeaderMap::new() }
    }

    pub(super) fn of(response: &Response) -> Self {
        Self { status: response.status().as_u16(), headers: response.headers().clone() }
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The length of the whole file, where the server tells it.
    pub fn length(&self) -> Option<u64> {
        match self.status {
            206 => self.content_range()?.total,
            _ => self.header(CONTENT_LENGTH.as_str())?.parse().ok(),
        }
    }

    /// Whether the server can begin in the middle of the file.
    pub fn takes_ranges(&self) -> bool {
        let says = |text: &str| text.trim().eq_ignore_ascii_case("bytes");
        self.status == 206 || self.header(ACCEPT_RANGES.as_str()).is_some_and(says)
    }

    /// What names this version of the file: a strong tag, or the time of its last change.
    pub(super) fn validator(&self) -> Option<HeaderValue> {
        let strong = self.headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
        strong.or_else(|| self.headers.get(LAST_MODIFIED)).cloned()
    }

    /// Whether an answer with this head is another version than the one `validator` names. An
    /// answer that names none is none: servers leave out what we know.
    pub(super) fn is_another_version(&self, validator: &HeaderValue) -> bool {
        let name = if validator.as_bytes().starts_with(b"\"") { ETAG } else { LAST_MODIFIED };
        self.headers.get(name).is_some_and(|theirs| theirs != validator)
    }

    pub(super) fn content_range(&self) -> Option<ContentRange> {
        ContentRange::parse(self.header(CONTENT_RANGE.as_str())?)
    }
}

/// `bytes FIRST-LAST/TOTAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) total: Option<u64>,
}

impl ContentRange {
    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.trim().split_once('-')?;
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        let total = match total.trim() {
            "*" => None,
            digits => Some(digits.parse().ok()?),
        };
        (first <= last && total.is_none_or(|total| last < total)).then_some(Self {
            first,
            last,
            total,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_strictly() {
        let range = |first, last, total| Some(ContentRange { first, last, total });
        for (text, parsed) in [
            ("bytes 0-9/10", range(0, 9, Some(10))),
            ("bytes 5-9/*", range(5, 9, None)),
            ("bytes 0-10/10", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("items 0-9/10", None),
            ("bytes 0-9", None),
            ("bytes -1-9/10", None),
            ("bytes 0-99999999999999999999/*", None),
            ("", None),
        ] {
            assert_eq!(ContentRange::parse(text), parsed, "{text}");
        }
    }
}
