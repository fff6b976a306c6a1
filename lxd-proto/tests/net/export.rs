//! Images from LXD servers: ours, and real ones that cannot begin in the middle.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lxd_proto::client::LxdClient;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::Image;
use lxd_proto::remote::{
    Error, Fetch, FileRole, IncomingFile, Remote, Result, Secret, Sink, fetch,
};
use sha2::{Digest, Sha256};

use crate::server::{Reply, Request, Server, noise};

const MIB: usize = 1 << 20;

/// Gathers files, of which it may have the beginning already.
#[derive(Debug, Default)]
struct Gather {
    files: Vec<(IncomingFile, Vec<u8>)>,
    held: Vec<Vec<u8>>,
}

#[async_trait]
impl Sink for Gather {
    async fn begin(&mut self, file: &IncomingFile) -> io::Result<u64> {
        let held = self.held.get(self.files.len()).cloned().unwrap_or_default();
        let length = held.len() as u64;
        self.files.push((file.clone(), held));
        Ok(length)
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.files.last_mut().unwrap().1.extend_from_slice(&bytes);
        Ok(())
    }
}

fn image(files: &[&[u8]]) -> Image {
    let mut hash = Sha256::new();
    files.iter().for_each(|file| hash.update(file));
    let fingerprint = Fingerprint::from_bytes(hash.finalize().into());
    let size: usize = files.iter().map(|file| file.len()).sum();
    serde_json::from_value(serde_json::json!({
        "fingerprint": fingerprint, "size": size, "architecture": "x86_64",
    }))
    .unwrap()
}

pub fn form(boundary: &str, metadata: &[u8], rootfs: &[u8], end: &str) -> Bytes {
    let head = |name: &str, filename: &str| {
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; \
             filename=\"{filename}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
    };
    [
        head("metadata", "meta-x.tar.xz").as_bytes(),
        metadata,
        b"\r\n",
        head("rootfs", "x.squashfs").as_bytes(),
        rootfs,
        b"\r\n--",
        boundary.as_bytes(),
        b"--\r\n",
        end.as_bytes(),
    ]
    .concat()
    .into()
}

fn client(
    handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> (LxdClient, Server, tempfile::TempDir) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("s");
    let server = Server::unix(&path, handler);
    (LxdClient::unix(&path).unwrap(), server, temp)
}

async fn get(client: &LxdClient, image: &Image, sink: &mut Gather) -> Result<Fetch> {
    let request = Fetch::default();
    client.download(image, &request, sink).await?;
    Ok(request)
}

#[tokio::test]
async fn a_unified_image_is_one_file_with_its_name() {
    let file = noise(2 * MIB);
    let image = image(&[&file]);
    let served = file.clone();
    let (client, server, _temp) = client(move |request| {
        let mut reply = Reply::file(request, &served, "\"x\"")
            .header("Content-Type", "application/octet-stream")
            .header("Content-Disposition", "inline;filename=../x.tar.xz");
        reply.cut = (request.number < 5).then_some(300_000);
        reply
    });
    let mut sink = Gather::default();
    let request = get(&client, &image, &mut sink).await.unwrap();
    assert_eq!(sink.files.len(), 1);
    let (incoming, bytes) = &sink.files[0];
    assert_eq!(incoming.role, FileRole::Unified);
    assert_eq!(incoming.filename, "x.tar.xz");
    assert_eq!(incoming.length, Some(2 * MIB as u64));
    assert!(*bytes == file);
    assert_eq!(request.progress.done(), 2 * MIB as u64);
    assert_eq!(request.progress.total(), Some(2 * MIB as u64));
    assert_eq!(server.requests()[0].target, format!("/1.0/images/{}/export", image.fingerprint));

    let mut sink = Gather { held: vec![file[..MIB].to_vec()], ..Gather::default() };
    let before = server.sent();
    let request = get(&client, &image, &mut sink).await.unwrap();
    assert!(sink.files[0].1 == file);
    assert_eq!(request.progress.done(), 2 * MIB as u64);
    assert!(server.sent() - before < 2 * MIB);
    fetch(&client, &image, &Fetch::default(), &mut Gather::default()).await.unwrap();
}

#[tokio::test]
async fn a_split_image_of_ours_goes_on_where_it_was_cut() {
    let (metadata, rootfs) = (noise(5000), noise(3 * MIB));
    let image = image(&[&metadata, &rootfs]);
    let body = form("fixed", &metadata, &rootfs, "");
    let (client, server, _temp) = client(move |request| {
        let mut reply = Reply::file(request, &body, "\"x\"")
            .header("Content-Type", "multipart/form-data; boundary=fixed");
        reply.cut = (request.number < 10).then_some(100_000 + 777 * request.number);
        reply
    });
    let mut sink = Gather::default();
    let request = get(&client, &image, &mut sink).await.unwrap();
    assert!(sink.files[0].1 == metadata && sink.files[1].1 == rootfs);
    assert_eq!(sink.files[0].0.filename, "meta-x.tar.xz");
    assert_eq!(request.progress.done(), image.size);
    assert_eq!(server.requests().len(), 11);
    assert!(server.sent() < 3 * MIB + 10 * MIB / 8);

    // A sink that has the metadata and most of the rest.
    let held = vec![metadata.to_vec(), rootfs[..2 * MIB].to_vec()];
    let mut sink = Gather { held, ..Gather::default() };
    let before = server.sent();
    let request = get(&client, &image, &mut sink).await.unwrap();
    assert!(sink.files[0].1 == metadata && sink.files[1].1 == rootfs);
    assert_eq!(request.progress.done(), image.size);
    // The first request is dropped with its window; the second brings the last third.
    assert!(server.sent() - before < 2 * MIB, "{}", server.sent() - before);
}

