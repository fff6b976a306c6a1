//! `/1.0/images/aliases`.

use axum::Extension;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use http::HeaderMap;
use lxd_proto::alias::{AliasPost, AliasPut, AliasesPost};
use lxd_proto::routes;

use super::Daemon;
use super::extract::{self, Query};
use super::reply::Reply;
use crate::app::{App, Caller};
use crate::error::Result;
use crate::service::aliases;

pub(super) async fn list(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let all = app.catalog.aliases(caller.viewer);
    Reply::list(Query::of(&uri).recursion(), &all, |alias| routes::ALIAS.url(&[&alias.name]))
}

pub(super) async fn get(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Reply {
    match app.catalog.alias(caller.viewer, &name) {
        Ok(alias) => Reply::tagged(&alias, aliases::etag(&alias)),
        Err(error) => error.into(),
    }
}

pub(super) async fn create(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Reply {
    let created = async {
        let post: AliasesPost = extract::json(body).await?;
        aliases::create(&app, &caller, post).await
    };
    match created.await {
        Ok(name) => Reply::Created(routes::ALIAS.url(&[name.as_str()])),
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
    update(&app, &caller, &name, &headers, body, false).await.into()
}

pub(super) async fn patch(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    update(&app, &caller, &name, &headers, body, true).await.into()
}

async fn update(
    app: &App,
    caller: &Caller,
    name: &str,
    headers: &HeaderMap,
    body: Body,
    keep: bool,
) -> Result<()> {
    let put: AliasPut = extract::json(body).await?;
    aliases::update(app, caller, name, extract::etag(headers), put, keep).await
}

pub(super) async fn rename(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Body,
) -> Reply {
    let renamed = async {
        let post: AliasPost = extract::json(body).await?;
        aliases::rename(&app, &caller, &name, post.name).await
    };
    match renamed.await {
        Ok(name) => Reply::Created(routes::ALIAS.url(&[name.as_str()])),
        Err(error) => error.into(),
    }
}

pub(super) async fn delete(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Reply {
    let deleted = async { aliases::delete(&app, &caller, &name).await };
    deleted.await.into()
}
