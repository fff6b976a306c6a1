//! The public images as a simplestreams server: what is in the catalogs, who gets which file, and
//! for how long.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use lxd_imaged::catalog::Viewer;
use lxd_imaged::clock::Clock;
use lxd_imaged::directory::Directory;
use lxd_imaged::serve::{Outside, start_in};
use lxd_imaged::{fsck, tasks};
use lxd_proto::format::{Compression, Decoder, FormatError};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::daemon::{
    Answer, Daemon, METADATA, MULTIPART, ZEROES, multipart, sha256, tarball, unified,
};

const INDEX: &str = "/streams/v1/index.json";
const CATALOG: &str = "/streams/v1/images.json";
const PUBLIC: (&str, &str) = ("X-LXD-public", "true");

/// A clock that stands still until it is told to go on.
#[derive(Clone)]
struct Time(Arc<Mutex<Timestamp>>);

impl Time {
    fn new() -> Self {
        Self(Arc::new(Mutex::new("2026-11-24T12:00:00Z".parse().unwrap())))
    }

    fn clock(&self) -> Clock {
        let time = self.0.clone();
        Clock::of(move || *time.lock())
    }

    fn pass(&self, minutes: i64) {
        *self.0.lock() += SignedDuration::from_mins(minutes);
    }
}

async fn daemon_at(time: &Time, temp: tempfile::TempDir) -> Daemon {
    let outside = Outside { clock: time.clock(), ..Outside::default() };
    let directory = Directory::new(temp.path());
    let started = start_in(&directory, CancellationToken::new(), outside).await.unwrap();
    let router = lxd_imaged::http::router(started.app.clone());
    Daemon { started, router, temp }
}

/// A daemon that others can reach.
async fn reachable(time: &Time) -> Daemon {
    let daemon = daemon_at(time, tempfile::tempdir().unwrap()).await;
    set(&daemon, "core.https_address", "127.0.0.1:0").await;
    daemon
}

async fn restarted(daemon: Daemon, time: &Time) -> Daemon {
    drop(daemon.router);
    daemon.started.end().await;
    daemon_at(time, daemon.temp).await
}

async fn set(daemon: &Daemon, key: &str, value: &str) {
    let answer = daemon.call("PATCH", "/1.0", json!({ "config": { key: value } })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json());
}

async fn ask(daemon: &Daemon, request: http::request::Builder) -> Answer {
    daemon.send(Viewer::Stranger, request, Body::empty()).await
}

/// The products of the catalog.
async fn products(daemon: &Daemon) -> serde_json::Map<String, Value> {
    let catalog = daemon.get_as_stranger(CATALOG).await;
    assert_eq!(catalog.status, StatusCode::OK);
    catalog.json()["products"].as_object().unwrap().clone()
}

/// Names of all products, each with its aliases.
async fn aliases(daemon: &Daemon) -> Vec<String> {
    let products = products(daemon).await;
    products.values().map(|product| product["aliases"].as_str().unwrap().to_owned()).collect()
}

/// All items of a catalog.
fn items(products: &serde_json::Map<String, Value>) -> Vec<Value> {
    let mut items = Vec::new();
    for product in products.values() {
        for version in product["versions"].as_object().unwrap().values() {
            items.extend(version["items"].as_object().unwrap().values().cloned());
        }
    }
    items
}

fn file_path(bytes: &[u8]) -> String {
    format!("/images/{}/lxd_combined.tar.gz", sha256(bytes))
}

async fn status(daemon: &Daemon, path: &str) -> StatusCode {
    daemon.get_as_stranger(path).await.status
}

async fn delete(daemon: &Daemon, bytes: &[u8]) {
    let path = format!("/1.0/images/{}", sha256(bytes));
    let answer = daemon.call("DELETE", &path, Value::Null).await;
    assert_eq!(daemon.end_of(&answer).await["status_code"], 200);
}

async fn set_public(daemon: &Daemon, bytes: &[u8], public: bool) {
    let path = format!("/1.0/images/{}", sha256(bytes));
    let answer = daemon.call("PATCH", &path, json!({ "public": public })).await;
    assert_eq!(answer.status, StatusCode::OK);
}

