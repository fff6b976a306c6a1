//! A rendered document with all that is told about it.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use lxd_proto::format::{Compression, Compressor};
use sha2::{Digest, Sha256};

use super::once::Once;
use crate::error::{Error, Result};

/// Fast rather than small: it is made while somebody waits for it.
const GZIP_LEVEL: u32 = 1;
/// A document, the same bytes for all who ask.
#[derive(Debug)]
pub struct Document {
    bytes: Bytes,
    tag: String,
    modified: Timestamp,
    is_datable: bool,
    gzip: Once<Bytes>,
}

impl Document {
    /// The document with these bytes, which took the place of one of the time `before` or earlier.
    pub(super) fn new(bytes: Bytes, modified: Timestamp, before: Timestamp) -> Self {
        let hash = Sha256::digest(&bytes);
        let is_datable = before.as_second() != modified.as_second();
        let tag = hex::encode(&hash[..16]);
        Self { bytes, tag, modified, is_datable, gzip: Once::default() }
    }

    /// Other bytes that say the same.
    pub(super) fn twin(&self, bytes: Bytes) -> Self {
        let twin = Self::new(bytes, self.modified, self.modified);
        Self { is_datable: self.is_datable, ..twin }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Tells its bytes from all others; without quotes.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// When its content last changed.
    pub fn modified(&self) -> Timestamp {
        self.modified
    }

    /// Whether the second of [`Self::modified`] tells it from the document before.
    pub fn is_datable(&self) -> bool {
        self.is_datable
    }

    /// Its bytes as gzip, made when first wanted.
    ///
    /// # Errors
    /// Only when the daemon ends.
    pub async fn gzip(self: &Arc<Self>) -> Result<Bytes> {
        let document = self.clone();
        self.gzip.get(move || document.compress()).await
    }

    fn compress(&self) -> Result<Bytes> {
        let out = Vec::with_capacity(self.bytes.len() / 8);
        let packed =
            Compressor::new(Compression::Gzip, Some(GZIP_LEVEL), out).and_then(|mut it| {
                it.write_all(&self.bytes)?;
                it.finish()
            });
        packed.map(Bytes::from).map_err(|error| Error::io("cannot compress a catalog", error))
    }
}

#[cfg(test)]
mod tests {
    use lxd_proto::format::{Decoder, FormatError};

    use super::*;

    #[tokio::test]
    async fn its_gzip_is_the_same_text() {
        let text = "catalog ".repeat(100_000);
        let document =
            Document::new(text.clone().into(), Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let packed = Arc::new(document).gzip().await.unwrap();
        assert!(packed.len() < text.len() / 8, "{}", packed.len());
        let mut decoder = Decoder::new(Compression::Gzip).unwrap();
        let mut read = Vec::new();
        let mut keep = |bytes: &[u8]| {
            read.extend_from_slice(bytes);
            Ok::<_, FormatError>(())
        };
        decoder.feed(&packed, &mut keep).unwrap();
        decoder.finish().unwrap();
        assert!(read == text.as_bytes());
    }
}
