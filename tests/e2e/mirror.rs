//! Mirrors: a selection of a simplestreams server, kept over kills and faults, and carried to
//! another daemon in one file.

use lxd_tests::client::{Invocation, shown};
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe};
use lxd_tests::gnupg::Gnupg;
use lxd_tests::server::{Server, trusting};
use lxd_tests::streams::Tree;
use lxd_tests::wait;
use lxd_tests::web::{Authority, Fault, Web};
use serde_json::{Value, json};

/// The long form is for a machine with time: `LXD_TEST_LONG=1`.
fn many() -> usize {
    if std::env::var_os("LXD_TEST_LONG").is_some() { 2000 } else { 100 }
}

/// A tree, and what serves it.
struct Source {
    authority: Authority,
    web: Web,
    tree: Tree,
}

impl Source {
    fn start() -> Self {
        let authority = Authority::new();
        let web = Web::start(&authority);
        Self { authority, web, tree: Tree::default() }
    }

    /// A build of a product; its fingerprint.
    fn build(&mut self, product: &str, serial: &str) -> String {
        let recipe = Recipe::new(&format!("{}-{serial}", product.replace(':', "-")));
        let (metadata, root) = (recipe.metadata(Compression::Gz), recipe.root(Compression::Gz));
        self.tree.split(product, serial, &metadata, ("root.tar.xz", &root))
    }

    fn publish(&self) {
        self.web.publish(self.tree.files());
    }

    /// Has the daemon look at what is published now: what it has asked for a moment ago it does
    /// not ask for again.
    fn is_seen_by(&self, daemon: &Daemon) {
        self.web.asked();
        wait::until("the daemon asks again", || {
            cli(daemon, "mirror run m --dry-run").run();
            !self.web.asked().is_empty()
        });
    }

    /// A daemon with a mirror `m` of this.
    fn mirrored(&self, flags: &str) -> Daemon {
        let daemon = Server::trusting(&self.authority, &[]);
        cli(&daemon, &format!("mirror create m {} {flags}", self.web.address())).ok();
        daemon
    }
}

fn cli(daemon: &Daemon, line: &str) -> Invocation {
    trusting(daemon, daemon.cli(line))
}

/// The report of a run, whatever came of it.
fn report(daemon: &Daemon, line: &str) -> Value {
    let ran = cli(daemon, &format!("mirror {line} --format json")).run();
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
}

fn images(daemon: &Daemon) -> Vec<Value> {
    let images = daemon.http().metadata("/1.0/images?recursion=1");
    images.as_array().unwrap().clone()
}

fn fingerprints(daemon: &Daemon) -> Vec<String> {
    images(daemon).iter().map(|it| it["fingerprint"].as_str().unwrap().to_owned()).collect()
}

fn target(daemon: &Daemon, alias: &str) -> String {
    let path = format!("/1.0/images/aliases/{alias}");
    daemon.http().metadata(&path)["target"].as_str().unwrap().to_owned()
}

fn actions(report: &Value) -> Vec<(String, String)> {
    let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    let items = report["items"].as_array().unwrap();
    items.iter().map(|item| (text(item, "serial"), text(item, "action"))).collect()
}