fn has_blob(daemon: &Daemon, bytes: &[u8]) -> bool {
    daemon.files().contains(&sha256(bytes))
}

#[tokio::test]
async fn the_catalog_lists_what_strangers_see_and_every_file_of_it_is_there() {
    let daemon = Daemon::new().await;
    let (open, hidden) = (unified("open"), unified("hidden"));
    daemon.upload(open.clone(), &[PUBLIC, ("X-LXD-aliases", "alias=open&alias=debian%2F12")]).await;
    daemon.upload(hidden.clone(), &[("X-LXD-aliases", "alias=hidden")]).await;
    let (metadata, rootfs) =
        (tarball(&[("metadata.yaml", METADATA)]), tarball(&[("etc/salt", "split")]));
    let body = multipart(&[("metadata", &metadata), ("rootfs", &rootfs)]);
    daemon.upload(body, &[MULTIPART, PUBLIC, ("X-LXD-aliases", "alias=split")]).await;

    let index = daemon.get_as_stranger(INDEX).await;
    assert_eq!(index.header(header::CONTENT_TYPE), "application/json");
    assert_eq!(index.json()["index"]["images"]["path"], "streams/v1/images.json");
    assert_eq!(index.json()["index"]["images"]["products"].as_array().unwrap().len(), 2);
    let text = daemon.get_as_stranger(CATALOG).await;
    let trusted = daemon.get(CATALOG).await;
    assert_eq!(text.bytes, trusted.bytes, "everybody gets the same");
    let text = String::from_utf8(text.bytes).unwrap();
    assert!(!text.contains("hidden") && !text.contains(&sha256(&hidden)), "{text}");
    assert_eq!(aliases(&daemon).await, ["debian/12,open", "split"]);

    let items = items(&products(&daemon).await);
    assert_eq!(items.len(), 5, "two items of the unified image, three of the split one: {items:?}");
    let fingerprint = sha256(&[metadata.as_slice(), &rootfs].concat());
    assert!(items.iter().any(|item| item["combined_rootxz_sha256"] == fingerprint));
    for item in &items {
        let path = format!("/{}", item["path"].as_str().unwrap());
        let file = daemon.get_as_stranger(&path).await;
        assert_eq!(file.status, StatusCode::OK, "{path}");
        assert_eq!(sha256(&file.bytes), item["sha256"].as_str().unwrap());
        assert_eq!(item["size"], file.bytes.len());
        assert_eq!(file.header(header::CONTENT_LENGTH), file.bytes.len().to_string());
        assert_eq!(file.header(header::ETAG), format!("\"{}\"", sha256(&file.bytes)));
        assert_eq!(file.header(header::CACHE_CONTROL), "public, max-age=31536000, immutable");
        assert!(!file.headers.contains_key(header::CONTENT_ENCODING));
    }
}

#[tokio::test]
async fn whatever_is_committed_is_in_the_next_answer() {
    let daemon = Daemon::new().await;
    assert!(products(&daemon).await.is_empty());
    let file = unified("now");
    daemon.upload(file.clone(), &[PUBLIC]).await;
    assert_eq!(aliases(&daemon).await, [""]);
    let named = json!({ "name": "first", "target": sha256(&file) });
    daemon.call("POST", "/1.0/images/aliases", named).await;
    assert_eq!(aliases(&daemon).await, ["first"]);
    daemon.call("POST", "/1.0/images/aliases/first", json!({ "name": "second" })).await;
    assert_eq!(aliases(&daemon).await, ["second"]);
    let image = format!("/1.0/images/{}", sha256(&file));
    daemon.call("PATCH", &image, json!({ "properties": { "os": "Alpine" } })).await;
    assert_eq!(products(&daemon).await.values().next().unwrap()["os"], "Alpine");
    daemon.call("DELETE", "/1.0/images/aliases/second", Value::Null).await;
    assert_eq!(aliases(&daemon).await, [""]);
    set_public(&daemon, &file, false).await;
    assert!(products(&daemon).await.is_empty());
    set_public(&daemon, &file, true).await;
    assert_eq!(products(&daemon).await.len(), 1);
    delete(&daemon, &file).await;
    assert!(products(&daemon).await.is_empty());
}

