//! The real router over a throw-away store, in process.
#![expect(
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "a test says what it expects by failing"
)]

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
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

struct Daemon {
    started: Started,
    router: Router,
    temp: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    bytes: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    fn metadata(&self) -> Value {
        self.json()["metadata"].clone()
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

impl Daemon {
    async fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self::at(temp).await
    }

    async fn at(temp: tempfile::TempDir) -> Self {
        let started = start(&Directory::new(temp.path()), CancellationToken::new()).await.unwrap();
        let router = lxd_imaged::http::router(started.app.clone());
        Self { started, router, temp }
    }

    async fn restarted(self) -> Self {
        drop(self.router);
        self.started.end().await;
        Self::at(self.temp).await
    }

    async fn send(&self, viewer: Viewer, request: http::request::Builder, body: Body) -> Answer {
        let requestor =
            Requestor { username: "root".into(), protocol: "unix".into(), address: "@".into() };
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(Caller { viewer, requestor });
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Viewer::Trusted, Request::get(path), Body::empty()).await
    }

    async fn get_as_stranger(&self, path: &str) -> Answer {
        self.send(Viewer::Stranger, Request::get(path), Body::empty()).await
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let request = Request::builder().method(method).uri(path);
        self.send(Viewer::Trusted, request, Body::from(body.to_string())).await
    }

    /// Waits for the operation that `answer` started.
    async fn end_of(&self, answer: &Answer) -> Value {
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json());
        let path = answer.header(header::LOCATION).to_owned();
        self.get(&format!("{path}/wait?timeout=30")).await.metadata()
    }

    async fn upload(&self, file: Vec<u8>, headers: &[(&str, &str)]) -> Value {
        let mut request = Request::post("/1.0/images");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.send(Viewer::Trusted, request, Body::from(file)).await;
        self.end_of(&answer).await
    }

    fn files(&self) -> Vec<String> {
        let names = |directory: &Path| {
            let entries = std::fs::read_dir(directory).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let mut files: Vec<String> = names(&self.temp.path().join("blobs"));
        files.extend(names(&self.temp.path().join("spool")));
        files
    }
}

const METADATA: &str =
    "architecture: amd64\ncreation_date: 1458040200\nproperties:\n  os: debian\n";

