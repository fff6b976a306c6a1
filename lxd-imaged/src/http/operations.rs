//! `/1.0/operations`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{OriginalUri, Path, State};
use axum::response::{IntoResponse, Response};
use lxd_proto::event::action;
use lxd_proto::operation::{Operation, OperationClass};
use lxd_proto::routes;

use super::Daemon;
use super::extract::Query;
use super::reply::Reply;
use super::sockets;
use crate::app::{App, Caller, Client};
use crate::error::{Error, Result};
use crate::ops;
use crate::service::{secrets, trust};

/// Paths or objects, by status.
pub(super) async fn list(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    // What is going on, and the tokens in it, is not for clients that may only read.
    let operations = if caller.is_trusted() { app.operations.all() } else { Vec::new() };
    let mut by_status: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        by_status.entry(operation.status.name().to_ascii_lowercase()).or_default().push(operation);
    }
    if Query::of(&uri).recursion() {
        return Reply::json(&by_status);
    }
    let paths: BTreeMap<_, Vec<String>> = by_status
        .into_iter()
        .map(|(status, operations)| (status, operations.iter().map(ops::path).collect()))
        .collect();
    Reply::json(&paths)
}

pub(super) async fn get(State(app): Daemon, Path(id): Path<String>) -> Reply {
    match app.operations.get(&id) {
        Ok(operation) => Reply::json(&operation),
        Err(error) => error.into(),
    }
}

/// Answers 200 also when the time is over: the object tells how the operation stands.
pub(super) async fn wait(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    client: Option<Extension<Arc<Client>>>,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let waited = async {
        let query = Query::of(&uri);
        may_follow(&app, &caller, &id, &query)?;
        let timeout = timeout(&query)?;
        let operation = app.operations.wait(&id, timeout).await?;
        // Trust may have ended meanwhile.
        let caller = client.map_or(caller, |Extension(client)| trust::caller(&app, &client));
        may_follow(&app, &caller, &id, &query)?;
        Ok::<_, Error>(operation)
    };
    match waited.await {
        Ok(operation) => Reply::json(&operation),
        Err(error) => error.into(),
    }
}

/// Others than trusted clients need the secret that the operation's reply has told them. An
/// operation that is not there is refused like one of others.
fn may_follow(app: &App, caller: &Caller, id: &str, query: &Query<'_>) -> Result<()> {
    let secret = query.get(routes::query::SECRET).unwrap_or_default();
    if caller.is_trusted() || secrets::opens_wait(app, id, secret) {
        return Ok(());
    }
    Err(Error::Forbidden)
}

/// Seconds; missing or negative means for ever.
fn timeout(query: &Query<'_>) -> Result<Option<Duration>> {
    match query.get(routes::query::TIMEOUT) {
        None | Some("") => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(seconds) => Ok(seconds.try_into().ok().map(Duration::from_secs)),
            Err(_) => Err(Error::BadRequest(format!("timeout: \"{text}\" is not a number"))),
        },
    }
}

pub(super) async fn cancel(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Reply {
    let cancelled = app.operations.cancel(&id);
    if cancelled.is_ok() {
        let source = routes::OPERATION.url(&[&id]);
        let requestor = Some(&caller.requestor);
        app.events.lifecycle(action::OPERATION_CANCELLED, source, &[], requestor);
    }
    cancelled.into()
}

/// A websocket that an operation waits for; whoever has its secret may bring it.
pub(super) async fn websocket(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let query = Query::of(&uri);
    let secret = query.get(routes::query::SECRET).unwrap_or_default();
    let Ok(upgrade) = upgrade else {
        return refusal(&app, &caller, &id, &query).into_response();
    };
    match app.sockets.claim(&id, secret) {
        Some(claim) => sockets::accept(upgrade, claim, app.shutdown.clone()),
        None => refusal(&app, &caller, &id, &query).into_response(),
    }
}

fn refusal(app: &App, caller: &Caller, id: &str, query: &Query<'_>) -> Reply {
    if let Err(error) = may_follow(app, caller, id, query) {
        return error.into();
    }
    match app.operations.get(id) {
        Ok(operation) if operation.class == OperationClass::Websocket => Error::Forbidden.into(),
        Ok(_) => Error::NoWebsocket.into(),
        Err(error) => error.into(),
    }
}
