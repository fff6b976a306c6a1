//! Websockets of operations: frames between a client and whoever waits for it.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ops::sockets::{AHEAD, Claim, Frame, Socket};

/// LXD sends a ping so often.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long a client may take to accept a message before it counts as gone.
const SEND_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a client may take to close after it was told the end.
const LINGER: Duration = Duration::from_secs(10);
/// The largest message a client may send, in bytes.
const LARGEST: usize = 1 << 20;

/// Upgrades the request and hands the websocket over.
pub(super) fn accept(upgrade: WebSocketUpgrade, claim: Claim, end: CancellationToken) -> Response {
    upgrade.max_message_size(LARGEST).max_frame_size(LARGEST).on_upgrade(async move |socket| {
        let (to_client, outgoing) = mpsc::channel(AHEAD);
        let (from_client, incoming) = mpsc::channel(AHEAD);
        if claim.connect(Socket { incoming, outgoing: to_client }) {
            tokio::select! {
                () = carry(socket, from_client, outgoing) => {}
                () = end.cancelled() => {}
            }
        }
    })
}

/// Carries frames both ways until the operation's end of the outgoing stream is dropped, or the
/// client is gone.
async fn carry(
    socket: WebSocket,
    from_client: mpsc::Sender<Frame>,
    mut to_client: mpsc::Receiver<Frame>,
) {
    let (mut sink, mut stream) = socket.split();
    let receive = async {
        while let Some(message) = stream.next().await {
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    tracing::debug!(%error, "a websocket of an operation broke");
                    break;
                }
            };
            let frame = match message {
                Message::Binary(bytes) => Frame::Data(bytes),
                Message::Text(text) => Frame::Text(text.to_string()),
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            if from_client.send(frame).await.is_err() {
                // Nobody listens; but the client is heard until it goes, or pings go unanswered.
                while let Some(Ok(message)) = stream.next().await {
                    if matches!(message, Message::Close(_)) {
                        break;
                    }
                }
                return;
            }
        }
        drop(from_client);
    };
    let send = async {
        // Not at once: LXD's client, answering a ping after the end, would drop what it has not
        // read yet.
        let mut ping = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        loop {
            let message = tokio::select! {
                frame = to_client.recv() => match frame {
                    Some(Frame::Data(bytes)) => Message::Binary(bytes),
                    Some(Frame::Text(text)) => Message::text(text),
                    None => Message::Close(None),
                },
                _ = ping.tick() => Message::Ping("keepalive".into()),
            };
            let last = matches!(message, Message::Close(_));
            match tokio::time::timeout(SEND_TIMEOUT, sink.send(message)).await {
                Ok(Ok(())) if !last => {}
                Ok(Ok(())) => return true,
                _ => return false,
            }
        }
    };
    // A client may end what it says and still listen. Once it has been told the end it is heard
    // until it goes: what it says meanwhile must not break the connection under what it reads.
    tokio::pin!(receive, send);
    tokio::select! {
        told = &mut send => if told {
            let _ = tokio::time::timeout(LINGER, receive).await;
        },
        () = &mut receive => {
            send.await;
        }
    }
}
