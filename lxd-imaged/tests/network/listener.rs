//! The port: TLS, plain HTTP, moving, closing.

use http::{Method, StatusCode};
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::daemon::Daemon;
use crate::https::{Client, request};

#[tokio::test]
async fn every_kind_of_certificate_passes_the_handshake() {
    let daemon = Daemon::new().await;
    let kinds = [
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ];
    for versions in [&[&TLS13], &[&TLS12]] {
        for kind in kinds {
            let client = daemon.client(Client::with_key(kind, versions)).await;
            assert_eq!(client.get("/1.0").await.metadata()["auth"], "untrusted");
            daemon.trust(&client, false, &[]).await;
            assert_eq!(client.get("/1.0").await.metadata()["auth"], "trusted");
        }
    }
    let client = daemon.client(Client::of_version_1()).await;
    daemon.trust(&client, false, &[]).await;
    assert_eq!(client.get("/1.0").await.metadata()["auth"], "trusted", "version 1");
    for client in [Client::anonymous(), Client::old()] {
        let server = daemon.client(client).await.get("/1.0").await.metadata();
        assert_eq!((&server["auth"], &server["public"]), (&"untrusted".into(), &false.into()));
        assert!(server.get("config").is_none() && server.get("environment").is_none());
    }
}

#[tokio::test]
async fn the_certificate_shown_is_the_certificate_served() {
    let daemon = Daemon::new().await;
    let client = daemon.client(Client::anonymous()).await;
    let stream = client.connect().await;
    let served = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let (_, server) = daemon.local(Method::GET, "/1.0", Value::Null).await;
    let environment = &server["metadata"]["environment"];
    assert_eq!(environment["certificate"], lxd_imaged::trust::pem(&served));
    let identity = daemon.started.app.identity.get();
    assert_eq!(environment["certificate_fingerprint"], identity.fingerprint().to_string());
}

#[tokio::test]
async fn plain_http_is_told_so_at_once() {
    let daemon = Daemon::new().await;
    let mut stream = TcpStream::connect(daemon.address().await).await.unwrap();
    // Not even a whole request.
    stream.write_all(b"GET /1.0 HT").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with("Client sent an HTTP request to an HTTPS server.\n"), "{answer}");
}

#[tokio::test]
async fn who_is_refused_before_the_body_has_come_reads_why_and_may_go_on() {
    let daemon = Daemon::new().await;
    let client = daemon.client(Client::anonymous()).await;
    let mut stream = client.connect().await;
    let body = vec![7; 300_000];
    let upload = request("POST", "/1.0/images", "", &body);
    let (head, body) = upload.split_at(upload.len() - body.len());
    stream.write_all(head).await.unwrap();
    let answer = answer_of(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    // Only now comes what nobody wants.
    for piece in body.chunks(50_000) {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
    }
    stream.write_all(&request("GET", "/1.0", "", b"")).await.unwrap();
    let answer = answer_of(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "the connection goes on: {answer}");

    // Who waits for a word before sending is not asked for the body.
    let mut stream = client.connect().await;
    let upload = request("POST", "/1.0/images", "Expect: 100-continue\r\n", &[7; 10]);
    stream.write_all(&upload[..upload.len() - 10]).await.unwrap();
    let answer = answer_of(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

/// The next piece of an answer, which holds its status.
async fn answer_of(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = vec![0; 64 << 10];
    let read = stream.read(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[tokio::test]
async fn the_port_moves_under_a_running_client() {
    let daemon = Daemon::new().await;
    let file = crate::daemon::image("moved");
    let fingerprint = daemon.image("moved", true, "moved").await;
    let old = daemon.address().await;
    let client = daemon.client(Client::anonymous()).await;
    let mut running = client.connect().await;

    let (status, answer) = daemon.set("core.https_address", "localhost:0").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let new = daemon.address().await;
    assert_ne!(old, new);
    assert!(TcpStream::connect(&old).await.is_err(), "the old port is closed");
    assert_eq!(client.clone().to(&new).get("/1.0").await.status, 200);
    let path = format!("/1.0/images/{fingerprint}/export");
    running.write_all(&request("GET", &path, "Connection: close\r\n", b"")).await.unwrap();
    let mut answer = Vec::new();
    running.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(&file), "the open connection went on");

    // A port that is taken: an error, and nothing changes.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = other.local_addr().unwrap().to_string();
    let (status, answer) = daemon.set("core.https_address", &busy).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("cannot set 'core.https_address'") && error.contains(&busy), "{error}");
    assert_eq!(daemon.address().await, new);
    let (_, server) = daemon.local(Method::GET, "/1.0", Value::Null).await;
    assert_eq!(server["metadata"]["config"]["core.https_address"], "localhost:0");
    assert_eq!(client.clone().to(&new).get("/1.0").await.status, 200);

    let (status, _) = daemon.set("core.https_address", "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(TcpStream::connect(&new).await.is_err(), "closed");
}

#[tokio::test]
async fn web_pages_of_the_configured_origin_may_ask() {
    let daemon = Daemon::new().await;
    let client = daemon.client(Client::anonymous()).await;
    let ask = async |method| client.send(method, "/1.0", "Origin: https://ui.test\r\n", b"").await;
    assert!(!ask("GET").await.head.contains("access-control"));
    assert_eq!(ask("OPTIONS").await.status, 200);
    daemon.set("core.https_allowed_origin", "https://ui.test").await;
    daemon.set("core.https_allowed_methods", "GET, POST").await;
    daemon.set("core.https_allowed_credentials", "yes").await;
    for method in ["GET", "OPTIONS"] {
        let head = ask(method).await.head;
        assert!(head.contains("access-control-allow-origin: https://ui.test"), "{head}");
        assert!(head.contains("access-control-allow-methods: get, post"), "{head}");
        assert!(head.contains("access-control-allow-credentials: true"), "{head}");
    }
    assert!(!client.get("/1.0").await.head.contains("access-control"));
}
