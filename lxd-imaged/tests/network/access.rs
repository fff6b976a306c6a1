//! Who may ask what, and sees what: every route, every kind of caller, every form of a list.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::https::{Answer, Client};

const ZEROES: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Statuses for a stranger, a client of other projects, one that may read, one that may all.
type Statuses = [u16; 4];

const OPEN: Statuses = [200, 200, 200, 200];
const KNOWN: Statuses = [403, 200, 200, 200];
const SHUT: Statuses = [403, 403, 403, 403];

/// Requests, with `PUBLIC`, `PRIVATE` and `OWN` for fingerprints, and what each caller gets.
///
/// A status is what a request without a body gets; where a caller may go on, the handler then
/// answers 400, 404, 412 or the like.
const TABLE: &[(&str, &str, Statuses)] = &[
    ("GET", "/", OPEN),
    ("PUT", "/", OPEN),
    ("GET", "/1.0", OPEN),
    ("PUT", "/1.0", [403, 403, 403, 400]),
    ("PATCH", "/1.0", [403, 403, 403, 400]),
    ("DELETE", "/1.0", [403, 403, 403, 501]),
    ("GET", "/1.0/images", OPEN),
    ("GET", "/1.0/images?recursion=1", OPEN),
    ("GET", "/1.0/images?recursion=1&filter=", OPEN),
    ("GET", "/1.0/images?filter=properties.os+eq+debian", OPEN),
    ("GET", "/1.0/images?project=default", OPEN),
    ("GET", "/1.0/images?project=other", [404, 404, 404, 404]),
    ("PUT", "/1.0/images", [403, 403, 403, 501]),
    ("GET", "/1.0/images/PUBLIC", OPEN),
    ("GET", "/1.0/images/PRIVATE", [404, 404, 200, 200]),
    ("GET", "/1.0/images/PRIVATE?secret=0", [404, 404, 200, 200]),
    ("HEAD", "/1.0/images/PUBLIC", OPEN),
    ("HEAD", "/1.0/images/PRIVATE/export", [404, 404, 200, 200]),
    ("PUT", "/1.0/images/PUBLIC", [403, 403, 403, 400]),
    ("PATCH", "/1.0/images/PUBLIC", [403, 403, 403, 400]),
    ("DELETE", "/1.0/images/0000", [403, 403, 403, 404]),
    ("GET", "/1.0/images/PUBLIC/export", OPEN),
    ("GET", "/1.0/images/PRIVATE/export", [404, 404, 200, 200]),
    ("GET", "/1.0/images/PRIVATE/export?secret=0", [404, 404, 200, 200]),
    ("POST", "/1.0/images/PUBLIC/export", [403, 403, 403, 400]),
    ("POST", "/1.0/images/PRIVATE/secret", [403, 404, 202, 202]),
    ("POST", "/1.0/images/PUBLIC/refresh", [403, 403, 403, 202]),
    ("GET", "/1.0/images/PUBLIC/history", KNOWN),
    ("GET", "/1.0/images/PRIVATE/history", [403, 404, 200, 200]),
    ("POST", "/1.0/images/PUBLIC/rollback", [403, 403, 403, 400]),
    ("GET", "/1.0/mirrors", [403, 403, 403, 200]),
    ("GET", "/1.0/mirrors?recursion=1", [403, 403, 403, 200]),
    ("POST", "/1.0/mirrors", [403, 403, 403, 400]),
    ("GET", "/1.0/mirrors/m", [403, 403, 403, 404]),
    ("PUT", "/1.0/mirrors/m", [403, 403, 403, 400]),
    ("PATCH", "/1.0/mirrors/m", [403, 403, 403, 400]),
    ("DELETE", "/1.0/mirrors/m?images=1", [403, 403, 403, 404]),
    ("POST", "/1.0/mirrors/m/run", [403, 403, 403, 404]),
    ("GET", "/1.0/mirrors/m/manifest", [403, 403, 403, 404]),
    ("POST", "/1.0/mirrors/m/import", [403, 403, 403, 400]),
    ("GET", "/1.0/instances", [403, 403, 403, 200]),
    ("GET", "/1.0/instances?recursion=2", [403, 403, 403, 200]),
    ("POST", "/1.0/instances", [403, 403, 403, 400]),
    ("GET", "/1.0/containers", [403, 403, 403, 200]),
    ("GET", "/1.0/instances/c1", [403, 403, 403, 404]),
    ("PUT", "/1.0/instances/c1", [403, 403, 403, 400]),
    ("PATCH", "/1.0/instances/c1", [403, 403, 403, 400]),
    ("POST", "/1.0/instances/c1", [403, 403, 403, 400]),
    ("DELETE", "/1.0/instances/c1", [403, 403, 403, 404]),
    ("GET", "/1.0/instances/c1/state", [403, 403, 403, 404]),
    ("PUT", "/1.0/instances/c1/state", [403, 403, 403, 400]),
    ("POST", "/1.0/instances/c1/exec", [403, 403, 403, 400]),
    ("GET", "/1.0/instances/c1/files?path=/etc/passwd", [403, 403, 403, 404]),
    ("POST", "/1.0/instances/c1/files?path=/etc/passwd", [403, 403, 403, 404]),
    ("DELETE", "/1.0/instances/c1/files?path=/etc/passwd", [403, 403, 403, 404]),
    ("GET", "/1.0/instances/c1/console", [403, 403, 403, 404]),
    ("DELETE", "/1.0/instances/c1/console", [403, 403, 403, 404]),
    ("GET", "/1.0/instances/c1/logs", [403, 403, 403, 404]),
    ("GET", "/1.0/instances/c1/logs/lxc.log", [403, 403, 403, 404]),
    ("GET", "/1.0/instances/c1/snapshots", [403, 403, 403, 404]),
    ("POST", "/1.0/instances/c1/snapshots", [403, 403, 403, 400]),
    ("GET", "/1.0/instances/c1/snapshots/s0", [403, 403, 403, 404]),
    ("PUT", "/1.0/instances/c1/snapshots/s0", [403, 403, 403, 400]),
    ("POST", "/1.0/instances/c1/snapshots/s0", [403, 403, 403, 400]),
    ("DELETE", "/1.0/instances/c1/snapshots/s0", [403, 403, 403, 404]),
    ("GET", "/1.0/images/aliases", KNOWN),
    ("GET", "/1.0/images/aliases?recursion=1", KNOWN),
    ("POST", "/1.0/images/aliases", [403, 403, 403, 400]),
    ("GET", "/1.0/images/aliases/open", OPEN),
    ("GET", "/1.0/images/aliases/hidden/1", [404, 404, 200, 200]),
    ("GET", "/1.0/images/aliases/hidden%2F1", [404, 404, 200, 200]),
    ("PUT", "/1.0/images/aliases/open", [403, 403, 403, 400]),
    ("PATCH", "/1.0/images/aliases/open", [403, 403, 403, 400]),
    ("POST", "/1.0/images/aliases/open", [403, 403, 403, 400]),
    ("DELETE", "/1.0/images/aliases/none", [403, 403, 403, 404]),
    ("GET", "/1.0/certificates", KNOWN),
    ("GET", "/1.0/certificates?recursion=1", KNOWN),
    ("GET", "/1.0/certificates/OWN", KNOWN),
    ("PUT", "/1.0/certificates/OWN", [403, 403, 403, 400]),
    ("PATCH", "/1.0/certificates/OWN", [403, 403, 403, 400]),
    ("DELETE", "/1.0/certificates/0000", [403, 403, 403, 404]),
    ("GET", "/1.0/operations", KNOWN),
    ("GET", "/1.0/operations?recursion=1", KNOWN),
    ("GET", "/1.0/operations/none", [403, 403, 403, 404]),
    ("DELETE", "/1.0/operations/none", [403, 403, 403, 404]),
    ("GET", "/1.0/operations/none/wait", [403, 403, 403, 404]),
    ("GET", "/1.0/operations/none/wait?secret=0", [403, 403, 403, 404]),
    ("GET", "/1.0/operations/none/websocket?secret=0", [403, 403, 403, 404]),
    ("GET", "/1.0/events", [403, 403, 403, 400]),
    ("GET", "/1.0/projects", KNOWN),
    ("GET", "/1.0/projects?recursion=1", KNOWN),
    ("GET", "/1.0/projects/default", [403, 404, 200, 200]),
    ("GET", "/1.0/profiles", KNOWN),
    ("GET", "/1.0/profiles?recursion=1", KNOWN),
    ("GET", "/1.0/profiles/default", KNOWN),
    ("GET", "/1.0/storage-pools", KNOWN),
    ("GET", "/1.0/storage-pools?recursion=1", KNOWN),
    ("GET", "/1.0/storage-pools/default", KNOWN),
    ("GET", "/streams/v1/index.json", OPEN),
    ("HEAD", "/streams/v1/index.json", OPEN),
    ("GET", "/streams/v1/images.json", OPEN),
    ("POST", "/streams/v1/images.json", [403, 403, 403, 501]),
    ("GET", "/streams/v1/index.sjson", [404, 404, 404, 404]),
    ("GET", "/streams/v1/images.sjson", [404, 404, 404, 404]),
    ("GET", "/streams/v1/mirrors.json", [404, 404, 404, 404]),
    ("GET", "/images/PUBLIC/lxd_combined.tar.gz", OPEN),
    ("HEAD", "/images/PUBLIC/lxd_combined.tar.gz", OPEN),
    ("GET", "/images/PRIVATE/lxd_combined.tar.gz", [404, 404, 404, 404]),
    ("DELETE", "/images/PUBLIC/lxd_combined.tar.gz", [403, 403, 403, 501]),
    ("GET", "/lxd/open", OPEN),
    ("GET", "/lxd/hidden/1", [404, 404, 404, 404]),
    // The unix socket only.
    ("POST", "/internal/shutdown", SHUT),
    ("GET", "/internal/ready", SHUT),
    ("GET", "/1.0/nothing", [404, 404, 404, 404]),
    ("GET", "/1.0/", [404, 404, 404, 404]),
];