#[test]
fn a_run_that_is_killed_five_times_ends_right() {
    let mut source = Source::start();
    let count = many();
    let mut expected: Vec<String> =
        (0..count).map(|n| source.build(&format!("p{n:04}:1"), "20260101_0000")).collect();
    source.publish();
    expected.sort();
    let mut daemon = source.mirrored("--parallel 4");
    let would = report(&daemon, "run m --dry-run");
    assert_eq!(would["counts"]["downloaded"], json!(count));
    for kill in 1..=5 {
        daemon.http().json("POST", "/1.0/mirrors/m/run", &json!({}));
        let enough = count * kill / 7;
        wait::until("some images are here", || fingerprints(&daemon).len() >= enough);
        daemon.kill();
        daemon.launch();
        // What is visible is whole, and has its name already.
        wait::until("the cut run is told", || {
            let mirror = daemon.http().metadata("/1.0/mirrors/m");
            mirror["state"]["last_run"]["outcome"] == "interrupted"
        });
        assert!(fingerprints(&daemon).len() < count, "too late for kill {kill}");
        for image in images(&daemon) {
            assert!(image.get("verified").is_none(), "{image}");
            assert!(!image["aliases"].as_array().unwrap().is_empty(), "{image}");
        }
    }
    let did = report(&daemon, "run m");
    assert_eq!((&did["counts"]["failed"], &did["counts"]["skipped"]), (&json!(0), &json!(0)));
    assert_eq!(fingerprints(&daemon), expected);
    assert_eq!(daemon.http().metadata("/1.0/mirrors/m")["state"]["images"], json!(count));
    let mut aliases: Vec<String> =
        (0..count).map(|n| target(&daemon, &format!("p{n:04}"))).collect();
    aliases.sort();
    assert_eq!(aliases, expected);
    for directory in ["partial", "spool"] {
        assert_eq!(daemon.files_in(directory), [""; 0], "{directory}");
    }
    // A whole run in another daemon does what the dry run has told.
    let other = source.mirrored("--parallel 4");
    assert_eq!(report(&other, "run m")["items"], would["items"]);
    source.web.asked();
    let again = report(&other, "run m");
    assert_eq!(again["counts"]["present"], json!(count));
    assert!(source.web.asked().iter().all(|asked| asked.path.starts_with("/streams/")));
    daemon.stop();
    daemon.imaged("fsck").ok();
}

#[test]
fn a_corrupt_file_costs_its_version_and_a_dropped_product_keeps_one() {
    let mut source = Source::start();
    let [old, gone] = ["debian:12", "alpine:3"].map(|name| source.build(name, "20260101_0000"));
    source.publish();
    let daemon = source.mirrored("--public --alias-prefix up/");
    report(&daemon, "run m");
    assert_eq!(target(&daemon, "up%2Fdebian"), old);

    let new = source.build("debian:12", "20260102_0000");
    let fine = source.build("fedora:40", "20260102_0000");
    source.tree.withdraw("alpine:3", "20260101_0000");
    source.publish();
    let path = Tree::path("debian:12", "20260102_0000", "root.tar.xz");
    source.web.fault(&path, Fault::WrongByte);
    source.is_seen_by(&daemon);
    let ran = cli(&daemon, "mirror run m").fails();
    let ran = ran.says(&path[1..]).says("its SHA-256 is").says("1 downloaded").says("1 failed");
    ran.complains("1 versions could not be mirrored");
    let here = fingerprints(&daemon);
    assert!(here.contains(&old) && here.contains(&gone) && here.contains(&fine));
    assert!(!here.contains(&new));
    assert_eq!(target(&daemon, "up%2Fdebian"), old);
    cli(&daemon, "mirror info m").ok().says("Last run: partial").says(&path[1..]);

    source.web.fault(&path, None);
    let would = report(&daemon, "run m --dry-run");
    let did = report(&daemon, "run m");
    assert_eq!(did["items"], would["items"]);
    let expected = [
        ("20260101_0000", "keep"),
        ("20260102_0000", "download"),
        ("20260101_0000", "remove"),
        ("20260102_0000", "present"),
    ];
    let got = actions(&did);
    let got: Vec<_> = got.iter().map(|(serial, action)| (&**serial, &**action)).collect();
    assert_eq!(got, expected);
    assert_eq!(target(&daemon, "up%2Fdebian"), new);
    assert!(!fingerprints(&daemon).contains(&old) && fingerprints(&daemon).contains(&gone));
    // The server goes away whole.
    source.web.fault("/streams/v1/index.json", Fault::Status(503));
    source.web.fault("/streams/v1/images.json", Fault::Status(503));
    source.is_seen_by(&daemon);
    let before = fingerprints(&daemon);
    cli(&daemon, "mirror run m").fails();
    assert_eq!(fingerprints(&daemon), before);
    cli(&daemon, "mirror info m").ok().says("Last run: failed");
}

