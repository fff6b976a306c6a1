//! Bodies made of pieces of files: whole, in a range, or not at all because the client has them.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, StatusCode, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::reply;
use crate::app::App;
use crate::store::blobs::{Blobs, OpenBlob, Segment};
use crate::store::outbox::Outbox;

/// A body that always has the same bytes, and what is told about it.
pub(super) struct Ranged {
    pub(super) segments: Vec<Segment>,
    /// With its quotes.
    pub(super) etag: String,
    pub(super) content_type: String,
    pub(super) disposition: Option<String>,
    pub(super) modified: SystemTime,
    pub(super) cache_control: &'static str,
}

impl Ranged {
    pub(super) fn respond(
        self,
        app: &App,
        headers: &HeaderMap,
        outbox: Option<Arc<Outbox>>,
    ) -> Response {
        let length: u64 = self.segments.iter().map(Segment::len).sum();
        let mut response = Response::new(Body::empty());
        reply::set(&mut response, header::ETAG, &self.etag);
        reply::set(&mut response, header::ACCEPT_RANGES, "bytes");
        reply::set(&mut response, header::CACHE_CONTROL, self.cache_control);
        let modified = Timestamp::try_from(self.modified).ok().and_then(http_date);
        if let Some(modified) = &modified {
            reply::set(&mut response, header::LAST_MODIFIED, modified);
        }
        if is_known(headers, &self.etag, modified.as_deref()) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        reply::set(&mut response, header::CONTENT_TYPE, &self.content_type);
        if let Some(disposition) = &self.disposition {
            reply::set(&mut response, header::CONTENT_DISPOSITION, disposition);
        }
        let current = text(headers, header::IF_RANGE)
            .is_none_or(|tag| tag == self.etag || Some(tag) == modified.as_deref());
        let range = text(headers, header::RANGE).filter(|_| current);
        let range = match range.map(|range| parse_range(range, length)) {
            None | Some(RangeRequest::Whole) => 0..length,
            Some(RangeRequest::Part(range)) => {
                let shown = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                reply::set(&mut response, header::CONTENT_RANGE, &shown);
                range
            }
            Some(RangeRequest::Impossible) => {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                reply::set(&mut response, header::CONTENT_RANGE, &format!("bytes */{length}"));
                return response;
            }
        };
        reply::set(&mut response, header::CONTENT_LENGTH, &(range.end - range.start).to_string());
        let segments = slice(self.segments, &range);
        *response.body_mut() = match outbox {
            Some(outbox) => Body::from_stream(Blobs::send(outbox, segments)),
            None => Body::from_stream(app.blobs.read(segments)),
        };
        response
    }
}

/// All of a blob.
pub(super) fn whole(blob: OpenBlob) -> Segment {
    let size = blob.size;
    Segment::Blob(blob, 0..size)
}

/// Whether the client has what has this entity tag, or this time where a time tells it.
pub(super) fn is_known(headers: &HeaderMap, etag: &str, modified: Option<&str>) -> bool {
    let mut tags = headers.get_all(header::IF_NONE_MATCH).iter().peekable();
    if tags.peek().is_some() {
        let mut tags = tags.filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(','));
        return tags.any(|tag| matches_tag(tag, etag));
    }
    modified.is_some() && text(headers, header::IF_MODIFIED_SINCE) == modified
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The pieces of `segments` that lie in `range`.
fn slice(segments: Vec<Segment>, range: &Range<u64>) -> Vec<Segment> {
    let mut position = 0;
    let mut pieces = Vec::new();
    for segment in segments {
        let (start, end) = (position, position + segment.len());
        let from = range.start.clamp(start, end) - start;
        let to = range.end.clamp(start, end) - start;
        if from < to {
            pieces.push(segment.slice(from, to));
        }
        position = end;
    }
    pieces
}

#[derive(Debug, PartialEq, Eq)]
enum RangeRequest {
    /// No range, or one that may be ignored.
    Whole,
    Part(Range<u64>),
    Impossible,
}

/// One range of bytes; several at once are answered with the whole, which RFC 9110 allows.
fn parse_range(text: &str, length: u64) -> RangeRequest {
    let Some((unit, range)) = text.trim().split_once('=') else { return RangeRequest::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return RangeRequest::Whole;
    }
    let Some((from, to)) = range.split_once('-') else { return RangeRequest::Whole };
    let number = |text: &str| {
        let digits = Some(text.trim()).filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()))?;
        // More than can be counted is beyond any file.
        (!digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX))
    };
    match (number(from), number(to), from.trim().is_empty(), to.trim().is_empty()) {
        (Some(from), Some(to), ..) if from <= to && from < length => {
            RangeRequest::Part(from..to.saturating_add(1).min(length))
        }
        (Some(from), None, _, true) if from < length => RangeRequest::Part(from..length),
        (None, Some(last), true, _) if last > 0 && length > 0 => {
            RangeRequest::Part(length.saturating_sub(last)..length)
        }
        (Some(from), Some(to), ..) if from > to => RangeRequest::Whole,
        (Some(_), Some(_), ..) | (Some(_), None, _, true) | (None, Some(_), true, _) => {
            RangeRequest::Impossible
        }
        _ => RangeRequest::Whole,
    }
}

fn matches_tag(given: &str, etag: &str) -> bool {
    let given = given.trim();
    given == "*" || given.strip_prefix("W/").unwrap_or(given) == etag
}

/// A time as HTTP spells it.
pub(super) fn http_date(time: Timestamp) -> Option<String> {
    rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let cases = [
            ("bytes=0-0", RangeRequest::Part(0..1)),
            ("bytes=2-", RangeRequest::Part(2..10)),
            ("bytes=-3", RangeRequest::Part(7..10)),
            ("bytes=-30", RangeRequest::Part(0..10)),
            ("bytes=5-100", RangeRequest::Part(5..10)),
            ("Bytes=5-99999999999999999999999", RangeRequest::Part(5..10)),
            ("bytes=+1-2", RangeRequest::Whole),
            ("bytes=10-", RangeRequest::Impossible),
            ("bytes=-0", RangeRequest::Impossible),
            ("bytes=4-2", RangeRequest::Whole),
            ("bytes=0-1,3-4", RangeRequest::Whole),
            ("lines=1-2", RangeRequest::Whole),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
    }

    #[test]
    fn slicing_any_range_gives_its_bytes() {
        let texts = ["abc", "", "defgh", "i"];
        let all = texts.concat();
        for from in 0..=all.len() {
            for to in from..=all.len() {
                let segments = texts.iter().map(|text| Segment::Inline((*text).into())).collect();
                let mut bytes = Vec::new();
                for piece in slice(segments, &(from as u64..to as u64)) {
                    let Segment::Inline(piece) = piece else { panic!("only inline pieces") };
                    bytes.extend_from_slice(&piece);
                }
                assert_eq!(bytes, all.as_bytes()[from..to]);
            }
        }
    }
}