fn tarball(entries: &[(&str, &str)]) -> Vec<u8> {
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

fn unified(salt: &str) -> Vec<u8> {
    tarball(&[("metadata.yaml", METADATA), ("rootfs/etc/salt", salt)])
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn multipart(parts: &[(&str, &[u8])]) -> Vec<u8> {
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

const MULTIPART: (&str, &str) = ("content-type", "multipart/form-data; boundary=XX");

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
async fn a_split_export_has_a_length_and_any_range_of_it() {
    let daemon = Daemon::new().await;
    let (metadata, rootfs) =
        (tarball(&[("metadata.yaml", METADATA)]), tarball(&[("etc/salt", "r")]));
    let body = multipart(&[("metadata", &metadata), ("rootfs", &rootfs)]);
    let operation = daemon.upload(body, &[MULTIPART]).await;
    let fingerprint = sha256(&[metadata.as_slice(), &rootfs].concat());
    assert_eq!(operation["metadata"]["fingerprint"], fingerprint, "{operation}");
    let path = format!("/1.0/images/{fingerprint}/export");
    let whole = daemon.get(&path).await;
    assert_eq!(whole.header(header::CONTENT_LENGTH), whole.bytes.len().to_string());
    assert_eq!(daemon.get(&path).await.bytes, whole.bytes, "the same bytes each time");
    let parse = multer::parse_boundary(whole.header(header::CONTENT_TYPE)).unwrap();
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(whole.bytes.clone())]);
    let mut parts = multer::Multipart::new(stream, parse);
    for (name, file, content) in [
        ("metadata", format!("meta-{fingerprint}.tar"), &metadata),
        ("rootfs", format!("{fingerprint}.tar"), &rootfs),
    ] {
        let part = parts.next_field().await.unwrap().unwrap();
        assert_eq!((part.name(), part.file_name()), (Some(name), Some(file.as_str())));
        assert_eq!(&part.bytes().await.unwrap()[..], &content[..]);
    }
    assert!(parts.next_field().await.unwrap().is_none());

    let etag = whole.header(header::ETAG).to_owned();
    let length = whole.bytes.len();
    for (from, to) in [(0, 0), (100, 1500), (length - 7, length - 1), (1, length * 2)] {
        let request = Request::get(&path)
            .header("Range", format!("bytes={from}-{to}"))
            .header("If-Range", &etag);
        let part = daemon.send(Viewer::Trusted, request, Body::empty()).await;
        let end = to.min(length - 1);
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.header(header::CONTENT_RANGE), format!("bytes {from}-{end}/{length}"));
        assert_eq!(part.bytes, &whole.bytes[from..=end]);
    }
    let stale = Request::get(&path).header("Range", "bytes=5-").header("If-Range", "\"other\"");
    assert_eq!(daemon.send(Viewer::Trusted, stale, Body::empty()).await.status, StatusCode::OK);
    let known = Request::get(&path).header("If-None-Match", &etag);
    let known = daemon.send(Viewer::Trusted, known, Body::empty()).await;
    assert_eq!((known.status, known.bytes.len()), (StatusCode::NOT_MODIFIED, 0));
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

const ZEROES: &str = "0000000000000000000000000000000000000000000000000000000000000000";

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
async fn strangers_cannot_tell_a_private_image_from_none() {
    let daemon = Daemon::new().await;
    let (private, public) = (unified("private"), unified("public"));
    daemon.upload(private.clone(), &[("X-LXD-aliases", "alias=secret")]).await;
    let headers = [("X-LXD-aliases", "alias=open"), ("X-LXD-public", "true")];
    daemon.upload(public.clone(), &headers).await;
    let missing = ZEROES;
    for pattern in [
        "/1.0/images/{}",
        "/1.0/images/{}/export",
        "/1.0/images?recursion=1&filter=fingerprint+eq+{}",
        "/1.0/images?filter=fingerprint+eq+{}",
    ] {
        let of = |fingerprint: &str| pattern.replace("{}", fingerprint);
        let hidden = daemon.get_as_stranger(&of(&sha256(&private))).await;
        let absent = daemon.get_as_stranger(&of(missing)).await;
        assert_eq!(hidden.status, absent.status, "{pattern}");
        assert_eq!(hidden.bytes, absent.bytes, "{pattern}");
        let shown = daemon.get_as_stranger(&of(&sha256(&public))).await;
        assert_eq!(shown.status, StatusCode::OK, "{pattern}");
        assert_ne!(shown.bytes, absent.bytes, "{pattern}");
    }
    let hidden = daemon.get_as_stranger("/1.0/images/aliases/secret").await;
    let absent = daemon.get_as_stranger("/1.0/images/aliases/nothing").await;
    assert_eq!((hidden.status, &hidden.bytes), (absent.status, &absent.bytes));
    assert_eq!(daemon.get_as_stranger("/1.0/images/aliases/open").await.status, StatusCode::OK);
    let list = daemon.get_as_stranger("/1.0/images?recursion=1").await.metadata();
    assert_eq!(list.as_array().unwrap().len(), 1);
    let server = daemon.get_as_stranger("/1.0").await.metadata();
    assert_eq!(server["auth"], "untrusted");
    assert!(server.get("config").is_none() && server.get("environment").is_none());
    for path in ["/1.0/images/aliases", "/1.0/operations", "/1.0/projects", "/1.0/profiles/default"]
    {
        let answer = daemon.get_as_stranger(path).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(answer.json()["error"], "not authorized");
    }
    for method in ["PUT", "PATCH", "DELETE"] {
        let request =
            Request::builder().method(method).uri(format!("/1.0/images/{}", sha256(&public)));
        let answer = daemon.send(Viewer::Stranger, request, Body::from("{}")).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method}");
    }
}