#[test]
fn a_file_that_is_said_to_be_larger_than_any_disk_costs_its_version_only() {
    let mut source = Source::start();
    for product in ["alpine:3", "debian:12", "fedora:40"] {
        source.build(product, "20260101_0000");
    }
    source.tree.say("alpine:3", "20260101_0000", "root.tar.xz", "size", json!(1u64 << 50));
    source.publish();
    let daemon = source.mirrored("--parallel 1");
    let ran = cli(&daemon, "mirror run m --format json").run();
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    let counts = &told["counts"];
    let counts = [&counts["downloaded"], &counts["failed"], &counts["skipped"]];
    assert_eq!(counts, [&json!(2), &json!(1), &json!(0)], "{told}");
}

#[test]
fn a_mirror_can_be_looked_at_while_it_runs() {
    let mut source = Source::start();
    for number in 0..60 {
        source.build(&format!("p{number:04}:1"), "20260101_0000");
    }
    source.publish();
    let daemon = source.mirrored("--parallel 4");
    let run = cli(&daemon, "mirror run m").spawn();
    let http = daemon.http();
    wait::until("all to be here", || {
        let seen = (0..50).map(|_| http.metadata("/1.0/mirrors?recursion=1")).next_back().unwrap();
        seen[0]["state"]["images"] == json!(60)
    });
    assert_eq!(run.wait().code, 0);
}

