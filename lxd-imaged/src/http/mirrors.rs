//! `/1.0/mirrors`.

use axum::Extension;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use http::HeaderMap;
use lxd_proto::mirror::bundle::MirrorImportPost;
use lxd_proto::mirror::{MirrorPatch, MirrorPut, MirrorRunPost, MirrorsPost};
use lxd_proto::routes;

use super::Daemon;
use super::extract::{self, Query};
use super::reply::Reply;
use crate::app::Caller;
use crate::service::mirrors;

pub(super) async fn list(State(app): Daemon, OriginalUri(uri): OriginalUri) -> Reply {
    let all = mirrors::list(&app);
    Reply::list(Query::of(&uri).recursion(), &all, |it| routes::MIRROR.url(&[it.name.as_str()]))
}

pub(super) async fn create(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Reply {
    let created = async {
        let post: MirrorsPost = extract::json(body).await?;
        mirrors::create(&app, &caller, post).await
    };
    match created.await {
        Ok(name) => Reply::Created(routes::MIRROR.url(&[name.as_str()])),
        Err(error) => error.into(),
    }
}

pub(super) async fn get(State(app): Daemon, Path(name): Path<String>) -> Reply {
    match mirrors::get(&app, &name) {
        Ok(mirror) => Reply::tagged(&mirror, mirrors::etag(&mirror)),
        Err(error) => error.into(),
    }
}

pub(super) async fn put(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let done = async {
        let put: MirrorPut = extract::json(body).await?;
        mirrors::put(&app, &caller, &name, extract::etag(&headers), put).await
    };
    done.await.into()
}

pub(super) async fn patch(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let done = async {
        let patch: MirrorPatch = extract::json(body).await?;
        mirrors::patch(&app, &caller, &name, extract::etag(&headers), patch).await
    };
    done.await.into()
}

/// Its images go with it only when the query says so.
pub(super) async fn delete(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let images = Query::of(&uri).flag(routes::query::IMAGES);
    mirrors::delete(&app, &caller, &name, images).into()
}

pub(super) async fn run(State(app): Daemon, Path(name): Path<String>, body: Body) -> Reply {
    let begun = async {
        let post: MirrorRunPost = extract::optional_json(body).await?;
        mirrors::run::begin(&app, &name, post)
    };
    begun.await.into()
}

/// What a bundle of it holds.
pub(super) async fn manifest(State(app): Daemon, Path(name): Path<String>) -> Reply {
    match mirrors::bundle::manifest(&app, &name) {
        Ok(manifest) => Reply::json(&manifest),
        Err(error) => error.into(),
    }
}

/// The images of a bundle have been sent.
pub(super) async fn import(State(app): Daemon, Path(name): Path<String>, body: Body) -> Reply {
    let begun = async {
        let post: MirrorImportPost = extract::long_json(body).await?;
        mirrors::bundle::import(&app, &name, post)
    };
    begun.await.into()
}
