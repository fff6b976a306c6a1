//! Files of an instance: read, write, delete, streamed both ways.

use std::io;

use bytes::Bytes;
use futures_util::Stream;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method, Response};

use crate::client::LxdClient;
use crate::client::transport::{Request, Transport};
use crate::envelope::Envelope;
use crate::instance::file::{FileHeaders, FileKind, FileWrite, header};
use crate::remote::{Error, Result};
use crate::routes::{self, query};

/// In front of the names of [`header`] where LXD's servers write and read them.
const PREFIX: &str = "x-lxd-";
/// The longest target of a symbolic link, in bytes.
const LONGEST_TARGET: usize = 4096;

/// What stands at a path of an instance.
#[derive(Debug)]
pub struct InstanceFile {
    /// Owner, mode and kind.
    pub headers: FileHeaders,
    /// When it last changed, in the server's words; empty when not told.
    pub modified: String,
    /// What is in it.
    pub body: FileBody,
}

/// What is in something at a path.
#[derive(Debug)]
pub enum FileBody {
    /// The bytes of a file, still to be read.
    File(Box<FileReader>),
    /// Where a symbolic link leads.
    Symlink(Vec<u8>),
    /// The names in a directory.
    Directory(Vec<String>),
}

/// The bytes of a file, as they come.
#[derive(Debug)]
pub struct FileReader {
    response: Response,
    transport: Transport,
    left: Option<u64>,
}

impl FileReader {
    /// How many bytes there are, where the server tells it.
    pub fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// Also when the file ends before its announced length.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let piece = self.transport.http.chunk(&mut self.response).await?;
        if let (Some(left), Some(bytes)) = (&mut self.left, &piece) {
            *left = left.saturating_sub(bytes.len() as u64);
        }
        match (self.left, &piece) {
            (Some(left), None) if left > 0 => Err(Error::Transport {
                endpoint: self.transport.endpoint(),
                reason: format!("{left} bytes of the file are missing"),
            }),
            _ => Ok(piece),
        }
    }
}

impl LxdClient {
    /// Begins to read what stands at `path`, an absolute path in the instance.
    pub async fn get_file(&self, name: &str, path: &str) -> Result<InstanceFile> {
        let response = self.file(Method::GET, name, path).await?;
        let headers = read_headers(response.headers())?;
        let modified = text(response.headers(), header::MODIFIED).unwrap_or_default().to_owned();
        let body = match headers.kind {
            FileKind::File => {
                let left = response.content_length();
                let transport = self.transport.clone();
                FileBody::File(Box::new(FileReader { response, transport, left }))
            }
            FileKind::Symlink => {
                let target = self.transport.http.body(response, LONGEST_TARGET).await?;
                FileBody::Symlink(target.to_vec())
            }
            FileKind::Directory => {
                let what = format!("GET {path} of {name}");
                let names = self.transport.reply(what, response).await?.parse()?;
                FileBody::Directory(names)
            }
        };
        Ok(InstanceFile { headers, modified, body })
    }

    /// Writes a file, makes a directory, or a symbolic link whose target is the body. With a
    /// `length` the body must have exactly that; silence of the source is waited for without end.
    pub async fn put_file<S>(
        &self,
        name: &str,
        path: &str,
        headers: &FileHeaders,
        length: Option<u64>,
        body: S,
    ) -> Result<()>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let request = request(Method::POST, name, path);
        let what = format!("writing {path} in {name}");
        let mut builder = self.transport.prepare(&request).headers(write_headers(headers));
        if let Some(length) = length {
            builder = builder.header(reqwest::header::CONTENT_LENGTH, length);
        }
        let builder = builder
            .header(reqwest::header::CONTENT_TYPE, "application/octet-stream")
            .body(Body::wrap_stream(body));
        let response = builder.send().await.map_err(|error| self.transport.failed(&error))?;
        self.transport.reply(what, response).await?;
        Ok(())
    }

    /// Deletes a file or an empty directory.
    pub async fn delete_file(&self, name: &str, path: &str) -> Result<()> {
        self.transport.ask(request(Method::DELETE, name, path)).await?;
        Ok(())
    }

    async fn file(&self, method: Method, name: &str, path: &str) -> Result<Response> {
        let request = request(method, name, path);
        let response = self.transport.send(self.transport.prepare(&request)).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.transport.http.body(response, 64 << 10).await?;
        Err(error_of(status.as_u16(), &body))
    }
}

fn request(method: Method, name: &str, path: &str) -> Request<'static> {
    Request::new(method, routes::INSTANCE_FILES.url(&[name])).query(query::PATH, path)
}

/// An error with the server's words, if it has some.
pub(super) fn error_of(status: u16, body: &[u8]) -> Error {
    let message = match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) if !envelope.error.is_empty() => envelope.error,
        _ => format!("the server answered with status {status}"),
    };
    Error::Api { status, message }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(format!("{PREFIX}{name}"))?.to_str().ok()
}

fn read_headers(headers: &HeaderMap) -> Result<FileHeaders> {
    FileHeaders::read(|name| text(headers, name)).map_err(|error| Error::Decode {
        what: "the headers of a file".to_owned(),
        reason: error.to_string(),
    })
}

fn write_headers(headers: &FileHeaders) -> HeaderMap {
    let mut map = HeaderMap::new();
    let mut pairs = headers.pairs();
    if headers.write == FileWrite::Append {
        pairs.push((header::WRITE, headers.write.as_str().to_owned()));
    }
    for (name, value) in pairs {
        let name = HeaderName::try_from(format!("{PREFIX}{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            map.insert(name, value);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_their_prefix() {
        let headers = FileHeaders {
            uid: Some(7),
            mode: Some(0o600),
            write: FileWrite::Append,
            ..FileHeaders::default()
        };
        let map = write_headers(&headers);
        assert_eq!(map["X-LXD-uid"], "7");
        assert_eq!(map["X-LXD-mode"], "0600");
        assert_eq!(map["X-LXD-write"], "append");
        assert!(!map.contains_key("X-LXD-gid"));
        assert_eq!(read_headers(&map).unwrap(), headers);
    }

    #[test]
    fn an_error_without_words_tells_its_status() {
        assert!(error_of(502, b"<html>").to_string().contains("502"));
        assert!(error_of(404, b"{}").is_not_found());
    }
}
