//! `/1.0/events`: a websocket that sends events as text.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::ws::{
    Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection,
};
use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use lxd_proto::event::EventType;
use lxd_proto::routes::query;
use tokio_util::sync::CancellationToken;

use super::Daemon;
use super::extract::Query;
use super::reply::Reply;
use crate::app::Client;
use crate::catalog::{Catalog, Viewer};
use crate::error::{Error, Result};
use crate::ops::events::Listener;

/// LXD sends a ping so often.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long a listener may take to accept a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest message a listener may send; it has nothing to say.
const RECEIVE_LIMIT: usize = 64 << 10;

pub(super) async fn listen(
    State(app): Daemon,
    client: Option<Extension<Arc<Client>>>,
    OriginalUri(uri): OriginalUri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let types = match types(&Query::of(&uri)) {
        Ok(types) => types,
        Err(error) => return Reply::from(error).into_response(),
    };
    let Ok(upgrade) = upgrade else {
        return (StatusCode::BAD_REQUEST, "Bad Request\n").into_response();
    };
    // Listening begins before the client can know that it does.
    let listener = app.events.listen(&types);
    let shutdown = app.shutdown.clone();
    let distrust = distrust(app.catalog.clone(), client.map(|Extension(client)| client));
    upgrade.max_message_size(RECEIVE_LIMIT).on_upgrade(async move |socket| {
        tokio::select! {
            () = forward(socket, listener, shutdown) => {}
            // Cut off without a word: it is not to hear anything any more.
            () = distrust => {}
        }
    })
}

fn types(query: &Query<'_>) -> Result<Vec<EventType>> {
    if query.get(query::ALL_PROJECTS).is_some_and(|all| all == "true")
        && query.get(query::PROJECT).is_some_and(|project| !project.is_empty())
    {
        let text = "Cannot specify a project when requesting all projects";
        return Err(Error::BadRequest(text.into()));
    }
    match query.get(query::TYPE) {
        None | Some("") => Ok(vec![EventType::Operation, EventType::Lifecycle, EventType::Logging]),
        Some(names) => names
            .split(',')
            .map(|name| EventType::from_name(name).ok_or_else(|| Error::EventType(name.into())))
            .collect(),
    }
}

/// Resolves when a client on the network is not trusted any more.
async fn distrust(catalog: Arc<Catalog>, client: Option<Arc<Client>>) {
    let Some(client) = client else { return std::future::pending().await };
    let mut changes = catalog.trust.changes();
    while catalog.trust.viewer(client.certificate.as_ref()) == Viewer::Trusted {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn forward(mut socket: WebSocket, mut listener: Listener, shutdown: CancellationToken) {
    let mut ping = tokio::time::interval(PING_EVERY);
    loop {
        let message = tokio::select! {
            event = listener.next() => match event {
                Some(event) => Message::text(&*event),
                None => break,
            },
            // A listener says nothing of interest, but its end shows here.
            received = socket.recv() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => continue,
            },
            _ = ping.tick() => Message::Ping("keepalive".into()),
            () = shutdown.cancelled() => break,
        };
        match tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
    // The peer may be gone already.
    let _ = tokio::time::timeout(SEND_TIMEOUT, socket.send(Message::Close(None))).await;
}
