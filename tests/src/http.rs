//! HTTP/1.1 by hand over the unix socket: every header and every byte under the test's control.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::wait::PATIENCE;

/// A daemon's address.
#[derive(Debug, Clone)]
pub struct Http {
    socket: PathBuf,
}

impl Http {
    /// For the daemon that listens on `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A connection on which nothing was said yet.
    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket)
            .unwrap_or_else(|e| panic!("{}: {e}", self.socket.display()));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A request to shape and send; one connection each, as `lxc` does it.
    pub fn request(&self, method: &str, path: &str) -> Request<'_> {
        Request { http: self, head: format!("{method} {path} HTTP/1.1\r\nHost: unix.socket\r\n") }
    }

    /// `GET path`.
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path).send(b"")
    }

    /// `method path` with a JSON body.
    pub fn json(&self, method: &str, path: &str, body: &Value) -> Response {
        let request = self.request(method, path).header("Content-Type", "application/json");
        request.send(body.to_string().as_bytes())
    }

    /// `GET path`, which must succeed; the envelope's `metadata`.
    pub fn metadata(&self, path: &str) -> Value {
        self.get(path).expect(200).metadata()
    }

    /// Waits for the operation that a 202 announced; its final object.
    pub fn finish(&self, accepted: &Response) -> Value {
        assert_eq!(accepted.status, 202, "no operation:\n{accepted}");
        let operation = accepted.json()["operation"].as_str().unwrap_or_default().to_owned();
        let done = self.get(&format!("{operation}/wait?timeout=60")).expect(200).metadata();
        assert!(done["status_code"].as_u64() >= Some(200), "not finished: {done}");
        done
    }

    /// Uploads a unified image with these extra headers; the final operation.
    pub fn upload(&self, image: &[u8], headers: &[(&str, &str)]) -> Value {
        let mut request =
            self.request("POST", "/1.0/images").header("Content-Type", "application/octet-stream");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.finish(&request.send(image))
    }

    /// Uploads a split image as `lxc` does, a disk under its own part name; the final operation.
    pub fn upload_split(&self, metadata: &[u8], rootfs: &[u8]) -> Value {
        let name = if rootfs.starts_with(b"QFI\xfb") { "rootfs.img" } else { "rootfs" };
        let parts = [("metadata", metadata), (name, rootfs)];
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let request = self.request("POST", "/1.0/images").header("Content-Type", &kind);
        self.finish(&request.send(&multipart(&parts)))
    }

    /// Uploads an image, which must succeed; its fingerprint.
    pub fn import(&self, image: &[u8]) -> String {
        fingerprint_of(&self.upload(image, &[]))
    }

    /// Uploads a split image, which must succeed; its fingerprint.
    pub fn import_split(&self, metadata: &[u8], rootfs: &[u8]) -> String {
        fingerprint_of(&self.upload_split(metadata, rootfs))
    }
}

fn fingerprint_of(operation: &Value) -> String {
    assert_eq!(operation["status"], "Success", "the upload failed: {operation}");
    operation["metadata"]["fingerprint"].as_str().expect("a fingerprint").to_owned()
}

const BOUNDARY: &str = "d41d8cd98f00b204e9800998ecf8427e";

/// A multipart body of these parts, in this order; file names equal the part names.
pub fn multipart(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in parts {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

/// The `Content-Type` that goes with [`multipart`].
pub fn multipart_type() -> String {
    format!("multipart/form-data; boundary={BOUNDARY}")
}

/// A request being shaped.
#[derive(Debug)]
pub struct Request<'a> {
    http: &'a Http,
    head: String,
}

impl Request<'_> {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let _ = write!(self.head, "{name}: {value}\r\n");
        self
    }

    /// Sends it with a body of known length and reads the whole answer.
    pub fn send(self, body: &[u8]) -> Response {
        let mut stream = self.http.connect();
        let head =
            format!("{}Content-Length: {}\r\nConnection: close\r\n\r\n", self.head, body.len());
        stream.write_all(head.as_bytes()).unwrap();
        // The server may answer before it has read all; then its answer is what counts.
        let _ = stream.write_all(body);
        Response::read(stream)
    }

    /// Sends the head and leaves the answer's body to the caller.
    pub fn stream(self) -> (Response, impl Read + use<>) {
        let mut stream = self.http.connect();
        let head = format!("{}Connection: close\r\n\r\n", self.head);
        stream.write_all(head.as_bytes()).unwrap();
        let mut reader = BufReader::with_capacity(256 * 1024, stream);
        let response = Response::read_head(&mut reader);
        let body = response.body_reader(reader);
        (response, body)
    }

    /// Opens an upload of unknown length, as `lxc` sends it.
    pub fn chunked(self) -> Upload {
        let mut stream = self.http.connect();
        let head = format!("{}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", self.head);
        stream.write_all(head.as_bytes()).unwrap();
        Upload { stream }
    }
}

/// A chunked body being sent.
#[derive(Debug)]
pub struct Upload {
    stream: UnixStream,
}

