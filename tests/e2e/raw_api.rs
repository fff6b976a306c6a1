//! The REST interface itself: status codes, envelopes, entity tags, filters, ranges, pages.

use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe, fingerprint, noise};
use lxd_tests::http::{multipart, multipart_type};
use serde_json::{Value, json};

#[test]
fn the_root_and_the_server() {
    let daemon = Daemon::start();
    let http = daemon.http();
    assert_eq!(http.metadata("/"), json!(["/1.0"]));
    let server = http.get("/1.0").expect(200);
    assert!(server.header("etag").unwrap().starts_with('"'));
    assert_eq!(server.header("content-type"), Some("application/json"));
    let server = server.metadata();
    assert_eq!(server["api_version"], "1.0");
    assert_eq!(server["api_status"], "stable");
    assert_eq!(server["auth"], "trusted");
    assert_eq!(server["public"], false);
    assert_eq!(server["auth_methods"], json!(["tls"]));
    let environment = &server["environment"];
    assert_eq!(environment["server"], "lxd");
    assert_eq!(environment["server_clustered"], false);
    assert_eq!(environment["project"], "default");
    assert_eq!(environment["addresses"], json!([]));
    assert_eq!(environment["server_pid"], daemon.pid());
    assert_eq!(environment["architectures"][0], "x86_64");
    assert!(!environment["storage"].as_str().unwrap().is_empty(), "lxc would suggest lxd init");
    let certificate = std::fs::read_to_string(daemon.dir().join("server.crt")).unwrap();
    assert_eq!(environment["certificate"], certificate);
    assert_eq!(environment["certificate_fingerprint"].as_str().map(str::len), Some(64));
    let extensions = server["api_extensions"].as_array().unwrap();
    for needed in ["api_filtering", "image_types", "etag", "patch", "event_lifecycle"] {
        assert!(extensions.contains(&json!(needed)), "{needed} is not advertised");
    }
}

#[test]
fn envelopes_have_the_seven_keys_in_order() {
    let daemon = Daemon::start();
    for (path, start) in [
        (
            "/1.0/images",
            r#"{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"","metadata":[]}"#,
        ),
        (
            "/1.0/images/ffff",
            r#"{"type":"error","status":"","status_code":0,"operation":"","error_code":404,"error":"Image not found","metadata":null}"#,
        ),
    ] {
        let body = String::from_utf8(daemon.http().get(path).body).unwrap();
        assert_eq!(body.trim_end(), start);
    }
}

#[test]
fn unknown_routes_and_methods() {
    let daemon = Daemon::start();
    let http = daemon.http();
    for path in ["/1.0/nothing", "/2.0", "/1.0/", "/nothing"] {
        http.get(path).refuses(404, "not found");
    }
    http.request("PUT", "/1.0/images").send(b"{}").refuses(501, "not implemented");
    http.request("DELETE", "/1.0/events").send(b"").refuses(501, "not implemented");
    let fingerprint = http.import(&Recipe::new("h").unified(Compression::Gz));
    http.json("PUT", &format!("/1.0/images/{fingerprint}"), &json!("no object")).refuses(400, "");
    http.request("PATCH", &format!("/1.0/images/{fingerprint}")).send(b"{broken").refuses(400, "");
}

#[test]
fn projects_profiles_and_pools() {
    let daemon = Daemon::start();
    let http = daemon.http();
    assert_eq!(http.metadata("/1.0/projects"), json!(["/1.0/projects/default"]));
    assert_eq!(http.metadata("/1.0/projects/default")["name"], "default");
    assert_eq!(http.metadata("/1.0/projects?recursion=1")[0]["name"], "default");
    assert_eq!(http.metadata("/1.0/profiles"), json!(["/1.0/profiles/default"]));
    let profile = http.metadata("/1.0/profiles/default");
    assert_eq!(profile["devices"]["root"], json!({"path": "/", "pool": "default", "type": "disk"}));
    assert_eq!(http.metadata("/1.0/storage-pools"), json!(["/1.0/storage-pools/default"]));
    assert_eq!(http.metadata("/1.0/storage-pools?recursion=1")[0]["name"], "default");
    http.get("/1.0/storage-pools/default").expect(200);
    http.get("/1.0/projects/nope").refuses(404, "");
    http.get("/1.0/profiles/nope").refuses(404, "");
    http.get("/1.0/images?project=default").expect(200);
    http.get("/1.0/images?project=nope").refuses(404, "Project not found");
    daemon.lxc("project list").ok().says("default");
    daemon.lxc("profile show default").ok().says("pool: default");
    daemon.lxc("storage list").ok().says("default");
}

