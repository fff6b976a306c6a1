//! `/streams/v1` and `/images`: the public images for simplestreams clients. Everybody gets what a
//! stranger gets.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use lxd_proto::fingerprint::Fingerprint;

use super::Daemon;
use super::ranged::{self, Ranged, http_date, is_known};
use super::reply::{self, Reply};
use crate::app::App;
use crate::error::{Error, Result};
use crate::service::withdrawn;
use crate::store::outbox::Outbox;
use crate::streams::Document;

/// A catalog is asked for again each time, with its entity tag: one that a cache has kept may not fit
/// the index that comes with it, and readers of signed ones would refuse both.
const JSON_AGE: &str = "no-cache";
/// What a file of this path is never changes.
const FILE_AGE: &str = "public, max-age=31536000, immutable";

/// One answer for what is not there and for what is not shown.
const NO_FILE: Error = Error::NotFound("there is no such file of a public image");
const UNSIGNED: Error = Error::NotFound("this server does not sign its catalogs");

pub(super) async fn index(State(app): Daemon, headers: HeaderMap) -> Reply {
    let index = async {
        let index = app.streams.current().await?.index().clone();
        send(&index, &headers, "application/json").await
    };
    raw(index.await)
}

pub(super) async fn catalog(State(app): Daemon, headers: HeaderMap) -> Reply {
    let catalog = async {
        let catalog = app.streams.current().await?.catalog().clone();
        send(&catalog, &headers, "application/json").await
    };
    raw(catalog.await)
}

pub(super) async fn signed_index(State(app): Daemon, headers: HeaderMap) -> Reply {
    let index = async {
        let index = app.streams.current().await?.signed_index().await?.ok_or(UNSIGNED)?;
        send(&index, &headers, "text/plain; charset=utf-8").await
    };
    raw(index.await)
}

pub(super) async fn signed_catalog(State(app): Daemon, headers: HeaderMap) -> Reply {
    let catalog = async {
        let catalog = app.streams.current().await?.signed_catalog().await?.ok_or(UNSIGNED)?;
        send(&catalog, &headers, "text/plain; charset=utf-8").await
    };
    raw(catalog.await)
}

pub(super) async fn file(
    State(app): Daemon,
    Path((sha256, name)): Path<(String, String)>,
    outbox: Option<Extension<Arc<Outbox>>>,
    headers: HeaderMap,
) -> Reply {
    raw(find(&app, &sha256, &name)
        .await
        .map(|file| file.respond(&app, &headers, outbox.map(|Extension(outbox)| outbox))))
}

async fn find(app: &App, sha256: &str, name: &str) -> Result<Ranged> {
    // Paths are compared as text: a cache is to hold one copy.
    let digest: Fingerprint = sha256.parse().map_err(|_| NO_FILE)?;
    if digest.to_string() != sha256 {
        return Err(NO_FILE);
    }
    let size = withdrawn::size(app, &digest, name).ok_or(NO_FILE)?;
    let blob = match app.blobs.get(&digest).await? {
        Some(blob) if blob.has(size) => blob,
        // It has gone since.
        _ if withdrawn::size(app, &digest, name).is_none() => return Err(NO_FILE),
        _ => return Err(Error::Internal(format!("the blob {digest} is not whole; run fsck"))),
    };
    Ok(Ranged {
        etag: format!("\"{digest}\""),
        content_type: "application/octet-stream".into(),
        disposition: None,
        modified: blob.modified,
        cache_control: FILE_AGE,
        segments: vec![ranged::whole(blob)],
    })
}

/// A document, packed for who wants it so, unless the client has it.
async fn send(document: &Arc<Document>, headers: &HeaderMap, kind: &str) -> Result<Response> {
    let packed = takes_gzip(headers);
    let mut response = Response::new(Body::empty());
    let suffix = if packed { "-gzip" } else { "" };
    let etag = format!("\"{}{suffix}\"", document.tag());
    reply::set(&mut response, header::ETAG, &etag);
    reply::set(&mut response, header::CACHE_CONTROL, JSON_AGE);
    reply::set(&mut response, header::VARY, "Accept-Encoding");
    let modified = http_date(document.modified());
    if let Some(modified) = &modified {
        reply::set(&mut response, header::LAST_MODIFIED, modified);
    }
    let dated = modified.as_deref().filter(|_| document.is_datable());
    if is_known(headers, &etag, dated) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    reply::set(&mut response, header::CONTENT_TYPE, kind);
    let bytes = if packed {
        reply::set(&mut response, header::CONTENT_ENCODING, "gzip");
        document.gzip().await?
    } else {
        document.bytes().clone()
    };
    reply::set(&mut response, header::CONTENT_LENGTH, &bytes.len().to_string());
    *response.body_mut() = Body::from(bytes);
    Ok(response)
}

/// Whether a client says that it takes gzip.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|it| it.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut words = coding.split(';').map(str::trim);
        let name = words.next().unwrap_or_default();
        let refused = |word: &str| {
            let quality =
                word.split_once('=').filter(|(key, _)| key.trim().eq_ignore_ascii_case("q"));
            quality.is_some_and(|(_, it)| !it.trim().parse::<f32>().is_ok_and(|it| it > 0.0))
        };
        name.eq_ignore_ascii_case("gzip") && !words.any(refused)
    })
}

fn raw(result: Result<Response>) -> Reply {
    match result {
        Ok(response) => Reply::Raw(response),
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_who_takes_it() {
        for (value, takes) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("br,gzip ; q=1", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("gzip;Q=0", false),
            ("gzip;q=x", false),
            ("identity", false),
            ("x-gzip", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(takes_gzip(&headers), takes, "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
