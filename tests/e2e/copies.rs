//! Copies between servers with the real `lxc`: every mode, either role, cut wires, one download
//! for many (rows C1-C6, T4, T8, I4).

use std::thread;

use lxd_tests::client::{shown, system};
use lxd_tests::daemon::{Daemon, Kind};
use lxd_tests::fixtures::{Compression, Recipe, big, fingerprint, noise};
use lxd_tests::tool;
use lxd_tests::wait;
use lxd_tests::wire::{Wire, free_port};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};

/// A daemon that listens on the network.
struct Server {
    daemon: Daemon,
    port: u16,
}

impl Server {
    fn ours() -> Self {
        Self::open(Daemon::start())
    }

    fn lxd() -> Self {
        Self::open(lxd_tests::peer::start())
    }

    fn open(daemon: Daemon) -> Self {
        let port = free_port();
        daemon.lxc(&format!("config set core.https_address 127.0.0.1:{port}")).ok();
        daemon.lxc("config set core.trust_password pw").ok();
        Self { daemon, port }
    }

    /// Makes `other` the remote `name` of this daemon's client.
    fn add(&self, name: &str, other: &Self) {
        let line = format!(
            "remote add {name} https://127.0.0.1:{} --accept-certificate --password pw",
            other.port
        );
        self.daemon.lxc(&line).ok();
    }

    fn import(&self, name: &str, more: &str) -> String {
        let bytes = Recipe::new(name).property("os", "tiny").unified(Compression::Gz);
        let file = self.daemon.file(&format!("{name}.tar.gz"), &bytes);
        self.daemon.lxc(&format!("image import {} --alias {name} {more}", shown(&file))).ok();
        fingerprint(&[&bytes])
    }

    fn import_split(&self, name: &str, more: &str) -> String {
        let recipe = Recipe::new(name).property("os", "tiny");
        let (metadata, root) = (recipe.metadata(Compression::Xz), recipe.root(Compression::Gz));
        let files = [("meta.tar.xz", &metadata), ("root.tar.gz", &root)]
            .map(|(part, bytes)| self.daemon.file(&format!("{name}.{part}"), bytes));
        let [metadata_file, root_file] = files.each_ref().map(|file| shown(file));
        let line = format!("image import {metadata_file} {root_file} --alias {name} {more}");
        self.daemon.lxc(&line).ok();
        fingerprint(&[&metadata, &root])
    }

    fn image(&self, fingerprint: &str) -> Value {
        self.daemon.http().metadata(&format!("/1.0/images/{fingerprint}"))
    }

    fn has(&self, fingerprint: &str) -> bool {
        self.daemon.http().get(&format!("/1.0/images/{fingerprint}")).status == 200
    }

    fn target(&self, alias: &str) -> String {
        let alias = self.daemon.http().metadata(&format!("/1.0/images/aliases/{alias}"));
        alias["target"].as_str().unwrap().to_owned()
    }

    fn certificate(&self) -> String {
        std::fs::read_to_string(self.daemon.dir().join("server.crt")).unwrap()
    }

    /// What a client asks for that wants `reference` of the server at `port`.
    fn pull_from(other: &Self, port: u16, reference: &str) -> Value {
        json!({"source": {
            "type": "image", "mode": "pull", "protocol": "lxd", "fingerprint": reference,
            "server": format!("https://127.0.0.1:{port}"), "certificate": other.certificate(),
        }})
    }

    fn pull(&self, request: &Value) -> Value {
        let http = self.daemon.http();
        http.finish(&http.json("POST", "/1.0/images", request))
    }
}

