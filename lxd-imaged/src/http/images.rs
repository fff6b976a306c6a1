//! `/1.0/images`.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, BodyDataStream};
use axum::extract::{OriginalUri, Path, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, header};
use lxd_proto::filter::Filter;
use lxd_proto::image::{ImagePatch, ImagePut, ImagesPost};
use lxd_proto::multipart::boundary_of;
use lxd_proto::operation::Operation;
use lxd_proto::{envelope, routes};

use super::Daemon;
use super::extract::{self, Query};
use super::form::Form;
use super::reply::{self, Reply};
use crate::acquire::Wish;
use crate::app::{App, Caller};
use crate::catalog::Entry;
use crate::error::{Error, Result};
use crate::service::images::{self, Page};
use crate::service::upload::{Request, Upload};
use crate::service::{secrets, sources};

/// Bytes of one piece of a long list.
const LIST_CHUNK: usize = 128 << 10;

/// The path of an image.
pub(super) fn path(entry: &Entry) -> String {
    routes::IMAGE.url(&[&entry.image.fingerprint.to_string()])
}

pub(super) async fn list(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let query = Query::of(&uri);
    match page(&query) {
        Err(error) => error.into(),
        Ok(page) => {
            let images = images::list(&app, &caller, &page);
            if query.recursion() {
                Reply::Raw(rendered(images))
            } else {
                Reply::json(&images.iter().map(|entry| path(entry)).collect::<Vec<_>>())
            }
        }
    }
}

fn page(query: &Query<'_>) -> Result<Page> {
    let filter = Filter::parse(query.get(routes::query::FILTER).unwrap_or_default())?;
    let after = match query.get(routes::query::AFTER) {
        None | Some("") => None,
        Some(text) => Some(text.parse().map_err(|e| Error::BadRequest(format!("after: {e}")))?),
    };
    let limit = match query.get(routes::query::LIMIT) {
        None | Some("") => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| Error::BadRequest(format!("limit: \"{text}\" is not a number")))?,
        ),
    };
    Ok(Page { filter, after, limit, all_versions: query.flag(routes::query::ALL_VERSIONS) })
}

/// A list of images from their rendered objects: nothing is serialised again.
fn rendered(images: Vec<Arc<Entry>>) -> Response {
    let commas = images.len().saturating_sub(1);
    let length = images.iter().map(|entry| entry.json.len()).sum::<usize>()
        + commas
        + "[]".len()
        + envelope::SYNC_HEAD.len()
        + envelope::TAIL.len();
    let mut images = images.into_iter();
    let mut stage = Stage::Head;
    let body = stream::iter(std::iter::from_fn(move || {
        let mut chunk = String::with_capacity(LIST_CHUNK.min(length) + 4096);
        if matches!(stage, Stage::Done) {
            return None;
        }
        if matches!(stage, Stage::Head) {
            chunk.push_str(envelope::SYNC_HEAD);
            chunk.push('[');
        }
        while chunk.len() < LIST_CHUNK {
            let Some(entry) = images.next() else {
                chunk.push(']');
                chunk.push_str(envelope::TAIL);
                stage = Stage::Done;
                return Some(Ok::<_, std::io::Error>(Bytes::from(chunk)));
            };
            if matches!(stage, Stage::Items) {
                chunk.push(',');
            }
            stage = Stage::Items;
            chunk.push_str(&entry.json);
        }
        Some(Ok(Bytes::from(chunk)))
    }));
    let mut response = Response::new(Body::from_stream(body));
    reply::set(&mut response, header::CONTENT_TYPE, "application/json");
    reply::set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    response
}

enum Stage {
    Head,
    Items,
    Done,
}

pub(super) async fn get(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let entry = extract::prefix(&fingerprint).and_then(|prefix| {
        let secret = Query::of(&uri).get(routes::query::SECRET).map(str::to_owned);
        match secret.and_then(|secret| secrets::open(&app, &prefix, &secret)) {
            Some((entry, _)) => Ok(entry),
            None => images::get(&app, &caller, &prefix),
        }
    });
    match entry {
        Ok(entry) => Reply::Tagged(entry.json.to_string(), images::etag(&entry.image)),
        Err(error) => error.into(),
    }
}

pub(super) async fn put(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let done = async {
        let prefix = extract::prefix(&fingerprint)?;
        let put: ImagePut = extract::json(body).await?;
        images::put(&app, &caller, &prefix, extract::etag(&headers), put).await
    };
    done.await.into()
}

pub(super) async fn patch(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let done = async {
        let prefix = extract::prefix(&fingerprint)?;
        let patch: ImagePatch = extract::json(body).await?;
        images::patch(&app, &caller, &prefix, extract::etag(&headers), patch).await
    };
    done.await.into()
}

