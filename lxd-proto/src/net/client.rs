//! Requests to anybody: one pool of connections, redirects by our rules.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode};
use tokio::time::timeout;
use url::Url;

use crate::envelope::{Envelope, Kind};
use crate::net::download::{Download, DownloadOptions};
use crate::net::fault::{deepest, of_request, origin, public_url};
use crate::net::head::Head;
use crate::net::target::parse;
use crate::net::tls::{Trust, config};
use crate::net::trickle::Trickle;
use crate::net::{Access, Limits};
use crate::remote::{Error, Result};

/// Redirects that are followed one after the other.
const MAX_REDIRECTS: usize = 5;
/// How long an unused connection is kept.
const POOLED: Duration = Duration::from_secs(10);
/// The largest error message that is read, in bytes.
const MAX_ERROR: usize = 64 << 10;

/// A client of any HTTP server. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Http {
    pub(super) client: reqwest::Client,
    pub(super) limits: Limits,
    /// Instead of a network.
    socket: Option<Arc<PathBuf>>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Http {
    /// For servers that show the pinned `certificate` (PEM), or, when it is empty, one that an
    /// authority vouches for. Opens no connection.
    ///
    /// # Errors
    /// [`Error::Tls`] when certificate, identity or authorities cannot be used.
    pub fn new(access: &Access, certificate: &str) -> Result<Self> {
        let trust =
            if certificate.is_empty() { Trust::Authorities } else { Trust::Pinned(certificate) };
        let failed = |reason| Error::Tls { endpoint: "any server".to_owned(), reason };
        let tls = config(access, trust).map_err(failed)?;
        let proxies = access.proxies.clone();
        let client = builder(&access.user_agent, &access.limits)
            .tls_backend_preconfigured(tls)
            .proxy(reqwest::Proxy::custom(move |url| proxies.proxy_for(url)))
            .build()
            .map_err(|error| failed(deepest(&error)))?;
        Ok(Self { client, limits: access.limits, socket: None })
    }

    /// For the server behind a unix socket.
    pub(crate) fn socket(path: &Path, user_agent: &str) -> Result<Self> {
        let limits = Limits::default();
        let client = builder(user_agent, &limits)
            .unix_socket(path.to_owned())
            // No TLS on a socket: loading the system's authorities would cost every start.
            .tls_certs_only([])
            .no_proxy()
            .build()
            .map_err(|error| Error::Transport {
                endpoint: path.display().to_string(),
                reason: deepest(&error),
            })?;
        Ok(Self { client, limits, socket: Some(Arc::new(path.to_owned())) })
    }

    /// How long and how often.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What messages call the server of `url`.
    pub(crate) fn endpoint(&self, url: &Url) -> String {
        match &self.socket {
            Some(path) => path.display().to_string(),
            None => origin(url),
        }
    }

    /// What messages call the document at `url`.
    pub(crate) fn name(&self, url: &Url) -> String {
        if self.socket.is_some() { url.path().to_owned() } else { public_url(url) }
    }

    /// A request to which a body may be added. Redirects are not followed.
    pub(crate) fn request(&self, method: Method, url: Url) -> reqwest::RequestBuilder {
        self.client.request(method, url)
    }

    /// Sends a request whose body is small or none.
    pub(crate) async fn send(
        &self,
        url: &Url,
        builder: reqwest::RequestBuilder,
    ) -> Result<Response> {
        match timeout(self.limits.connect + self.limits.idle, builder.send()).await {
            Ok(sent) => sent.map_err(|error| of_request(self.endpoint(url), &error)),
            Err(_) => Err(self.silent(url)),
        }
    }

    /// The next piece of a body.
    pub(crate) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>> {
        let waited = timeout(self.limits.idle, response.chunk()).await;
        match waited {
            Ok(chunk) => chunk.map_err(|error| of_request(self.endpoint(response.url()), &error)),
            Err(_) => Err(self.silent(response.url())),
        }
    }

    /// The next piece of a body whose server may be slow, but not without end.
    pub(crate) async fn next_of(
        &self,
        response: &mut Response,
        trickle: &mut Trickle,
    ) -> Result<Option<Bytes>> {
        let asked = Instant::now();
        let piece = self.chunk(response).await?;
        let length = piece.as_ref().map_or(0, Bytes::len);
        match trickle.came(asked.elapsed(), length, self.limits.idle) {
            Some((bytes, waited)) if piece.is_some() => Err(Error::Slow {
                endpoint: self.endpoint(response.url()),
                bytes,
                seconds: waited.as_secs(),
            }),
            _ => Ok(piece),
        }
    }

    /// A whole body of at most `most` bytes.
    pub(crate) async fn body(&self, mut response: Response, most: usize) -> Result<Bytes> {
        let what = self.name(response.url());
        let too_large = || Error::Size {
            what: what.clone(),
            reason: format!("it is larger than {most} bytes"),
        };
        if response.content_length().is_some_and(|length| length > most as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        let mut trickle = Trickle::default();
        while let Some(chunk) = self.next_of(&mut response, &mut trickle).await? {
            if body.len() + chunk.len() > most {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    /// A request to the server of `url` has failed.
    pub(crate) fn failed(&self, url: &Url, error: &reqwest::Error) -> Error {
        of_request(self.endpoint(url), error)
    }

    /// The peer has said nothing for too long.
    pub(crate) fn silent(&self, url: &Url) -> Error {
        Error::Silent { endpoint: self.endpoint(url), seconds: self.limits.idle.as_secs().max(1) }
    }

    /// Asks for the headers of `url` only, with some more headers of our own. Redirects are
    /// followed; the status is in the answer, whatever it is.
    pub async fn head(&self, url: &str, headers: &[(&str, &str)]) -> Result<Head> {
        let url = parse(url)?;
        let headers = header_map(headers)?;
        let response = self.follow(Method::HEAD, &url, &headers).await?;
        Ok(Head::of(&response))
    }

    /// Begins to download the file at `url`.
    pub async fn open(&self, url: &str, options: DownloadOptions) -> Result<Download> {
        Download::open(self.clone(), parse(url)?, options).await
    }

    /// One request and the redirects after it.
    pub(super) async fn follow(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Response> {
        let mut at = url.clone();
        let mut seen = vec![at.clone()];
        loop {
            let mut builder =
                self.client.request(method.clone(), at.clone()).headers(headers.clone());
            if !headers.contains_key(ACCEPT_ENCODING) {
                builder = builder.header(ACCEPT_ENCODING, "identity");
            }
            let response = self.send(&at, builder).await?;
            let Some(next) = redirect(&response, &at)? else { return Ok(response) };
            let refused = |why: &str| Error::Decode {
                what: self.name(url),
                reason: format!("it redirects to {}: {why}", public_url(&next)),
            };
            if at.scheme() == "https" && next.scheme() != "https" {
                return Err(refused("that leaves encryption behind"));
            }
            if seen.contains(&next) {
                return Err(refused("that is a loop"));
            }
            if seen.len() > MAX_REDIRECTS {
                return Err(refused("that is one redirect too many"));
            }
            seen.push(next.clone());
            at = next;
        }
    }

    /// Turns an error status into an error with the server's words.
    pub(super) async fn success(&self, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let name = self.name(response.url());
        let words = match self.body(response, MAX_ERROR).await {
            Ok(body) => serde_json::from_slice::<Envelope>(&body).ok(),
            Err(_) => None,
        };
        let message = match words {
            Some(envelope) if envelope.kind == Kind::Error => envelope.error,
            _ => format!("{name} was answered with {status}"),
        };
        Err(Error::Api { status: status.as_u16(), message })
    }
}

fn builder(user_agent: &str, limits: &Limits) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(user_agent)
        .connect_timeout(limits.connect)
        // Shorter than servers keep them, so that a request seldom meets a closing one.
        .pool_idle_timeout(POOLED)
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .http1_only()
}

/// Headers from text.
pub(super) fn header_map(headers: &[(&str, &str)]) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let wrong = || Error::Unsupported(format!("\"{name}\" cannot be sent as a header"));
        let name = name.parse::<reqwest::header::HeaderName>().map_err(|_| wrong())?;
        map.insert(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
    }
    Ok(map)
}

/// Where an answer sends us, if it does.
fn redirect(response: &Response, from: &Url) -> Result<Option<Url>> {
    use StatusCode as S;
    let redirects = [
        S::MOVED_PERMANENTLY,
        S::FOUND,
        S::SEE_OTHER,
        S::TEMPORARY_REDIRECT,
        S::PERMANENT_REDIRECT,
    ];
    let Some(location) =
        response.headers().get(LOCATION).filter(|_| redirects.contains(&response.status()))
    else {
        return Ok(None);
    };
    let wrong = |reason: &str| Error::Decode {
        what: public_url(from),
        reason: format!("it redirects to something that is no URL: {reason}"),
    };
    let text = location.to_str().map_err(|_| wrong("not text"))?;
    let mut next = from.join(text).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(next.scheme(), "http" | "https") {
        return Err(wrong("neither http:// nor https://"));
    }
    next.set_fragment(None);
    // Credentials stay with the server they are for.
    let same = next.origin() == from.origin();
    let (user, password) = if same { (from.username(), from.password()) } else { ("", None) };
    let failed = next.set_username(user).is_err() || next.set_password(password).is_err();
    if failed {
        return Err(wrong("it names no host"));
    }
    Ok(Some(next))
}