#[test]
fn a_bundle_carries_a_mirror_to_another_daemon() {
    let mut source = Source::start();
    for product in ["debian:12", "alpine:3", "fedora:40"] {
        for serial in ["20260101_0000", "20260102_0000"] {
            source.build(product, serial);
        }
    }
    source.publish();
    let daemon = source.mirrored("--keep 2");
    report(&daemon, "run m");
    let file = daemon.work().join("m.bundle");
    cli(&daemon, &format!("mirror export m {}", shown(&file))).ok().says("6 images");
    cli(&daemon, &format!("mirror export m {}", shown(&file))).fails().complains("exists already");
    let facts = |daemon: &Daemon| -> Vec<Value> {
        let facts = |mut image: Value| {
            image.as_object_mut().unwrap().retain(|key, _| key != "uploaded_at");
            image
        };
        images(daemon).into_iter().map(facts).collect()
    };

    // Damaged on the way: one byte of one file.
    let sound = std::fs::read(&file).unwrap();
    let mut damaged = sound.clone();
    let at = damaged.len() - 1024 - 512 - 200;
    damaged[at] ^= 0xff;
    let other = Daemon::start();
    let broken = other.file("damaged.bundle", &damaged);
    let first = cli(&other, &format!("mirror import {} --public", shown(&broken))).fails();
    first.says("damaged").complains("1 versions could not be mirrored");
    assert_eq!(images(&other).len(), 5);
    let line = format!("import {} --public", shown(&file));
    let report_of = report(&other, &line);
    assert_eq!(
        (&report_of["counts"]["downloaded"], &report_of["counts"]["present"]),
        (&json!(1), &json!(5))
    );
    let public = |mut image: Value| {
        image["public"] = json!(true);
        image
    };
    let expected: Vec<Value> = facts(&daemon).into_iter().map(public).collect();
    assert_eq!(facts(&other), expected);
    let again = report(&other, &line);
    assert_eq!(again["counts"]["present"], json!(6));

    // The next bundle brings a newer version: names move, the oldest goes.
    let newest = source.build("debian:12", "20260103_0000");
    source.publish();
    source.is_seen_by(&daemon);
    report(&daemon, "run m");
    cli(&daemon, &format!("mirror export m {} --force", shown(&file))).ok();
    let brought = report(&other, &line);
    assert_eq!(
        (&brought["counts"]["downloaded"], &brought["counts"]["removed"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(target(&other, "debian"), newest);

    // An old one takes nothing away.
    let old = other.file("old.bundle", &sound);
    let before = fingerprints(&other);
    report(&other, &format!("import {} --public", shown(&old)));
    assert_eq!(fingerprints(&other), before);
    assert_eq!(target(&other, "debian"), newest);
    // What asks for signatures gets no bundle, which has none.
    let gnupg = Gnupg::new();
    gnupg.key("k@example.org", "ed25519");
    let keyring = gnupg.keyring("k@example.org");
    let address = source.web.address();
    let line = format!("mirror create strict {address} --keyring {}", shown(&keyring));
    cli(&other, &line).ok();
    let line = format!("mirror import {} --name strict", shown(&file));
    cli(&other, &line).fails().complains("a bundle has no signature");
    assert_eq!(other.http().metadata("/1.0/mirrors/strict")["state"]["images"], json!(0));

    // Strange files are refused before anything changes.
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("text", b"hello".to_vec()),
        ("more", [&sound[..], &[b'x'; 512]].concat()),
        ("cut", sound[..300].to_vec()),
    ] {
        let file = other.file(name, &bytes);
        cli(&other, &format!("mirror import {}", shown(&file))).fails();
    }
    assert_eq!(fingerprints(&other), before);
    cli(&other, "mirror run m").fails().complains("fed by bundles");
}

#[test]
fn mirrors_are_made_shown_and_changed() {
    let source = Source::start();
    let daemon = source.mirrored("--os debian --keep 3 --schedule @daily");
    let shown = cli(&daemon, "mirror show m --format json").ok().json();
    assert_eq!((&shown["config"]["os"], &shown["config"]["keep"]), (&json!(["debian"]), &json!(3)));
    assert!(shown["state"]["next_run"].is_string());
    cli(&daemon, "mirror set m keep=2 os=debian,ubuntu schedule=").ok();
    let text = "variant: [default]\nlimits: 3\n";
    cli(&daemon, "mirror edit m").stdin(text).fails();
    cli(&daemon, "mirror edit m").stdin("variant: [default]\n").ok();
    let http = daemon.http();
    let answer = http.get("/1.0/mirrors/m");
    let etag = answer.header("etag").unwrap().to_owned();
    let mirror = http.metadata("/1.0/mirrors/m");
    assert_eq!(mirror["config"]["os"], json!(["debian", "ubuntu"]));
    assert_eq!(mirror["config"]["variant"], json!(["default"]));
    assert_eq!(mirror["state"]["next_run"], Value::Null);
    let stale = http.request("PUT", "/1.0/mirrors/m").header("If-Match", "\"x\"");
    assert_eq!(stale.send(br#"{"config": {}}"#).status, 412);
    let put = http.request("PUT", "/1.0/mirrors/m").header("If-Match", &etag);
    let body = json!({"config": {"server": source.web.address()}});
    assert_eq!(put.send(body.to_string().as_bytes()).status, 200);
    assert_eq!(http.metadata("/1.0/mirrors/m")["config"]["keep"], json!(1));
    for wrong in [
        json!({"config": {"keep": 0}}),
        json!({"config": {"schedule": "often"}}),
        json!({"config": {"server": "http://a"}}),
        json!({"config": {"server": "file:///etc"}}),
        json!({"config": {"color": "red"}}),
    ] {
        assert_eq!(http.json("PATCH", "/1.0/mirrors/m", &wrong).status, 400, "{wrong}");
    }
    assert_eq!(http.json("POST", "/1.0/mirrors", &json!({"name": "m"})).status, 409);
    cli(&daemon, "mirror list -f csv").ok().says("m,https://");
    cli(&daemon, "mirror delete m").ok();
    assert_eq!(http.metadata("/1.0/mirrors"), json!([]));
    assert_eq!(http.get("/1.0/mirrors/m").status, 404);
}

#[test]
fn an_lxd_server_is_mirrored_like_any_other() {
    let source = Server::ours();
    let web = source.import("web", "--public");
    let db = source.import("db", "--public");
    let private = source.import("private", "");
    let target = Server::ours();
    target.add_public("src", &source);
    target.cli("mirror create m src: --alias-prefix src/").ok();
    let run = target.cli("mirror run m --format json").ok().json();
    assert_eq!(run["counts"]["downloaded"], json!(2), "{run}");
    assert!(target.has(&web) && target.has(&db) && !target.has(&private));
    assert_eq!(target.target("src%2Fweb"), web);
    assert_eq!(target.target("src%2Fdb"), db);
    // A name that leads to another image there does so here.
    let newer =
        source.import_bytes("other", &Recipe::new("web2").unified(Compression::Gz), "--public");
    source.lxc("image alias delete web").ok();
    source.lxc(&format!("image alias create web {newer}")).ok();
    target.cli("mirror run m").ok();
    assert_eq!(target.target("src%2Fweb"), newer);
}
