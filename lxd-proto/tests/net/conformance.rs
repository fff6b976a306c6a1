//! `LxdClient` against the suite, with servers that behave as ours and as a real LXD.

use std::collections::BTreeMap;

use bytes::Bytes;
use lxd_proto::arch::Architecture;
use lxd_proto::client::LxdClient;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::InstanceType;
use lxd_proto::remote::conformance::{KnownImage, all};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::export::form;
use crate::server::{Reply, Request, Server, noise};

/// An image and what its export is.
struct Served {
    known: KnownImage,
    files: Vec<Bytes>,
}

fn image(kind: InstanceType, aliases: &[&str], files: Vec<Bytes>) -> Served {
    let mut hash = Sha256::new();
    files.iter().for_each(|file| hash.update(file));
    let known = KnownImage {
        fingerprint: Fingerprint::from_bytes(hash.finalize().into()),
        kind,
        architecture: "x86_64".parse::<Architecture>().unwrap(),
        size: files.iter().map(|file| file.len() as u64).sum(),
        split: files.len() == 2,
        aliases: aliases.iter().map(|&name| name.to_owned()).collect(),
    };
    Served { known, files }
}

fn object(image: &Served) -> Value {
    let known = &image.known;
    json!({
        "fingerprint": known.fingerprint, "size": known.size, "type": known.kind.as_str(),
        "architecture": "x86_64", "public": true, "properties": null,
        "aliases": known.aliases.iter().map(|name| json!({"name": name, "description": ""}))
            .collect::<Vec<_>>(),
    })
}

fn sync(metadata: &Value) -> Reply {
    let body =
        json!({"type": "sync", "status": "Success", "status_code": 200, "metadata": metadata});
    Reply::new(200, body.to_string())
}

fn missing() -> Reply {
    Reply::new(404, r#"{"type":"error","error":"not found","error_code":404}"#)
}

fn answer(images: &[Served], request: &Request, like_lxd: bool) -> Reply {
    let path = request.target.split('?').next().unwrap();
    let path = path.strip_prefix("/1.0/images").unwrap().trim_start_matches('/');
    let aliases: BTreeMap<_, _> = images
        .iter()
        .flat_map(|image| image.known.aliases.iter().map(move |name| (name.as_str(), image)))
        .map(|(name, image)| {
            let known = &image.known;
            let entry = json!({"name": name, "description": "", "target": known.fingerprint,
                               "type": known.kind.as_str()});
            (name, entry)
        })
        .collect();
    if path.is_empty() {
        return sync(&images.iter().map(object).collect());
    }
    if path == "aliases" {
        return sync(&aliases.values().cloned().collect());
    }
    if let Some(name) = path.strip_prefix("aliases/") {
        let name = name.replace("%2F", "/").replace("%20", " ");
        return aliases.get(name.as_str()).map_or_else(missing, sync);
    }
    let id = path.trim_end_matches("/export");
    let found = images
        .iter()
        .find(|image| image.known.fingerprint.to_string().starts_with(&id.to_lowercase()));
    let Some(image) = found else { return missing() };
    if !path.ends_with("/export") {
        return sync(&object(image));
    }
    let [metadata, rootfs] = image.files.as_slice() else {
        return Reply::file(request, &image.files[0], "\"u\"");
    };
    let kind = |boundary: &str| format!("multipart/form-data; boundary={boundary}");
    if like_lxd {
        let boundary = format!("b{}", request.number);
        let body = form(&boundary, metadata, rootfs, &format!("\r\n--{boundary}--\r\n"));
        let mut reply = Reply::new(200, body).header("Content-Type", kind(&boundary));
        reply.chunked = true;
        return reply;
    }
    let body = form("fixed", metadata, rootfs, "");
    Reply::file(request, &body, "\"s\"").header("Content-Type", kind("fixed"))
}

#[tokio::test]
async fn lxd_clients_are_remotes() {
    for like_lxd in [false, true] {
        let images = || {
            vec![
                image(InstanceType::Container, &["a/1", "two words"], vec![noise(900_000)]),
                image(InstanceType::Container, &["split"], vec![noise(700), noise(1_500_000)]),
                image(InstanceType::Container, &[], vec![noise(1)]),
            ]
        };
        let known: Vec<_> = images().into_iter().map(|image| image.known).collect();
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        let images = images();
        let _server = Server::unix(&path, move |request| answer(&images, request, like_lxd));
        let client = LxdClient::unix(&path).unwrap();
        all(&client, &known).await.unwrap();
    }
}