#[tokio::test]
async fn edits_check_the_entity_tag_and_drop_empty_properties() {
    let daemon = Daemon::new().await;
    let file = unified("e");
    daemon.upload(file.clone(), &[]).await;
    let path = format!("/1.0/images/{}", sha256(&file));
    let before = daemon.get(&path).await;
    let etag = before.header(header::ETAG).to_owned();
    let body = json!({
        "public": true, "auto_update": false, "profiles": null,
        "properties": { "os": "", "k": "v" }, "expires_at": "0001-01-01T00:00:00Z",
    });
    let stale = Request::put(&path).header("If-Match", "\"stale\"");
    let stale = daemon.send(Viewer::Trusted, stale, Body::from(body.to_string())).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    let fresh = Request::put(&path).header("If-Match", &etag);
    let fresh = daemon.send(Viewer::Trusted, fresh, Body::from(body.to_string())).await;
    assert_eq!((fresh.status, fresh.metadata()), (StatusCode::OK, json!({})));
    let image = daemon.get(&path).await;
    assert_ne!(image.header(header::ETAG), etag);
    assert_eq!(image.metadata()["properties"], json!({ "k": "v" }));
    assert_eq!(image.metadata()["profiles"], json!(["default"]));
    assert_eq!(image.metadata()["expires_at"], "1970-01-01T00:00:00Z");

    let patched = daemon.call("PATCH", &path, json!({ "properties": { "n": "1" } })).await;
    assert_eq!(patched.status, StatusCode::OK);
    let image = daemon.get(&path).await.metadata();
    assert_eq!(image["properties"], json!({ "k": "v", "n": "1" }));
    assert_eq!(image["public"], true, "a PATCH leaves what it does not name");
    let unknown = daemon.call("PUT", &path, json!({ "profiles": ["nope"] })).await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
    assert_eq!(unknown.json()["error"], "Profile 'nope' doesn't exist");
}

#[tokio::test]
async fn aliases_have_any_name_and_a_whole_life() {
    let daemon = Daemon::new().await;
    let file = unified("alias");
    daemon.upload(file.clone(), &[]).await;
    let short = &sha256(&file)[..6];
    let made =
        daemon.call("POST", "/1.0/images/aliases", json!({ "name": "a b/c", "target": short }));
    let made = made.await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.header(header::LOCATION), "/1.0/images/aliases/a%20b%2Fc");
    for path in ["/1.0/images/aliases/a%20b%2Fc", "/1.0/images/aliases/a%20b/c"] {
        assert_eq!(daemon.get(path).await.metadata()["target"], sha256(&file), "{path}");
    }
    let path = "/1.0/images/aliases/a%20b%2Fc";
    let again =
        daemon.call("POST", "/1.0/images/aliases", json!({ "name": "a b/c", "target": short }));
    assert_eq!(again.await.json()["error"], "Alias \"a b/c\" already exists");
    let patched = daemon.call("PATCH", path, json!({ "description": "new" })).await;
    assert_eq!(patched.status, StatusCode::OK);
    assert_eq!(daemon.get(path).await.metadata()["description"], "new");
    let no_target = daemon.call("PUT", path, json!({ "description": "x" })).await;
    assert_eq!(no_target.json()["error"], "The target field is required");
    let renamed = daemon.call("POST", path, json!({ "name": "plain" })).await;
    assert_eq!(renamed.status, StatusCode::CREATED);
    assert_eq!(daemon.get(path).await.json()["error"], "Image alias not found");
    let gone = daemon.call("DELETE", "/1.0/images/aliases/plain", Value::Null).await;
    assert_eq!((gone.status, gone.metadata()), (StatusCode::OK, json!({})));
    let image = daemon.get(&format!("/1.0/images/{short}")).await.metadata();
    assert_eq!(image["aliases"], json!([]));
}

