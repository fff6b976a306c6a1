//! Files come in, become images, and go again.

use axum::body::Body;
use http::{Request, StatusCode, header};
use lxd_imaged::catalog::Viewer;
use lxd_imaged::directory::Directory;
use lxd_imaged::serve::start;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::daemon::{Daemon, METADATA, MULTIPART, ZEROES, multipart, sha256, tarball, unified};

#[tokio::test]
async fn an_upload_becomes_an_image_that_survives_a_restart() {
    let daemon = Daemon::new().await;
    let file = unified("a");
    let headers = [
        ("X-LXD-filename", "a.tar"),
        ("x-incus-properties", "release=12&os=Debian+GNU"),
        ("X-LXD-public", "1"),
        ("X-LXD-aliases", "alias=d%2F12&alias=d"),
    ];
    let operation = daemon.upload(file.clone(), &headers).await;
    assert_eq!(operation["status_code"], 200, "{operation}");
    let fingerprint = sha256(&file);
    assert_eq!(operation["metadata"]["fingerprint"], fingerprint);
    assert_eq!(operation["metadata"]["size"], file.len().to_string());

    let daemon = daemon.restarted().await;
    let image = daemon.get(&format!("/1.0/images/{}", &fingerprint[..5])).await.metadata();
    assert_eq!(image["properties"], json!({ "os": "Debian GNU", "release": "12" }));
    assert_eq!(image["architecture"], "x86_64");
    assert_eq!(image["created_at"], "2016-03-15T11:10:00Z");
    assert_eq!(image["expires_at"], "1970-01-01T00:00:00Z");
    assert_eq!(image["last_used_at"], "0001-01-01T00:00:00Z");
    assert_eq!(image["filename"], "a.tar");
    assert_eq!(image["public"], true);
    assert!(image.get("verified").is_none());
    let names: Vec<_> = image["aliases"].as_array().unwrap().iter().map(|a| &a["name"]).collect();
    assert_eq!(names, ["d", "d/12"]);
    let exported = daemon.get(&format!("/1.0/images/{fingerprint}/export")).await;
    assert_eq!(exported.bytes, file);
    assert_eq!(
        exported.header(header::CONTENT_DISPOSITION),
        format!("inline;filename={fingerprint}.tar")
    );
}

#[tokio::test]
async fn what_is_refused_leaves_nothing_behind() {
    let daemon = Daemon::new().await;
    let good = unified("x");
    let meta = tarball(&[("metadata.yaml", METADATA)]);
    let refused: Vec<(Vec<u8>, Vec<(&str, &str)>, &str)> = vec![
        (good[..good.len() - 900].to_vec(), vec![], ""),
        (b"no archive at all".to_vec(), vec![], "Unsupported compression"),
        (Vec::new(), vec![], "Unsupported compression"),
        (meta.clone(), vec![], "Invalid instance type"),
        (tarball(&[("rootfs/x", "")]), vec![], "Metadata tarball is missing metadata.yaml"),
        (good.clone(), vec![("X-LXD-fingerprint", ZEROES)], "fingerprints don't match"),
        (
            multipart(&[("rootfs", &good), ("metadata", &meta)]),
            vec![MULTIPART],
            "Invalid multipart image",
        ),
        (multipart(&[("metadata", &meta)]), vec![MULTIPART], "Invalid multipart image"),
        (multipart(&[("metadata", &meta), ("rootfs.img", &good)]), vec![MULTIPART], "qcow2"),
    ];
    for (file, headers, reason) in refused {
        let operation = daemon.upload(file, &headers).await;
        assert_eq!(operation["status_code"], 400, "{reason}");
        let error = operation["err"].as_str().unwrap();
        assert!(error.contains(reason), "{error} / {reason}");
        assert_eq!(daemon.files(), Vec::<String>::new(), "{reason}");
    }
    assert_eq!(daemon.get("/1.0/images").await.metadata(), json!([]));
}

