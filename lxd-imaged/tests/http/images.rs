//! Images and aliases as requests see them.

use axum::body::Body;
use http::{Request, StatusCode, header};
use lxd_imaged::catalog::Viewer;
use serde_json::{Value, json};

use crate::daemon::{Daemon, METADATA, MULTIPART, ZEROES, multipart, sha256, tarball, unified};

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