/// Copies a private image by alias and a public one by fingerprint from `from` to `to` in every
/// mode; `driver`'s client calls them so.
fn every_mode(driver: &Server, from: (&str, &Server), to: (&str, &Server)) {
    let private = from.1.import("private", "");
    let public = from.1.import_split("public", "--public");
    for mode in ["pull", "push", "relay"] {
        for (source, fingerprint) in [("private", &private), (&public[..], &public)] {
            let name = format!("{mode}-{}", &fingerprint[..6]);
            let (from, to_name) = (from.0, to.0);
            let line =
                format!("image copy {from}:{source} {to_name}: --mode {mode} --alias {name}");
            driver.daemon.lxc(&line).ok().says("Image copied successfully!");
            assert_eq!(to.1.target(&name), *fingerprint, "{line}");
            let image = to.1.image(fingerprint);
            assert_eq!(image["properties"]["os"], "tiny", "{line}: {image}");
            assert_eq!(image["public"], false, "{line}");
            driver.daemon.lxc(&format!("image delete {to_name}:{fingerprint}")).ok();
        }
    }
}

#[test]
fn every_mode_between_two_of_ours() {
    let (a, b) = (Server::ours(), Server::ours());
    a.add("a", &a);
    a.add("b", &b);
    every_mode(&a, ("a", &a), ("b", &b));
    // A public image by its alias, which LXD's client then sends instead of the fingerprint.
    for mode in ["pull", "push"] {
        a.daemon.lxc(&format!("image copy a:public b: --mode {mode} --alias {mode}")).ok();
        let fingerprint = b.target(mode);
        assert!(a.has(&fingerprint));
        a.daemon.lxc(&format!("image delete b:{fingerprint}")).ok();
    }
}

#[test]
fn every_mode_with_a_real_lxd_in_either_role() {
    let (ours, lxd) = (Server::ours(), Server::lxd());
    ours.add("ours", &ours);
    ours.add("lxd", &lxd);
    every_mode(&ours, ("lxd", &lxd), ("ours", &ours));
    for name in ["private", "public"] {
        ours.daemon.lxc(&format!("image delete lxd:{name}")).ok();
    }
    every_mode(&ours, ("ours", &ours), ("lxd", &lxd));
}

#[test]
fn a_stranger_copies_what_is_public_and_nothing_else() {
    let (a, b) = (Server::ours(), Server::ours());
    let public = a.import("public", "--public");
    a.import("private", "");
    let line = format!("remote add a https://127.0.0.1:{} --accept-certificate --public", a.port);
    b.daemon.lxc(&line).ok();
    b.daemon.lxc("image copy a:public local: --copy-aliases --public").ok();
    assert_eq!(b.target("public"), public);
    assert_eq!(b.image(&public)["public"], true);
    b.daemon.lxc("image copy a:private local:").fails();
    let request = Server::pull_from(&a, a.port, "private");
    let ended = b.pull(&request);
    assert_eq!(ended["status"], "Failure");
    assert!(ended["err"].as_str().unwrap().contains("not found"), "{ended}");
    // Not even with the secret of another image.
    let other = a.daemon.http().json("POST", &format!("/1.0/images/{public}/secret"), &json!({}));
    let mut request = request;
    request["source"]["secret"] = other.metadata()["metadata"]["secret"].clone();
    request["source"]["fingerprint"] = json!(a.target("private"));
    assert_eq!(b.pull(&request)["status"], "Failure");
}

#[test]
fn a_copy_follows_its_origin_keeps_edits_and_goes_back() {
    for origin in [Server::ours(), Server::lxd()] {
        let b = Server::ours();
        b.add("o", &origin);
        let first = origin.import("debian", "--public");
        let line =
            "image copy o:debian local: --auto-update --alias one --alias two --copy-aliases";
        b.daemon.lxc(line).ok();
        let image = b.image(&first);
        assert_eq!(image["auto_update"], true);
        assert_eq!(image["update_source"]["alias"], "debian");
        assert_eq!(image["aliases"].as_array().unwrap().len(), 3, "{image}");
        b.daemon.lxc("image set-property one note mine").ok();
        b.daemon.lxc("image refresh one").ok().says("Image already up to date.");

        b.daemon.lxc("image alias delete o:debian").ok();
        let second = {
            let bytes = Recipe::new("second").property("os", "tiny").unified(Compression::Xz);
            let file = origin.daemon.file("second.tar.xz", &bytes);
            let line = format!("image import {} --alias debian --public", shown(&file));
            origin.daemon.lxc(&line).ok();
            fingerprint(&[&bytes])
        };
        b.daemon.lxc("image refresh one").ok().says("Image refreshed successfully!");
        for alias in ["one", "two", "debian"] {
            assert_eq!(b.target(alias), second);
        }
        let image = b.image(&second);
        assert_eq!(image["properties"]["note"], "mine");
        assert_eq!(image["properties"]["description"], "Image second");
        assert!(image["refresh"]["checked_at"].is_string(), "{image}");
        b.daemon.lxc("image list --format csv -c f").ok().says_not(&first[..12]);

        let http = b.daemon.http();
        let history = http.metadata(&format!("/1.0/images/{second}/history"));
        assert_eq!(history[0]["fingerprint"], second);
        assert_eq!(history[1]["fingerprint"], first);
        let all = http.metadata("/1.0/images?all-versions=1");
        assert_eq!(all.as_array().unwrap().len(), 2);
        let now = http.json("POST", &format!("/1.0/images/{second}/rollback"), &json!({}));
        assert_eq!(now.expect(200).metadata()["fingerprint"], first);
        assert_eq!((b.target("one"), b.target("two")), (first.clone(), first.clone()));
    }
}

