//! What is asked of a server, counted: one download for many, none for what is here (T4, T8),
//! and nothing kept of what hostile servers send.

use std::thread;

use lxd_tests::fixtures::{Compression, Recipe, big, fingerprint, noise};
use lxd_tests::server::{Server, holds_nothing, pull, streams_offer};
use lxd_tests::streams::Tree;
use lxd_tests::web::{Authority, Fault, Web};
use lxd_tests::wire::Wire;
use serde_json::{Value, json};

#[test]
fn fifty_clients_of_a_simplestreams_image_are_one_download() {
    let authority = Authority::new();
    let daemon = Server::trusting(&authority, &[]);
    let web = Web::start(&authority);
    let mut tree = Tree::default();
    let metadata = Recipe::new("big").metadata(Compression::Xz);
    let root = big::root(Vec::new(), 8, Compression::Plain).unwrap();
    let image = tree.split("big:1", "20260101_0000", &metadata, ("root.tar.xz", &root));
    web.publish(tree.files());
    let wire = Wire::to(web.port());
    wire.slow_to(16 << 20);
    let request = streams_offer(wire.port(), "big");
    thread::scope(|scope| {
        let pulls: Vec<_> = (0..50).map(|_| scope.spawn(|| pull(&daemon, &request))).collect();
        for pull in pulls {
            let ended = pull.join().unwrap();
            assert_eq!(ended["status"], "Success", "{ended}");
            assert_eq!(ended["metadata"]["fingerprint"], image);
        }
    });
    let asked = web.asked();
    let files = asked.iter().filter(|asked| asked.path.starts_with("/images/"));
    assert_eq!(files.count(), 2, "{asked:?}");
    let documents = asked.len() - 2;
    assert!(documents <= 6, "{documents} questions about the catalog: {asked:?}");

    // Once more by alias: which image that is, and not one byte of it.
    assert_eq!(pull(&daemon, &request)["status"], "Success");
    let asked = web.asked();
    assert!(asked.iter().all(|asked| asked.path.starts_with("/streams/")), "{asked:?}");
    // By fingerprint: nothing at all.
    let (connections, sent) = (wire.connections(), wire.sent());
    assert_eq!(pull(&daemon, &streams_offer(wire.port(), &image))["status"], "Success");
    let mut by_fingerprint = streams_offer(wire.port(), "");
    by_fingerprint["source"]["fingerprint"] = json!(image);
    assert_eq!(pull(&daemon, &by_fingerprint)["status"], "Success");
    assert_eq!((wire.connections(), wire.sent()), (connections, sent));
    assert_eq!(web.asked(), []);
}

#[test]
fn the_catalog_is_asked_for_once_and_survives_a_restart() {
    let authority = Authority::new();
    let mut daemon = Server::trusting(&authority, &[]);
    let web = Web::start(&authority);
    let mut tree = Tree::default();
    for number in 0..3 {
        let image = Recipe::new(&format!("os{number}")).unified(Compression::Gz);
        tree.unified(&format!("os{number}:1"), "20260101_0000", &image);
    }
    web.publish(tree.files());
    assert_eq!(pull(&daemon, &streams_offer(web.port(), "os0"))["status"], "Success");
    assert!(web.asked().iter().any(|asked| asked.path == "/streams/v1/images.json"));
    daemon.stop();
    daemon.launch();
    web.body_bytes();
    assert_eq!(pull(&daemon, &streams_offer(web.port(), "os1"))["status"], "Success");
    let asked = web.asked();
    let catalogs: Vec<u16> = asked
        .iter()
        .filter(|asked| asked.path.starts_with("/streams/"))
        .map(|asked| asked.status)
        .collect();
    assert!(catalogs.iter().all(|status| *status == 304), "{asked:?}");

    // A server that does not answer: what is known of it still leads to its files.
    web.fault("/streams/v1/images.json", Fault::Status(503));
    web.fault("/streams/v1/index.json", Fault::Status(503));
    let ended = pull(&daemon, &streams_offer(web.port(), "os2"));
    assert_eq!(ended["status"], "Success", "{ended}");
}

