//! A web server of a test's own: files in memory behind https, under an authority of its own.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::fixtures::fingerprint;

/// An authority that nobody knows but who was given its certificate.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "An authority of the tests");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Its certificate, for `SSL_CERT_FILE`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate and a key for 127.0.0.1 and localhost, as PEM.
    pub fn vouch(&self) -> (String, String) {
        let (certificate, key) = self.signed();
        (certificate.pem(), key.serialize_pem())
    }

    fn signed(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let params = CertificateParams::new(names).expect("two names");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        let (certificate, key) = self.signed();
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a PKCS#8 key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(certificate)], key)
            .expect("a certificate of ours");
        Arc::new(config)
    }
}

/// What a path is answered with instead of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status and nothing.
    Status(u16),
    /// To the same path, for ever.
    RedirectLoop,
    /// Elsewhere, once.
    Redirect(String),
    /// A body without a length that does not end.
    Endless,
    /// The right head and half of the body, then nothing more on an open connection.
    Stall,
    /// A byte in the middle is another one.
    WrongByte,
    /// A body that is this much longer than it should be, with a length that agrees.
    Longer(usize),
}

/// One request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `GET` or `HEAD`.
    pub method: String,
    /// With the leading slash.
    pub path: String,
    /// The first byte of a range.
    pub from: Option<usize>,
    /// Of the answer.
    pub status: u16,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Arc<Vec<u8>>>,
    headers: BTreeMap<String, Vec<(String, String)>>,
    faults: BTreeMap<String, Fault>,
    asked: Vec<Asked>,
    body_bytes: u64,
    closed: bool,
}

/// Serves until it is dropped: strong tags, ranges from a byte on, 304.
#[derive(Debug)]
pub struct Web {
    port: u16,
    shared: Arc<Shared>,
}

