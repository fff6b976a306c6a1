//! What handlers read of a request: query, JSON body, entity tag, upload headers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use lxd_proto::config::parse_bool;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::image::Properties;
use lxd_proto::routes::header as upload;
use lxd_proto::routes::query;
use lxd_proto::time;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, IMAGE_NOT_FOUND, MIRROR_NOT_FOUND, Result};
use crate::service::upload::{Mirrored, Request, SILENCE};

/// The largest JSON body, in bytes.
pub(super) const JSON_LIMIT: usize = 1 << 20;
/// The largest JSON body that is a list of images, in bytes.
const LIST_LIMIT: usize = 64 << 20;
/// The largest JSON body of a stranger: a certificate and a token have a few thousand bytes.
const STRANGERS_LIMIT: usize = 32 << 10;
/// How long it may take.
const STRANGERS_TIME: Duration = Duration::from_secs(10);

/// Query of a request, decoded.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(super) fn of(uri: &'a Uri) -> Self {
        let text = uri.query().unwrap_or_default();
        Self(url::form_urlencoded::parse(text.as_bytes()).collect())
    }

    /// The first value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_ref())
    }

    /// Whether objects are wanted instead of paths.
    pub(super) fn recursion(&self) -> bool {
        self.flag(query::RECURSION)
    }

    /// The value as a number; zero where it is none.
    pub(super) fn number(&self, key: &str) -> i64 {
        self.get(key).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// Whether the value is a number other than zero.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.number(key) != 0
    }
}

/// A JSON body of bounded size. Go clients send it with or without a content type.
pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Result<T> {
    bounded(body, JSON_LIMIT, SILENCE).await
}

/// The same for lists of images, which only trusted callers send.
pub(super) async fn long_json<T: DeserializeOwned>(body: Body) -> Result<T> {
    bounded(body, LIST_LIMIT, SILENCE).await
}

/// The same where an empty body says nothing.
pub(super) async fn optional_json<T: DeserializeOwned + Default>(body: Body) -> Result<T> {
    let body = within(SILENCE, Limited::new(body, JSON_LIMIT).collect()).await?;
    let bytes = body.map_err(|error| Error::Upload(error.to_string()))?.to_bytes();
    if bytes.is_empty() { Ok(T::default()) } else { parse(&bytes) }
}

/// The same from a caller who may be anybody: thousands of them together must not hold much.
pub(super) async fn small_json<T: DeserializeOwned>(body: Body) -> Result<T> {
    bounded(body, STRANGERS_LIMIT, STRANGERS_TIME).await
}

async fn bounded<T: DeserializeOwned>(body: Body, limit: usize, time: Duration) -> Result<T> {
    let body = within(time, Limited::new(body, limit).collect()).await?;
    let bytes = body.map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() {
            Error::BadRequest(format!("the request body has more than {limit} bytes"))
        } else {
            Error::Upload(error.to_string())
        }
    })?;
    parse(&bytes.to_bytes())
}

/// What must be over in the time that a client may be silent.
pub(super) async fn in_time<T>(work: impl Future<Output = T>) -> Result<T> {
    within(SILENCE, work).await
}

async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(time, work).await.map_err(|_| {
        Error::Upload(format!("the request body did not end within {} s", time.as_secs()))
    })
}

/// Reads a JSON object as Go does: `null` stands for what is absent, for an empty text in a map of
/// texts, and for an object without fields.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let invalid = |error| Error::BadRequest(format!("the request body is no valid JSON: {error}"));
    let mut fields = match serde_json::from_slice(bytes).map_err(invalid)? {
        Value::Null => Map::new(),
        Value::Object(fields) => fields,
        _ => return Err(Error::BadRequest("the request body is no JSON object".into())),
    };
    fields.retain(|_, value| !value.is_null());
    for (name, value) in &mut fields {
        if let Value::Object(inner) = value {
            if MAPS_OF_TEXTS.contains(&name.as_str()) {
                inner.values_mut().filter(|value| value.is_null()).for_each(|value| {
                    *value = Value::String(String::new());
                });
            } else {
                inner.retain(|_, value| !value.is_null());
            }
        }
    }
    serde_json::from_value(Value::Object(fields)).map_err(invalid)
}

