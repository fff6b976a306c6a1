//! Small files, asked for again and again: bounded, and not sent when they have not changed.

use std::io::{self, Read};

use bytes::Bytes;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Method, StatusCode};
use url::Url;

use crate::net::Http;
use crate::net::target::parse;
use crate::remote::{Error, Result};

/// Which version of a document we have already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownVersion {
    /// Its `ETag`.
    pub etag: Option<String>,
    /// Its `Last-Modified`.
    pub last_modified: Option<String>,
}

/// A small file, whole.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its bytes.
    pub body: Bytes,
    /// Which version it is, for the next time.
    pub version: KnownVersion,
}

impl Http {
    /// The document at `url`, of at most `most` bytes; `None` when `known` is still the current
    /// version.
    pub async fn document(
        &self,
        url: &str,
        known: &KnownVersion,
        most: usize,
    ) -> Result<Option<Document>> {
        let url = parse(url)?;
        match self.ask_document(&url, known, most).await {
            // A connection that was kept may have been closed by the server in the same moment.
            Err(Error::Transport { .. }) => self.ask_document(&url, known, most).await,
            asked => asked,
        }
    }

    async fn ask_document(
        &self,
        url: &Url,
        known: &KnownVersion,
        most: usize,
    ) -> Result<Option<Document>> {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.last_modified)]
        {
            if let Some(value) = value.as_deref().and_then(|text| HeaderValue::from_str(text).ok())
            {
                headers.insert(name, value);
            }
        }
        let conditional = !headers.is_empty();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let response = self.follow(Method::GET, url, &headers).await?;
        if conditional && response.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let response = self.success(response).await?;
        let text = |name| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let version = KnownVersion { etag: text(ETAG), last_modified: text(LAST_MODIFIED) };
        let compressed = response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| {
            [&b"gzip"[..], b"x-gzip"].contains(&encoding.as_bytes().to_ascii_lowercase().as_slice())
        });
        let mut body = self.body(response, most).await?;
        if compressed {
            body = gunzip(self.name(url), body, most).await?;
        }
        Ok(Some(Document { body, version }))
    }
}

/// What a compressed body of a document holds: at most `most` bytes.
async fn gunzip(what: String, body: Bytes, most: usize) -> Result<Bytes> {
    let decode = move || {
        let mut decoded = Vec::new();
        let mut decoder = flate2::read::MultiGzDecoder::new(&*body).take(most as u64 + 1);
        decoder.read_to_end(&mut decoded).map(|_| decoded)
    };
    let decoded = tokio::task::spawn_blocking(decode).await;
    let decoded = decoded.unwrap_or_else(|_| Err(io::Error::other("decompressing it failed")));
    match decoded {
        Ok(decoded) if decoded.len() > most => {
            Err(Error::Size { what, reason: format!("it is larger than {most} bytes") })
        }
        Ok(decoded) => Ok(decoded.into()),
        Err(error) => Err(Error::Decode { what, reason: error.to_string() }),
    }
}
