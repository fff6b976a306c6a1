//! Websockets: the handshake on a connection of our own, for events and for commands.

use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, http};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use url::Url;

use crate::client::LxdClient;
use crate::client::transport::Request;
use crate::envelope::Envelope;
use crate::net::{Stream, deepest};
use crate::remote::{Error, Result};

/// A websocket over whatever leads to the server.
pub(super) type Socket = WebSocketStream<Box<dyn Stream>>;

/// The largest message that is read, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

impl LxdClient {
    /// Opens the websocket at `request`; messages of up to 16 MiB are read from it.
    pub(super) async fn websocket(&self, request: &Request<'_>) -> Result<Socket> {
        let endpoint = self.transport.endpoint();
        let broke = |reason| Error::Transport { endpoint: endpoint.clone(), reason };
        let stream = self.transport.connect().await?.stream;
        let url = self.transport.url(request);
        let handshake = self.handshake(&url).map_err(|error| broke(deepest(&error)))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let handshake = client_async_with_config(handshake, stream, Some(config));
        match timeout(self.transport.idle(), handshake).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(tungstenite::Error::Http(answer))) => Err(refused(&request.path, &answer)),
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
fn refused(path: &str, answer: &http::Response<Option<Vec<u8>>>) -> Error {
    let status = answer.status();
    let body = answer.body().as_deref().unwrap_or_default();
    let message = match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) if !envelope.error.is_empty() => envelope.error,
        _ => format!("a websocket at {path} was asked for and answered with {status}"),
    };
    Error::Api { status: status.as_u16(), message }
}
