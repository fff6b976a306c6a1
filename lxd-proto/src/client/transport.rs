//! Requests and replies: connections, envelopes, and giving up on silent peers.

use std::path::PathBuf;
use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, DATE, ETAG, HeaderMap, IF_MATCH, LOCATION};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::envelope::{Envelope, Kind};
use crate::net::{Access, Connection, Http, dial, dial_socket, parse};
use crate::operation::Operation;
use crate::remote::{Error, Result};
use crate::routes::query;

/// After so many seconds without a byte a peer counts as gone, unless [`Access`] says otherwise.
pub const IDLE_SECONDS: u64 = 60;

/// The largest list that is read, in bytes: far above 100,000 images.
const MAX_LIST: usize = 256 << 20;
/// The largest answer about one thing: a stranger's server is not to fill our memory with it.
const MAX_OBJECT: usize = 4 << 20;
/// What the host part of URLs is on a unix socket, as LXD's own client spells it.
const UNIX_HOST: &str = "http://unix.socket";

/// A way to one server.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    pub(super) http: Http,
    base: Arc<Url>,
    way: Way,
    project: Arc<str>,
}

/// How a connection of our own making gets there.
#[derive(Debug, Clone)]
enum Way {
    Socket(Arc<PathBuf>),
    Network { access: Arc<Access>, certificate: Arc<str> },
}

/// One request without its body.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(&'a str, String)>,
    pub(super) if_match: Option<&'a str>,
    /// The longest answer that is read, in bytes.
    largest: usize,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), if_match: None, largest: MAX_OBJECT }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// All things of a kind, as objects.
    pub(super) fn list(path: impl Into<String>) -> Self {
        Self::get(path).query(query::RECURSION, "1").long()
    }

    /// The answer is a list and may be long.
    pub(super) fn long(mut self) -> Self {
        self.largest = MAX_LIST;
        self
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
    /// The `Date` header: the server's clock.
    pub date: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Transport {
    pub(super) fn unix(socket: PathBuf, project: &str, user_agent: &str) -> Result<Self> {
        let http = Http::socket(&socket, user_agent)?;
        let base = Arc::new(parse(UNIX_HOST)?);
        Ok(Self { http, base, way: Way::Socket(Arc::new(socket)), project: project.into() })
    }

    pub(super) fn https(
        base: Url,
        certificate: &str,
        project: &str,
        access: &Access,
    ) -> Result<Self> {
        let http = Http::new(access, certificate)?;
        let way =
            Way::Network { access: Arc::new(access.clone()), certificate: certificate.into() };
        Ok(Self { http, base: Arc::new(base), way, project: project.into() })
    }

    /// What messages call the peer.
    pub(super) fn endpoint(&self) -> String {
        self.http.endpoint(&self.base)
    }

    /// A connection for what is no plain request.
    pub(super) async fn connect(&self) -> Result<Connection> {
        match &self.way {
            Way::Socket(path) => dial_socket(path).await,
            Way::Network { access, certificate } => dial(&self.base, access, certificate).await,
        }
    }

    /// The `User-Agent` header where it is not sent by itself.
    pub(super) fn user_agent(&self) -> Option<&str> {
        match &self.way {
            Way::Socket(_) => None,
            Way::Network { access, .. } => Some(&access.user_agent),
        }
    }

    /// Where a request goes.
    pub(super) fn url(&self, request: &Request<'_>) -> Url {
        let mut url = Url::clone(&self.base);
        let (path, query) = match request.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (request.path.as_str(), None),
        };
        url.set_path(path);
        url.set_query(query);
        let project = (!self.project.is_empty()).then_some((query::PROJECT, &*self.project));
        let mut pairs = request
            .query
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .chain(project)
            .peekable();
        if pairs.peek().is_some() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        url
    }

    /// The request, to which a body may be added.
    pub(super) fn prepare(&self, request: &Request<'_>) -> RequestBuilder {
        let builder = self.http.request(request.method.clone(), self.url(request));
        match request.if_match {
            Some(etag) => builder.header(IF_MATCH, etag),
            None => builder,
        }
    }

    /// Sends a request without a body or with a small one.
    pub(super) async fn send(&self, builder: RequestBuilder) -> Result<Response> {
        self.http.send(&self.base, builder).await
    }

    /// A request and its envelope.
    pub(super) async fn ask(&self, request: Request<'_>) -> Result<Reply> {
        let what = what(&request);
        let mut sent = self.send(self.prepare(&request)).await;
        // A connection that was kept may have been closed by the server in the same moment.
        if request.method == Method::GET && matches!(sent, Err(Error::Transport { .. })) {
            sent = self.send(self.prepare(&request)).await;
        }
        self.read(what, sent?, request.largest).await
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
            date: text(DATE.as_str()),
            body: self.http.body(response, MAX_LIST).await?.into(),
        })
    }

    /// Reads the envelope of a reply; an error in it becomes [`Error::Api`].
    pub(super) async fn reply(&self, what: String, response: Response) -> Result<Reply> {
        self.read(what, response, MAX_OBJECT).await
    }

    async fn read(&self, what: String, response: Response, largest: usize) -> Result<Reply> {
        let status = response.status();
        let etag = header(response.headers(), ETAG.as_str());
        let body = self.http.body(response, largest).await?;
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

    pub(super) fn silent(&self) -> Error {
        self.http.silent(&self.base)
    }

    pub(super) fn failed(&self, error: &reqwest::Error) -> Error {
        self.http.failed(&self.base, error)
    }

    /// How long a silent peer is waited for.
    pub(super) fn idle(&self) -> std::time::Duration {
        self.http.limits().idle
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
