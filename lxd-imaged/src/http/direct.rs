//! `/lxd/ALIAS`: a public image behind a URL, as `lxc image import URL` asks for it.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use lxd_proto::arch::Architecture;
use lxd_proto::routes::{self, direct};

use super::Daemon;
use super::reply::Reply;
use crate::app::App;
use crate::catalog::Entry;
use crate::error::{Error, Result};
use crate::service;
use crate::streams::files;

pub(super) async fn get(
    State(app): Daemon,
    Path(alias): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Reply {
    match page(&app, &alias, &uri, &headers) {
        Ok(response) => Reply::Raw(response),
        Err(error) => error.into(),
    }
}

fn page(app: &App, alias: &str, uri: &Uri, headers: &HeaderMap) -> Result<Response> {
    let entry = service::direct::find(app, alias, architectures(headers).as_deref())?;
    let (name, blob) = files::head(&entry);
    let path = routes::STREAMS_FILE.url(&[&blob.digest.to_string(), name]);
    let server = format!("https://{}", host(uri, headers)?);
    let url = format!("{server}{path}");
    let text = text(alias, &entry, &server, &url);
    let mut response = Response::new(Body::empty());
    for (header, value) in [
        (direct::URL, url.as_str()),
        (direct::INCUS_URL, &url),
        (direct::HASH, &blob.digest.to_string()),
        (direct::INCUS_HASH, &blob.digest.to_string()),
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", &text.len().to_string()),
        // Another server may get another image, and everybody a newer one.
        ("cache-control", "no-cache"),
        ("vary", &format!("{}, {}", direct::ARCHITECTURES, direct::INCUS_ARCHITECTURES)),
    ] {
        let (Ok(header), Ok(value)) = (header.parse::<HeaderName>(), HeaderValue::from_str(value))
        else {
            return Err(Error::BadRequest("the Host header is no host".into()));
        };
        response.headers_mut().insert(header, value);
    }
    *response.body_mut() = Body::from(text);
    Ok(response)
}

/// What the caller can run, as far as it is known here; `None` if it does not say.
fn architectures(headers: &HeaderMap) -> Option<Vec<Architecture>> {
    let names = [direct::ARCHITECTURES, direct::INCUS_ARCHITECTURES];
    let value = names.iter().find_map(|name| headers.get(*name)?.to_str().ok());
    let words = value.filter(|value| !value.trim().is_empty())?.split(',').map(str::trim);
    Some(words.filter_map(|word| word.parse().ok()).take(Architecture::ALL.len()).collect())
}

/// The host as the caller spells it.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str> {
    let header = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let host = uri.authority().map(http::uri::Authority::as_str).or(header).unwrap_or_default();
    let parsed = host.parse::<http::uri::Authority>().ok();
    match parsed.filter(|authority| !authority.as_str().contains('@')) {
        Some(_) => Ok(host),
        None => Err(Error::BadRequest("the Host header is no host".into())),
    }
}

fn text(alias: &str, entry: &Entry, server: &str, url: &str) -> String {
    let image = &entry.image;
    let description = image.properties.get("description");
    let description = description.map(|text| format!("{text}\n")).unwrap_or_default();
    format!(
        "{alias}\n{description}\n\
         fingerprint   {}\n\
         architecture  {}\n\
         type          {}\n\
         size          {} bytes\n\
         file          {url}\n\n\
         To import it: lxc image import {server}{}\n",
        image.fingerprint,
        image.architecture,
        image.kind,
        image.size,
        routes::DIRECT.template().replace("{alias}", alias),
    )
}