#[tokio::test]
async fn a_document_is_sent_again_only_when_its_content_has_changed() {
    let time = Time::new();
    let daemon = daemon_at(&time, tempfile::tempdir().unwrap()).await;
    daemon.upload(unified("a"), &[PUBLIC, ("X-LXD-aliases", "alias=a")]).await;
    for path in [INDEX, CATALOG] {
        time.pass(1);
        let first = daemon.get_as_stranger(path).await;
        assert_eq!(first.header(header::CACHE_CONTROL), "no-cache");
        assert_eq!(first.header(header::VARY), "Accept-Encoding");
        let etag = first.header(header::ETAG).to_owned();
        let modified = first.header(header::LAST_MODIFIED).to_owned();
        let head = ask(&daemon, Request::head(path)).await;
        assert_eq!(head.header(header::CONTENT_LENGTH), first.bytes.len().to_string());
        assert_eq!((head.header(header::ETAG), head.bytes.len()), (etag.as_str(), 0));

        // A private image, and what strangers do not see of a public one.
        time.pass(1);
        daemon.upload(unified(path), &[]).await;
        let image = format!("/1.0/images/{}", sha256(&unified("a")));
        daemon.call("PATCH", &image, json!({ "properties": { "note": path } })).await;
        for (name, value) in [("If-None-Match", &etag), ("If-Modified-Since", &modified)] {
            let known = ask(&daemon, Request::get(path).header(name, value)).await;
            assert_eq!((known.status, known.bytes.len()), (StatusCode::NOT_MODIFIED, 0), "{name}");
            assert_eq!(known.header(header::ETAG), etag);
        }
        daemon.upload(unified(&format!("public {path}")), &[PUBLIC]).await;
        for (name, value) in [("If-None-Match", &etag), ("If-Modified-Since", &modified)] {
            let changed = ask(&daemon, Request::get(path).header(name, value)).await;
            assert_eq!(changed.status, StatusCode::OK, "{name}");
            assert_ne!(changed.header(header::ETAG), etag);
        }
    }
    // Two changes in one second: its name tells only the last of them, and nobody knows which one
    // a client has.
    daemon.upload(unified("b"), &[PUBLIC]).await;
    let one = daemon.get_as_stranger(CATALOG).await;
    daemon.upload(unified("c"), &[PUBLIC]).await;
    let modified = one.header(header::LAST_MODIFIED);
    let other = ask(&daemon, Request::get(CATALOG).header("If-Modified-Since", modified)).await;
    assert_eq!(other.header(header::LAST_MODIFIED), modified);
    assert_eq!(other.status, StatusCode::OK);
}