pub(super) async fn delete(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
) -> Reply {
    let deleted =
        extract::prefix(&fingerprint).and_then(|prefix| images::delete(&app, &caller, &prefix));
    deleted.into()
}

/// `POST /1.0/images`: JSON, a unified image or a split one; LXD decides by the content.
pub(super) async fn create(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let push = match extract::push_token(&headers) {
        Some((fingerprint, secret)) => secrets::claim_push(&app, &fingerprint, &secret),
        None => None,
    };
    if let (None, Err(error)) = (&push, caller.must_be_trusted()) {
        return error.into();
    }
    let content_type = header_text(&headers, header::CONTENT_TYPE);
    let boundary = boundary_of(content_type);
    let result = match boundary {
        Some(boundary) => split(app, caller, &headers, push, body, boundary).await,
        None => unified_or_json(app, caller, &headers, push, body, content_type).await,
    };
    result.into()
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn unified_or_json(
    app: Arc<App>,
    caller: Caller,
    headers: &HeaderMap,
    push: Option<Wish>,
    body: Body,
    content_type: &str,
) -> Result<Operation> {
    let mut body = body.into_data_stream();
    let declared = content_type.starts_with("application/json");
    let (start, ended) = extract::in_time(beginning(&mut body, declared)).await??;
    if push.is_none() && (declared || ended) {
        match extract::parse::<ImagesPost>(&start) {
            Ok(post) => return sources::create(&app, &caller, post),
            Err(error) if declared => return Err(error),
            // Bytes that begin like JSON and are none: an image after all.
            Err(_) => {}
        }
    }
    let length = header_text(headers, header::CONTENT_LENGTH).parse().ok();
    let request = pushed(extract::upload_request(headers)?, push);
    let mut upload = Upload::new(app, caller, request);
    let body = stream::iter([Ok(start.freeze())]).chain(bytes(body));
    upload.unified(body, length).await?;
    upload.into_operation()
}

/// What of a request counts that a push token has let in: the bytes and what they are, but not
/// what is to become of them here. That was said by whoever asked for the token.
fn pushed(request: Request, push: Option<Wish>) -> Request {
    if push.is_none() {
        return request;
    }
    let Request { filename, properties, expected, .. } = request;
    Request { filename, properties, expected, push, ..Request::default() }
}

/// As much of the body as is needed to tell JSON from an image, and whether that is all of it.
async fn beginning(body: &mut BodyDataStream, declared: bool) -> Result<(BytesMut, bool)> {
    let mut start = BytesMut::new();
    let mut undecided = !declared;
    while start.len() < extract::JSON_LIMIT {
        let bytes = match body.next().await {
            None => return Ok((start, true)),
            Some(Err(error)) => return Err(Error::Upload(error.to_string())),
            Some(Ok(bytes)) => bytes,
        };
        start.extend_from_slice(&bytes);
        if undecided && let Some(byte) = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            // Only an object is a request; a number or a string is the beginning of some file.
            if *byte != b'{' {
                return Ok((start, false));
            }
            undecided = false;
        }
    }
    if declared {
        return Err(Error::BadRequest(format!(
            "the request body has more than {} bytes",
            extract::JSON_LIMIT
        )));
    }
    Ok((start, false))
}

fn bytes(body: BodyDataStream) -> impl Stream<Item = Result<Bytes>> + Unpin {
    body.map(|item| item.map_err(|error| Error::Upload(error.to_string())))
}

/// A split image: part `metadata`, then `rootfs` or `rootfs.img`; further parts are ignored.
async fn split(
    app: Arc<App>,
    caller: Caller,
    headers: &HeaderMap,
    push: Option<Wish>,
    body: Body,
    boundary: String,
) -> Result<Operation> {
    let mut request = pushed(extract::upload_request(headers)?, push);
    // LXD records the name of the rootfs part, whatever the header says.
    request.filename.clear();
    let mut upload = Upload::new(app, caller, request);
    let mut form = Form::new(body, &boundary)?;
    let mut index = 0;
    while let Some(head) = form.part().await? {
        let name = head.name.unwrap_or_default();
        let filename = head.filename.unwrap_or_default();
        let content = form.content();
        match (index, name.as_str()) {
            (0, "metadata") => upload.metadata(content).await?,
            (1, "rootfs") => upload.rootfs(content, filename, false).await?,
            (1, "rootfs.img") => upload.rootfs(content, filename, true).await?,
            (0 | 1, _) => {
                upload.refuse(Error::BadRequest("Invalid multipart image".into()));
                upload.drain(content).await?;
            }
            (_, _) => upload.drain(content).await?,
        }
        index += 1;
    }
    if index < 2 {
        upload.refuse(Error::BadRequest("Invalid multipart image".into()));
    }
    upload.into_operation()
}
