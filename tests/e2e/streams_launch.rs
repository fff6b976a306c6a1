//! Containers launched from what we publish, and images that follow it: by real LXD and by our
//! daemon, live from the store and from a tree on disk.

use std::path::Path;

use lxd_tests::client::{Invocation, shown};
use lxd_tests::containers::{busybox_with, shell};
use lxd_tests::daemon::{Daemon, Kind};
use lxd_tests::fixtures::{Recipe, fingerprint};
use lxd_tests::server::{Server, trusting};
use lxd_tests::tool;
use lxd_tests::wait::{self, Turn};
use lxd_tests::web::{Authority, Web, files_below};
use serde_json::json;

/// An image of a system that boots, and that says which build it is.
fn system(serial: &str) -> Vec<u8> {
    let recipe = Recipe::new("busy")
        .property("os", "Busy")
        .property("release", "1")
        .property("variant", "default")
        .property("serial", serial);
    busybox_with(&recipe, &[], |tar| tar.file("rootfs/etc/serial", serial.as_bytes()))
}

/// Something that hands out images, and how a newer build gets there.
trait Publisher {
    fn address(&self) -> String;
    fn publish(&mut self, serial: &str) -> String;
}

/// Our daemon, with two builds under the alias `busy/1`.
struct Live(Server);

impl Publisher for Live {
    fn address(&self) -> String {
        self.0.address()
    }

    fn publish(&mut self, serial: &str) -> String {
        let daemon = &self.0.daemon;
        let file = daemon.file("busy.tar", &system(serial));
        let line = format!("image import {} --alias busy/1 --public --reuse", shown(&file));
        daemon.cli(&line).ok();
        self.0.target("busy/1")
    }
}

/// A tree that `lxd-cli streams build` makes, behind a server of files.
struct Tree {
    directory: tempfile::TempDir,
    web: Web,
}

impl Publisher for Tree {
    fn address(&self) -> String {
        self.web.address()
    }

    fn publish(&mut self, serial: &str) -> String {
        let (tree, image) = (self.directory.path().join("tree"), system(serial));
        let out = self.directory.path().join("out").join(serial);
        std::fs::create_dir_all(&out).unwrap();
        std::fs::write(out.join("image.tar"), &image).unwrap();
        let line = format!("streams build {} --from {}", shown(&tree), shown(&out));
        let conf = self.directory.path().join("conf");
        Invocation::new(&tool::ours("lxd-cli"), &line).env("LXD_CONF", conf).ok();
        self.web.publish(files_below(&tree));
        fingerprint(&[&image])
    }
}

/// Launches from the publisher, publishes, follows and launches again.
fn is_followed(daemon: &Daemon, publisher: &mut dyn Publisher, kind: &str) {
    let old = publisher.publish("20260101_0000");
    let remote = format!("remote add {kind} {} --protocol simplestreams", publisher.address());
    let run = |line: &str| trusting(daemon, daemon.lxc(line)).ok();
    run(&remote);
    run(&format!("launch {kind}:busy/1 {kind}-one"));
    shell(daemon, &format!("{kind}-one"), "cat /etc/serial").prints("20260101_0000");
    let image = daemon.http().metadata(&format!("/1.0/images/{old}"));
    assert_eq!((&image["cached"], &image["auto_update"]), (&json!(true), &json!(true)), "{image}");

    let new = publisher.publish("20260201_0000");
    assert_ne!(old, new);
    // LXD asks a server once an hour; this is how the hour passes.
    let asked = daemon.dir().join("cache");
    if asked.exists() {
        std::fs::remove_dir_all(&asked).unwrap();
        std::fs::create_dir(&asked).unwrap();
    }
    // Ours looks again after a moment.
    wait::until("the newer build", || {
        daemon.lxc(&format!("image refresh {old}")).run();
        daemon.http().get(&format!("/1.0/images/{new}")).status == 200
    });
    run(&format!("launch {kind}:busy/1 {kind}-two"));
    shell(daemon, &format!("{kind}-two"), "cat /etc/serial").prints("20260201_0000");
    for name in ["one", "two"] {
        run(&format!("delete -f {kind}-{name}"));
    }
}

fn host(kind: Kind, authority: &Authority) -> Daemon {
    assert!(tool::is_root(), "containers need root: run the tests as root");
    let mut daemon = Daemon::prepare(kind, Turn::shared());
    let file = daemon.file("authority.crt", authority.pem().as_bytes());
    daemon.set_env("SSL_CERT_FILE", shown(&file));
    daemon.launch();
    if kind == Kind::Lxd {
        daemon.lxc("storage create default dir").ok();
        daemon.lxc("profile device add default root disk path=/ pool=default").ok();
    }
    daemon
}

fn launches_and_follows(kind: Kind) {
    let authority = Authority::new();
    let host = host(kind, &authority);
    let mut live = Live(Server::vouched(&authority));
    is_followed(&host, &mut live, "live");
    // What the first part has cached must not answer for the second one.
    for image in host.http().metadata("/1.0/images").as_array().unwrap() {
        let path = image.as_str().unwrap();
        host.lxc(&format!("image delete {}", Path::new(path).file_name().unwrap().display())).ok();
    }
    let directory = tempfile::tempdir().unwrap();
    let mut tree = Tree { directory, web: Web::start(&authority) };
    is_followed(&host, &mut tree, "tree");
}

#[test]
fn a_real_lxd_launches_and_follows() {
    launches_and_follows(Kind::Lxd);
}

#[test]
fn our_daemon_launches_and_follows() {
    launches_and_follows(Kind::Ours);
}
