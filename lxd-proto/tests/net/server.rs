//! A small HTTP server that does what a closure says, over TCP, TLS or a unix socket.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// What a client asked.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: HashMap<String, String>,
    /// How many requests came before it.
    pub number: usize,
    /// Whether the client showed a certificate.
    pub with_certificate: bool,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `FIRST` and, if given, `LAST` of `Range: bytes=FIRST-LAST`.
    pub fn range(&self) -> Option<(u64, Option<u64>)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().unwrap(), last.parse().ok()))
    }
}

/// What it gets.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub chunked: bool,
    /// The connection is closed after so many bytes of the body.
    pub cut: Option<usize>,
    /// After so many bytes of the body nothing comes any more.
    pub stall: Option<usize>,
    /// After [`Self::stall`], a byte at a time comes with such pauses.
    pub trickle: Option<Duration>,
    /// The body comes again and again.
    pub endless: bool,
    pub delay: Duration,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            chunked: false,
            cut: None,
            stall: None,
            trickle: None,
            endless: false,
            delay: Duration::ZERO,
        }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// The part of a file with an entity tag that `request` wants, as a good server sends it.
    pub fn file(request: &Request, file: &Bytes, etag: &str) -> Self {
        let same = request.header("if-range").is_none_or(|tag| tag == etag);
        let reply = match request.range().filter(|_| same) {
            Some((first, last)) => {
                let end = last.map_or(file.len(), |last| usize::try_from(last).unwrap() + 1);
                let first = usize::try_from(first).unwrap();
                if first >= file.len() {
                    return Self::new(416, "")
                        .header("Content-Range", format!("bytes */{}", file.len()));
                }
                let range = format!("bytes {first}-{}/{}", end - 1, file.len());
                Self::new(206, file.slice(first..end)).header("Content-Range", range)
            }
            None => Self::new(200, file.clone()),
        };
        reply.header("ETag", etag).header("Accept-Ranges", "bytes")
    }
}

type Handler = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

pub struct Server {
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    /// Bytes of bodies that were written.
    sent: Arc<AtomicUsize>,
    pub open: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    pub async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::tcp(None, Arc::new(handler)).await
    }

    pub async fn tls(
        acceptor: TlsAcceptor,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::tcp(Some(acceptor), Arc::new(handler)).await
    }

    async fn tcp(acceptor: Option<TlsAcceptor>, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let shared = Shared::new(handler);
        let (requests, sent) = (shared.requests.clone(), shared.sent.clone());
        let open = shared.open.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (shared.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                let shown = stream.get_ref().1.peer_certificates().is_some();
                                shared.serve(stream, shown).await;
                            }
                        }
                        None => shared.serve(stream, false).await,
                    }
                });
            }
        });
        Self { address, requests, sent, open, _task: AbortOnDropHandle::new(task) }
    }

    pub fn unix(path: &Path, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let shared = Shared::new(Arc::new(handler));
        let (requests, sent) = (shared.requests.clone(), shared.sent.clone());
        let open = shared.open.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move { shared.serve(stream, false).await });
            }
        });
        let address = format!("unix://{}", path.display());
        Self { address, requests, sent, open, _task: AbortOnDropHandle::new(task) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Shared {
    handler: Handler,
    requests: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Shared {
    fn new(handler: Handler) -> Self {
        Self { handler, requests: Arc::default(), sent: Arc::default(), open: Arc::default() }
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin, with_certificate: bool) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let mut stream = BufReader::new(stream);
        while let Some(mut request) = head(&mut stream, with_certificate).await {
            {
                let mut requests = self.requests.lock().unwrap();
                request.number = requests.len();
                requests.push(request.clone());
            }
            let reply = (self.handler)(&request);
            tokio::time::sleep(reply.delay).await;
            if self.answer(&mut stream, &request, reply).await.is_none() {
                break;
            }
        }
        let _ = stream.shutdown().await;
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// `None` when the connection must be closed.
    async fn answer(
        &self,
        stream: &mut (impl AsyncWrite + AsyncRead + Unpin),
        request: &Request,
        reply: Reply,
    ) -> Option<()> {
        let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if reply.chunked || reply.endless {
            head.push_str("Transfer-Encoding: chunked\r\n");
        } else if reply.status != 304 {
            head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        if request.method == "HEAD" || reply.status == 304 {
            return Some(());
        }
        let end = reply.cut.or(reply.stall).unwrap_or(reply.body.len()).min(reply.body.len());
        let chunked = reply.chunked || reply.endless;
        loop {
            for piece in reply.body[..end].chunks(16 << 10) {
                if chunked {
                    stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.ok()?;
                }
                stream.write_all(piece).await.ok()?;
                self.sent.fetch_add(piece.len(), Ordering::Relaxed);
                if chunked {
                    stream.write_all(b"\r\n").await.ok()?;
                }
            }
            if !reply.endless {
                break;
            }
        }
        stream.flush().await.ok()?;
        if let (Some(from), Some(pause)) = (reply.stall, reply.trickle) {
            for byte in reply.body.get(from..)?.chunks(1) {
                tokio::time::sleep(pause).await;
                stream.write_all(byte).await.ok()?;
                stream.flush().await.ok()?;
            }
        }
        if reply.stall.is_some() {
            // For ever: the test ends before.
            std::future::pending::<()>().await;
        }
        if reply.cut.is_some() {
            return None;
        }
        if chunked {
            stream.write_all(b"0\r\n\r\n").await.ok()?;
        }
        stream.flush().await.ok()
    }
}

async fn head(
    stream: &mut BufReader<impl AsyncRead + Unpin>,
    with_certificate: bool,
) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|&read| read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            None => return Some(Request { method, target, headers, number: 0, with_certificate }),
        }
    }
}

/// So many bytes that look like nothing.
pub fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}