#[tokio::test]
async fn a_split_image_of_a_real_lxd_begins_again() {
    let (metadata, rootfs) = (noise(5000), noise(MIB));
    let image = image(&[&metadata, &rootfs]);
    let (m, r) = (metadata.clone(), rootfs.clone());
    let (client, server, _temp) = client(move |request| {
        // Another boundary each time, and the end twice.
        let boundary = format!("boundary-{}", request.number);
        let body = form(&boundary, &m, &r, &format!("\r\n--{boundary}--\r\n"));
        let mut reply = Reply::new(200, body)
            .header("Content-Type", format!("multipart/form-data; boundary={boundary}"));
        reply.chunked = true;
        reply.cut = [Some(2000), Some(600_000), Some(300_000), None][request.number.min(3)];
        reply
    });
    let mut sink = Gather::default();
    let request = get(&client, &image, &mut sink).await.unwrap();
    assert_eq!(sink.files.len(), 2);
    assert!(sink.files[0].1 == metadata && sink.files[1].1 == rootfs);
    assert_eq!(request.progress.done(), image.size);
    assert_eq!(server.requests().len(), 4);

    let held = vec![metadata.to_vec(), rootfs[..MIB / 2].to_vec()];
    let mut sink = Gather { held, ..Gather::default() };
    get(&client, &image, &mut sink).await.unwrap();
    assert!(sink.files[0].1 == metadata && sink.files[1].1 == rootfs);
    assert_eq!(server.open.load(std::sync::atomic::Ordering::Relaxed), 1, "the end is read");
}

#[tokio::test]
async fn what_is_not_the_image_is_refused() {
    let file = noise(10_000);
    let good = image(&[&file]);
    let served = file.clone();
    let (client, _server, _temp) = client(move |request| {
        let kind = |kind: &str| ("Content-Type".to_owned(), kind.to_owned());
        let mut reply = Reply::new(200, served.clone());
        match request.target.rsplit("secret=").next().unwrap() {
            "none" => {
                return Reply::new(
                    404,
                    r#"{"type":"error","error":"Image not found","error_code":404}"#,
                );
            }
            "third" => {
                let body = form("b", b"m", b"r", "");
                let body = [&body[..body.len() - 7], b"\r\n--b\r\n\r\n\r\n--b--"].concat();
                reply = Reply::new(200, body);
                reply.headers.push(kind("multipart/form-data; boundary=b"));
            }
            "order" => {
                let body = form("b", b"m", b"r", "");
                let text = String::from_utf8(body.to_vec()).unwrap().replace("metadata", "rootfs");
                reply = Reply::new(200, text);
                reply.headers.push(kind("multipart/form-data; boundary=b"));
            }
            "early" => {
                reply = Reply::new(
                    200,
                    "--b\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\nm",
                );
                reply.headers.push(kind("multipart/form-data; boundary=b"));
            }
            "form" => reply.headers.push(kind("multipart/form-data; boundary=b")),
            "endless" => reply.endless = true,
            "short" => reply = Reply::new(200, served.slice(..9999)),
            "other" => {
                let mut other = served.to_vec();
                other[5000] ^= 1;
                reply = Reply::new(200, other);
            }
            _ => {}
        }
        reply
    });
    for (secret, words) in [
        ("none", "Image not found"),
        ("third", "after its two files"),
        ("order", "where \"metadata\" belongs"),
        ("early", "the form ends early"),
        ("form", "does not begin with its boundary"),
        ("endless", "10000"),
        ("short", "9999 bytes where the image has 10000"),
        ("other", "Image fingerprint doesn't match"),
    ] {
        let request = Fetch { secret: Some(Secret::new(secret.to_owned())), ..Fetch::default() };
        let error = fetch(&client, &good, &request, &mut Gather::default()).await.unwrap_err();
        assert!(error.to_string().contains(words), "{secret}: {error}");
        assert!(secret == "none" || !error.to_string().contains("secret"), "{error}");
    }
    let request = Fetch { secret: Some(Secret::new("good".into())), ..Fetch::default() };
    fetch(&client, &good, &request, &mut Gather::default()).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_download_ends_at_once() {
    let (client, _server, _temp) = client(|request| {
        let mut reply = Reply::file(request, &noise(MIB), "\"x\"");
        reply.stall = Some(1000);
        reply
    });
    let image = image(&[&noise(MIB)]);
    let request = Fetch::default();
    let cancel = request.cancel.clone();
    let progress = request.progress.clone();
    let canceller = tokio::spawn(async move {
        while progress.done() == 0 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    });
    let mut sink = Gather::default();
    let download = client.download(&image, &request, &mut sink);
    let ended = tokio::time::timeout(Duration::from_secs(20), download).await.unwrap();
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    canceller.await.unwrap();
}