struct World {
    daemon: Daemon,
    callers: [Client; 4],
    public: String,
    private: String,
}

impl World {
    async fn new() -> Self {
        let daemon = Daemon::new().await;
        let public = daemon.image("public", true, "open").await;
        let private = daemon.image("private", false, "hidden%2F1").await;
        let [outsider, reader, admin] = [(); 3].map(|()| Client::with_certificate());
        daemon.trust(&outsider, true, &[]).await;
        daemon.trust(&reader, true, &["default"]).await;
        daemon.trust(&admin, false, &[]).await;
        let address = daemon.address().await;
        let callers = [Client::anonymous(), outsider, reader, admin].map(|it| it.to(&address));
        Self { daemon, callers, public, private }
    }

    fn path(&self, pattern: &str, caller: usize) -> String {
        let own = match caller {
            0 => ZEROES.to_owned(),
            caller => self.callers[caller].fingerprint(),
        };
        pattern
            .replace("PUBLIC", &self.public)
            .replace("PRIVATE", &self.private)
            .replace("OWN", &own)
    }

    async fn ask(&self, caller: usize, method: &str, pattern: &str) -> Answer {
        self.callers[caller].send(method, &self.path(pattern, caller), "", b"").await
    }
}

#[tokio::test]
async fn each_request_gets_each_caller_what_the_table_says() {
    let world = World::new().await;
    for (method, pattern, statuses) in TABLE {
        let mut got = [0; 4];
        for (caller, status) in got.iter_mut().enumerate() {
            let answer = world.ask(caller, method, pattern).await;
            *status = answer.status;
            if answer.status == 403 && *method != "HEAD" {
                assert_eq!(answer.error(), "not authorized", "{method} {pattern}");
            }
        }
        assert_eq!(got, *statuses, "{method} {pattern}");
    }
    let hidden = [&world.private[..], &world.private[..12], "hidden"];
    for (method, pattern, _) in TABLE.iter().filter(|(method, ..)| *method == "GET") {
        for caller in [0, 1] {
            let answer = world.ask(caller, method, pattern).await;
            let text = format!("{}{}", answer.head, String::from_utf8_lossy(&answer.body));
            for word in hidden {
                assert!(!text.contains(word), "{pattern} shows {word} to caller {caller}");
            }
        }
    }
}

