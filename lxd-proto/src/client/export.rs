//! Downloads: the files of an image, checked against its fingerprint.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use multer::{Constraints, Multipart, SizeLimit};
use reqwest::Response;
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use sha2::{Digest, Sha256};

use crate::client::LxdClient;
use crate::client::transport::{Request, Transport, header};
use crate::fingerprint::Fingerprint;
use crate::image::{Image, InstanceType};
use crate::remote::{Error, Fetch, FileRole, IncomingFile, Result, Sink};
use crate::routes::{self, query};

impl LxdClient {
    pub(super) async fn export(
        &self,
        image: &Image,
        request: &Fetch,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        tokio::select! {
            biased;
            () = request.cancel.cancelled() => Err(Error::Cancelled),
            done = self.receive(image, request, sink) => done,
        }
    }

    async fn receive(&self, image: &Image, fetch: &Fetch, sink: &mut dyn Sink) -> Result<()> {
        let path = routes::IMAGE_EXPORT.url(&[&image.fingerprint.to_string()]);
        let what = format!("GET {path}");
        let mut request = Request::get(path);
        if let Some(secret) = &fetch.secret {
            request = request.query(query::SECRET, secret.expose());
        }
        let response = self.transport.send(self.transport.prepare(&request)).await?;
        if !response.status().is_success() {
            // The envelope says why; an envelope of success makes no sense here.
            self.transport.reply(what.clone(), response).await?;
            return Err(Error::Decode { what, reason: "no image came".to_owned() });
        }
        fetch.progress.set_total(image.size);
        let mut receiver = Receiver { sink, fetch, hash: Sha256::new() };
        let content_type = header(response.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
        match multer::parse_boundary(&content_type) {
            Ok(boundary) => {
                let transport = self.transport.clone();
                receiver.split(&what, transport, response, boundary).await?;
            }
            Err(_) => receiver.unified(&self.transport, response).await?,
        }
        let got = Fingerprint::from_bytes(receiver.hash.finalize().into());
        if got == image.fingerprint {
            Ok(())
        } else {
            Err(Error::Mismatch { expected: image.fingerprint, got })
        }
    }
}

struct Receiver<'a> {
    sink: &'a mut dyn Sink,
    fetch: &'a Fetch,
    hash: Sha256,
}

impl Receiver<'_> {
    async fn unified(&mut self, transport: &Transport, mut response: Response) -> Result<()> {
        let headers = response.headers();
        let disposition = header(headers, CONTENT_DISPOSITION.as_str()).unwrap_or_default();
        let length = header(headers, CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        let filename = component(&disposition_filename(&disposition));
        let file = IncomingFile { role: FileRole::Unified, filename, length };
        self.begin(&file).await?;
        while let Some(bytes) = transport.chunk(&mut response).await? {
            self.take(bytes).await?;
        }
        Ok(())
    }

    async fn split(
        &mut self,
        what: &str,
        transport: Transport,
        response: Response,
        boundary: String,
    ) -> Result<()> {
        let body = stream::try_unfold((transport, response), |(transport, mut response)| async {
            let chunk = transport.chunk(&mut response).await?;
            Ok::<_, Error>(chunk.map(|bytes| (bytes, (transport, response))))
        });
        // Images may be larger than the default bounds of a form.
        let limits = SizeLimit::new().whole_stream(u64::MAX).per_field(u64::MAX);
        let constraints = Constraints::new().size_limit(limits);
        let mut form = Multipart::with_constraints(Box::pin(body), boundary, constraints);
        // LXD 5.0.2 ends a form twice: what follows the second part is not looked at.
        for expected in ["metadata", "rootfs"] {
            let field = form.next_field().await.map_err(|error| broken(what, error))?;
            let Some(mut field) = field else {
                let reason = format!("the form has no part \"{expected}\"");
                return Err(Error::Decode { what: what.to_owned(), reason });
            };
            let role = match (expected, field.name()) {
                ("metadata", Some("metadata")) => FileRole::Metadata,
                ("rootfs", Some("rootfs")) => FileRole::Rootfs(InstanceType::Container),
                ("rootfs", Some("rootfs.img")) => FileRole::Rootfs(InstanceType::VirtualMachine),
                (_, name) => {
                    let name = name.unwrap_or_default();
                    let reason = format!("the form has \"{name}\" where \"{expected}\" belongs");
                    return Err(Error::Decode { what: what.to_owned(), reason });
                }
            };
            let filename = component(field.file_name().unwrap_or_default());
            self.begin(&IncomingFile { role, filename, length: None }).await?;
            while let Some(bytes) = field.chunk().await.map_err(|error| broken(what, error))? {
                self.take(bytes).await?;
            }
        }
        Ok(())
    }

    async fn begin(&mut self, file: &IncomingFile) -> Result<()> {
        self.sink.begin(file).await.map_err(local)
    }

    async fn take(&mut self, bytes: Bytes) -> Result<()> {
        self.hash.update(&bytes);
        self.fetch.progress.add(bytes.len());
        self.sink.write(bytes).await.map_err(local)
    }
}

/// A failure of the sink: its own text says on which file.
fn local(source: io::Error) -> Error {
    Error::Io { what: "cannot store the image".to_owned(), source }
}

/// A form that ends early or is none; a failure of the transport under it stays what it is.
fn broken(what: &str, error: multer::Error) -> Error {
    match error {
        multer::Error::StreamReadFailed(inner) => match inner.downcast::<Error>() {
            Ok(error) => *error,
            Err(inner) => Error::Decode { what: what.to_owned(), reason: inner.to_string() },
        },
        error => Error::Decode { what: what.to_owned(), reason: error.to_string() },
    }
}

/// The `filename` of a `Content-Disposition` header.
fn disposition_filename(header: &str) -> String {
    header
        .split(';')
        .filter_map(|parameter| parameter.trim().split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case("filename"))
        .map(|(_, value)| value.trim().trim_matches('"').to_owned())
        .unwrap_or_default()
}

/// A stranger's file name as one component of a path that stays where it is put.
fn component(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let printable: String = last.chars().filter(|c| !c.is_control()).collect();
    if matches!(printable.as_str(), "." | "..") { String::new() } else { printable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_strangers_stay_in_the_directory() {
        for (given, safe) in [
            ("a.tar.xz", "a.tar.xz"),
            ("../../etc/passwd", "passwd"),
            ("a/..", ""),
            (".", ""),
            ("c:\\x\\y.tar", "y.tar"),
            ("a\nb\0.tar", "ab.tar"),
        ] {
            assert_eq!(component(given), safe, "{given:?}");
        }
    }

    #[test]
    fn a_file_name_is_found_in_its_header() {
        for header in ["inline;filename=x.tar.xz", "attachment; filename=\"x.tar.xz\"; a=b"] {
            assert_eq!(disposition_filename(header), "x.tar.xz");
        }
        assert_eq!(disposition_filename("inline"), "");
    }
}
