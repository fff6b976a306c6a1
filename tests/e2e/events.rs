//! `/1.0/events`: order, filters, and what clients trip over.

use std::time::Duration;

use lxd_tests::daemon::Daemon;
use lxd_tests::events::{Events, actions, is_final};
use lxd_tests::fixtures::{Compression, Recipe};
use serde_json::{Value, json};

#[test]
fn an_upload_from_beginning_to_end_in_order() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let mut events = Events::listen(&http, "type=operation,lifecycle");
    for number in 0..20 {
        let image = Recipe::new(&format!("n{number}")).unified(Compression::Gz);
        let accepted = http.request("POST", "/1.0/images").send(&image).expect(202);
        let id = accepted.json()["operation"].as_str().unwrap().to_owned();
        let seen = events.until("that ends the upload", |e| is_final(e, &id));
        let codes: Vec<_> = seen
            .iter()
            .filter(|e| {
                e["type"] == "operation" && id.ends_with(e["metadata"]["id"].as_str().unwrap())
            })
            .map(|e| e["metadata"]["status_code"].as_u64().unwrap())
            .collect();
        let (last, before) = codes.split_last().unwrap();
        assert_eq!(*last, 200, "{seen:#?}");
        assert!(!before.is_empty(), "only the end was told");
        assert!(before.iter().all(|code| [103, 105].contains(code)), "{codes:?}");
        assert!(before.is_sorted_by_key(|code| u64::MAX - code), "out of order: {codes:?}");
        let shape = seen.last().unwrap();
        assert_eq!(shape["project"], "default");
        assert_eq!(shape["location"], "none");
        assert!(shape["timestamp"].as_str().unwrap().ends_with('Z'));
        assert!(shape["metadata"]["metadata"]["fingerprint"].is_string());
    }
}

#[test]
fn every_change_of_an_image_is_told() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let mut events = Events::listen(&http, "type=lifecycle");
    let fingerprint = http.import(&Recipe::new("life").unified(Compression::Gz));
    let image = format!("/1.0/images/{fingerprint}");
    let aliases = "/1.0/images/aliases";
    http.json("POST", aliases, &json!({"name": "a/b", "target": fingerprint})).expect(201);
    let alias = format!("{aliases}/a%2Fb");
    http.json("PUT", &alias, &json!({"target": fingerprint, "description": "d"})).expect(200);
    http.json("POST", &alias, &json!({"name": "c"})).expect(201);
    http.request("DELETE", &format!("{aliases}/c")).send(b"").expect(200);
    http.json("PATCH", &image, &json!({"public": true})).expect(200);
    http.get(&format!("{image}/export")).expect(200);
    http.json("PATCH", "/1.0", &json!({"config": {"user.x": "y"}})).expect(200);
    http.finish(&http.request("DELETE", &image).send(b""));
    let seen = events.until("of the deletion", |e| e["metadata"]["action"] == "image-deleted");
    let mut told = actions(&seen);
    // LXD sends each from a thread of its own; ours come in order.
    let mut expected = vec![
        "image-created",
        "image-alias-created",
        "image-alias-updated",
        "image-alias-renamed",
        "image-alias-deleted",
        "image-updated",
        "image-retrieved",
        "config-updated",
        "image-deleted",
    ];
    if daemon.files_in("database").is_empty() {
        assert_eq!(told, expected);
    } else {
        told.sort();
        expected.sort_unstable();
        assert_eq!(told, expected);
    }
    let find = |action: &str| -> &Value {
        &seen.iter().find(|e| e["metadata"]["action"] == action).unwrap()["metadata"]
    };
    let created = find("image-created");
    assert_eq!(created["source"], image);
    assert_eq!(created["context"], json!({"type": "container"}));
    assert_eq!(created["requestor"]["protocol"], "unix");
    assert_eq!(created["requestor"]["username"], "root");
    assert_eq!(find("image-alias-created")["context"], json!({"target": fingerprint}));
    assert_eq!(find("image-alias-renamed")["context"], json!({"old_name": "a/b"}));
    assert_eq!(find("image-alias-renamed")["source"], format!("{aliases}/c"));
}

