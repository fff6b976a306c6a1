//! Uploads: a unified file as the body, or two files as a form, streamed from any reader.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method, RequestBuilder, Response};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::client::LxdClient;
use crate::client::transport::{Request, Transport};
use crate::fingerprint::Fingerprint;
use crate::image::{InstanceType, Properties};
use crate::operation::Operation;
use crate::remote::{Progress, Result, Secret};
use crate::routes::{self, header};

/// Bytes handed to the connection at a time.
const CHUNK: usize = 256 * 1024;
/// What stays as it is in a query-encoded header.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A file to send.
pub struct FilePart {
    /// The name to record; only its printable characters are sent.
    pub filename: String,
    /// Its exact length; `None` sends it in chunks until it ends.
    pub length: Option<u64>,
    /// Where its bytes come from.
    pub reader: Pin<Box<dyn AsyncRead + Send>>,
}

impl fmt::Debug for FilePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilePart")
            .field("filename", &self.filename)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// The files of a new image.
#[derive(Debug)]
pub enum UploadBody {
    /// Metadata and root file system in one file.
    Unified(FilePart),
    /// Two files.
    Split {
        /// The metadata tarball.
        metadata: FilePart,
        /// The root file system, or the disk of a virtual machine.
        rootfs: FilePart,
        /// Which of the two it is.
        kind: InstanceType,
    },
}

/// What else a new image gets.
#[derive(Debug, Clone, Default)]
pub struct UploadOptions {
    /// Shown to strangers.
    pub public: bool,
    /// They win over the image's own.
    pub properties: Properties,
    /// The server refuses bytes that are another image.
    pub fingerprint: Option<Fingerprint>,
    /// Of a token that expects this image; lets a stranger upload it.
    pub secret: Option<Secret>,
    /// Names that appear together with the image; only where the server has
    /// [`crate::extensions::ALIAS_REUSE`].
    pub aliases: Vec<String>,
    /// Those names may be taken from other images.
    pub alias_reuse: bool,
    /// The operation ends only after the deep check of the archive.
    pub verify: bool,
    /// It becomes one of a mirror's; only where the server has
    /// [`crate::extensions::MIRRORS`].
    pub mirrored: Option<Mirrored>,
}

/// An image of a mirror's bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrored {
    /// The mirror.
    pub mirror: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires; the epoch for never.
    pub expires_at: Timestamp,
}

impl LxdClient {
    /// Sends a new image; wait for the operation, whose metadata has the `fingerprint`.
    pub async fn upload(
        &self,
        body: UploadBody,
        options: &UploadOptions,
        progress: &Progress,
    ) -> Result<Operation> {
        let request = Request::new(Method::POST, routes::IMAGES.url(&[]));
        let what = format!("POST {}", request.path);
        let feed = Feed { progress: progress.clone(), reading: Arc::default() };
        let filename = match &body {
            UploadBody::Unified(part) => &part.filename,
            UploadBody::Split { metadata, .. } => &metadata.filename,
        };
        let headers = headers(options, filename);
        let builder = self.transport.prepare(&request).headers(headers);
        let builder = attach(builder, body, &feed);
        let response = watched(&self.transport, builder, &feed).await?;
        self.transport.reply(what, response).await?.operation()
    }
}

/// What the body and the watch over it share.
#[derive(Debug, Clone)]
struct Feed {
    progress: Progress,
    /// We wait for our own source, not for the peer.
    reading: Arc<AtomicBool>,
}

/// Sends, and gives up when the peer takes no bytes and gives no answer.
async fn watched(transport: &Transport, builder: RequestBuilder, feed: &Feed) -> Result<Response> {
    let send = builder.send();
    tokio::pin!(send);
    let mut seen = feed.progress.done();
    loop {
        tokio::select! {
            sent = &mut send => return sent.map_err(|error| transport.failed(&error)),
            () = tokio::time::sleep(transport.idle()) => {
                let now = feed.progress.done();
                if now == seen && !feed.reading.load(Ordering::Relaxed) {
                    return Err(transport.silent());
                }
                seen = now;
            }
        }
    }
}

fn headers(options: &UploadOptions, filename: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: &str, value: &str| {
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        // Each server looks at the names it knows.
        for prefix in header::PREFIXES {
            let name = HeaderName::try_from(format!("{prefix}{name}"));
            let value = HeaderValue::try_from(value.as_bytes());
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.insert(name, value);
            }
        }
    };
    if !filename.is_empty() {
        set(header::FILENAME, filename);
    }
    if options.public {
        set(header::PUBLIC, "true");
    }
    if !options.properties.is_empty() {
        set(header::PROPERTIES, &encoded(&options.properties));
    }
    if let Some(fingerprint) = options.fingerprint {
        set(header::FINGERPRINT, &fingerprint.to_string());
    }
    if let Some(secret) = &options.secret {
        set(header::SECRET, secret.expose());
    }
    if !options.aliases.is_empty() {
        set(header::ALIASES, &encoded(options.aliases.iter().map(|name| ("alias", name))));
    }
    if options.alias_reuse {
        set(header::ALIAS_REUSE, "true");
    }
    if options.verify {
        set(header::VERIFY, "true");
    }
    if let Some(mirrored) = &options.mirrored {
        set(header::MIRROR, &mirrored.mirror);
        set(header::CREATED_AT, &mirrored.created_at.to_string());
        set(header::EXPIRES_AT, &mirrored.expires_at.to_string());
    }
    headers
}