#[test]
fn a_refresh_that_fails_says_why_and_changes_nothing() {
    let (a, b) = (Server::ours(), Server::ours());
    b.add("a", &a);
    let image = a.import("debian", "--public");
    b.daemon.lxc("image copy a:debian local: --auto-update --alias x").ok();
    drop(a);
    b.daemon.lxc("image refresh x").fails();
    let shown = b.image(&image);
    let error = shown["refresh"]["error"].as_str().unwrap();
    assert!(error.contains("Unable to connect to"), "{error}");
    assert_eq!(b.target("x"), image);
    // And by hand there is nothing to refresh from.
    let by_hand = b.import("by-hand", "");
    let http = b.daemon.http();
    let path = format!("/1.0/images/{by_hand}/refresh");
    let ended = http.finish(&http.json("POST", &path, &json!({})));
    assert!(ended["err"].as_str().unwrap().contains("Image source not found"), "{ended}");
}

#[test]
fn a_real_lxd_follows_ours() {
    let (ours, lxd) = (Server::ours(), Server::lxd());
    lxd.add("o", &ours);
    ours.import("debian", "--public");
    lxd.daemon.lxc("image copy o:debian local: --auto-update --alias x").ok();
    ours.daemon.lxc("image alias delete debian").ok();
    let bytes = Recipe::new("second").unified(Compression::Gz);
    let file = ours.daemon.file("second.tar.gz", &bytes);
    ours.daemon.lxc(&format!("image import {} --alias debian --public", shown(&file))).ok();
    lxd.daemon.lxc("image refresh x").ok().says("Image refreshed successfully!");
    assert_eq!(lxd.target("x"), fingerprint(&[&bytes]));
}

/// A public image of about this size.
fn large(server: &Server, name: &str, mib: usize, split: bool) -> String {
    if split {
        let metadata = Recipe::new(name).metadata(Compression::Xz);
        let root = big::root(Vec::new(), mib, Compression::Plain).unwrap();
        let files = [("m.tar.xz", &metadata), ("r.tar", &root)]
            .map(|(part, bytes)| server.daemon.file(&format!("{name}.{part}"), bytes));
        let [metadata_file, root_file] = files.each_ref().map(|file| shown(file));
        let line = format!("image import {metadata_file} {root_file} --alias {name} --public");
        server.daemon.lxc(&line).ok();
        fingerprint(&[&metadata, &root])
    } else {
        let bytes = big::unified(Vec::new(), name, mib, Compression::Plain).unwrap();
        let file = server.daemon.file(&format!("{name}.tar"), &bytes);
        server.daemon.lxc(&format!("image import {} --alias {name} --public", shown(&file))).ok();
        fingerprint(&[&bytes])
    }
}

fn size(server: &Server, fingerprint: &str) -> u64 {
    server.image(fingerprint)["size"].as_u64().unwrap()
}

