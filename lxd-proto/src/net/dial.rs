//! Connections of our own making, for what is no plain HTTP request.

use std::io;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::net::Access;
use crate::net::fault::{of_connection, origin};
use crate::net::tls::{Trust, config};
use crate::remote::{Error, Result};

/// The longest answer of a proxy that is read, in bytes.
const MAX_PROXY_ANSWER: usize = 16 << 10;

/// Bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to a server, through TLS and a proxy where need be.
pub(crate) struct Connection {
    /// Its bytes.
    pub(crate) stream: Box<dyn Stream>,
    /// What the server has shown, its own certificate first; empty without TLS.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// Connects to a unix socket.
pub(crate) async fn dial_socket(path: &Path) -> Result<Connection> {
    let endpoint = || path.display().to_string();
    let stream = UnixStream::connect(path)
        .await
        .map_err(|source| Error::Connect { endpoint: endpoint(), source })?;
    Ok(Connection { stream: Box::new(stream), chain: Vec::new() })
}

/// Connects to the server of `url`; with `certificate` it must show exactly that one.
pub(crate) async fn dial(url: &Url, access: &Access, certificate: &str) -> Result<Connection> {
    let trust =
        if certificate.is_empty() { Trust::Authorities } else { Trust::Pinned(certificate) };
    dial_trusting(url, access, trust).await
}

pub(super) async fn dial_trusting(
    url: &Url,
    access: &Access,
    trust: Trust<'_>,
) -> Result<Connection> {
    let endpoint = origin(url);
    let connected = timeout(access.limits.connect, connect(url, access, trust)).await;
    match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(connection) => Ok(connection),
        Err(error) => Err(of_connection(endpoint, &error)),
    }
}

async fn connect(url: &Url, access: &Access, trust: Trust<'_>) -> io::Result<Connection> {
    let (host, port) = address(url)?;
    let stream: Box<dyn Stream> = match access.proxies.proxy_for(url) {
        Some(proxy) => Box::new(tunnel(&proxy, &host, port, access).await?),
        None => Box::new(tcp(&host, port).await?),
    };
    if !matches!(url.scheme(), "https" | "wss") {
        return Ok(Connection { stream, chain: Vec::new() });
    }
    let (stream, chain) = tls(stream, &host, access, trust).await?;
    Ok(Connection { stream, chain })
}

fn address(url: &Url) -> io::Result<(String, u16)> {
    let host = url.host_str().ok_or_else(|| io::Error::other("the URL names no host"))?;
    let port = url.port_or_known_default().ok_or_else(|| io::Error::other("which port?"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn tls(
    stream: Box<dyn Stream>,
    host: &str,
    access: &Access,
    trust: Trust<'_>,
) -> io::Result<(Box<dyn Stream>, Vec<CertificateDer<'static>>)> {
    let config = config(access, trust).map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    Ok((Box::new(stream), chain))
}

/// Asks a proxy for a way to `host`.
async fn tunnel(
    proxy: &Url,
    host: &str,
    port: u16,
    access: &Access,
) -> io::Result<Box<dyn Stream>> {
    let (proxy_host, proxy_port) = address(proxy)?;
    let mut stream: Box<dyn Stream> = Box::new(tcp(&proxy_host, proxy_port).await?);
    if proxy.scheme() == "https" {
        stream = tls(stream, &proxy_host, access, Trust::Authorities).await?.0;
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if !proxy.username().is_empty() {
        let part = |text| percent_decode_str(text).decode_utf8_lossy();
        let (user, password) = (part(proxy.username()), part(proxy.password().unwrap_or_default()));
        let credentials = STANDARD.encode(format!("{user}:{password}"));
        request.push_str(&format!("Proxy-Authorization: Basic {credentials}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let answer = proxy_answer(&mut stream).await?;
    let first = answer.lines().next().unwrap_or_default();
    if first.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
        Ok(stream)
    } else {
        Err(io::Error::other(format!("unsuccessful tunnel: {first}")))
    }
}

/// Up to and including the empty line; not a byte more, which would be the server's.
async fn proxy_answer(stream: &mut Box<dyn Stream>) -> io::Result<String> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_PROXY_ANSWER {
            return Err(io::Error::other("unsuccessful tunnel: the proxy talks too much"));
        }
        answer.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