/// `key=value&key=value`, percent-encoded.
fn encoded<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> String {
    let pairs = pairs.into_iter().map(|(key, value)| {
        let key = utf8_percent_encode(key.as_ref(), QUERY);
        format!("{key}={}", utf8_percent_encode(value.as_ref(), QUERY))
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// One after the other: framing and files.
enum Piece {
    Framing(String),
    File(FilePart),
}

fn attach(builder: RequestBuilder, body: UploadBody, feed: &Feed) -> RequestBuilder {
    let (content_type, pieces) = match body {
        UploadBody::Unified(part) => {
            ("application/octet-stream".to_owned(), vec![Piece::File(part)])
        }
        UploadBody::Split { metadata, rootfs, kind } => {
            let rootfs_name = match kind {
                InstanceType::Container => "rootfs",
                InstanceType::VirtualMachine => "rootfs.img",
            };
            let boundary = boundary();
            let first = part_head("", &boundary, "metadata", &metadata.filename);
            let second = part_head("\r\n", &boundary, rootfs_name, &rootfs.filename);
            let end = format!("\r\n--{boundary}--\r\n");
            let pieces = vec![
                Piece::Framing(first),
                Piece::File(metadata),
                Piece::Framing(second),
                Piece::File(rootfs),
                Piece::Framing(end),
            ];
            (format!("multipart/form-data; boundary={boundary}"), pieces)
        }
    };
    let mut builder = builder.header(CONTENT_TYPE, content_type);
    if let Some(length) = total(&pieces) {
        builder = builder.header(CONTENT_LENGTH, length);
    }
    let feed = feed.clone();
    let body = stream::iter(pieces).flat_map(move |piece| match piece {
        Piece::Framing(text) => stream::once(async { Ok(Bytes::from(text)) }).boxed(),
        Piece::File(part) => file_stream(part, feed.clone()).boxed(),
    });
    builder.body(Body::wrap_stream(body))
}

fn total(pieces: &[Piece]) -> Option<u64> {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Framing(text) => Some(text.len() as u64),
            Piece::File(part) => part.length,
        })
        .sum()
}

fn file_stream(
    part: FilePart,
    feed: Feed,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send {
    let stream = ReaderStream::with_capacity(part.reader, CHUNK);
    stream::unfold((stream, feed), |(mut stream, feed)| async move {
        feed.reading.store(true, Ordering::Relaxed);
        let chunk = stream.next().await;
        feed.reading.store(false, Ordering::Relaxed);
        let chunk = chunk?;
        if let Ok(bytes) = &chunk {
            feed.progress.add(bytes.len());
        }
        Some((chunk, (stream, feed)))
    })
}

fn part_head(before: &str, boundary: &str, name: &str, filename: &str) -> String {
    let filename: String =
        filename.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')).collect();
    format!(
        "{before}--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; \
         filename=\"{filename}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
}

/// A delimiter that no image holds by accident: 128 bits nobody can guess.
fn boundary() -> String {
    use std::hash::{BuildHasher, RandomState};
    let half = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_headers() {
        let options = UploadOptions {
            public: true,
            properties: [("os", "Debian GNU"), ("a&b", "c=d")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            aliases: vec!["t/1".into(), "two words".into()],
            ..UploadOptions::default()
        };
        let headers = headers(&options, "bb.tar.xz\r\nx: y");
        let get = |name: &str| headers.get(name).unwrap().to_str().unwrap();
        assert_eq!(get("x-lxd-public"), "true");
        assert_eq!(get("x-lxd-filename"), "bb.tar.xzx: y");
        assert_eq!(get("x-lxd-properties"), "a%26b=c%3Dd&os=Debian%20GNU");
        assert_eq!(get("x-lxd-aliases"), "alias=t%2F1&alias=two%20words");
        assert!(!headers.contains_key("x-lxd-verify"));
    }

    #[test]
    fn a_form_has_a_length_when_both_files_have() {
        let part = |length| FilePart {
            filename: "a\"\n".into(),
            length,
            reader: Box::pin(tokio::io::empty()),
        };
        let head = part_head("", "B", "metadata", "a\"\n");
        assert!(head.contains("filename=\"a\"\r\n"), "{head}");
        let pieces = |length| vec![Piece::Framing(head.clone()), Piece::File(part(length))];
        assert_eq!(total(&pieces(Some(7))), Some(head.len() as u64 + 7));
        assert_eq!(total(&pieces(None)), None);
    }
}
