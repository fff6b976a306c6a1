//! Who may call what: one table over all routes, asked before any handler runs.
//!
//! What a caller may see of an image is decided by the catalog; this decides what they may ask.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use lxd_proto::config::{self, parse_bool};
use lxd_proto::routes::{self, Route};

use super::Daemon;
use super::reply::Reply;
use crate::app::{App, Caller, Client};
use crate::error::{Error, Result};
use crate::service::trust;

/// Says that the client expects to be trusted, and wants no stranger's answer.
const AUTHENTICATED: &str = "X-LXD-authenticated";

/// Whom a request is open to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everyone; the handler shows each what is theirs, or asks for a secret.
    Anyone,
    /// Clients in the trust store, restricted ones too.
    Known,
    /// Clients that may change things.
    Trusted,
    /// The unix socket only.
    Local,
}

/// What is not for [`Access::Trusted`] callers alone. Everything else is.
const TABLE: &[(Route, &[Method], Access)] = {
    use Access::{Anyone, Known, Local};
    const GET: &[Method] = &[Method::GET];
    const POST: &[Method] = &[Method::POST];
    &[
        (routes::API, GET, Anyone),
        (routes::IMAGES, GET, Anyone),
        // With a push token.
        (routes::IMAGES, POST, Anyone),
        (routes::IMAGE, GET, Anyone),
        (routes::IMAGE_EXPORT, GET, Anyone),
        (routes::IMAGE_SECRET, POST, Known),
        (routes::IMAGE_HISTORY, GET, Known),
        (routes::ALIASES, GET, Known),
        (routes::ALIAS, GET, Anyone),
        // With the password or a join token.
        (routes::CERTIFICATES, POST, Anyone),
        (routes::CERTIFICATES, GET, Known),
        (routes::CERTIFICATE, GET, Known),
        // With the operation's secret.
        (routes::OPERATION_WAIT, GET, Anyone),
        (routes::OPERATION_WEBSOCKET, GET, Anyone),
        (routes::OPERATIONS, GET, Known),
        (routes::PROJECTS, GET, Known),
        (routes::PROJECT, GET, Known),
        (routes::PROFILES, GET, Known),
        (routes::PROFILE, GET, Known),
        (routes::STORAGE_POOLS, GET, Known),
        (routes::STORAGE_POOL, GET, Known),
        (routes::STREAMS_INDEX, GET, Anyone),
        (routes::STREAMS_CATALOG, GET, Anyone),
        (routes::STREAMS_SIGNED_INDEX, GET, Anyone),
        (routes::STREAMS_SIGNED_CATALOG, GET, Anyone),
        (routes::STREAMS_FILE, GET, Anyone),
        (routes::DIRECT, GET, Anyone),
        (routes::SHUTDOWN, POST, Local),
        (routes::READY, GET, Local),
    ]
};

/// Whom a method of a route, as the router spells it, is open to.
pub(super) fn required(route: &str, method: &Method) -> Access {
    if route == routes::ROOT.template() {
        return Access::Anyone;
    }
    // Routes answer HEAD like GET.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    // The wildcards of the router.
    let route = route.replace("{*", "{");
    let row = TABLE
        .iter()
        .find(|(known, methods, _)| known.template() == route && methods.contains(method));
    row.map_or(Access::Trusted, |(_, _, access)| *access)
}

fn check(access: Access, caller: &Caller) -> Result<()> {
    match access {
        Access::Anyone => Ok(()),
        Access::Known => caller.must_be_known(),
        Access::Trusted => caller.must_be_trusted(),
        Access::Local => {
            caller.must_be_trusted()?;
            if caller.requestor.protocol == "unix" { Ok(()) } else { Err(Error::Forbidden) }
        }
    }
}

/// Finds out who a client on the network is, and refuses what it may not ask.
pub(super) async fn admit(State(app): Daemon, mut request: Request, next: Next) -> Response {
    if let Some(client) = request.extensions().get::<Arc<Client>>() {
        let caller = trust::caller(&app, client);
        request.extensions_mut().insert(caller);
    }
    let Some(caller) = request.extensions().get::<Caller>() else {
        return Reply::from(Error::Forbidden).into_response();
    };
    let expects_trust = request.headers().get(AUTHENTICATED).is_some_and(|value| value == "true");
    if expects_trust && caller.must_be_known().is_err() {
        return Reply::from(Error::Forbidden).into_response();
    }
    // A path that no route knows is 404 for everyone.
    let route = request.extensions().get::<MatchedPath>();
    let access = route.map(|route| required(route.as_str(), request.method()));
    match access.map_or(Ok(()), |access| check(access, caller)) {
        Ok(()) => next.run(request).await,
        Err(error) => Reply::from(error).into_response(),
    }
}

/// Lets web pages of the configured origin use the API, and answers their questions about it.
pub(super) async fn cross_origin(State(app): Daemon, request: Request, next: Next) -> Response {
    let headers = allowed(&app, request.headers());
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        next.run(request).await
    };
    response.headers_mut().extend(headers);
    response
}

fn allowed(app: &App, asked: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !asked.contains_key(header::ORIGIN) {
        return headers;
    }
    let mut values = app.catalog.config();
    let mut value = |key| values.remove(key).and_then(|value| HeaderValue::from_str(&value).ok());
    let Some(origin) = value(config::HTTPS_ALLOWED_ORIGIN) else { return headers };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if let Some(methods) = value(config::HTTPS_ALLOWED_METHODS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    if let Some(names) = value(config::HTTPS_ALLOWED_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    let credentials = value(config::HTTPS_ALLOWED_CREDENTIALS);
    if credentials.is_some_and(|it| it.to_str().ok().and_then(parse_bool) == Some(true)) {
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    headers
}