#[tokio::test]
async fn gzip_is_the_same_document_under_another_tag() {
    let daemon = Daemon::new().await;
    daemon.upload(unified("z"), &[PUBLIC]).await;
    let plain = daemon.get_as_stranger(CATALOG).await;
    let packed = ask(&daemon, Request::get(CATALOG).header("Accept-Encoding", "gzip")).await;
    assert_eq!(packed.header(header::CONTENT_ENCODING), "gzip");
    assert_eq!(packed.header(header::CONTENT_LENGTH), packed.bytes.len().to_string());
    assert_ne!(packed.header(header::ETAG), plain.header(header::ETAG));
    let mut text = Vec::new();
    let mut decoder = Decoder::new(Compression::Gzip).unwrap();
    let mut keep = |bytes: &[u8]| {
        text.extend_from_slice(bytes);
        Ok::<_, FormatError>(())
    };
    decoder.feed(&packed.bytes, &mut keep).unwrap();
    decoder.finish().unwrap();
    assert_eq!(text, plain.bytes);
    let etag = packed.header(header::ETAG);
    let request = Request::get(CATALOG).header("Accept-Encoding", "gzip");
    let known = ask(&daemon, request.header("If-None-Match", etag)).await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn a_file_comes_in_ranges() {
    let daemon = Daemon::new().await;
    let file = unified("range");
    daemon.upload(file.clone(), &[PUBLIC]).await;
    let path = file_path(&file);
    let head = ask(&daemon, Request::head(&path)).await;
    assert_eq!(head.header(header::CONTENT_LENGTH), file.len().to_string());
    let etag = head.header(header::ETAG).to_owned();
    for (range, from, to) in [("bytes=0-0", 0, 1), ("bytes=512-", 512, file.len())] {
        let request = Request::get(&path).header("Range", range).header("If-Range", &etag);
        let part = ask(&daemon, request).await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.bytes, &file[from..to]);
        let shown = format!("bytes {from}-{}/{}", to - 1, file.len());
        assert_eq!(part.header(header::CONTENT_RANGE), shown);
    }
    for stale in ["\"other\"".to_owned(), format!("W/{etag}")] {
        let request = Request::get(&path).header("Range", "bytes=5-").header("If-Range", stale);
        assert_eq!(ask(&daemon, request).await.status, StatusCode::OK);
    }
    let beyond = Request::get(&path).header("Range", format!("bytes={}-", file.len()));
    assert_eq!(ask(&daemon, beyond).await.status, StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test]
async fn only_files_of_public_images_are_given_and_only_under_their_names() {
    let daemon = Daemon::new().await;
    let (open, hidden) = (unified("open"), unified("hidden"));
    daemon.upload(open.clone(), &[PUBLIC]).await;
    daemon.upload(hidden.clone(), &[]).await;
    let missing = daemon.get(&format!("/images/{ZEROES}/lxd_combined.tar.gz")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let open = sha256(&open);
    for path in [
        file_path(&hidden),
        format!("/images/{open}/lxd.tar.xz"),
        format!("/images/{open}/rootfs.squashfs"),
        format!("/images/{}/lxd_combined.tar.gz", open.to_uppercase()),
        format!("/images/{}/lxd_combined.tar.gz", &open[..20]),
        format!("/images/{open}/..%2Flxd_combined.tar.gz"),
        "/images/x/y".to_owned(),
    ] {
        for viewer in [Viewer::Stranger, Viewer::Trusted] {
            let answer = daemon.send(viewer, Request::get(&path), Body::empty()).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(answer.bytes, missing.bytes, "{path}");
        }
    }
}

#[tokio::test]
async fn an_image_that_is_made_private_is_gone_at_once_with_its_files() {
    let time = Time::new();
    let daemon = reachable(&time).await;
    let file = unified("p");
    daemon.upload(file.clone(), &[PUBLIC]).await;
    set_public(&daemon, &file, false).await;
    assert_eq!(status(&daemon, &file_path(&file)).await, StatusCode::NOT_FOUND);
    assert!(products(&daemon).await.is_empty());
    let missing = daemon.get_as_stranger(&format!("/images/{ZEROES}/lxd_combined.tar.gz")).await;
    assert_eq!(daemon.get_as_stranger(&file_path(&file)).await.bytes, missing.bytes);

    // Two images with one metadata file: it goes with the last public one.
    let metadata = tarball(&[("metadata.yaml", METADATA)]);
    let mut images = Vec::new();
    for salt in ["one", "two"] {
        let rootfs = tarball(&[("etc/salt", salt)]);
        let body = multipart(&[("metadata", &metadata), ("rootfs", &rootfs)]);
        daemon.upload(body, &[MULTIPART, PUBLIC]).await;
        images.push([metadata.as_slice(), &rootfs].concat());
    }
    let path = format!("/images/{}/lxd.tar.xz", sha256(&metadata));
    set_public(&daemon, &images[0], false).await;
    assert_eq!(status(&daemon, &path).await, StatusCode::OK);
    set_public(&daemon, &images[1], false).await;
    assert_eq!(status(&daemon, &path).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_files_of_a_deleted_image_are_served_for_the_grace_time() {
    let time = Time::new();
    let daemon = reachable(&time).await;
    let (file, other) = (unified("old"), unified("other"));
    daemon.upload(file.clone(), &[PUBLIC]).await;
    daemon.upload(other.clone(), &[PUBLIC]).await;
    delete(&daemon, &file).await;
    assert_eq!(products(&daemon).await.len(), 1);
    assert_eq!(daemon.get_as_stranger(&file_path(&file)).await.bytes, file);
    assert_eq!(status(&daemon, &format!("/1.0/images/{}", sha256(&file))).await, 404);

    time.pass(60);
    delete(&daemon, &other).await;
    let daemon = restarted(daemon, &time).await;
    assert_eq!(daemon.get_as_stranger(&file_path(&file)).await.bytes, file);
    time.pass(59);
    assert_eq!(tasks::withdrawn::run_once(&daemon.started.app).await.unwrap(), 0);
    assert_eq!(status(&daemon, &file_path(&file)).await, StatusCode::OK);
    time.pass(1);
    assert_eq!(status(&daemon, &file_path(&file)).await, StatusCode::NOT_FOUND);
    assert!(has_blob(&daemon, &file), "only the task removes");
    assert_eq!(tasks::withdrawn::run_once(&daemon.started.app).await.unwrap(), 1);
    assert!(!has_blob(&daemon, &file));
    assert_eq!(daemon.get_as_stranger(&file_path(&other)).await.bytes, other);

    // A shorter time counts for what was deleted before too.
    set(&daemon, "images.streams_grace", "0").await;
    assert_eq!(status(&daemon, &file_path(&other)).await, StatusCode::NOT_FOUND);
    assert_eq!(tasks::withdrawn::run_once(&daemon.started.app).await.unwrap(), 1);
    assert_eq!(daemon.files(), [""; 0]);
    let daemon = restarted(daemon, &time).await;
    assert_eq!(tasks::withdrawn::run_once(&daemon.started.app).await.unwrap(), 0);
}

#[tokio::test]
async fn nothing_is_kept_that_nobody_can_know_of() {
    let time = Time::new();
    let daemon = daemon_at(&time, tempfile::tempdir().unwrap()).await;
    let file = unified("alone");
    daemon.upload(file.clone(), &[PUBLIC]).await;
    delete(&daemon, &file).await;
    assert_eq!(status(&daemon, &file_path(&file)).await, StatusCode::NOT_FOUND);
    assert_eq!(daemon.files(), [""; 0], "nobody can reach this daemon");
    let daemon = restarted(daemon, &time).await;

    set(&daemon, "core.https_address", "127.0.0.1:0").await;
    daemon.upload(file.clone(), &[]).await;
    delete(&daemon, &file).await;
    assert_eq!(status(&daemon, &file_path(&file)).await, StatusCode::NOT_FOUND);
    assert_eq!(daemon.files(), [""; 0], "it was private");
    set(&daemon, "images.streams_grace", "0").await;
    daemon.upload(file.clone(), &[PUBLIC]).await;
    delete(&daemon, &file).await;
    assert_eq!(daemon.files(), [""; 0], "no grace");
}

#[tokio::test]
async fn the_grace_of_a_file_ends_when_its_image_comes_back_private() {
    let time = Time::new();
    let daemon = reachable(&time).await;
    let file = unified("back");
    let path = file_path(&file);
    for keeps_public in [false, true] {
        daemon.upload(file.clone(), &[PUBLIC]).await;
        delete(&daemon, &file).await;
        assert_eq!(status(&daemon, &path).await, StatusCode::OK);
        if keeps_public {
            daemon.upload(file.clone(), &[PUBLIC]).await;
            assert_eq!(status(&daemon, &path).await, StatusCode::OK);
            set_public(&daemon, &file, false).await;
        } else {
            daemon.upload(file.clone(), &[]).await;
        }
        assert_eq!(status(&daemon, &path).await, StatusCode::NOT_FOUND);
        delete(&daemon, &file).await;
        assert_eq!(status(&daemon, &path).await, StatusCode::NOT_FOUND);
        assert!(!has_blob(&daemon, &file));
    }
    // Deleted twice: the time counts from the last one.
    for minutes in [100, 100] {
        daemon.upload(file.clone(), &[PUBLIC]).await;
        delete(&daemon, &file).await;
        time.pass(minutes);
        assert_eq!(tasks::withdrawn::run_once(&daemon.started.app).await.unwrap(), 0);
    }
    assert_eq!(status(&daemon, &path).await, StatusCode::OK);
    let daemon = restarted(daemon, &time).await;
    assert_eq!(status(&daemon, &path).await, StatusCode::OK);
}

#[tokio::test]
async fn a_private_image_takes_no_file_back_that_left_with_another_one() {
    let time = Time::new();
    let daemon = reachable(&time).await;
    let rootfs = tarball(&[("etc/salt", "shared")]);
    let images = ["one", "two"].map(|name| {
        let yaml = format!("{METADATA}# {name}\n");
        (tarball(&[("metadata.yaml", &yaml)]), name)
    });
    let upload = async |metadata: &[u8], headers: &[(&str, &str)]| {
        let body = multipart(&[("metadata", metadata), ("rootfs", &rootfs)]);
        daemon.upload(body, &[&[MULTIPART], headers].concat()).await;
        [metadata, &rootfs].concat()
    };
    let path = format!("/images/{}/root.tar.xz", sha256(&rootfs));
    let public = upload(&images[0].0, &[PUBLIC]).await;
    delete(&daemon, &public).await;
    assert_eq!(status(&daemon, &path).await, StatusCode::OK);
    let private = upload(&images[1].0, &[]).await;
    assert_eq!(status(&daemon, &path).await, StatusCode::OK, "catalogs of the first one name it");
    set_public(&daemon, &private, true).await;
    set_public(&daemon, &private, false).await;
    assert_eq!(status(&daemon, &path).await, StatusCode::OK);
    // What left with the second one as well is promised once less, not never.
    set_public(&daemon, &private, true).await;
    delete(&daemon, &private).await;
    upload(&images[1].0, &[]).await;
    let daemon = restarted(daemon, &time).await;
    assert_eq!(status(&daemon, &path).await, StatusCode::OK);
    time.pass(120);
    assert_eq!(status(&daemon, &path).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_check_of_the_store_knows_withdrawn_files() {
    let time = Time::new();
    let daemon = reachable(&time).await;
    let (kept, lost) = (unified("kept"), unified("lost"));
    for file in [&kept, &lost] {
        daemon.upload(file.clone(), &[PUBLIC]).await;
        delete(&daemon, file).await;
    }
    let Daemon { started, router, temp } = daemon;
    drop(router);
    started.end().await;
    let directory = Directory::new(temp.path());
    let report = fsck::run(&directory, false).await.unwrap();
    assert_eq!((report.findings.len(), report.blobs), (0, 2), "{report:?}");
    std::fs::remove_file(temp.path().join("blobs").join(sha256(&lost))).unwrap();
    let report = fsck::run(&directory, false).await.unwrap();
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert!(fsck::run(&directory, true).await.unwrap().is_clean());
    assert_eq!(fsck::run(&directory, false).await.unwrap().findings.len(), 0);
    let daemon = daemon_at(&time, temp).await;
    assert_eq!(daemon.get_as_stranger(&file_path(&kept)).await.bytes, kept);
    assert_eq!(status(&daemon, &file_path(&lost)).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn signed_twins_are_there_when_somebody_signs() {
    let daemon = Daemon::new().await;
    daemon.upload(unified("s"), &[PUBLIC, ("X-LXD-aliases", "alias=s")]).await;
    let (index, catalog) = ("/streams/v1/index.sjson", "/streams/v1/images.sjson");
    for path in [index, catalog] {
        assert_eq!(status(&daemon, path).await, StatusCode::NOT_FOUND);
    }
    let sign = |text: &[u8]| Ok([b"signed: ", text].concat());
    daemon.started.app.streams.set_signer(Some(Arc::new(sign)));
    let signed = daemon.get_as_stranger(catalog).await;
    let plain = daemon.get_as_stranger(CATALOG).await;
    assert_eq!(signed.bytes, [b"signed: ", plain.bytes.as_slice()].concat());
    assert_eq!(signed.header(header::LAST_MODIFIED), plain.header(header::LAST_MODIFIED));
    let signed = daemon.get_as_stranger(index).await;
    let text = signed.bytes.strip_prefix(b"signed: ").unwrap();
    let named: Value = serde_json::from_slice(text).unwrap();
    assert_eq!(named["index"]["images"]["path"], "streams/v1/images.sjson");
    let etag = signed.header(header::ETAG);
    let known = ask(&daemon, Request::get(index).header("If-None-Match", etag)).await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    daemon.started.app.streams.set_signer(None);
    assert_eq!(status(&daemon, index).await, StatusCode::NOT_FOUND);
    assert_eq!(daemon.get_as_stranger(CATALOG).await.bytes, plain.bytes);
}

#[tokio::test]
async fn an_image_behind_a_url_is_the_one_that_the_caller_can_run() {
    let daemon = Daemon::new().await;
    let foreign = METADATA.replace("amd64", "aarch64");
    let foreign = tarball(&[("metadata.yaml", &foreign), ("rootfs/etc/salt", "arm")]);
    let (open, hidden) = (unified("open"), unified("hidden"));
    daemon.upload(open.clone(), &[PUBLIC, ("X-LXD-aliases", "alias=tiny%2F1")]).await;
    daemon.upload(foreign.clone(), &[PUBLIC, ("X-LXD-aliases", "alias=tiny%2F1%2Farm64")]).await;
    daemon.upload(hidden, &[("X-LXD-aliases", "alias=hidden")]).await;
    let (metadata, rootfs) =
        (tarball(&[("metadata.yaml", METADATA)]), tarball(&[("etc/salt", "split")]));
    let body = multipart(&[("metadata", &metadata), ("rootfs", &rootfs)]);
    daemon.upload(body, &[MULTIPART, PUBLIC, ("X-LXD-aliases", "alias=split")]).await;

    let ask_for = async |method: &str, path: &str, architectures: Option<&str>| {
        let mut request =
            Request::builder().method(method).uri(path).header("Host", "images.example:8443");
        if let Some(architectures) = architectures {
            request = request.header("LXD-Server-Architectures", architectures);
        }
        ask(&daemon, request).await
    };
    for (architectures, file) in [
        (None, &open),
        (Some(""), &open),
        (Some("x86_64, i686"), &open),
        (Some("amd64"), &open),
        (Some("aarch64, x86_64"), &open),
        (Some("aarch64,armv7l"), &foreign),
    ] {
        let answer = ask_for("GET", "/lxd/tiny/1", architectures).await;
        assert_eq!(answer.status, StatusCode::OK, "{architectures:?}");
        let url = format!("https://images.example:8443{}", file_path(file));
        assert_eq!(answer.headers["LXD-Image-URL"], url, "{architectures:?}");
        assert_eq!(answer.headers["LXD-Image-Hash"], sha256(file));
        assert!(String::from_utf8(answer.bytes.clone()).unwrap().contains(&url));
        let head = ask_for("HEAD", "/lxd/tiny/1", architectures).await;
        assert_eq!((head.bytes.len(), &head.headers), (0, &answer.headers));
    }
    let missing = ask_for("GET", "/lxd/nothing", None).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let private = ask_for("GET", "/lxd/hidden", None).await;
    assert_eq!((private.status, private.bytes), (missing.status, missing.bytes));
    for (path, architectures, word) in [
        ("/lxd/tiny/1", Some("riscv64"), "another architecture"),
        ("/lxd/tiny/1", Some("vax"), "another architecture"),
        ("/lxd/split", None, "--protocol=simplestreams"),
    ] {
        let answer = ask_for("GET", path, architectures).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        let text = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(text.contains(word), "{text}");
    }
    let request = Request::get("/lxd/tiny/1").header("Host", "a b");
    assert_eq!(ask(&daemon, request).await.status, StatusCode::BAD_REQUEST);
}
