//! Operations: how long they are remembered, waited for, cancelled.

use std::time::{Duration, Instant};

use lxd_tests::client::Client;
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe, big};
use lxd_tests::wait;
use serde_json::json;

#[test]
fn the_answer_to_an_upload_is_a_whole_operation() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let bytes = Recipe::new("op").unified(Compression::Gz);
    let accepted = http.request("POST", "/1.0/images").send(&bytes).expect(202);
    let envelope = accepted.json();
    let keys: Vec<_> = envelope.as_object().unwrap().keys().cloned().collect();
    let mut expected =
        ["type", "status", "status_code", "operation", "error_code", "error", "metadata"]
            .map(String::from);
    expected.sort();
    assert_eq!(keys, expected);
    assert_eq!(envelope["type"], "async");
    assert_eq!(envelope["status"], "Operation created");
    assert_eq!(envelope["status_code"], 100);
    let url = envelope["operation"].as_str().unwrap();
    assert_eq!(accepted.header("location"), Some(url));
    let operation = &envelope["metadata"];
    assert_eq!(url, format!("/1.0/operations/{}", operation["id"].as_str().unwrap()));
    assert_eq!(operation["class"], "task");
    assert_eq!(operation["description"], "Downloading image");
    assert_eq!(operation["resources"], json!(null));
    assert_eq!(operation["err"], "");
    assert_eq!(operation["location"], "none");
    assert!(operation["may_cancel"].is_boolean());
    for time in ["created_at", "updated_at"] {
        assert!(operation[time].as_str().unwrap().starts_with("20"), "{operation}");
    }
    let done = http.finish(&accepted);
    assert_eq!(done["status"], "Success");
    assert_eq!(done["status_code"], 200);
    // The size is a string: every client expects it so.
    assert_eq!(done["metadata"]["size"], bytes.len().to_string());
    // Progress goes when the result comes.
    assert_eq!(done["metadata"].as_object().unwrap().len(), 2, "{done}");
}

#[test]
fn a_finished_operation_is_remembered_for_five_seconds() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let accepted =
        http.request("POST", "/1.0/images").send(&Recipe::new("op").unified(Compression::Gz));
    let url = accepted.json()["operation"].as_str().unwrap().to_owned();
    http.finish(&accepted);
    let finished = Instant::now();
    // As pylxd asks: first the operation, then its end.
    http.get(&url).expect(200);
    http.get(&format!("{url}/wait")).expect(200);
    let gone = wait::within(Duration::from_secs(20), || http.get(&url).status == 404);
    assert!(gone, "it never goes");
    let lived = finished.elapsed();
    assert!(lived >= Duration::from_secs(4), "gone after {lived:?}");
    assert!(lived <= Duration::from_secs(12), "still there after {lived:?}");
    http.get(&url).refuses(404, "not found");
    http.get(&format!("{url}/wait")).refuses(404, "not found");
    assert_eq!(http.metadata("/1.0/operations"), json!({}));
}

#[test]
fn lists_by_status() {
    let daemon = Daemon::start();
    let http = daemon.http();
    assert_eq!(http.metadata("/1.0/operations"), json!({}));
    let good =
        http.request("POST", "/1.0/images").send(&Recipe::new("op").unified(Compression::Gz));
    http.finish(&good);
    let bad = http.request("POST", "/1.0/images").send(b"no image");
    assert_eq!(http.finish(&bad)["status"], "Failure");
    let listed = http.metadata("/1.0/operations");
    assert_eq!(listed["success"], json!([good.json()["operation"]]));
    assert_eq!(listed["failure"], json!([bad.json()["operation"]]));
    let listed = http.metadata("/1.0/operations?recursion=1");
    assert_eq!(listed["failure"][0]["status_code"], 400);
    assert!(!listed["failure"][0]["err"].as_str().unwrap().is_empty());
    for client in Client::both() {
        let id = good.json()["metadata"]["id"].as_str().unwrap().to_owned();
        daemon
            .client(client, "operation list")
            .ok()
            .says(&id)
            .says("SUCCESS")
            .says("Downloading image");
        daemon.client(client, &format!("operation show {id}")).ok().says("status: Success");
        daemon.client(client, &format!("operation delete {id}")).fails().complains("running");
        daemon
            .client(client, "operation show 00000000-0000-4000-8000-000000000000")
            .fails()
            .complains("not found");
    }
}

#[test]
fn waiting_has_a_limit() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let token = http.request("POST", "/1.0/images");
    let body = json!({"source": {"type": "image", "mode": "push", "fingerprint": "0".repeat(64)}});
    let accepted =
        token.header("Content-Type", "application/json").send(body.to_string().as_bytes());
    if accepted.status != 202 {
        // Token operations come with the network; without one there is nothing to wait for here.
        let unknown = "/1.0/operations/00000000-0000-4000-8000-000000000000/wait?timeout=1";
        http.get(unknown).refuses(404, "not found");
        return;
    }
    let url = accepted.json()["operation"].as_str().unwrap().to_owned();
    let start = Instant::now();
    let still = http.get(&format!("{url}/wait?timeout=1")).expect(200).metadata();
    assert_eq!(still["status"], "Running");
    assert!(start.elapsed() >= Duration::from_millis(900), "it did not wait");
    // LXD takes it for a fault of its own.
    let status = http.get(&format!("{url}/wait?timeout=soon")).status;
    assert!([400, 500].contains(&status), "{status}");
    http.request("DELETE", &url).send(b"").expect(200);
    assert_eq!(http.metadata(&format!("{url}/wait"))["status"], "Cancelled");
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let bytes = big::unified(Vec::new(), "cut", 3, Compression::Plain).unwrap();
    let mut upload = http.request("POST", "/1.0/images").chunked();
    upload.chunk(&bytes[..2 << 20]).unwrap();
    wait::until("the spool to grow", || daemon.bytes_in("spool") > 0);
    drop(upload);
    wait::until("the spool to be empty", || daemon.files_in("spool").is_empty());
    // The same by a client that a person interrupts.
    let fifo = daemon.work().join("fifo");
    lxd_tests::client::system("mkfifo", lxd_tests::client::shown(&fifo)).ok();
    for client in Client::both() {
        let running = daemon.client(client, "image import fifo").spawn();
        let mut pipe = std::fs::File::options().write(true).open(&fifo).unwrap();
        let start = Recipe::new("cut").unified(Compression::Plain);
        std::io::Write::write_all(&mut pipe, &start[..start.len() - 600]).unwrap();
        wait::until("the upload", || client == Client::Cli || !daemon.files_in("spool").is_empty());
        running.signal(rustix::process::Signal::INT);
        let done = running.wait();
        assert_ne!(done.code, 0, "{done}");
        wait::until("the spool to be empty", || daemon.files_in("spool").is_empty());
    }
    assert_eq!(http.metadata("/1.0/images"), json!([]));
    assert_eq!(daemon.bytes_in("blobs"), 0);
}

#[test]
fn unknown_operations() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let url = "/1.0/operations/00000000-0000-4000-8000-000000000000";
    http.get(url).refuses(404, "not found");
    http.request("DELETE", url).send(b"").refuses(404, "not found");
    http.get("/1.0/operations/not-a-uuid").refuses(404, "not found");
}
