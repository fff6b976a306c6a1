//! One HTTP/1.1 connection, whatever it runs over.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::unread::Whole;
use crate::app::{Caller, Client};
use crate::store::outbox::Outbox;

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes read or written at a time at most. More gains nothing, and 200 uploads at once would hold
/// four times the memory.
const BUFFER: usize = 64 << 10;
/// How long an open connection may go on once the daemon is to end.
const LAST_REPLY: Duration = Duration::from_secs(5);

/// What a listener knows about a connection, for the handlers of its requests.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Who is there.
    pub(super) caller: Caller,
    /// What they showed, on the network; who they are is then found out for each request.
    pub(super) client: Option<Arc<Client>>,
    /// Where file ranges are queued, if the connection can send them by itself.
    pub(super) outbox: Option<Arc<Outbox>>,
}

/// Serves `io` until the client has gone or `shutdown` is cancelled.
pub(super) async fn serve<I>(io: I, router: Router, peer: Peer, shutdown: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.caller.clone());
        if let Some(client) = &peer.client {
            request.extensions_mut().insert(client.clone());
        }
        if let Some(outbox) = &peer.outbox {
            request.extensions_mut().insert(outbox.clone());
        }
        let router = router.clone();
        async move {
            let waits = request.headers().contains_key(http::header::EXPECT);
            let request = request.map(|body| axum::body::Body::new(Whole::new(body, waits)));
            let response = router.oneshot(request).await;
            response.map_err(|error: Infallible| error)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER)
        .half_close(true)
        // Slices are handed on as they are: stand-ins for file ranges must not be copied.
        .writev(true)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(LAST_REPLY, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
