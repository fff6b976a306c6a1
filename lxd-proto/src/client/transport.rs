//! Requests and replies: connections, envelopes, and giving up on silent peers.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, IF_MATCH, LOCATION};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::envelope::{Envelope, Kind};
use crate::operation::Operation;
use crate::remote::{Error, Result};
use crate::routes::query;

/// After so many seconds without a byte a peer counts as gone.
pub const IDLE_SECONDS: u64 = 60;
pub(super) const IDLE: Duration = Duration::from_secs(IDLE_SECONDS);

/// The largest JSON answer that is read, in bytes: far above 100,000 images.
const MAX_JSON: usize = 256 << 20;
/// What the host part of URLs is on a unix socket, as LXD's own client spells it.
const UNIX_HOST: &str = "http://unix.socket";

/// A way to one server.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    http: reqwest::Client,
    pub(super) socket: Arc<PathBuf>,
    project: Arc<str>,
}

/// One request without its body.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(&'a str, String)>,
    pub(super) if_match: Option<&'a str>,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), if_match: None }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn query(mut self, key: &'a str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    pub(super) fn if_match(mut self, etag: Option<&'a str>) -> Self {
        self.if_match = etag;
        self
    }
}

/// A successful reply.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) envelope: Envelope,
    pub(super) etag: Option<String>,
    what: String,
}

/// A reply as it came, for the `query` command.
#[derive(Debug)]
pub struct RawReply {
    /// HTTP status.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The `Content-Type` header.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Transport {
    pub(super) fn unix(socket: PathBuf, project: &str) -> Result<Self> {
        let http = reqwest::Client::builder()
            .unix_socket(socket.clone())
            // No TLS on a socket: loading the system's authorities would cost every start.
            .tls_certs_only([])
            .no_proxy()
            .user_agent(concat!("lxd-cli/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Transport {
                endpoint: socket.display().to_string(),
                reason: deepest(&error),
            })?;
        Ok(Self { http, socket: Arc::new(socket), project: project.into() })
    }

    /// What messages call the peer.
    pub(super) fn endpoint(&self) -> String {
        self.socket.display().to_string()
    }

    /// The request, to which a body may be added.
    pub(super) fn prepare(&self, request: &Request<'_>) -> RequestBuilder {
        let url = format!("{UNIX_HOST}{}", request.path);
        let mut builder = self.http.request(request.method.clone(), url);
        if !request.query.is_empty() {
            builder = builder.query(&request.query);
        }
        if !self.project.is_empty() {
            builder = builder.query(&[(query::PROJECT, &*self.project)]);
        }
        match request.if_match {
            Some(etag) => builder.header(IF_MATCH, etag),
            None => builder,
        }
    }

    /// Sends a request without a body or with a small one.
    pub(super) async fn send(&self, builder: RequestBuilder) -> Result<Response> {
        match timeout(IDLE, builder.send()).await {
            Ok(sent) => sent.map_err(|error| self.failed(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    /// A request and its envelope.
    pub(super) async fn ask(&self, request: Request<'_>) -> Result<Reply> {
        let what = what(&request);
        let response = self.send(self.prepare(&request)).await?;
        self.reply(what, response).await
    }

    /// A request with a JSON body and its envelope.
    pub(super) async fn tell(&self, request: Request<'_>, body: &impl Serialize) -> Result<Reply> {
        let what = what(&request);
        let response = self.send(self.prepare(&request).json(body)).await?;
        self.reply(what, response).await
    }

    /// Any request, with the reply left as it is.
    pub(super) async fn raw(&self, request: Request<'_>, body: Option<String>) -> Result<RawReply> {
        let mut builder = self.prepare(&request);
        if let Some(body) = body {
            builder = builder.header(CONTENT_TYPE, "application/json").body(body);
        }
        let response = self.send(builder).await?;
        let text = |name| header(response.headers(), name);
        Ok(RawReply {
            status: response.status().as_u16(),
            location: text(LOCATION.as_str()),
            content_type: text(CONTENT_TYPE.as_str()).unwrap_or_default(),
            body: self.body(response).await?,
        })
    }

    /// Reads the envelope of a reply; an error in it becomes [`Error::Api`].
    pub(super) async fn reply(&self, what: String, response: Response) -> Result<Reply> {
        let status = response.status();
        let etag = header(response.headers(), ETAG.as_str());
        let body = self.body(response).await?;
        let envelope: Envelope = match serde_json::from_slice(&body) {
            Ok(envelope) => envelope,
            Err(_) if !status.is_success() => {
                let message = format!("{what} was answered with {status}");
                return Err(Error::Api { status: status.as_u16(), message });
            }
            Err(error) => return Err(Error::Decode { what, reason: error.to_string() }),
        };
        if envelope.kind == Kind::Error {
            return Err(Error::Api { status: status.as_u16(), message: envelope.error });
        }
        Ok(Reply { envelope, etag, what })
    }

    /// The whole body, bounded.
    async fn body(&self, mut response: Response) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if body.len() + chunk.len() > MAX_JSON {
                let reason = format!("the answer is larger than {MAX_JSON} bytes");
                return Err(Error::Decode { what: self.endpoint(), reason });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The next piece of a body.
    pub(super) async fn chunk(&self, response: &mut Response) -> Result<Option<bytes::Bytes>> {
        match timeout(IDLE, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| self.failed(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    pub(super) fn silent(&self) -> Error {
        Error::Silent { endpoint: self.endpoint(), seconds: IDLE_SECONDS }
    }

    pub(super) fn failed(&self, error: &reqwest::Error) -> Error {
        let endpoint = self.endpoint();
        if error.is_connect()
            && let Some(source) = io_cause(error)
        {
            return Error::Connect { endpoint, source };
        }
        Error::Transport { endpoint, reason: deepest(error) }
    }
}

impl Reply {
    /// The metadata as a `T`.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        let text = self.envelope.metadata.as_ref().map_or("null", |raw| raw.get());
        serde_json::from_str(text)
            .map_err(|error| Error::Decode { what: self.what.clone(), reason: error.to_string() })
    }

    /// The operation that the request has started.
    pub(super) fn operation(&self) -> Result<Operation> {
        if self.envelope.kind == Kind::Async {
            return self.parse();
        }
        let reason = "an operation was expected".to_owned();
        Err(Error::Decode { what: self.what.clone(), reason })
    }
}

fn what(request: &Request<'_>) -> String {
    format!("{} {}", request.method, request.path)
}

pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned())
}

/// The operating system's error at the bottom of `error`, if there is one.
fn io_cause(error: &reqwest::Error) -> Option<io::Error> {
    let mut cause = error.source();
    let mut found = None;
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            found = Some(match io.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(io.kind(), io.to_string()),
            });
        }
        cause = error.source();
    }
    found
}

/// The innermost reason: the layers above only say that a request failed.
pub(super) fn deepest(error: &dyn StdError) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