#[tokio::test]
async fn a_private_image_is_like_none_in_every_form() {
    let world = World::new().await;
    let patterns = [
        "/1.0/images/{}",
        "/1.0/images/{}?secret=0123",
        "/1.0/images/{}/export",
        "/1.0/images/{}/export?secret=0123",
        "/1.0/images?filter=fingerprint+eq+{}",
        "/1.0/images?recursion=1&filter=fingerprint+eq+{}",
        "/1.0/images?recursion=1&filter=fingerprint+ne+{}",
        "/1.0/images?after={}&limit=0",
    ];
    for pattern in patterns {
        for length in [64, 20] {
            for caller in [0, 1] {
                let of = |fingerprint: &str| pattern.replace("{}", &fingerprint[..length]);
                let client = &world.callers[caller];
                let hidden = client.get(&of(&world.private)).await;
                let absent = client.get(&of(ZEROES)).await;
                assert_eq!(hidden.status, absent.status, "{pattern}");
                assert_eq!(without_date(&hidden.head), without_date(&absent.head), "{pattern}");
                // An error repeats what was asked for.
                let bodies = [&hidden, &absent].map(|answer| {
                    let text = String::from_utf8_lossy(&answer.body).into_owned();
                    text.replace(&world.private[..length], "").replace(&ZEROES[..length], "")
                });
                assert_eq!(bodies[0], bodies[1], "{pattern}");
            }
        }
    }
    let hidden = world.callers[0].get("/1.0/images/aliases/hidden%2F1").await;
    let absent = world.callers[0].get("/1.0/images/aliases/nothing").await;
    assert_eq!((hidden.status, hidden.body), (absent.status, absent.body));
    let none = world.callers[0].get("/1.0/images?recursion=1&filter=public+eq+false").await;
    assert_eq!(none.metadata(), json!([]));
    let all = world.callers[2].get("/1.0/images").await.metadata();
    assert_eq!(all.as_array().unwrap().len(), 2, "who may read sees both");
}

