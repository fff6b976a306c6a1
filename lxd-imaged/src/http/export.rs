//! `/1.0/images/FINGERPRINT/export`: the files of an image, whole or in ranges.
//!
//! A split image is multipart with a boundary that follows from its fingerprint: the body has a
//! known length and always the same bytes, so that it too can be fetched in ranges.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Extension;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use lxd_proto::event::action;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::InstanceType;
use lxd_proto::routes::query;

use super::Daemon;
use super::extract::{self, Query};
use super::reply::{self, Reply};
use crate::app::{App, Caller};
use crate::catalog::Entry;
use crate::db::BlobRow;
use crate::error::{Error, Result};
use crate::service::{images, secrets};
use crate::store::blobs::{Blobs, OpenBlob, Segment};
use crate::store::outbox::Outbox;

pub(super) async fn get(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
    outbox: Option<Extension<Arc<Outbox>>>,
    OriginalUri(uri): OriginalUri,
    method: Method,
    headers: HeaderMap,
) -> Reply {
    let export = async {
        let prefix = extract::prefix(&fingerprint)?;
        let secret = Query::of(&uri).get(query::SECRET).map(str::to_owned);
        let opened = secret.and_then(|secret| secrets::open(&app, &prefix, &secret));
        let (entry, transfer) = match opened {
            Some((entry, transfer)) => (entry, Some(transfer)),
            None => (images::get(&app, &caller, &prefix)?, None),
        };
        let body = Export::of(&app, &entry).await?;
        if method == Method::GET && entry.rootfs.is_none() {
            images::tell(&app, &caller, action::IMAGE_RETRIEVED, &entry.image.fingerprint, &[]);
        }
        let response = body.respond(&app, &headers, outbox.map(|Extension(outbox)| outbox));
        Ok::<_, Error>(response.map(|body| match transfer {
            None => body,
            // The secret works as long as what it opened is on its way.
            Some(transfer) => Body::new(body.map_frame(move |frame| {
                let _ = &transfer;
                frame
            })),
        }))
    };
    match export.await {
        Ok(response) => Reply::Raw(response),
        Err(error) => error.into(),
    }
}

/// A body made of pieces of blobs.
struct Export {
    segments: Vec<Segment>,
    length: u64,
    etag: String,
    content_type: String,
    disposition: Option<String>,
    modified: SystemTime,
}

impl Export {
    async fn of(app: &App, entry: &Entry) -> Result<Self> {
        let head = open(app, &entry.head).await?;
        let fingerprint = entry.image.fingerprint;
        let mut export = Self {
            segments: Vec::new(),
            length: 0,
            etag: format!("\"{fingerprint}\""),
            content_type: "application/octet-stream".into(),
            disposition: None,
            modified: head.modified,
        };
        match &entry.rootfs {
            None => {
                let name = format!("{fingerprint}{}", entry.head.extension);
                export.disposition = Some(format!("inline;filename={name}"));
                export.segments.push(whole(head));
            }
            Some(rootfs) => {
                let part = match entry.image.kind {
                    InstanceType::Container => "rootfs",
                    InstanceType::VirtualMachine => "rootfs.img",
                };
                let boundary = boundary(&fingerprint);
                let meta = format!("meta-{fingerprint}{}", entry.head.extension);
                let root = format!("{fingerprint}{}", rootfs.extension);
                export.content_type = format!("multipart/form-data; boundary={boundary}");
                export.segments = vec![
                    inline(part_head("", &boundary, "metadata", &meta)),
                    whole(head),
                    inline(part_head("\r\n", &boundary, part, &root)),
                    whole(open(app, rootfs).await?),
                    inline(format!("\r\n--{boundary}--\r\n")),
                ];
            }
        }
        export.length = export.segments.iter().map(Segment::len).sum();
        Ok(export)
    }

    fn respond(self, app: &App, headers: &HeaderMap, outbox: Option<Arc<Outbox>>) -> Response {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let mut response = Response::new(Body::empty());
        reply::set(&mut response, header::ETAG, &self.etag);
        reply::set(&mut response, header::ACCEPT_RANGES, "bytes");
        // An image never changes under its fingerprint; but it may stop being public.
        reply::set(&mut response, header::CACHE_CONTROL, "private, no-cache");
        let modified = http_date(self.modified);
        if let Some(modified) = &modified {
            reply::set(&mut response, header::LAST_MODIFIED, modified);
        }
        let not_modified = match text(header::IF_NONE_MATCH) {
            Some(tags) => tags.split(',').any(|tag| matches_tag(tag, &self.etag)),
            None => modified.is_some() && text(header::IF_MODIFIED_SINCE) == modified.as_deref(),
        };
        if not_modified {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        reply::set(&mut response, header::CONTENT_TYPE, &self.content_type);
        if let Some(disposition) = &self.disposition {
            reply::set(&mut response, header::CONTENT_DISPOSITION, disposition);
        }
        let current = text(header::IF_RANGE)
            .is_none_or(|tag| matches_tag(tag, &self.etag) || Some(tag) == modified.as_deref());
        let range =
            text(header::RANGE).filter(|_| current).map(|range| parse_range(range, self.length));
        let range = match range {
            None | Some(RangeRequest::Whole) => 0..self.length,
            Some(RangeRequest::Part(range)) => {
                let shown = format!("bytes {}-{}/{}", range.start, range.end - 1, self.length);
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                reply::set(&mut response, header::CONTENT_RANGE, &shown);
                range
            }
            Some(RangeRequest::Impossible) => {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                let shown = format!("bytes */{}", self.length);
                reply::set(&mut response, header::CONTENT_RANGE, &shown);
                return response;
            }
        };
        let length = range.end - range.start;
        reply::set(&mut response, header::CONTENT_LENGTH, &length.to_string());
        let segments = slice(self.segments, &range);
        *response.body_mut() = match outbox {
            Some(outbox) => Body::from_stream(Blobs::send(outbox, segments)),
            None => Body::from_stream(app.blobs.read(segments)),
        };
        response
    }
}

/// Opens a blob that is what its record says, as far as can be seen without reading it.
async fn open(app: &App, row: &BlobRow) -> Result<OpenBlob> {
    let lost = |how: &str| {
        Error::Internal(format!(
            "the blob {} {how}; import the same image again, or stop lxd-imaged and run its fsck",
            row.digest
        ))
    };
    let blob = app.blobs.get(&row.digest).await?.ok_or_else(|| lost("is missing"))?;
    if blob.has(row.size) { Ok(blob) } else { Err(lost("has not all its bytes")) }
}

fn whole(blob: OpenBlob) -> Segment {
    let size = blob.size;
    Segment::Blob(blob, 0..size)
}

fn inline(text: String) -> Segment {
    Segment::Inline(Bytes::from(text))
}

/// Cannot occur in a file by chance: it is the hash of the two files around it.
fn boundary(fingerprint: &Fingerprint) -> String {
    format!("lxd-imaged-{fingerprint}")[..70].to_owned()
}

fn part_head(before: &str, boundary: &str, name: &str, filename: &str) -> String {
    format!(
        "{before}--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
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
    let Some(range) = text.trim().strip_prefix("bytes=") else { return RangeRequest::Whole };
    let Some((from, to)) = range.split_once('-') else { return RangeRequest::Whole };
    let number = |text: &str| text.trim().parse::<u64>().ok();
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

fn http_date(time: SystemTime) -> Option<String> {
    let time = Timestamp::try_from(time).ok()?;
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
                let segments = texts.iter().map(|text| inline((*text).to_owned())).collect();
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