#[test]
fn fifty_clients_are_one_download_and_later_ones_none() {
    let (a, b) = (Server::ours(), Server::ours());
    let image = large(&a, "big", 8, false);
    let wire = Wire::to(a.port);
    wire.slow_to(16 << 20);
    let request = Server::pull_from(&a, wire.port(), "big");
    thread::scope(|scope| {
        let pulls: Vec<_> = (0..50).map(|_| scope.spawn(|| b.pull(&request))).collect();
        for pull in pulls {
            let ended = pull.join().unwrap();
            assert_eq!(ended["status"], "Success", "{ended}");
            assert_eq!(ended["metadata"]["fingerprint"], image);
        }
    });
    let size = size(&a, &image);
    assert!(wire.bytes() < size + size / 4 + (1 << 20), "{} of {size}", wire.bytes());

    let before = wire.bytes();
    assert_eq!(b.pull(&request)["status"], "Success");
    assert!(wire.bytes() - before < 20_000, "only the alias is asked for");
    let connections = wire.connections();
    assert_eq!(b.pull(&Server::pull_from(&a, wire.port(), &image))["status"], "Success");
    assert_eq!(wire.connections(), connections, "by fingerprint nothing is asked");
}

#[test]
fn a_wire_that_is_cut_ten_times_delivers_all_the_same() {
    let b = Server::ours();
    for (a, split) in [(Server::ours(), false), (Server::ours(), true), (Server::lxd(), false)] {
        let image = large(&a, "big", 24, split);
        let size = size(&a, &image);
        let wire = Wire::to(a.port);
        wire.cut(10, size / 12);
        let ended = b.pull(&Server::pull_from(&a, wire.port(), "big"));
        assert_eq!(ended["status"], "Success", "{ended}");
        assert!(wire.cuts_left() <= 0);
        // What was under way at a cut may come twice.
        let most = size + size / 4 + 10 * (2 << 20);
        assert!(wire.bytes() < most, "{} bytes for {size}", wire.bytes());
        b.daemon.lxc(&format!("image delete {image}")).ok();
    }
}

#[test]
fn a_split_image_of_a_real_lxd_arrives_over_a_wire_that_is_cut() {
    let (a, b) = (Server::lxd(), Server::ours());
    let image = large(&a, "big", 8, true);
    let wire = Wire::to(a.port);
    wire.cut(2, size(&a, &image) / 2);
    let ended = b.pull(&Server::pull_from(&a, wire.port(), "big"));
    assert_eq!(ended["status"], "Success", "{ended}");
    assert!(b.has(&image));
}

#[test]
fn a_pull_goes_on_after_a_restart() {
    let (a, mut b) = (Server::ours(), Server::ours());
    for split in [false, true] {
        let image = large(&a, if split { "split" } else { "unified" }, 24, split);
        let size = size(&a, &image);
        let wire = Wire::to(a.port);
        wire.slow_to(24 << 20);
        let request = Server::pull_from(&a, wire.port(), &image);
        b.daemon.http().json("POST", "/1.0/images", &request).expect(202);
        wait::until("half of it", || b.daemon.bytes_in("partial") > size / 2);
        if split {
            b.daemon.kill();
        } else {
            assert!(b.daemon.stop().success());
        }
        let kept = b.daemon.bytes_in("partial");
        assert!(kept > size / 2, "{kept} of {size}");
        b.daemon.launch();
        let before = wire.bytes();
        let ended = b.pull(&request);
        assert_eq!(ended["status"], "Success", "{ended}");
        let again = wire.bytes() - before;
        assert!(again < size - kept + (4 << 20), "{again} bytes for {}", size - kept);
        assert_eq!(b.daemon.files_in("partial"), [""; 0]);
    }
}

#[test]
fn a_pull_that_does_not_fit_fails_alone() {
    if !tool::is_root() {
        eprintln!("SKIPPED: mounting a small tmpfs needs root");
        return;
    }
    let a = Server::ours();
    let (small, big) = (a.import("small", "--public"), large(&a, "big", 100, false));
    let mut daemon = Daemon::prepare(Kind::Ours, wait::Turn::shared());
    let options = Some(c"size=64m,mode=711");
    mount("lxdt", daemon.dir(), "tmpfs", MountFlags::empty(), options).expect("mount a tmpfs");
    let _mounted = Mounted(daemon.dir());
    daemon.launch();
    let b = Server::open(daemon);
    let ended = b.pull(&Server::pull_from(&a, a.port, &big));
    assert_eq!(ended["status"], "Failure");
    assert!(ended["err"].as_str().unwrap().contains("no space left"), "{ended}");
    assert_eq!(b.daemon.files_in("partial"), [""; 0]);
    assert_eq!(b.pull(&Server::pull_from(&a, a.port, &small))["status"], "Success");
}