#[tokio::test]
async fn lists_filter_and_come_in_pages() {
    let daemon = Daemon::new().await;
    let files: Vec<_> = (0..5).map(|n| unified(&n.to_string())).collect();
    for (n, file) in files.iter().enumerate() {
        let headers = [("X-LXD-public", if n % 2 == 0 { "true" } else { "false" })];
        daemon.upload(file.clone(), &headers).await;
    }
    let mut expected: Vec<_> = files.iter().map(|file| sha256(file)).collect();
    expected.sort();
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = daemon.get(&format!("/1.0/images?recursion=1&limit=2&after={after}")).await;
        let page = page.metadata();
        let page = page.as_array().unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = last["fingerprint"].as_str().unwrap().to_owned();
        seen.extend(page.iter().map(|image| image["fingerprint"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen, expected);
    for (filter, count) in [
        ("", 5),
        ("public eq true", 3),
        ("not public eq true", 2),
        ("properties.os eq deb.*", 5),
        ("type eq virtual-machine", 0),
    ] {
        let query = filter.replace(' ', "+");
        let list = daemon.get(&format!("/1.0/images?recursion=1&filter={query}")).await;
        assert_eq!(list.metadata().as_array().unwrap().len(), count, "{filter}");
        assert_eq!(list.header(header::CONTENT_LENGTH), list.bytes.len().to_string());
    }
    let wrong = daemon.get("/1.0/images?filter=foo").await;
    assert_eq!(wrong.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(wrong.json()["error"], "Invalid filter: clause has no operator");
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
async fn configuration_is_checked_kept_and_its_secret_hidden() {
    let daemon = Daemon::new().await;
    let set =
        json!({ "config": { "images.remote_cache_expiry": "5", "core.trust_password": "pw" } });
    assert_eq!(daemon.call("PUT", "/1.0", set).await.status, StatusCode::OK);
    let daemon = daemon.restarted().await;
    let lxd = Request::get("/1.0").header("User-Agent", "LXD 5.0.2 (Linux)");
    let seen = daemon.send(Viewer::Trusted, lxd, Body::empty()).await;
    let expected = json!({ "images.remote_cache_expiry": "5", "core.trust_password": true });
    assert_eq!(seen.metadata()["config"], expected);
    // Other clients want strings only.
    assert_eq!(daemon.get("/1.0").await.metadata()["config"]["core.trust_password"], "true");
    // What lxc sends back when it sets another key.
    let back = json!({ "config": { "core.trust_password": true, "user.x": "1" } });
    assert_eq!(daemon.call("PUT", "/1.0", back).await.status, StatusCode::OK);
    let config = daemon.get("/1.0").await.metadata()["config"].clone();
    assert_eq!(config, json!({ "core.trust_password": "true", "user.x": "1" }));
    let unset = json!({ "config": { "user.x": "" } });
    assert_eq!(daemon.call("PATCH", "/1.0", unset).await.status, StatusCode::OK);
    let nowhere = json!({ "config": { "core.https_address": "203.0.113.1:8443" } });
    let refused = daemon.call("PATCH", "/1.0", nowhere).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.json()["error"].as_str().unwrap().contains("cannot listen there"));
}

#[tokio::test]
async fn errors_have_lxds_statuses() {
    let daemon = Daemon::new().await;
    let cases = [
        ("GET", "/1.0/", 404, "not found"),
        ("GET", "/nothing", 404, "not found"),
        ("GET", "/1.0/images/zz", 404, "Image not found"),
        ("GET", "/1.0/images/%25", 404, "Image not found"),
        ("GET", "/1.0/images/aliases/x", 404, "Image alias not found"),
        ("GET", "/1.0/operations/x", 404, "Operation not found"),
        (
            "GET",
            "/1.0/images?project=other",
            404,
            "Check if project has images: fetch project: Project not found",
        ),
        ("DELETE", "/1.0/images", 501, "not implemented"),
        ("GET", "/1.0/events?type=bogus", 500, "\"bogus\" isn't a supported event type"),
    ];
    for (method, path, status, error) in cases {
        let answer = daemon.call(method, path, Value::Null).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        assert_eq!(answer.json()["error"], error, "{method} {path}");
        assert_eq!(answer.json()["error_code"], status, "{method} {path}");
    }
    let bodies = [
        (json!({ "source": { "type": "bogus" } }), 500),
        (json!({}), 400),
        (json!({ "source": { "type": "image", "server": "https://x" } }), 400),
        (json!({ "source": { "type": "instance", "name": "c1" } }), 501),
    ];
    for (body, status) in bodies {
        let answer = daemon.call("POST", "/1.0/images", body).await;
        assert_eq!(answer.status.as_u16(), status);
    }
    let request = Request::post("/1.0/images").header("Content-Type", "application/json");
    let answer = daemon.send(Viewer::Trusted, request, Body::from("nonsense")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn two_images_that_begin_alike_are_ambiguous() {
    let daemon = Daemon::new().await;
    // 17 images: two must share their first digit.
    let files: Vec<_> = (0..17).map(|n| unified(&format!("salt {n}"))).collect();
    for file in &files {
        daemon.upload(file.clone(), &[]).await;
    }
    let firsts: Vec<_> = files.iter().map(|file| sha256(file)[..1].to_owned()).collect();
    let shared =
        firsts.iter().find(|first| firsts.iter().filter(|f| f == first).count() > 1).unwrap();
    let answer = daemon.get(&format!("/1.0/images/{shared}")).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.json()["error"], "More than one image matches");
}

#[tokio::test]
async fn bodies_are_read_as_go_reads_them() {
    let daemon = Daemon::new().await;
    let image = daemon.upload(unified("json"), &[("x-lxd-properties", "a=1")]).await;
    let fingerprint = image["metadata"]["fingerprint"].as_str().unwrap().to_owned();
    let path = format!("/1.0/images/{fingerprint}");
    for (method, path) in [("PUT", path.as_str()), ("PATCH", &path), ("PUT", "/1.0")] {
        let answer = daemon.call(method, path, json!([])).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{method} {path}");
    }
    assert_eq!(daemon.get(&path).await.metadata()["properties"]["a"], "1");

    let nulls =
        json!({ "properties": { "a": null, "b": "2" }, "expires_at": null, "public": null });
    assert_eq!(daemon.call("PUT", &path, nulls).await.status, StatusCode::OK);
    let alias = json!({ "name": "n", "target": fingerprint, "description": null });
    assert_eq!(daemon.call("POST", "/1.0/images/aliases", alias).await.status, StatusCode::CREATED);
    let properties = daemon.get(&path).await.metadata()["properties"].clone();
    assert_eq!((&properties["a"], &properties["b"]), (&Value::Null, &json!("2")));
}

#[tokio::test]
async fn times_are_those_that_go_can_read_and_survive_a_restart() {
    let daemon = Daemon::new().await;
    let year = "architecture: amd64\ncreation_date: -377705023201\n";
    let image = tarball(&[("metadata.yaml", year), ("rootfs/etc/salt", "")]);
    let end = daemon.upload(image, &[]).await;
    assert!(end["err"].as_str().unwrap().contains("impossible creation date"), "{end}");

    let image = daemon.upload(unified("times"), &[]).await;
    let path = format!("/1.0/images/{}", image["metadata"]["fingerprint"].as_str().unwrap());
    let answer =
        daemon.call("PATCH", &path, json!({"expires_at": "-000001-01-01T00:00:00Z"})).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let never = json!({"expires_at": "9999-12-31T23:59:59Z"});
    assert_eq!(daemon.call("PATCH", &path, never).await.status, StatusCode::OK);
    let exact = json!({"expires_at": "2030-01-01T00:00:00.123456789Z"});
    assert_eq!(daemon.call("PATCH", &path, exact).await.status, StatusCode::OK);
    let before = daemon.get(&path).await.metadata();
    let daemon = daemon.restarted().await;
    assert_eq!(daemon.get(&path).await.metadata(), before);
}

#[tokio::test]
async fn headers_that_are_no_text_match_nothing() {
    let daemon = Daemon::new().await;
    let odd = http::HeaderValue::from_bytes(b"\xff").unwrap();
    let image = daemon.upload(unified("odd"), &[]).await;
    let path = format!("/1.0/images/{}", image["metadata"]["fingerprint"].as_str().unwrap());
    let request = Request::put(&path).header("if-match", odd.clone());
    let answer = daemon.send(Viewer::Trusted, request, Body::from("{}")).await;
    assert_eq!(answer.status, StatusCode::PRECONDITION_FAILED);
    let request = Request::post("/1.0/images").header("x-lxd-fingerprint", odd);
    let answer = daemon.send(Viewer::Trusted, request, Body::from(unified("other"))).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let filename = "ünï.tar".as_bytes();
    let request = Request::post("/1.0/images").header("x-lxd-filename", filename);
    let answer = daemon.send(Viewer::Trusted, request, Body::from(unified("third"))).await;
    let end = daemon.end_of(&answer).await;
    let path = format!("/1.0/images/{}", end["metadata"]["fingerprint"].as_str().unwrap());
    assert_eq!(daemon.get(&path).await.metadata()["filename"], "ünï.tar");
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