#[tokio::test]
async fn a_second_upload_fails_and_an_alias_moves_only_on_request() {
    let daemon = Daemon::new().await;
    let (first, second) = (unified("1"), unified("2"));
    daemon.upload(first.clone(), &[("X-LXD-aliases", "alias=a")]).await;
    let again = daemon.upload(first.clone(), &[]).await;
    assert_eq!(again["err"], "Image with same fingerprint already exists");
    assert_eq!(again["metadata"]["fingerprint"], sha256(&first));

    let taken = daemon.upload(second.clone(), &[("X-LXD-aliases", "alias=a&alias=b")]).await;
    assert_eq!(taken["err"], "Alias \"a\" already exists");
    assert_eq!(daemon.files().len(), 1, "the refused image's file is gone");
    let headers = [("X-LXD-aliases", "alias=a&alias=b"), ("X-LXD-alias-reuse", "true")];
    daemon.upload(second.clone(), &headers).await;
    for name in ["a", "b"] {
        let alias = daemon.get(&format!("/1.0/images/aliases/{name}")).await.metadata();
        assert_eq!(alias["target"], sha256(&second));
    }
    let image = daemon.get(&format!("/1.0/images/{}", sha256(&first))).await.metadata();
    assert_eq!(image["aliases"], json!([]));
}

#[tokio::test]
async fn deleting_removes_only_files_that_no_other_image_uses() {
    let daemon = Daemon::new().await;
    let metadata = tarball(&[("metadata.yaml", METADATA)]);
    let mut fingerprints = Vec::new();
    for salt in ["1", "2"] {
        let rootfs = tarball(&[("etc/salt", salt)]);
        let body = multipart(&[("metadata", &metadata), ("rootfs", &rootfs)]);
        let operation = daemon.upload(body, &[MULTIPART]).await;
        fingerprints.push(operation["metadata"]["fingerprint"].as_str().unwrap().to_owned());
    }
    assert_eq!(daemon.files().len(), 3, "the metadata file is shared");
    for (fingerprint, left) in fingerprints.iter().zip([2, 0]) {
        let answer =
            daemon.call("DELETE", &format!("/1.0/images/{fingerprint}"), Value::Null).await;
        let operation = daemon.end_of(&answer).await;
        assert_eq!(operation["status"], "Success");
        assert_eq!(operation["resources"]["images"][0], format!("/1.0/images/{fingerprint}"));
        assert_eq!(daemon.files().len(), left);
    }
    let gone =
        daemon.call("DELETE", &format!("/1.0/images/{}", fingerprints[0]), Value::Null).await;
    assert_eq!(
        (gone.status, gone.json()["error"].clone()),
        (StatusCode::NOT_FOUND, json!("Image not found"))
    );
}

#[tokio::test]
async fn files_of_a_lost_database_stay() {
    let daemon = Daemon::new().await;
    daemon.upload(unified("kept"), &[]).await;
    let files = daemon.files();
    let Daemon { started, router, temp } = daemon;
    drop(router);
    started.end().await;
    let database = temp.path().join("images.db");
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(temp.path().join(format!("images.db{suffix}")));
    }
    std::fs::write(&database, "").unwrap();
    let refused = start(&Directory::new(temp.path()), CancellationToken::new()).await.unwrap_err();
    assert!(refused.to_string().contains("from a backup"), "{refused}");
    assert_eq!(std::fs::read_dir(temp.path().join("blobs")).unwrap().count(), files.len());
}

#[tokio::test]
async fn a_push_token_lets_in_bytes_and_nothing_else() {
    let daemon = Daemon::new().await;
    let other = daemon.upload(unified("other"), &[("x-lxd-aliases", "alias=taken")]).await;
    let image = unified("pushed");
    let fingerprint = sha256(&image);
    let source = json!({"type": "image", "mode": "push", "fingerprint": fingerprint});
    let token = daemon.call("POST", "/1.0/images", json!({"source": source})).await;
    let secret = token.metadata()["metadata"]["secret"].as_str().unwrap().to_owned();
    let request = Request::post("/1.0/images")
        .header("x-lxd-secret", secret)
        .header("x-lxd-fingerprint", &fingerprint)
        .header("x-lxd-public", "1")
        .header("x-lxd-aliases", "alias=taken&alias=new")
        .header("x-lxd-alias-reuse", "1");
    let answer = daemon.send(Viewer::Stranger, request, Body::from(image)).await;
    assert_eq!(daemon.end_of(&answer).await["status"], "Success");
    let pushed = daemon.get(&format!("/1.0/images/{fingerprint}")).await.metadata();
    assert_eq!((&pushed["public"], &pushed["aliases"]), (&json!(false), &json!([])));
    let taken = daemon.get("/1.0/images/aliases/taken").await.metadata();
    assert_eq!(taken["target"], other["metadata"]["fingerprint"]);
}
