//! The simplestreams server as our own client sees it, beside the LXD API of the same daemon.

use std::collections::BTreeSet;

use http::{Method, Request, StatusCode};
use lxd_proto::arch::Architecture;
use lxd_proto::filter::Filter;
use lxd_proto::image::InstanceType;
use lxd_proto::net::Access;
use lxd_proto::remote::conformance::{self, KnownImage};
use lxd_proto::remote::{Protocol, Remote, RemoteSpec, Want};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::daemon::{Daemon, image};

fn file(name: &str, content: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(1);
    builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

/// The smallest disk that passes for one: version 2, four clusters, nothing in it.
fn disk() -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    let mut disk = vec![0; 4 * CLUSTER];
    let numbers = [2, 0, 0, 0, 16, 0, 1 << 20, 0, 1, 0, 3 * CLUSTER, 0, CLUSTER, 1, 0, 0, 0];
    disk[..4].copy_from_slice(b"QFI\xfb");
    for (number, place) in numbers.into_iter().zip(disk[4..].chunks_mut(4)) {
        place.copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
    }
    let cluster = u64::try_from(CLUSTER).unwrap();
    disk[CLUSTER..CLUSTER + 8].copy_from_slice(&(2 * cluster).to_be_bytes());
    for used in 0..4 {
        disk[2 * CLUSTER + 2 * used + 1] = 1;
    }
    disk
}

/// Uploads a public split image; tells what is known of it then.
async fn split(
    daemon: &Daemon,
    part: &str,
    (architecture, root): (Architecture, &[u8]),
    aliases: &[&str],
) -> KnownImage {
    let metadata = file(
        "metadata.yaml",
        &format!(
            "architecture: {architecture}\ncreation_date: 1458040200\nproperties:\n  os: split\n"
        ),
    );
    let mut body = Vec::new();
    for (name, content) in [("metadata", metadata.as_slice()), (part, root)] {
        let head = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n"
        );
        body.extend([head.as_bytes(), content, b"\r\n"].concat());
    }
    body.extend(b"--XX--\r\n");
    let names: Vec<String> =
        aliases.iter().map(|name| format!("alias={}", name.replace('/', "%2F"))).collect();
    let request = Request::post("/1.0/images")
        .header("Content-Type", "multipart/form-data; boundary=XX")
        .header("X-LXD-public", "true")
        .header("X-LXD-aliases", names.join("&"));
    let (status, answer) = daemon.local_bytes(request, body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let wait = format!("{}/wait", answer["operation"].as_str().unwrap());
    let (_, end) = daemon.local(Method::GET, &wait, Value::Null).await;
    assert_eq!(end["metadata"]["status_code"], 200, "{end}");
    let fingerprint = hex::encode(Sha256::digest([metadata.as_slice(), root].concat()));
    KnownImage {
        fingerprint: fingerprint.parse().unwrap(),
        kind: if part == "rootfs" { InstanceType::Container } else { InstanceType::VirtualMachine },
        architecture,
        size: (metadata.len() + root.len()) as u64,
        split: true,
        aliases: aliases.iter().map(|&name| name.to_owned()).collect(),
    }
}

async fn remote(daemon: &Daemon, protocol: Protocol) -> std::sync::Arc<dyn Remote> {
    let (_, server) = daemon.local(Method::GET, "/1.0", Value::Null).await;
    let certificate = &server["metadata"]["environment"]["certificate"];
    let spec = RemoteSpec {
        address: format!("https://{}", daemon.address().await),
        protocol,
        certificate: certificate.as_str().unwrap().to_owned(),
        ..RemoteSpec::default()
    };
    lxd_simplestreams::connect(spec, &Access::anonymous("tester")).unwrap()
}

#[tokio::test]
async fn our_own_client_finds_the_same_images_behind_both_doors() {
    let daemon = Daemon::new().await;
    daemon.image("hidden", false, "hidden").await;
    let (native, foreign) = (Architecture::host().unwrap(), Architecture::S390x);
    let root = file("etc/salt", "split");
    let mut known = vec![
        split(&daemon, "rootfs", (native, &root), &["system/1", "latest"]).await,
        split(&daemon, "rootfs", (foreign, &root), &["system/1/s390x"]).await,
        split(&daemon, "rootfs.img", (native, &disk()), &["disk"]).await,
    ];
    let whole = image("whole");
    known.push(KnownImage {
        fingerprint: daemon.image("whole", true, "whole").await.parse().unwrap(),
        kind: InstanceType::Container,
        architecture: Architecture::X86_64,
        size: whole.len() as u64,
        split: false,
        aliases: vec!["whole".to_owned()],
    });
    let streams = remote(&daemon, Protocol::Simplestreams).await;
    conformance::all(&*streams, &known).await.unwrap();

    let lxd = remote(&daemon, Protocol::Lxd).await;
    let mut lists = Vec::new();
    for remote in [&streams, &lxd] {
        let images = remote.images(&Filter::default()).await.unwrap();
        let facts =
            images.into_iter().map(|it| (it.fingerprint, it.kind, it.architecture, it.size));
        lists.push(facts.collect::<BTreeSet<_>>());
    }
    assert_eq!(lists[0], lists[1]);
    for image in &known {
        let want =
            Want { kind: Some(image.kind), architecture: Some(image.architecture), fresh: true };
        for name in &image.aliases {
            for remote in [&streams, &lxd] {
                assert_eq!(remote.alias(name, &want).await.unwrap().target, image.fingerprint);
            }
        }
    }
    assert!(streams.alias("hidden", &Want::default()).await.is_err());
}
