//! Events: the websocket that tells what happens on the server.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use crate::client::LxdClient;
use crate::client::transport::Request;
use crate::client::websocket::Socket;
use crate::event::{Event, EventType};
use crate::net::deepest;
use crate::remote::{Error, Result};
use crate::routes::{self, query};

/// How often we ask a silent server whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(20);

/// A running subscription. Dropping it ends it.
pub struct EventStream {
    socket: Socket,
    endpoint: String,
    idle: Duration,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl LxdClient {
    /// Subscribes to events of these types; none means all.
    pub async fn events(&self, types: &[EventType]) -> Result<EventStream> {
        let mut request = Request::get(routes::EVENTS.url(&[]));
        if !types.is_empty() {
            let names: Vec<_> = types.iter().map(|kind| kind.as_str()).collect();
            request = request.query(query::TYPE, names.join(","));
        }
        let socket = self.websocket(&request).await?;
        let (endpoint, idle) = (self.transport.endpoint(), self.transport.idle());
        Ok(EventStream { socket, endpoint, idle })
    }
}

impl EventStream {
    /// The next event; `None` when the server has closed the subscription.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        let mut heard = Instant::now();
        loop {
            let message = match timeout_at(Instant::now() + PING_EVERY, self.socket.next()).await {
                Ok(message) => message,
                Err(_) if heard.elapsed() > self.idle.max(PING_EVERY) => {
                    let (endpoint, seconds) = (self.endpoint.clone(), self.idle.as_secs());
                    return Err(Error::Silent { endpoint, seconds });
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

    fn broke(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        Error::Transport { endpoint: self.endpoint.clone(), reason: deepest(error) }
    }
}