#[test]
fn an_image_has_every_key() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let fingerprint = http.import(&Recipe::new("k").unified(Compression::Gz));
    let image = http.metadata(&format!("/1.0/images/{fingerprint}"));
    let mut keys: Vec<_> = image.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    let expected = [
        "aliases",
        "architecture",
        "auto_update",
        "cached",
        "created_at",
        "expires_at",
        "filename",
        "fingerprint",
        "last_used_at",
        "profiles",
        "properties",
        "public",
        "size",
        "type",
        "uploaded_at",
    ];
    assert_eq!(keys, expected);
    assert_eq!(image["expires_at"], "1970-01-01T00:00:00Z");
    assert_eq!(image["last_used_at"], "0001-01-01T00:00:00Z");
    assert_eq!(http.metadata("/1.0/images?recursion=1"), json!([image]));
    assert_eq!(http.metadata("/1.0/images"), json!([format!("/1.0/images/{fingerprint}")]));
}

#[test]
fn prefixes() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let one = http.import(&Recipe::new("prefix").unified(Compression::Gz));
    for prefix in [&one[..1], &one[..12], &one[..63], &one[..8].to_uppercase()] {
        assert_eq!(http.metadata(&format!("/1.0/images/{prefix}"))["fingerprint"], json!(one));
    }
    let other = if one.starts_with('0') { "1" } else { "0" };
    for wrong in [other, "%25", "_", "g", &format!("{one}0")] {
        http.get(&format!("/1.0/images/{wrong}")).refuses(404, "not found");
    }
}

#[test]
fn etags() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let path =
        format!("/1.0/images/{}", http.import(&Recipe::new("etag").unified(Compression::Gz)));
    let etag = || http.get(&path).expect(200).header("etag").unwrap().to_owned();
    let first = etag();
    // What does not belong to the editable part must not disturb an editor.
    let alias = json!({"name": "x", "target": &path["/1.0/images/".len()..]});
    http.json("POST", "/1.0/images/aliases", &alias).expect(201);
    assert_eq!(etag(), first);
    let put = |condition: &str| {
        let body = json!({"properties": {"a": "b"}, "public": false}).to_string();
        http.request("PUT", &path).header("If-Match", condition).send(body.as_bytes())
    };
    put("\"0000\"").refuses(412, "ETag doesn't match: ");
    // With or without quotes.
    put(first.trim_matches('"')).expect(200);
    assert_ne!(etag(), first);
    let patch = http.request("PATCH", &path).header("If-Match", &first);
    patch.send(b"{\"public\":true}").refuses(412, "ETag doesn't match");
}

#[test]
fn filters() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let one = http.import(&Recipe::new("one").property("os", "two words").unified(Compression::Gz));
    let two = http.import(&Recipe::new("two").property("os", "Debian").unified(Compression::Gz));
    http.json("PATCH", &format!("/1.0/images/{two}"), &json!({"public": true})).expect(200);
    let listed = |filter: &str| {
        let list = http.metadata(&format!("/1.0/images?filter={filter}"));
        let hit = |fp: &str| list.as_array().unwrap().contains(&json!(format!("/1.0/images/{fp}")));
        (hit(&one), hit(&two))
    };
    let cases = [
        ("", (true, true)),
        ("properties.os%20eq%20debian", (false, true)),
        ("properties.os%20eq%20%22two%20words%22", (true, false)),
        ("properties.os+eq+deb", (false, false)),
        ("properties.os+eq+%5Edeb", (false, true)),
        ("properties.os+ne+debian", (true, false)),
        ("not+properties.os+eq+debian", (true, false)),
        ("properties.os+eq+debian+and+type+eq+container", (false, true)),
        ("properties.os+eq+debian+or+type+eq+container", (true, true)),
        ("architecture+eq+x86_64", (true, true)),
        ("nothing+eq+1", (false, false)),
        // Compared as what they are; LXD 5.0.2 finds nothing.
        ("public+eq+true", (false, true)),
        ("public+eq+false", (true, false)),
    ];
    for (filter, expected) in cases {
        assert_eq!(listed(filter), expected, "filter={filter}");
    }
    http.get("/1.0/images?filter=foo").refuses(500, "Invalid filter");
    http.get("/1.0/images?filter=foo+eq").refuses(500, "Invalid filter");
    http.get("/1.0/images?filter=a+eq+%22b").refuses(500, "Invalid filter");
    let recursive = http.metadata("/1.0/images?recursion=1&filter=properties.os+eq+debian");
    assert_eq!(recursive[0]["fingerprint"], json!(two));
}

