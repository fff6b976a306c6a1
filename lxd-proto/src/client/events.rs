//! Events: the websocket that tells what happens on the server.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::client::LxdClient;
use crate::client::transport::{IDLE, IDLE_SECONDS, deepest};
use crate::event::{Event, EventType};
use crate::remote::{Error, Result};
use crate::routes::{self, query};

/// How often we ask a silent server whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// The largest event that is read, in bytes.
const MAX_EVENT: usize = 16 << 20;

/// A running subscription. Dropping it ends it.
pub struct EventStream {
    socket: WebSocketStream<UnixStream>,
    endpoint: String,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl LxdClient {
    /// Subscribes to events of these types; none means all.
    pub async fn events(&self, types: &[EventType]) -> Result<EventStream> {
        let endpoint = self.transport.endpoint();
        let broke = |reason| Error::Transport { endpoint: endpoint.clone(), reason };
        let stream = UnixStream::connect(&*self.transport.socket)
            .await
            .map_err(|source| Error::Connect { endpoint: endpoint.clone(), source })?;
        let mut url = format!("ws://unix.socket{}", routes::EVENTS.url(&[]));
        if !types.is_empty() {
            let names: Vec<_> = types.iter().map(|kind| kind.as_str()).collect();
            url = format!("{url}?{}={}", query::TYPE, names.join(","));
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_EVENT))
            .max_frame_size(Some(MAX_EVENT));
        let handshake = client_async_with_config(url, stream, Some(config));
        match timeout(IDLE, handshake).await {
            Ok(Ok((socket, _))) => Ok(EventStream { socket, endpoint }),
            Ok(Err(error)) => Err(broke(deepest(&error))),
            Err(_) => Err(self.transport.silent()),
        }
    }
}

impl EventStream {
    /// The next event; `None` when the server has closed the subscription.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        let mut heard = Instant::now();
        loop {
            let message = match timeout_at(Instant::now() + PING_EVERY, self.socket.next()).await {
                Ok(message) => message,
                Err(_) if heard.elapsed() > IDLE => {
                    let endpoint = self.endpoint.clone();
                    return Err(Error::Silent { endpoint, seconds: IDLE_SECONDS });
                }
                Err(_) => {
                    let ping = self.socket.send(Message::Ping(Bytes::new())).await;
                    ping.map_err(|error| self.broke(&error))?;
                    continue;
                }
            };
            heard = Instant::now();
            match message {
                None | Some(Ok(Message::Close(_))) => return Ok(None),
                Some(Ok(Message::Text(text))) => return self.parse(text.as_bytes()).map(Some),
                Some(Ok(Message::Binary(bytes))) => return self.parse(&bytes).map(Some),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(self.broke(&error)),
            }
        }
    }

    fn parse(&self, text: &[u8]) -> Result<Event> {
        serde_json::from_slice(text).map_err(|error| Error::Decode {
            what: format!("an event of {}", self.endpoint),
            reason: error.to_string(),
        })
    }

    fn broke(&self, error: &dyn std::error::Error) -> Error {
        Error::Transport { endpoint: self.endpoint.clone(), reason: deepest(error) }
    }
}
