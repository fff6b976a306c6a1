//! Small files, asked for again and again.

use lxd_proto::net::KnownVersion;
use lxd_proto::remote::Error;

use crate::download::{access, http};
use crate::server::{Reply, Server};

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let server = Server::start(|request| {
        if request.header("if-none-match") == Some("W/\"1\"") {
            return Reply::new(304, "");
        }
        Reply::new(200, "{}").header("ETag", "W/\"1\"").header("Last-Modified", "yesterday")
    })
    .await;
    let http = http(&access());
    let url = server.url("/streams/v1/index.json");
    let first = http.document(&url, &KnownVersion::default(), 100).await.unwrap().unwrap();
    assert_eq!(&first.body[..], b"{}");
    assert!(http.document(&url, &first.version, 100).await.unwrap().is_none());
    let seen = server.requests();
    assert_eq!(seen[1].header("if-modified-since"), Some("yesterday"));
    assert_eq!(server.open.load(std::sync::atomic::Ordering::Relaxed), 1, "one connection");
}

#[tokio::test]
async fn documents_are_bounded_and_errors_are_the_servers() {
    let server = Server::start(|request| match request.target.as_str() {
        "/large" => Reply::new(200, vec![b' '; 1000]),
        "/chunked" => {
            let mut reply = Reply::new(200, vec![b' '; 1000]);
            reply.chunked = true;
            reply
        }
        "/envelope" => {
            Reply::new(403, r#"{"type":"error","error":"not authorized","error_code":403}"#)
        }
        _ => Reply::new(404, "<html>"),
    })
    .await;
    let http = http(&access());
    for path in ["/large", "/chunked"] {
        let got = http.document(&server.url(path), &KnownVersion::default(), 999).await;
        assert!(matches!(got, Err(Error::Size { .. })), "{path}");
        let got = http.document(&server.url(path), &KnownVersion::default(), 1000).await;
        assert_eq!(got.unwrap().unwrap().body.len(), 1000);
    }
    for (path, status, words) in [
        ("/envelope", 403, "not authorized"),
        ("/none?secret=hush", 404, "/none was answered with 404"),
    ] {
        let got = http.document(&server.url(path), &KnownVersion::default(), 999).await;
        match got.unwrap_err() {
            Error::Api { status: got, message } => {
                assert_eq!(got, status);
                assert!(message.contains(words) && !message.contains("hush"), "{message}");
            }
            error => panic!("{error}"),
        }
    }
    let head = http.head(&server.url("/large"), &[("LXD-Server-Version", "5.0.2")]).await.unwrap();
    assert_eq!((head.status, head.length()), (200, Some(1000)));
    assert_eq!(server.requests().last().unwrap().header("lxd-server-version"), Some("5.0.2"));
}