#[test]
fn pages() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let mut all: Vec<String> = (0..7)
        .map(|n| http.import(&Recipe::new(&format!("page{n}")).unified(Compression::Plain)))
        .collect();
    all.sort();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = http.metadata(&format!("/1.0/images?recursion=1&limit=3&after={after}"));
        let page: Vec<_> = page
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["fingerprint"].as_str().unwrap().to_owned())
            .collect();
        assert!(page.len() <= 3, "{} on one page", page.len());
        let Some(last) = page.last() else { break };
        after.clone_from(last);
        seen.extend(page);
    }
    assert_eq!(seen, all, "in order, all, none twice");
}

#[test]
fn a_unified_export_and_its_ranges() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let bytes = Recipe::new("range").unified(Compression::Gz);
    let path = format!("/1.0/images/{}/export", http.import(&bytes));
    let whole = http.get(&path).expect(200);
    assert!(whole.body == bytes);
    assert_eq!(whole.header("content-type"), Some("application/octet-stream"));
    assert_eq!(whole.header("content-length"), Some(&*bytes.len().to_string()));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let disposition = whole.header("content-disposition").unwrap();
    assert!(
        disposition.contains(&format!("filename={}.tar.gz", fingerprint(&[&bytes]))),
        "{disposition}"
    );
    ranges(&daemon, &path, &bytes, whole.header("etag").unwrap());
}

#[test]
fn a_split_export_and_its_ranges() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let recipe = Recipe::new("range");
    let (metadata, rootfs) = (recipe.metadata(Compression::Xz), recipe.root(Compression::Zst));
    let print = http.import_split(&metadata, &rootfs);
    let path = format!("/1.0/images/{print}/export");
    let whole = http.get(&path).expect(200);
    assert!(whole.header("content-type").unwrap().starts_with("multipart/form-data; boundary="));
    assert_eq!(whole.header("content-length"), Some(&*whole.body.len().to_string()));
    let part = |name: &str, file: String, bytes: &[u8]| (name.to_owned(), file, bytes.to_vec());
    let expected = [
        part("metadata", format!("meta-{print}.tar.xz"), &metadata),
        part("rootfs", format!("{print}.tar.zst"), &rootfs),
    ];
    assert!(whole.parts() == expected, "other parts:\n{whole}");
    // The boundary comes from the fingerprint: the body is the same every time.
    assert!(http.get(&path).body == whole.body);
    ranges(&daemon, &path, &whole.body, whole.header("etag").unwrap());

    let disk = recipe.root_qcow2();
    let print = http.import_split(&metadata, &disk);
    let parts = http.get(&format!("/1.0/images/{print}/export")).parts();
    assert_eq!(parts[1].0, "rootfs.img");
    assert_eq!(parts[1].1, format!("{print}.qcow2"));
}

fn ranges(daemon: &Daemon, path: &str, whole: &[u8], etag: &str) {
    let http = daemon.http();
    let length = whole.len();
    let cases = [
        ("bytes=0-99".to_owned(), 0..100),
        ("bytes=100-".to_owned(), 100..length),
        ("bytes=-50".to_owned(), length - 50..length),
        (format!("bytes=10-{}", length + 1000), 10..length),
        (format!("bytes={}-{}", length / 2, length / 2), length / 2..length / 2 + 1),
    ];
    for (range, expected) in cases {
        let answer = http.request("GET", path).header("Range", &range).send(b"").expect(206);
        assert!(answer.body == whole[expected.clone()], "{range}: other bytes");
        let told = format!("bytes {}-{}/{length}", expected.start, expected.end - 1);
        assert_eq!(answer.header("content-range"), Some(&*told));
    }
    let beyond = format!("bytes={length}-");
    let answer = http.request("GET", path).header("Range", &beyond).send(b"").expect(416);
    assert_eq!(answer.header("content-range"), Some(&*format!("bytes */{length}")));
    let resume = |etag: &str| {
        http.request("GET", path).header("Range", "bytes=5-").header("If-Range", etag).send(b"")
    };
    assert!(resume(etag).expect(206).body == whole[5..]);
    assert!(resume("\"other\"").expect(200).body == whole, "another version: everything");
    http.request("GET", path).header("If-None-Match", etag).send(b"").expect(304);
}

