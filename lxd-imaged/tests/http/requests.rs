//! What requests may look like, and what is answered to those that make no sense.

use axum::body::Body;
use http::{Request, StatusCode};
use lxd_imaged::catalog::Viewer;
use serde_json::{Value, json};

use crate::daemon::{Daemon, unified};

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
        (json!({ "source": { "type": "instance", "name": "c1" } }), 404),
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