impl Web {
    /// An empty one, with a certificate by `authority`.
    pub fn start(authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        let (config, served) = (authority.server_config(), shared.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if served.lock().closed {
                    return;
                }
                let (config, served) = (config.clone(), served.clone());
                // A client that goes away is its own affair.
                thread::spawn(move || {
                    let _ = connection(stream, config, &served);
                });
            }
        });
        Self { port, shared }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `https://127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Serves `bytes` at `path` (with its leading slash) from now on.
    pub fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.shared.lock().files.insert(path.to_owned(), Arc::new(bytes.into()));
    }

    /// Serves exactly these files from now on.
    pub fn publish(&self, files: BTreeMap<String, Vec<u8>>) {
        let files = files.into_iter().map(|(path, bytes)| (path, Arc::new(bytes)));
        self.shared.lock().files = files.collect();
    }

    /// Adds a header to the answers for `path`.
    pub fn header(&self, path: &str, name: &str, value: &str) {
        let mut state = self.shared.lock();
        let headers = state.headers.entry(path.to_owned()).or_default();
        headers.push((name.to_owned(), value.to_owned()));
    }

    /// Answers `path` wrongly from now on; `None` heals it.
    pub fn fault(&self, path: &str, fault: impl Into<Option<Fault>>) {
        let mut state = self.shared.lock();
        match fault.into() {
            Some(fault) => state.faults.insert(path.to_owned(), fault),
            None => state.faults.remove(path),
        };
    }

    /// What was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.lock().asked)
    }

    /// Bytes of bodies sent since the last time.
    pub fn body_bytes(&self) -> u64 {
        std::mem::take(&mut self.shared.lock().body_bytes)
    }
}

/// Everything below a directory, as a web server sees it.
pub fn files_below(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap();
                files.insert(format!("/{name}"), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        // Wakes the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

fn connection(stream: TcpStream, config: Arc<ServerConfig>, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_mins(2)))?;
    let tls = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(tls, stream));
    while let Some(request) = Request::read(&mut stream)? {
        if !answer(stream.get_mut(), &request, shared)? {
            break;
        }
    }
    stream.get_mut().conn.send_close_notify();
    stream.get_mut().flush()
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

impl Request {
    fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if stream.take(64 << 10).read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (method, path) = (word(), word());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            stream.take(64 << 10).read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        Ok(Some(Self { method, path, headers }))
    }

    /// The first byte that is wanted and the last, if a range is.
    fn range(&self, tag: &str) -> Option<(usize, Option<usize>)> {
        if self.headers.get("if-range").is_some_and(|range| range != tag) {
            return None;
        }
        let (first, last) = self.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()))
    }
}

/// Answers one request; whether the connection goes on.
fn answer(stream: &mut Tls, request: &Request, shared: &Shared) -> io::Result<bool> {
    let (file, fault, headers) = {
        let state = shared.lock();
        let path = request.path.split('?').next().unwrap_or_default();
        let headers = state.headers.get(path).into_iter().flatten();
        let headers = headers.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        (state.files.get(path).cloned(), state.faults.get(path).cloned(), headers)
    };
    match (fault, file) {
        (Some(Fault::Status(status)), _) => empty(stream, request, shared, status, ""),
        (Some(Fault::RedirectLoop), _) => {
            let to = format!("Location: {}\r\n", request.path);
            empty(stream, request, shared, 302, &to)
        }
        (Some(Fault::Redirect(to)), _) => {
            empty(stream, request, shared, 302, &format!("Location: {to}\r\n"))
        }
        (Some(Fault::Endless), _) => endless(stream, request, shared),
        (_, None) => empty(stream, request, shared, 404, ""),
        (fault, Some(file)) => {
            let mut file = file;
            let stalls = fault == Some(Fault::Stall);
            match fault {
                Some(Fault::WrongByte) => {
                    let middle = file.len() / 2;
                    Arc::make_mut(&mut file)[middle] ^= 0xff;
                }
                Some(Fault::Longer(by)) => {
                    let length = file.len() + by;
                    Arc::make_mut(&mut file).resize(length, b'x');
                }
                _ => {}
            }
            send(stream, request, shared, &Served { file, headers, stalls })
        }
    }
}

fn note(shared: &Shared, request: &Request, status: u16, from: Option<usize>) {
    let (method, path) = (request.method.clone(), request.path.clone());
    shared.lock().asked.push(Asked { method, path, from, status });
}

/// An answer without a body.
fn empty(
    stream: &mut Tls,
    request: &Request,
    shared: &Shared,
    status: u16,
    headers: &str,
) -> io::Result<bool> {
    note(shared, request, status, None);
    write!(stream, "HTTP/1.1 {status} X\r\n{headers}Content-Length: 0\r\n\r\n")?;
    stream.flush()?;
    Ok(true)
}

/// An answer whose body does not end.
fn endless(stream: &mut Tls, request: &Request, shared: &Shared) -> io::Result<bool> {
    note(shared, request, 200, None);
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
    while !shared.lock().closed {
        stream.write_all(&[b'x'; 16 << 10])?;
        shared.lock().body_bytes += 16 << 10;
    }
    Ok(false)
}

/// A file and how it is served.
struct Served {
    file: Arc<Vec<u8>>,
    headers: String,
    stalls: bool,
}

/// A file, or the part of it that is asked for, or that nothing has changed.
fn send(stream: &mut Tls, request: &Request, shared: &Shared, served: &Served) -> io::Result<bool> {
    let Served { file, headers, stalls } = served;
    let tag = format!("\"{}\"", &fingerprint(&[&file[..file.len().min(1 << 20)]])[..16]);
    if request.headers.get("if-none-match") == Some(&tag) {
        note(shared, request, 304, None);
        write!(stream, "HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\n\r\n")?;
        stream.flush()?;
        return Ok(true);
    }
    let range = request.range(&tag);
    let (first, end) = match range {
        Some((first, last)) => (first, last.map_or(file.len(), |last| file.len().min(last + 1))),
        None => (0, file.len()),
    };
    if range.is_some() && first >= end {
        return empty(stream, request, shared, 416, "");
    }
    let status = if range.is_some() { 206 } else { 200 };
    note(shared, request, status, range.map(|range| range.0));
    let mut head = format!("HTTP/1.1 {status} X\r\nETag: {tag}\r\nAccept-Ranges: bytes\r\n");
    if status == 206 {
        head += &format!("Content-Range: bytes {first}-{}/{}\r\n", end - 1, file.len());
    }
    write!(stream, "{head}{headers}Content-Length: {}\r\n\r\n", end - first)?;
    let end = if *stalls { first + (end - first) / 2 } else { end };
    let body = if request.method == "HEAD" { &[][..] } else { &file[first..end] };
    for step in body.chunks(64 << 10) {
        stream.write_all(step)?;
        shared.lock().body_bytes += step.len() as u64;
    }
    stream.flush()?;
    while *stalls && !shared.lock().closed {
        thread::sleep(Duration::from_millis(5));
    }
    Ok(!stalls)
}