#[test]
fn uploads_are_told_apart_by_content() {
    let daemon = Daemon::start();
    let http = daemon.http();
    // pylxd sends no type; some send the wrong one.
    let upload = |name: &str, kind: Option<&str>| {
        let request = http.request("POST", "/1.0/images");
        let request = match kind {
            Some(kind) => request.header("Content-Type", kind),
            None => request,
        };
        http.finish(&request.send(&Recipe::new(name).unified(Compression::Gz)))
    };
    assert_eq!(upload("none", None)["status"], "Success");
    assert_eq!(upload("form", Some("application/x-www-form-urlencoded"))["status"], "Success");
    let post = |kind: &str, body: &[u8]| {
        http.request("POST", "/1.0/images").header("Content-Type", kind).send(body)
    };
    post("application/json", b"no json").refuses(400, "");
    post("application/json", b"{\"source\":{\"type\":\"bogus\"}}")
        .refuses(500, "Invalid images JSON");
    let code = post("application/json", b"{}").status;
    assert!([400, 500].contains(&code), "no source: {code}");
    // Digits are JSON, but no JSON request.
    let done = http.finish(&post("application/octet-stream", b"1234567890"));
    assert_eq!(done["status"], "Failure");
}

#[test]
fn multipart_uploads_that_are_wrong() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let recipe = Recipe::new("parts");
    let (metadata, rootfs) = (recipe.metadata(Compression::Gz), recipe.root(Compression::Gz));
    let upload = |parts: &[(&str, &[u8])]| {
        let request = http.request("POST", "/1.0/images").header("Content-Type", &multipart_type());
        let done = http.finish(&request.send(&multipart(parts)));
        assert_eq!(done["status"], "Failure", "{done}");
        done["err"].as_str().unwrap().to_owned()
    };
    let wrong = "Invalid multipart image";
    assert!(upload(&[("rootfs", &rootfs), ("metadata", &metadata)]).contains(wrong));
    assert!(upload(&[("metadata", &metadata), ("other", &rootfs)]).contains(wrong));
    upload(&[("metadata", &metadata)]);
    upload(&[]);
    let cut = multipart(&[("metadata", &metadata), ("rootfs", &rootfs)]);
    let request = http.request("POST", "/1.0/images").header("Content-Type", &multipart_type());
    let answer = request.send(&cut[..cut.len() - 60]);
    if answer.status == 202 {
        let done = http.finish(&answer);
        assert_eq!(done["status"], "Failure", "the closing boundary is missing: {done}");
    } else {
        answer.refuses(400, "");
    }
    assert_eq!(http.metadata("/1.0/images"), json!([]));
    lxd_tests::wait::until("nothing to stay behind", || {
        daemon.bytes_in("blobs") + daemon.bytes_in("spool") == 0
    });
}

#[test]
fn headers_of_an_upload() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let done = http.upload(
        &Recipe::new("headers").property("os", "x").unified(Compression::Gz),
        &[
            ("X-LXD-public", "1"),
            ("X-LXD-filename", "some name.tar.gz"),
            ("X-LXD-properties", "os=a+b&key.dot=c%20d%26"),
        ],
    );
    let print = done["metadata"]["fingerprint"].as_str().unwrap();
    let image = http.metadata(&format!("/1.0/images/{print}"));
    assert_eq!(image["public"], true);
    assert_eq!(image["filename"], "some name.tar.gz");
    assert_eq!(
        image["properties"],
        json!({"description": "Image headers", "os": "a b", "key.dot": "c d&"})
    );
}

#[test]
fn the_same_image_twice() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let bytes = Recipe::new("same").unified(Compression::Gz);
    let print = http.import(&bytes);
    let done = http.upload(&bytes, &[]);
    assert_eq!(done["status"], "Failure");
    assert_eq!(done["err"], "Image with same fingerprint already exists");
    assert_eq!(done["metadata"]["fingerprint"], json!(print));
    // At the same time: one wins, the others are told, the image is whole.
    let bytes = Recipe::new("race").unified(Compression::Gz);
    let outcomes: Vec<Value> = std::thread::scope(|scope| {
        let uploads: Vec<_> = (0..8).map(|_| scope.spawn(|| http.upload(&bytes, &[]))).collect();
        uploads.into_iter().map(|u| u.join().unwrap()).collect()
    });
    let successes = outcomes.iter().filter(|o| o["status"] == "Success").count();
    assert_eq!(successes, 1, "{outcomes:#?}");
    let export = http.get(&format!("/1.0/images/{}/export", fingerprint(&[&bytes]))).expect(200);
    assert!(export.body == bytes);
}

#[test]
fn an_early_refusal_still_answers_after_a_large_body() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let body = noise(9, 8 << 20);
    let answer = http.request("POST", "/1.0/images?project=nope").send(&body);
    answer.refuses(404, "Project not found");
    http.request("POST", "/1.0/nothing").send(&body).refuses(404, "not found");
}

#[test]
fn a_connection_serves_many_requests() {
    use std::io::{Read, Write};
    let daemon = Daemon::start();
    let mut stream = daemon.http().connect();
    for _ in 0..5 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("[\"/1.0\"]") {
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "closed after {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..read]);
        }
    }
}
