//! A daemon in process, and what is sent to it.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use lxd_imaged::app::Caller;
use lxd_imaged::catalog::Viewer;
use lxd_imaged::directory::Directory;
use lxd_imaged::serve::{Started, start};
use lxd_proto::event::Requestor;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub(crate) struct Daemon {
    pub(crate) started: Started,
    pub(crate) router: Router,
    pub(crate) temp: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    pub(crate) fn metadata(&self) -> Value {
        self.json()["metadata"].clone()
    }

    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

impl Daemon {
    pub(crate) async fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self::at(temp).await
    }

    pub(crate) async fn at(temp: tempfile::TempDir) -> Self {
        let started = start(&Directory::new(temp.path()), CancellationToken::new()).await.unwrap();
        let router = lxd_imaged::http::router(started.app.clone());
        Self { started, router, temp }
    }

    pub(crate) async fn restarted(self) -> Self {
        drop(self.router);
        self.started.end().await;
        Self::at(self.temp).await
    }

    pub(crate) async fn send(
        &self,
        viewer: Viewer,
        request: http::request::Builder,
        body: Body,
    ) -> Answer {
        let requestor =
            Requestor { username: "root".into(), protocol: "unix".into(), address: "@".into() };
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(Caller { viewer, requestor });
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Viewer::Trusted, Request::get(path), Body::empty()).await
    }

    pub(crate) async fn get_as_stranger(&self, path: &str) -> Answer {
        self.send(Viewer::Stranger, Request::get(path), Body::empty()).await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let request = Request::builder().method(method).uri(path);
        self.send(Viewer::Trusted, request, Body::from(body.to_string())).await
    }

    /// Waits for the operation that `answer` started.
    pub(crate) async fn end_of(&self, answer: &Answer) -> Value {
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json());
        let path = answer.header(header::LOCATION).to_owned();
        self.get(&format!("{path}/wait?timeout=30")).await.metadata()
    }

    pub(crate) async fn upload(&self, file: Vec<u8>, headers: &[(&str, &str)]) -> Value {
        let mut request = Request::post("/1.0/images");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.send(Viewer::Trusted, request, Body::from(file)).await;
        self.end_of(&answer).await
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let names = |directory: &Path| {
            let entries = std::fs::read_dir(directory).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let mut files: Vec<String> = names(&self.temp.path().join("blobs"));
        files.extend(names(&self.temp.path().join("spool")));
        files
    }
}

pub(crate) const METADATA: &str =
    "architecture: amd64\ncreation_date: 1458040200\nproperties:\n  os: debian\n";

pub(crate) fn tarball(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn unified(salt: &str) -> Vec<u8> {
    tarball(&[("metadata.yaml", METADATA), ("rootfs/etc/salt", salt)])
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

pub(crate) fn multipart(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in parts {
        let head = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}.file\"\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX--\r\n");
    body
}

pub(crate) const MULTIPART: (&str, &str) = ("content-type", "multipart/form-data; boundary=XX");

pub(crate) const ZEROES: &str = "0000000000000000000000000000000000000000000000000000000000000000";