fn without_date(head: &str) -> Vec<&str> {
    head.lines().filter(|line| !line.starts_with("date:")).collect()
}

#[tokio::test]
async fn strangers_and_readers_change_nothing() {
    let world = World::new().await;
    let put = json!({ "public": true, "properties": {}, "auto_update": false, "profiles": null });
    let changes = [
        ("PUT", "/1.0/images/PRIVATE", put),
        ("PATCH", "/1.0/images/PUBLIC", json!({ "public": false })),
        ("DELETE", "/1.0/images/PUBLIC", Value::Null),
        ("POST", "/1.0/images/aliases", json!({ "name": "n", "target": world.public })),
        ("POST", "/1.0/images/aliases/open", json!({ "name": "n" })),
        ("DELETE", "/1.0/images/aliases/open", Value::Null),
        ("PATCH", "/1.0", json!({ "config": { "user.x": "1" } })),
        ("DELETE", "/1.0/certificates/OWN", Value::Null),
        ("PATCH", "/1.0/certificates/OWN", json!({ "restricted": false })),
        ("POST", "/1.0/certificates", json!({ "token": true, "name": "n", "type": "client" })),
    ];
    for (method, pattern, body) in changes {
        for caller in 0..3 {
            let path = world.path(pattern, caller);
            let answer = world.callers[caller].call(method, &path, body.clone()).await;
            assert_eq!(answer.status, 403, "{method} {pattern} by {caller}");
        }
    }
    for caller in 0..3 {
        let image = crate::daemon::image("strange");
        let answer = world.callers[caller].send("POST", "/1.0/images", "", &image).await;
        assert_eq!(answer.status, 403, "an upload by {caller}");
    }
    let (_, images) = world.daemon.local(Method::GET, "/1.0/images", Value::Null).await;
    assert_eq!(images["metadata"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_said_of_the_server_depends_on_who_asks() {
    let world = World::new().await;
    let mut seen = Vec::new();
    for caller in 0..4 {
        let server = world.ask(caller, "GET", "/1.0").await.metadata();
        let has = |key: &str| server.get(key).is_some_and(|value| !value.is_null());
        let config = server["config"].as_object().is_some_and(|config| !config.is_empty());
        seen.push((server["auth"].as_str().unwrap().to_owned(), has("environment"), config));
    }
    let row = |auth: &str, environment, config| (auth.to_owned(), environment, config);
    let expected = [
        row("untrusted", false, false),
        row("trusted", true, false),
        row("trusted", true, false),
        row("trusted", true, true),
    ];
    assert_eq!(seen, expected);
    // A client that counts on being trusted gets no stranger's answer.
    for (caller, status) in [(0, 403), (1, 200), (3, 200)] {
        let header = "X-LXD-authenticated: true\r\n";
        let answer = world.callers[caller].send("GET", "/1.0", header, b"").await;
        assert_eq!(answer.status, status, "{caller}");
    }
    let own = world.ask(2, "GET", "/1.0/certificates?recursion=1").await.metadata();
    assert_eq!(own.as_array().unwrap().len(), 1, "of others it learns nothing");
    let other = world.callers[3].fingerprint();
    let answer = world.callers[2].get(&format!("/1.0/certificates/{other}")).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn tokens_are_for_those_who_may_give_them_away() {
    let world = World::new().await;
    let body = json!({ "token": true, "name": "n", "type": "client" });
    let (status, answer) = world.daemon.local(Method::POST, "/1.0/certificates", body).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let secret = answer["metadata"]["metadata"]["secret"].as_str().unwrap();
    let path = answer["operation"].as_str().unwrap();
    let lists = ["/1.0/operations", "/1.0/operations?recursion=1", path];
    for list in lists {
        for caller in 0..3 {
            let answer = world.callers[caller].get(list).await;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(!text.contains(secret) && !text.contains(path), "{list} to {caller}");
        }
    }
    let answer = world.callers[3].get("/1.0/operations?recursion=1").await;
    assert!(String::from_utf8_lossy(&answer.body).contains(secret), "`list-tokens` needs it");
    // The secret of a token is none of an operation.
    let answer = world.callers[0].get(&format!("{path}/wait?timeout=0&secret={secret}")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN.as_u16());
}

#[test]
fn the_table_knows_every_route() {
    let router = include_str!("../../src/http/mod.rs");
    let routes = include_str!("../../../lxd-proto/src/routes.rs");
    let mut missing = BTreeSet::new();
    for piece in router.split("routes::").skip(1) {
        let name = piece.split(|c: char| !c.is_ascii_uppercase() && c != '_').next().unwrap();
        let Some(at) = routes.find(&format!("pub const {name}: Route = Route(\"")) else {
            continue;
        };
        let template = routes[at..].split('"').nth(1).unwrap();
        let known = TABLE.iter().any(|(_, pattern, _)| fits(pattern, template));
        if !known {
            missing.insert(name);
        }
    }
    assert!(missing.is_empty(), "the table of this test lacks {missing:?}");
}

fn fits(pattern: &str, template: &str) -> bool {
    let path = pattern.split('?').next().unwrap();
    let (path, template): (Vec<_>, Vec<_>) =
        (path.split('/').collect(), template.split('/').collect());
    path.len() == template.len()
        && path.iter().zip(&template).all(|(a, b)| a == b || b.starts_with('{'))
}
