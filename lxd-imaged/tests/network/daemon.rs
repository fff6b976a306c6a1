//! A daemon over a throw-away store that listens on a port of its own.

use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use lxd_imaged::app::Caller;
use lxd_imaged::catalog::Viewer;
use lxd_imaged::directory::Directory;
use lxd_imaged::serve::{Started, start};
use lxd_imaged::{http as api, listen};
use lxd_proto::event::Requestor;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::https::Client;

pub(crate) struct Daemon {
    pub(crate) started: Started,
    router: Router,
    _temp: tempfile::TempDir,
}

impl Daemon {
    /// A daemon with an open port.
    pub(crate) async fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let started = start(&Directory::new(temp.path()), shutdown.clone()).await.unwrap();
        let router = api::router(started.app.clone());
        tokio::spawn(listen::tls::serve(started.app.clone(), router.clone(), shutdown));
        let daemon = Self { started, router, _temp: temp };
        let (status, answer) = daemon.set("core.https_address", "127.0.0.1:0").await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        daemon
    }

    /// `IP:PORT` where it listens.
    pub(crate) async fn address(&self) -> String {
        let (_, server) = self.local(Method::GET, "/1.0", Value::Null).await;
        server["metadata"]["environment"]["addresses"][0].as_str().unwrap().to_owned()
    }

    /// A client on the network.
    pub(crate) async fn client(&self, client: Client) -> Client {
        client.to(&self.address().await)
    }

    /// A request over the unix socket.
    pub(crate) async fn local(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        self.local_bytes(Request::builder().method(method).uri(path), body.to_string().into()).await
    }

    pub(crate) async fn local_bytes(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> (StatusCode, Value) {
        let requestor =
            Requestor { username: "root".into(), protocol: "unix".into(), address: "@".into() };
        let mut request = request.body(Body::from(body)).unwrap();
        request.extensions_mut().insert(Caller { viewer: Viewer::Trusted, requestor });
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Sets one configuration key.
    pub(crate) async fn set(&self, key: &str, value: &str) -> (StatusCode, Value) {
        self.local(Method::PATCH, "/1.0", json!({ "config": { key: value } })).await
    }

    /// Trusts a client's certificate.
    pub(crate) async fn trust(&self, client: &Client, restricted: bool, projects: &[&str]) {
        let body = json!({
            "name": "tester", "type": "client", "certificate": client.certificate_base64(),
            "restricted": restricted, "projects": projects,
        });
        let (status, answer) = self.local(Method::POST, "/1.0/certificates", body).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
    }

    /// Uploads an image; returns its fingerprint.
    pub(crate) async fn image(&self, salt: &str, public: bool, alias: &str) -> String {
        let file = image(salt);
        let request = Request::post("/1.0/images")
            .header("X-LXD-public", if public { "true" } else { "false" })
            .header("X-LXD-aliases", format!("alias={alias}"));
        let (status, answer) = self.local_bytes(request, file.clone()).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        let wait = format!("{}/wait", answer["operation"].as_str().unwrap());
        let (_, end) = self.local(Method::GET, &wait, Value::Null).await;
        assert_eq!(end["metadata"]["status_code"], 200, "{end}");
        hex::encode(Sha256::digest(&file))
    }
}

/// A small unified image.
pub(crate) fn image(salt: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let metadata = "architecture: amd64\ncreation_date: 1458040200\nproperties:\n  os: debian\n";
    for (name, content) in [("metadata.yaml", metadata), ("rootfs/etc/salt", salt)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}
