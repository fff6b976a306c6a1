//! Downloads that are checked on the way against the fingerprint.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::fingerprint::Fingerprint;
use crate::image::Image;
use crate::remote::{Error, Fetch, IncomingFile, Remote, Result, Sink};

/// Sends the files of `image` from `remote` into `sink` as [`Remote::download`] does, and checks
/// them against its fingerprint.
///
/// A sink must not act on what it got before this has returned.
///
/// # Errors
/// [`Error::Mismatch`] after the last byte when they are another image.
pub async fn fetch(
    remote: &dyn Remote,
    image: &Image,
    request: &Fetch,
    sink: &mut dyn Sink,
) -> Result<()> {
    let mut hashing = Hashing { sink, hash: Sha256::new() };
    remote.download(image, request, &mut hashing).await?;
    let got = Fingerprint::from_bytes(hashing.hash.finalize().into());
    if got == image.fingerprint {
        Ok(())
    } else {
        Err(Error::Mismatch { expected: image.fingerprint, got })
    }
}

struct Hashing<'a> {
    sink: &'a mut dyn Sink,
    hash: Sha256,
}

#[async_trait]
impl Sink for Hashing<'_> {
    async fn begin(&mut self, file: &IncomingFile) -> io::Result<u64> {
        match self.sink.begin(file).await? {
            0 => Ok(0),
            held => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{held} bytes of an earlier download were never hashed"),
            )),
        }
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.hash.update(&bytes);
        self.sink.write(bytes).await
    }
}
