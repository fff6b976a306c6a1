//! A small web server with strong tags and ranges.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::tree::{Tree, fingerprint};

/// Serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    address: String,
    task: tokio::task::JoinHandle<()>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Without the leading slash.
    pub(crate) path: String,
    pub(crate) status: u16,
    /// The `Authorization` header.
    pub(crate) authorization: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    asked: Vec<Asked>,
    /// Bytes of all requests and answers.
    traffic: usize,
    /// Answers everything with this.
    status: Option<u16>,
    /// Cuts bodies after so many bytes, so many times.
    cut: Option<(usize, usize)>,
    /// Sends no tags and takes no ranges.
    plain: bool,
    /// Answers the path with an endless body.
    endless: Option<String>,
    /// Compresses for whoever takes it.
    gzip: bool,
}

impl Server {
    /// Serves the files of `tree`.
    pub(crate) async fn start(tree: &Tree) -> Self {
        Self::listen(tree, None).await
    }

    /// Serves the files of `tree` over TLS.
    pub(crate) async fn start_tls(tree: &Tree, acceptor: TlsAcceptor) -> Self {
        Self::listen(tree, Some(acceptor)).await
    }

    async fn listen(tree: &Tree, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { files: tree.files(), ..State::default() }));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => connection(stream, shared).await,
                        Some(tls) => connection(tls.accept(stream).await?, shared).await,
                    }
                });
            }
        });
        Self { state, address, task }
    }

    /// `http://127.0.0.1:PORT`, or `https`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Serves these files from now on.
    pub(crate) fn publish(&self, tree: &Tree) {
        self.with(|state| state.files = tree.files());
    }

    /// Serves these files and no others from now on.
    pub(crate) fn publish_files(&self, files: BTreeMap<String, Vec<u8>>) {
        self.with(|state| state.files = files);
    }

    /// Serves other bytes at a path.
    pub(crate) fn replace(&self, path: &str, bytes: &[u8]) {
        self.with(|state| state.files.insert(path.to_owned(), bytes.to_vec()));
    }

    /// Has a file no more.
    pub(crate) fn remove(&self, path: &str) {
        self.with(|state| state.files.remove(path));
    }

    /// Answers everything with a status.
    pub(crate) fn fail(&self, status: Option<u16>) {
        self.with(|state| state.status = status);
    }

    /// Cuts the next `times` bodies after `bytes`.
    pub(crate) fn cut(&self, bytes: usize, times: usize) {
        self.with(|state| state.cut = Some((bytes, times)));
    }

    /// Knows neither tags nor ranges.
    pub(crate) fn plain(&self) {
        self.with(|state| state.plain = true);
    }

    /// Compresses for whoever takes it.
    pub(crate) fn gzip(&self) {
        self.with(|state| state.gzip = true);
    }

    /// Never stops sending the file at `path`.
    pub(crate) fn endless(&self, path: &str) {
        self.with(|state| state.endless = Some(path.to_owned()));
    }

    /// What was asked since the last time, and the bytes that moved.
    pub(crate) fn asked(&self) -> (Vec<Asked>, usize) {
        self.with(|state| (std::mem::take(&mut state.asked), std::mem::take(&mut state.traffic)))
    }

    /// The paths that were asked for since the last time, with the status.
    pub(crate) fn paths(&self) -> Vec<(String, u16)> {
        self.asked().0.into_iter().map(|asked| (asked.path, asked.status)).collect()
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    state: Arc<Mutex<State>>,
) -> io::Result<()> {
    let mut pending = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = pending.windows(4).position(|window| window == b"\r\n\r\n") {
                break pending.drain(..end + 4).collect::<Vec<u8>>();
            }
            if stream.read_buf(&mut pending).await? == 0 {
                return Ok(());
            }
        };
        let request = String::from_utf8_lossy(&head).into_owned();
        let (answer, whole) = answer(&request, &mut state.lock().unwrap());
        stream.write_all(&answer).await?;
        match whole {
            Body::Whole => {}
            Body::Cut => return stream.shutdown().await,
            Body::Endless => loop {
                stream.write_all(&[b'x'; 8 << 10]).await?;
            },
        }
    }
}

enum Body {
    Whole,
    Cut,
    Endless,
}

fn answer(request: &str, state: &mut State) -> (Vec<u8>, Body) {
    let header = |name: &str| {
        request.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let path = request.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
    if state.endless.as_ref() == Some(&path) {
        return (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), Body::Endless);
    }
    let file = state.files.get(&path).cloned();
    let tag = file.as_ref().map(|file| format!("\"{}\"", &fingerprint(&[file])[..16]));
    let known = header("if-none-match").is_some() && header("if-none-match") == tag && !state.plain;
    let first = header("range")
        .filter(|_| !state.plain && header("if-range").is_none_or(|range| Some(range) == tag))
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let mut extra = String::new();
    let (status, mut body) = match (state.status, file) {
        (Some(status), _) => (status, Vec::new()),
        (None, None) => (404, b"not here".to_vec()),
        (None, Some(_)) if known => (304, Vec::new()),
        (None, Some(file)) => match first {
            Some(first) if first < file.len() => {
                let (last, all) = (file.len() - 1, file.len());
                extra = format!("Content-Range: bytes {first}-{last}/{all}\r\n");
                (206, file[first..].to_vec())
            }
            Some(_) => (416, Vec::new()),
            None => (200, file),
        },
    };
    if state.gzip && status == 200 && header("accept-encoding").is_some_and(|c| c.contains("gzip"))
    {
        extra.push_str("Content-Encoding: gzip\r\n");
        body = gzip(&body);
    }
    if let Some(tag) = tag.filter(|_| !state.plain) {
        extra.push_str(&format!("ETag: {tag}\r\nAccept-Ranges: bytes\r\n"));
    }
    if status != 304 {
        extra.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    let mut cut = Body::Whole;
    if let Some((bytes, times)) = &mut state.cut
        && *times > 0
        && body.len() > *bytes
    {
        *times -= 1;
        body.truncate(*bytes);
        cut = Body::Cut;
    }
    let mut answer = format!("HTTP/1.1 {status} Status\r\n{extra}\r\n").into_bytes();
    answer.extend(body);
    state.traffic += request.len() + answer.len();
    let authorization = header("authorization");
    state.asked.push(Asked { path, status, authorization });
    (answer, cut)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
