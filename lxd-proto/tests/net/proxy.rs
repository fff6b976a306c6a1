//! Through a proxy that wants to know who we are.

use std::sync::{Arc, Mutex};

use lxd_proto::net::{Access, DownloadOptions, Http, KnownVersion, Proxies, peer_certificate};
use lxd_proto::remote::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::download::access;
use crate::server::{Reply, Server, noise};
use crate::tls::self_signed;

/// Answers each `CONNECT` that has the right credentials with a way to one server.
async fn proxy(to: String) -> (String, Arc<Mutex<Vec<String>>>, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (to, seen) = (to.clone(), seen.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                // "me:p@ss" in base64.
                let known = head.to_lowercase().contains("proxy-authorization: basic bwu6cebzcw==");
                seen.lock().unwrap().push(head);
                if !known {
                    let _ = stream.write_all(b"HTTP/1.1 407 Who?\r\n\r\n").await;
                    return;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut server = TcpStream::connect(&to).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (address, heads, AbortOnDropHandle::new(task))
}

/// Hands connections on to `to`, but hangs up on those that `lost` names.
async fn forwarder(to: String, lost: std::ops::Range<usize>) -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut number = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            number += 1;
            if lost.contains(&number) {
                // As if nobody were behind it: the client's first words are read, then it ends.
                let _ = stream.read(&mut [0; 4096]).await;
                continue;
            }
            let to = to.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(&to).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (address, AbortOnDropHandle::new(task))
}

#[tokio::test]
async fn a_forwarder_that_has_lost_its_server_for_a_while_ends_no_download() {
    let file = noise(1 << 20);
    let shown = self_signed(&rcgen::CertificateParams::default());
    let served = file.clone();
    let server = Server::tls(shown.acceptor, move |request| {
        let mut reply = Reply::file(request, &served, "\"v1\"");
        reply.cut = (request.number == 0).then_some(500_000);
        reply
    })
    .await;
    let to = server.address.replace("https://", "");
    let (address, _task) = forwarder(to.clone(), 2..5).await;
    let http = Http::new(&access(), &shown.pem).unwrap();
    let url = format!("{address}/file");
    let mut download = http.open(&url, DownloadOptions::default()).await.unwrap();
    let mut got = Vec::new();
    while let Some(bytes) = download.next().await.unwrap() {
        got.extend_from_slice(&bytes);
    }
    assert!(got == file);

    // Where nobody has spoken TLS yet, that is told at once.
    let (address, _task) = forwarder(to, 1..2).await;
    let http = Http::new(&access(), &shown.pem).unwrap();
    let error = http.open(&format!("{address}/file"), DownloadOptions::default()).await;
    assert!(matches!(error, Err(Error::Handshake { .. })), "{error:?}");
}

#[tokio::test]
async fn servers_behind_a_proxy_are_reached_with_its_credentials() {
    let shown = self_signed(&rcgen::CertificateParams::default());
    let server = Server::tls(shown.acceptor, |_| Reply::new(200, "through")).await;
    let to = server.address.replace("https://", "");
    let (address, heads, _task) = proxy(to).await;
    let by = |proxy: &str, ignore: &str| Access {
        proxies: Proxies::exactly("", proxy, ignore),
        ..access()
    };
    let through = by(&format!("http://me:p%40ss@{address}"), "");
    let http = Http::new(&through, &shown.pem).unwrap();
    let url = "https://images.invalid:8443/x";
    let got = http.document(url, &KnownVersion::default(), 100).await.unwrap().unwrap();
    assert_eq!(&got.body[..], b"through");
    let seen = peer_certificate(url, &through).await.unwrap();
    assert_eq!(seen.pem.trim(), shown.pem.replace("\r\n", "\n").trim());
    for head in &*heads.lock().unwrap() {
        assert!(head.starts_with("CONNECT images.invalid:8443 HTTP/1.1\r\n"), "{head}");
    }

    let refused = by(&format!("http://{address}"), "");
    let http = Http::new(&refused, &shown.pem).unwrap();
    let error = http.document(url, &KnownVersion::default(), 100).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("proxy"), "{error}");
    let error = peer_certificate(url, &refused).await.unwrap_err();
    assert!(error.to_string().contains("proxy"), "{error}");

    let before = heads.lock().unwrap().len();
    let direct = by(&format!("http://{address}"), "images.invalid");
    let http = Http::new(&direct, &shown.pem).unwrap();
    let error = http.document(url, &KnownVersion::default(), 100).await.unwrap_err();
    assert!(error.to_string().contains("cannot be resolved"), "{error}");
    assert_eq!(heads.lock().unwrap().len(), before);
}