/// One way to be hostile, and words that the error has one of.
struct Hostile {
    name: &'static str,
    words: &'static [&'static str],
    prepare: fn(&Web, &mut Tree),
}

const PRODUCT: &str = "evil:1";
const SERIAL: &str = "20260101_0000";

fn root_path() -> String {
    Tree::path(PRODUCT, SERIAL, "root.tar.xz")
}

const STREAMS: &[Hostile] = &[
    Hostile {
        name: "right parts under a wrong fingerprint",
        words: &["match", "fingerprint"],
        prepare: |_, tree| {
            let wrong = json!(fingerprint(&[b"something else"]));
            tree.say(PRODUCT, SERIAL, "lxd.tar.xz", "combined_rootxz_sha256", wrong);
        },
    },
    Hostile {
        name: "a byte that is another one",
        words: &["match", "sha256", "SHA-256", "hash"],
        prepare: |web, _| web.fault(&root_path(), Fault::WrongByte),
    },
    Hostile {
        name: "a file longer than the catalog says",
        words: &["expected", "more than", "bytes"],
        prepare: |web, _| web.fault(&root_path(), Fault::Longer(1000)),
    },
    Hostile {
        name: "a wrong size in the catalog",
        words: &["expected", "bytes"],
        prepare: |_, tree| {
            tree.say(PRODUCT, SERIAL, "root.tar.xz", "size", json!(17));
        },
    },
    Hostile {
        name: "a redirect loop",
        words: &["redirect"],
        prepare: |web, _| web.fault(&root_path(), Fault::RedirectLoop),
    },
    Hostile {
        name: "a redirect to plain http",
        words: &["https", "http:"],
        prepare: |web, _| {
            web.fault(&root_path(), Fault::Redirect("http://127.0.0.1:1/x".to_owned()));
        },
    },
    Hostile {
        name: "an endless body",
        words: &["bytes", "more than", "expected"],
        prepare: |web, _| web.fault(&root_path(), Fault::Endless),
    },
    Hostile {
        name: "an endless catalog",
        words: &["bytes", "more than", "large"],
        prepare: |web, _| web.fault("/streams/v1/images.json", Fault::Endless),
    },
    Hostile {
        name: "a fingerprint that climbs",
        words: &["not found", "fingerprint", "couldn't be found"],
        prepare: |_, tree| {
            let wrong = json!("../../../../etc/passwd");
            tree.say(PRODUCT, SERIAL, "lxd.tar.xz", "combined_rootxz_sha256", wrong);
        },
    },
    Hostile {
        name: "a path that climbs",
        words: &["path", "not found", "couldn't", "404"],
        prepare: |_, tree| {
            tree.say(PRODUCT, SERIAL, "root.tar.xz", "path", json!("../../etc/passwd"));
        },
    },
    Hostile {
        name: "a file that is not there",
        words: &["does not have it"],
        prepare: |web, _| web.fault(&root_path(), Fault::Status(404)),
    },
];

#[test]
fn nothing_is_kept_of_what_a_hostile_simplestreams_server_sends() {
    let authority = Authority::new();
    let daemon = Server::trusting(&authority, &[]);
    for hostile in STREAMS {
        let web = Web::start(&authority);
        let mut tree = Tree::default();
        let metadata = Recipe::new("evil").metadata(Compression::Xz);
        let root = Recipe::new("evil").root(Compression::Gz);
        tree.split(PRODUCT, SERIAL, &metadata, ("root.tar.xz", &root));
        (hostile.prepare)(&web, &mut tree);
        web.publish(tree.files());
        let ended = pull(&daemon, &streams_offer(web.port(), "evil"));
        refused(hostile.name, hostile.words, &ended);
        holds_nothing(&daemon);
    }
    assert!(daemon.peak() < 200 << 20, "{} MiB were needed", daemon.peak() >> 20);
}

fn refused(name: &str, words: &[&str], ended: &Value) {
    assert_eq!(ended["status"], "Failure", "{name}: {ended}");
    let said = ended["err"].as_str().unwrap();
    assert!(words.iter().any(|word| said.contains(word)), "{name}: {said}");
    assert!(said.len() < 1000, "{name}: {said}");
}