#[test]
fn filters_by_type_and_project() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let mut lifecycle = Events::listen(&http, "type=lifecycle&project=default");
    let mut operation = Events::listen(&http, "type=operation");
    let mut everywhere = Events::listen(&http, "all-projects=true");
    let fingerprint = http.import(&Recipe::new("f").unified(Compression::Gz));
    let mark = json!({"name": "mark", "target": fingerprint});
    http.json("POST", "/1.0/images/aliases", &mark).expect(201);
    let marked = |e: &Value| e["metadata"]["action"] == "image-alias-created";
    let seen = lifecycle.until("that marks the end", marked);
    assert!(seen.iter().all(|e| e["type"] == "lifecycle"), "{seen:#?}");
    let seen = everywhere.until("that marks the end", marked);
    assert!(seen.iter().any(|e| e["type"] == "operation"));
    let seen = operation.rest(Duration::from_millis(300));
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|e| e["type"] == "operation"), "{seen:#?}");
}

#[test]
fn what_is_refused() {
    let daemon = Daemon::start();
    let http = daemon.http();
    assert_eq!(http.get("/1.0/events").status, 400);
    let upgrade = |query: &str| {
        http.request("GET", &format!("/1.0/events?{query}"))
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2RlZg==")
            .stream()
            .0
            .status
    };
    assert_eq!(upgrade("type=bogus"), 500);
    assert!(upgrade("all-projects=true&project=default") >= 400);
    assert_eq!(upgrade("type=operation"), 101);
}

#[test]
fn a_listener_is_pinged() {
    let daemon = Daemon::start();
    let mut events = Events::listen(&daemon.http(), "type=lifecycle");
    assert!(events.next_within(Duration::from_secs(12)).is_none(), "nothing happened");
    assert_eq!(events.pings().first().map(Vec::as_slice), Some(&b"keepalive"[..]));
    // Still alive after the pong.
    daemon.http().import(&Recipe::new("ping").unified(Compression::Gz));
    let seen = events.until("after the ping", |e| e["metadata"]["action"] == "image-created");
    assert_eq!(actions(&seen), ["image-created"]);
}

#[test]
fn a_listener_that_does_not_read_holds_nobody_up() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let _deaf: Vec<_> = (0..5).map(|_| Events::listen(&http, "")).collect();
    let fingerprint = http.import(&Recipe::new("deaf").unified(Compression::Gz));
    let path = format!("/1.0/images/{fingerprint}");
    for number in 0..2000 {
        http.json("PATCH", &path, &json!({"properties": {"n": number.to_string()}})).expect(200);
    }
    assert_eq!(http.metadata(&path)["properties"]["n"], "1999");
}

#[test]
fn monitor_prints_events() {
    use std::io::{BufRead, BufReader};
    let daemon = Daemon::start();
    for client in lxd_tests::client::Client::both() {
        let mut monitor = daemon.client(client, "monitor --type lifecycle -f json").spawn();
        let lines = BufReader::new(monitor.take_stdout()).lines();
        let http = daemon.http();
        let fingerprint =
            http.import(&Recipe::new(&format!("mon{client:?}")).unified(Compression::Gz));
        let path = format!("/1.0/images/{fingerprint}");
        // It may still be connecting: change something until it says so.
        let (send, heard) = std::sync::mpsc::channel::<String>();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|l| !l.is_empty()) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut said = None;
        lxd_tests::wait::until("monitor to print an event", || {
            http.json("PATCH", &path, &json!({"public": true})).expect(200);
            said = heard.recv_timeout(Duration::from_millis(100)).ok();
            said.is_some()
        });
        let event: Value = serde_json::from_str(&said.unwrap()).unwrap();
        assert_eq!(event["type"], "lifecycle");
        monitor.signal(rustix::process::Signal::INT);
        monitor.wait();
    }
}