/// The fields of requests that hold a text for each name.
const MAPS_OF_TEXTS: [&str; 2] = ["properties", "config"];

/// The beginning of a fingerprint in a path; anything else names no image.
pub(super) fn prefix(text: &str) -> Result<Prefix> {
    text.parse().map_err(|_| IMAGE_NOT_FOUND)
}

/// `If-Match`. One that is no text matches nothing.
pub(super) fn etag(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::IF_MATCH).map(|value| value.to_str().unwrap_or("\u{fffd}"))
}

/// The value of an upload header under either of its names.
fn upload_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    upload::PREFIXES
        .iter()
        .find_map(|prefix| headers.get(format!("{prefix}{name}")))
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
}

/// The image that a server pushes, and the secret that allows it to.
pub(super) fn push_token(headers: &HeaderMap) -> Option<(Fingerprint, Cow<'_, str>)> {
    let secret = upload_header(headers, upload::SECRET).filter(|secret| !secret.is_empty())?;
    let fingerprint = upload_header(headers, upload::FINGERPRINT)?.parse().ok()?;
    Some((fingerprint, secret))
}

/// What the headers of an upload say about the image.
pub(super) fn upload_request(headers: &HeaderMap) -> Result<Request> {
    let flag =
        |name| upload_header(headers, name).and_then(|text| parse_bool(&text)).unwrap_or_default();
    let expected = match upload_header(headers, upload::FINGERPRINT) {
        None => None,
        Some(text) if text.is_empty() => None,
        Some(text) => Some(text.parse().map_err(|error| Error::BadRequest(format!("{error}")))?),
    };
    let aliases = upload_header(headers, upload::ALIASES).unwrap_or_default();
    let aliases = url::form_urlencoded::parse(aliases.as_bytes())
        .filter(|(key, _)| key == "alias")
        .map(|(_, name)| {
            let name = name.into_owned();
            name.try_into().map_err(|error| Error::BadRequest(format!("invalid alias: {error}")))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Request {
        public: flag(upload::PUBLIC),
        filename: upload_header(headers, upload::FILENAME).unwrap_or_default().into_owned(),
        properties: properties(headers),
        expected,
        aliases,
        reuse: flag(upload::ALIAS_REUSE),
        verify: flag(upload::VERIFY),
        made_here: false,
        push: None,
        mirrored: mirrored(headers)?,
    })
}

/// What an upload says about the mirror that it is for.
fn mirrored(headers: &HeaderMap) -> Result<Option<Mirrored>> {
    let Some(name) = upload_header(headers, upload::MIRROR).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let mirror = name.parse().map_err(|_| MIRROR_NOT_FOUND)?;
    let time = |name| match upload_header(headers, name) {
        None => Ok(None),
        Some(text) => time::parse(&text)
            .map(Some)
            .ok_or_else(|| Error::BadRequest(format!("{name}: \"{text}\" is no time"))),
    };
    Ok(Some(Mirrored {
        mirror,
        created_at: time(upload::CREATED_AT)?,
        expires_at: time(upload::EXPIRES_AT)?,
    }))
}

/// `X-LXD-properties`, query-encoded and repeatable; the first value of a key wins.
fn properties(headers: &HeaderMap) -> Properties {
    let mut properties = BTreeMap::new();
    for prefix in upload::PREFIXES {
        for value in headers.get_all(format!("{prefix}{}", upload::PROPERTIES)) {
            for (key, value) in url::form_urlencoded::parse(value.as_bytes()) {
                properties.entry(key.into_owned()).or_insert_with(|| value.into_owned());
            }
        }
    }
    properties
}