/// A mounted tmpfs; gone when dropped.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Hands `image` out as the two headers say, over https with `server`'s certificate.
const WEB_SERVER: &str = r#"
import http.server, ssl, sys
directory, port, digest = sys.argv[1:]
image = open(directory + "/image", "rb").read()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        asked = self.headers.get("LXD-Server-Architectures", "") + self.headers.get("LXD-Server-Version", "")
        self.send_response(200 if asked else 400)
        self.send_header("LXD-Image-Hash", digest)
        scheme = "http" if "clear" in self.path else "https"
        self.send_header("LXD-Image-URL", f"{scheme}://127.0.0.1:{port}/image.tar.gz")
        self.end_headers()
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(image)))
        self.end_headers()
        self.wfile.write(image)
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", int(port)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(directory + "/crt", directory + "/key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

#[test]
fn an_image_behind_a_url_is_imported_when_its_hash_is_right() {
    let a = Server::ours();
    let mut daemon = Daemon::prepare(Kind::Ours, wait::Turn::shared());
    let trusted = daemon.file("web/crt", a.certificate().as_bytes());
    daemon.set_env("SSL_CERT_FILE", shown(&trusted));
    daemon.launch();
    let key = std::fs::read(a.daemon.dir().join("server.key")).unwrap();
    daemon.file("web/key", &key);
    let bytes = Recipe::new("web").property("os", "tiny").unified(Compression::Gz);
    let web = daemon.file("web/image", &bytes);
    let script = daemon.file("web/server.py", WEB_SERVER.as_bytes());
    let (right, wrong) = (fingerprint(&[&bytes]), fingerprint(&[&noise(1, 10)]));
    let directory = web.parent().unwrap();
    for (hash, good) in [(&wrong, false), (&right, true)] {
        let port = free_port();
        let line = format!("{} {} {port} {hash}", shown(&script), shown(directory));
        let server = system("python3", &line).spawn();
        wait::until("the web server", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        let import = |path: &str| {
            daemon.lxc(&format!("image import https://127.0.0.1:{port}/{path} --alias web"))
        };
        if good {
            import("clear").fails().complains("https");
            import("x").ok().says(&right);
            let image = daemon.http().metadata(&format!("/1.0/images/{right}"));
            assert_eq!(image["properties"]["os"], "tiny");
            assert_eq!(image["architecture"], "x86_64");
            assert_eq!(image["created_at"], "2016-03-15T11:10:00Z");
        } else {
            import("x").fails();
            assert_eq!(daemon.http().metadata("/1.0/images"), json!([]));
            assert_eq!(daemon.files_in("partial"), [""; 0]);
        }
        server.signal(rustix::process::Signal::KILL);
        server.wait();
    }
    // A web server is no remote and no LXD server, and is not spoken of as one.
    let gone = daemon.lxc(&format!("image import https://127.0.0.1:{}/x", free_port())).fails();
    let gone = gone.complains("Unable to connect to");
    daemon.set_env("SSL_CERT_FILE", "/dev/null");
    assert!(daemon.stop().success());
    daemon.launch();
    let strange = daemon.lxc(&format!("image import https://127.0.0.1:{}/x", a.port)).fails();
    for done in [gone, strange.complains("vouch")] {
        assert!(!done.stderr.contains("LXD server") && !done.stderr.contains("remote"), "{done}");
    }
    // Plain http is not even asked.
    daemon.lxc("image import http://127.0.0.1:1/x").fails();
    let source = json!({"source": {"type": "url", "url": "file:///etc/passwd"}});
    daemon.http().json("POST", "/1.0/images", &source).refuses(400, "https");
}
