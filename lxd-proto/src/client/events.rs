//! Events: the websocket that tells what happens on the server.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message, http};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use url::Url;

use crate::client::LxdClient;
use crate::client::transport::Request;
use crate::envelope::Envelope;
use crate::event::{Event, EventType};
use crate::net::{Stream, deepest};
use crate::remote::{Error, Result};
use crate::routes::{self, query};

/// How often we ask a silent server whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// The largest event that is read, in bytes.
const MAX_EVENT: usize = 16 << 20;

/// A running subscription. Dropping it ends it.
pub struct EventStream {
    socket: WebSocketStream<Box<dyn Stream>>,
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
        let endpoint = self.transport.endpoint();
        let broke = |reason| Error::Transport { endpoint: endpoint.clone(), reason };
        let stream = self.transport.connect().await?.stream;
        let mut request = Request::get(routes::EVENTS.url(&[]));
        if !types.is_empty() {
            let names: Vec<_> = types.iter().map(|kind| kind.as_str()).collect();
            request = request.query(query::TYPE, names.join(","));
        }
        let url = self.transport.url(&request);
        let handshake = self.handshake(&url).map_err(|error| broke(deepest(&error)))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_EVENT))
            .max_frame_size(Some(MAX_EVENT));
        let idle = self.transport.idle();
        let handshake = client_async_with_config(handshake, stream, Some(config));
        match timeout(idle, handshake).await {
            Ok(Ok((socket, _))) => Ok(EventStream { socket, endpoint, idle }),
            Ok(Err(tungstenite::Error::Http(answer))) => Err(refused(&answer)),
            Ok(Err(error)) => Err(broke(deepest(&error))),
            Err(_) => Err(self.transport.silent()),
        }
    }

    fn handshake(&self, url: &Url) -> Result<http::Request<()>, http::Error> {
        let host = url.authority();
        let path = url.path();
        let target = url.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        // Only the path of this URI is used: the connection stands already.
        let mut request = http::Request::get(format!("ws://{host}{target}"))
            .header(http::header::HOST, host)
            .header(http::header::CONNECTION, "Upgrade")
            .header(http::header::UPGRADE, "websocket")
            .header(http::header::SEC_WEBSOCKET_VERSION, "13")
            .header(http::header::SEC_WEBSOCKET_KEY, generate_key());
        if let Some(user_agent) = self.transport.user_agent() {
            request = request.header(http::header::USER_AGENT, user_agent);
        }
        request.body(())
    }
}

/// The server answered, but not with a websocket.
fn refused(answer: &http::Response<Option<Vec<u8>>>) -> Error {
    let status = answer.status();
    let body = answer.body().as_deref().unwrap_or_default();
    let message = match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) if !envelope.error.is_empty() => envelope.error,
        _ => format!("the subscription to events was answered with {status}"),
    };
    Error::Api { status: status.as_u16(), message }
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
