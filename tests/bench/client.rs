//! The load generator: HTTP/1.1 over a unix socket or TLS, blocking, as cheap as it can be made.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::tls::{self, Tls};

/// Bytes per write of a body and per read of an answer.
pub(crate) const STEP: usize = 256 << 10;
/// Longer than anything that works takes.
const PATIENCE: Duration = Duration::from_mins(3);

/// A connection that is kept open from one request to the next.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// What a connection runs over.
#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tls(Box<Tls>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Unix(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// The head of an answer.
#[derive(Debug)]
struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
}

impl Connection {
    /// Connects; `room` is the size of its read buffer.
    pub(crate) fn with_room(socket: &Path, room: usize) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::over(Stream::Unix(stream), room))
    }

    /// Connects to a port of this machine over TLS, whatever certificate it shows.
    pub(crate) fn https(port: u16, room: usize) -> Result<Self> {
        Ok(Self::over(Stream::Tls(Box::new(tls::connect(port, PATIENCE)?)), room))
    }

    fn over(stream: Stream, room: usize) -> Self {
        Self { stream, buffer: vec![0; room].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Connects with a buffer for large answers.
    pub(crate) fn open(socket: &Path) -> Result<Self> {
        Self::with_room(socket, STEP)
    }

    /// Sends a request without a body and reads the whole answer.
    pub(crate) fn get(&mut self, path: &str) -> Result<(u16, Vec<u8>)> {
        self.send("GET", path, "")?;
        self.answer()
    }

    /// Like [`Connection::get`], but an answer that is cut short counts for what came of it.
    pub(crate) fn get_what_comes(&mut self, path: &str) -> Result<(u16, Vec<u8>)> {
        self.send("GET", path, "")?;
        let head = self.head()?;
        let mut body = Vec::with_capacity(head.length.unwrap_or(1024));
        // What is missing shows in what is there.
        let _ = self.body(&head, |part| body.extend_from_slice(part));
        Ok((head.status, body))
    }

    /// Sends a small request; the envelope of a success.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &str) -> Result<Value> {
        self.send(method, path, body)?;
        let (status, answer) = self.answer()?;
        envelope(status, &answer).with_context(|| format!("{method} {path}"))
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> Result<()> {
        let length = if body.is_empty() && method == "GET" {
            String::new()
        } else {
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
        };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n{length}\r\n{body}");
        self.stream.write_all(request.as_bytes())?;
        Ok(())
    }

    /// Uploads `parts`, one after the other, as one body; what was timed.
    pub(crate) fn upload(
        &mut self,
        kind: &str,
        parts: &[&[u8]],
        pace: Option<f64>,
    ) -> Result<Upload> {
        self.upload_with(kind, "", parts, pace)
    }

    /// Uploads an image that everybody sees at once; its fingerprint.
    pub(crate) fn publish(&mut self, image: &[u8]) -> Result<String> {
        let public = "X-LXD-public: true\r\n";
        Ok(self.upload_with("application/octet-stream", public, &[image], None)?.fingerprint)
    }

    fn upload_with(
        &mut self,
        kind: &str,
        headers: &str,
        parts: &[&[u8]],
        pace: Option<f64>,
    ) -> Result<Upload> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let head = format!(
            "POST /1.0/images HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        let first = Instant::now();
        self.stream.write_all(head.as_bytes())?;
        let mut sent = 0;
        for step in parts.iter().flat_map(|part| part.chunks(STEP)) {
            // A server that refuses stops reading; its answer then says why.
            if self.stream.write_all(step).is_err() {
                break;
            }
            sent += step.len();
            if let Some(bytes_per_second) = pace {
                #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
                let due = Duration::from_secs_f64(sent as f64 / bytes_per_second);
                std::thread::sleep(due.saturating_sub(first.elapsed()));
            }
        }
        let last = Instant::now();
        let (status, answer) = self.answer().context("no answer to an upload")?;
        let accepted = envelope(status, &answer).context("POST /1.0/images")?;
        let done = self.finished(&accepted)?;
        let success = Instant::now();
        ensure!(sent == length, "the upload was answered before its end");
        let fingerprint =
            done["metadata"]["fingerprint"].as_str().context("an image without a fingerprint")?;
        Ok(Upload {
            total: (success - first).as_secs_f64(),
            tail: (success - last).as_secs_f64(),
            fingerprint: fingerprint.to_owned(),
        })
    }

    /// Waits for an operation; its final object, if it succeeded.
    pub(crate) fn finished(&mut self, accepted: &Value) -> Result<Value> {
        let operation =
            accepted["operation"].as_str().context("an answer without an operation")?.to_owned();
        let done =
            self.call("GET", &format!("{operation}/wait?timeout=180"), "")?["metadata"].take();
        ensure!(
            done["status"] == "Success",
            "the operation ended with {}: {}",
            done["status"],
            done["err"]
        );
        Ok(done)
    }

    /// Deletes an image and waits for it.
    pub(crate) fn delete(&mut self, fingerprint: &str) -> Result<()> {
        let accepted = self.call("DELETE", &format!("/1.0/images/{fingerprint}"), "")?;
        self.finished(&accepted)?;
        Ok(())
    }

    /// Downloads `path` and throws its bytes away; how many there were.
    pub(crate) fn download(&mut self, path: &str) -> Result<usize> {
        self.send("GET", path, "")?;
        let head = self.head()?;
        ensure!(head.status == 200, "GET {path}: status {}", head.status);
        let mut bytes = 0;
        self.body(&head, |part| bytes += part.len())?;
        Ok(bytes)
    }

    /// Seconds to the first byte of the body, and to its last.
    pub(crate) fn timed(&mut self, path: &str) -> Result<[f64; 2]> {
        let start = Instant::now();
        self.send("GET", path, "")?;
        let head = self.head()?;
        ensure!(head.status == 200, "GET {path}: status {}", head.status);
        let mut first = None;
        self.body(&head, |_| {
            first.get_or_insert_with(|| start.elapsed().as_secs_f64());
        })?;
        let last = start.elapsed().as_secs_f64();
        Ok([first.unwrap_or(last), last])
    }

    fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        let head = self.head()?;
        let mut body = Vec::with_capacity(head.length.unwrap_or(1024));
        self.body(&head, |part| body.extend_from_slice(part))?;
        Ok((head.status, body))
    }

    fn fill(&mut self) -> Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let read = self.stream.read(&mut self.buffer[self.end..])?;
        ensure!(read > 0, "the server closed the connection");
        self.end += read;
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = unread.iter().position(|&b| b == b'\n') {
                let line = String::from_utf8_lossy(&unread[..at]).trim_end().to_owned();
                self.start += at + 1;
                return Ok(line);
            }
            ensure!(unread.len() < self.buffer.len(), "a line of the answer is too long");
            self.fill()?;
        }
    }

    fn head(&mut self) -> Result<Head> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.with_context(|| format!("not a status line: {line:?}"))?;
        let mut head = Head { status, length: None, chunked: false };
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { return Ok(head) };
            if name.eq_ignore_ascii_case("content-length") {
                head.length = Some(value.trim().parse().context("a bad Content-Length")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.chunked = value.trim() == "chunked";
            }
        }
    }

    fn body(&mut self, head: &Head, mut take: impl FnMut(&[u8])) -> Result<()> {
        if !head.chunked {
            let length = head.length.context("an answer of unknown length")?;
            return self.exactly(length, &mut take);
        }
        loop {
            let size = self.line()?;
            let Ok(size) = usize::from_str_radix(&size, 16) else {
                bail!("not a chunk size: {size:?}")
            };
            self.exactly(size, &mut take)?;
            self.line()?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn exactly(&mut self, mut length: usize, take: &mut impl FnMut(&[u8])) -> Result<()> {
        while length > 0 {
            if self.start == self.end {
                self.fill()?;
            }
            let part = length.min(self.end - self.start);
            take(&self.buffer[self.start..self.start + part]);
            self.start += part;
            length -= part;
        }
        Ok(())
    }
}

/// The timing of an upload, in seconds.
#[derive(Debug)]
pub(crate) struct Upload {
    /// From the first byte to the operation's success.
    pub(crate) total: f64,
    /// From the last byte to the operation's success.
    pub(crate) tail: f64,
    pub(crate) fingerprint: String,
}

fn envelope(status: u16, answer: &[u8]) -> Result<Value> {
    let json: Value =
        serde_json::from_slice(answer).with_context(|| format!("status {status}, and no JSON"))?;
    if status >= 300 || json["type"] == "error" {
        bail!("status {status}: {}", json["error"]);
    }
    Ok(json)
}