impl Upload {
    /// Sends a chunk; an error means that the server stopped reading.
    pub fn chunk(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        write!(self.stream, "{:x}\r\n", bytes.len())?;
        self.stream.write_all(bytes)?;
        self.stream.write_all(b"\r\n")
    }

    /// Ends the body and reads the answer.
    pub fn end(mut self) -> Response {
        let _ = self.stream.write_all(b"0\r\n\r\n");
        Response::read(self.stream)
    }

    /// The answer to a body that was cut short by the server.
    pub fn answer(self) -> Response {
        Response::read(self.stream)
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.chunk(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body, without transfer encoding.
    pub body: Vec<u8>,
}

impl Response {
    fn read(stream: UnixStream) -> Self {
        let mut reader = BufReader::with_capacity(256 * 1024, stream);
        let mut response = Self::read_head(&mut reader);
        let mut body = Vec::new();
        response.body_reader(reader).read_to_end(&mut body).expect("read the body");
        response.body = body;
        response
    }

    fn read_head(reader: &mut impl BufRead) -> Self {
        let mut line = String::new();
        reader.read_line(&mut line).expect("read the status line");
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let mut headers = Vec::new();
        loop {
            line.clear();
            reader.read_line(&mut line).expect("read a header");
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Self { status, headers, body: Vec::new() }
    }

    fn body_reader<R: BufRead>(&self, reader: R) -> Body<R> {
        let length = self.header("content-length").and_then(|v| v.parse().ok());
        let chunked = self.header("transfer-encoding") == Some("chunked");
        let left = if chunked { 0 } else { length.unwrap_or(u64::MAX) };
        Body { reader, left, chunked, ended: false, sized: length.is_some() }
    }

    /// A header's value, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The status must be `status`.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "wrong status:\n{self}");
        self
    }

    /// The answer must be an error with this status and a text that contains `text`.
    pub fn refuses(self, status: u16, text: &str) -> Self {
        let json = self.json();
        assert_eq!(self.status, status, "wrong status:\n{self}");
        assert_eq!(json["type"], "error", "no error:\n{self}");
        assert_eq!(json["error_code"], status, "wrong code:\n{self}");
        let error = json["error"].as_str().unwrap_or_default();
        assert!(error.contains(text), "error lacks {text:?}:\n{self}");
        self
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}):\n{self}"))
    }

    /// The envelope's `metadata`.
    pub fn metadata(&self) -> Value {
        self.json()["metadata"].clone()
    }

    /// The parts of a multipart body: name, file name, bytes.
    pub fn parts(&self) -> Vec<(String, String, Vec<u8>)> {
        let kind = self.header("content-type").unwrap_or_default();
        let boundary =
            kind.split("boundary=").nth(1).unwrap_or_else(|| panic!("no boundary: {kind}"));
        let marker = format!("--{}", boundary.trim_matches('"'));
        let mut parts = Vec::new();
        let mut rest = after(&self.body, marker.as_bytes()).expect("a first boundary");
        while let Some(content) = rest.strip_prefix(b"\r\n") {
            let end =
                find(content, format!("\r\n{marker}").as_bytes()).expect("a closing boundary");
            let part = &content[..end];
            let body = after(part, b"\r\n\r\n").expect("a part has a head");
            let head = String::from_utf8_lossy(&part[..part.len() - body.len()]).into_owned();
            parts.push((quoted(&head, "; name=\""), quoted(&head, "filename=\""), body.to_vec()));
            rest = &content[end + 2 + marker.len()..];
        }
        assert!(rest.starts_with(b"--"), "the multipart body is not closed");
        parts
    }
}

fn quoted(head: &str, key: &str) -> String {
    let value = head.split(key).nth(1).and_then(|rest| rest.split('"').next());
    value.unwrap_or_default().to_owned()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn after<'a>(bytes: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    find(bytes, what).map(|at| &bytes[at + what.len()..])
}

impl std::fmt::Display for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        let shown = &self.body[..self.body.len().min(2000)];
        write!(f, "\n{}", String::from_utf8_lossy(shown))
    }
}

/// A body without its transfer encoding.
struct Body<R> {
    reader: R,
    left: u64,
    chunked: bool,
    ended: bool,
    sized: bool,
}

impl<R: BufRead> Body<R> {
    /// Reads the next chunk's size; 0 ends the body.
    fn next_chunk(&mut self) -> std::io::Result<()> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            line.clear();
            self.reader.read_line(&mut line)?;
        }
        self.left = u64::from_str_radix(line.trim(), 16).map_err(|_| {
            std::io::Error::new(std::io::ErrorKind::UnexpectedEof, format!("chunk size {line:?}"))
        })?;
        self.ended = self.left == 0;
        Ok(())
    }
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && self.chunked && !self.ended {
            self.next_chunk()?;
        }
        if self.left == 0 {
            return Ok(0);
        }
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.reader.read(&mut buffer[..limit])?;
        if read == 0 && (self.sized || self.chunked) {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}