/// A server that speaks the LXD protocol and says about its one image what it is told to.
fn false_lxd(authority: &Authority, said: &str, size: usize, bytes: &[u8]) -> Web {
    let web = Web::start(authority);
    let envelope = |metadata: Value| {
        json!({"type": "sync", "status": "Success", "status_code": 200, "metadata": metadata})
            .to_string()
            .into_bytes()
    };
    let image = json!({
        "fingerprint": said, "size": size, "architecture": "x86_64", "type": "container",
        "filename": "evil.tar.gz", "public": true, "properties": {"os": "evil"}, "aliases": [],
        "created_at": "2016-03-15T11:10:00Z", "uploaded_at": "2016-03-15T11:10:00Z",
        "expires_at": "1970-01-01T00:00:00Z", "last_used_at": "0001-01-01T00:00:00Z",
        "cached": false, "auto_update": false, "profiles": ["default"],
    });
    let alias = json!({"name": "evil", "target": said, "type": "container", "description": ""});
    let about = json!({
        "api_status": "stable", "api_version": "1.0", "auth": "untrusted", "public": true,
        "auth_methods": ["tls"], "api_extensions": [], "environment": {"server": "lxd"},
    });
    web.put("/1.0", envelope(about));
    web.put("/1.0/images/aliases/evil", envelope(alias));
    web.put(&format!("/1.0/images/{said}"), envelope(image));
    web.put(&format!("/1.0/images/{said}/export"), bytes);
    let export = format!("/1.0/images/{said}/export");
    web.header(&export, "Content-Type", "application/octet-stream");
    web.header(&export, "Content-Disposition", "inline;filename=evil.tar.gz");
    web
}

/// Its name, words of the error, the fingerprint and size that are told, the bytes, and a fault.
type Lie<'a> = (&'a str, &'a [&'a str], &'a str, usize, &'a [u8], Option<Fault>);

#[test]
fn nothing_is_kept_of_what_a_false_lxd_sends() {
    let authority = Authority::new();
    let daemon = Server::trusting(&authority, &[]);
    let image = Recipe::new("evil").unified(Compression::Gz);
    let (right, wrong) = (fingerprint(&[&image]), fingerprint(&[&noise(1, 100)]));
    let junk = noise(2, 5000);
    let junk_print = fingerprint(&[&junk]);
    let size = image.len();
    let cases: [Lie<'_>; 8] = [
        ("a wrong fingerprint", &["match"], &wrong, size, &image, None),
        ("a wrong size", &["bytes", "size", "match"], &right, size + 9, &image, None),
        (
            "an endless body",
            &["bytes", "more than", "expected"],
            &right,
            size,
            &image,
            Some(Fault::Endless),
        ),
        ("a redirect loop", &["redirect"], &right, size, &image, Some(Fault::RedirectLoop)),
        ("a wrong byte", &["match", "corrupt"], &right, size, &image, Some(Fault::WrongByte)),
        (
            "a longer file",
            &["bytes", "match", "expected"],
            &right,
            size,
            &image,
            Some(Fault::Longer(5)),
        ),
        ("no image at all", &["nsupported", "not a", "metadata"], &junk_print, 5000, &junk, None),
        ("a fingerprint that climbs", &["fingerprint"], "../../x", size, &image, None),
    ];
    for (name, words, said, size, bytes, fault) in cases {
        let web = false_lxd(&authority, said, size, bytes);
        web.fault(&format!("/1.0/images/{said}/export"), fault);
        let request = json!({"source": {
            "type": "image", "mode": "pull", "protocol": "lxd", "server": web.address(),
            "fingerprint": "evil",
        }});
        let ended = pull(&daemon, &request);
        refused(name, words, &ended);
        holds_nothing(&daemon);
    }
    // The server is not what is wrong: the same without a lie.
    let web = false_lxd(&authority, &right, size, &image);
    let request = json!({"source": {
        "type": "image", "mode": "pull", "protocol": "lxd", "server": web.address(),
        "fingerprint": "evil",
    }});
    let ended = pull(&daemon, &request);
    assert_eq!(ended["status"], "Success", "{ended}");
    assert!(daemon.peak() < 200 << 20, "{} MiB were needed", daemon.peak() >> 20);
}
