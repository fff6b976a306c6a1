//! The daemon as a simplestreams server: real `lxc` and `lxd-cli` list and copy from it, real LXD
//! and our daemon take its images, and readers never see it half changed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lxd_tests::client::{Client, shown};
use lxd_tests::daemon::{Daemon, Kind};
use lxd_tests::fixtures::{Compression, Recipe, fingerprint};
use lxd_tests::server::{Server, trusting};
use lxd_tests::streams::Tree;
use lxd_tests::wait::{self, PATIENCE, Turn};
use lxd_tests::web::{Authority, Web};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

/// Changes that readers watch; the long form is for a machine with time: `LXD_TEST_LONG=1`.
fn changes() -> usize {
    if std::env::var_os("LXD_TEST_LONG").is_some() { 500 } else { 100 }
}

/// A real LXD that trusts `authority`, with a storage pool.
fn real_lxd(authority: &Authority) -> Daemon {
    let mut lxd = Daemon::prepare(Kind::Lxd, Turn::shared());
    let file = lxd.file("authority.crt", authority.pem().as_bytes());
    lxd.set_env("SSL_CERT_FILE", shown(&file));
    lxd.launch();
    lxd.lxc("storage create default dir").ok();
    lxd
}

fn add_to(publisher: &Server, daemon: &Daemon) {
    let line = format!("remote add s {} --protocol simplestreams", publisher.address());
    trusting(daemon, daemon.lxc(&line)).ok();
}

/// What an image is called, what it is, and its fingerprint.
type Known = (&'static str, &'static str, String);

/// One image of each kind that can be published, and one that is private.
fn fill(publisher: &Server) -> Vec<Known> {
    let work = tempfile::tempdir().unwrap();
    let squashfs = Recipe::new("squash").property("os", "Tiny").property("release", "1");
    let (metadata, root) =
        (squashfs.metadata(Compression::Xz), squashfs.root_squashfs(work.path()));
    let squash = publisher.import_split_bytes("tiny/1", (&metadata, &root), "--public");
    let disk = Recipe::new("disk").property("os", "Tiny").property("release", "1");
    let (metadata, root) = (disk.metadata(Compression::Gz), disk.root_qcow2());
    let machine = publisher.import_split_bytes("machine", (&metadata, &root), "--public");
    let tarball = Recipe::new("tarball").property("os", "Tiny").property("release", "2");
    let (metadata, root) = (tarball.metadata(Compression::Xz), tarball.root(Compression::Xz));
    let split = publisher.import_split_bytes("tiny/2", (&metadata, &root), "--public");
    let unified = publisher.import("unified", "--public");
    publisher.import("hidden", "");
    vec![
        ("tiny/1", "container", squash),
        ("machine", "virtual-machine", machine),
        ("tiny/2", "container", split),
        ("unified", "container", unified),
    ]
}

#[test]
fn both_clients_list_what_is_public() {
    let authority = Authority::new();
    let publisher = Server::vouched(&authority);
    let known = fill(&publisher);
    let reader = Server::trusting(&authority, &[]);
    add_to(&publisher, &reader);
    for which in Client::both() {
        let run = |line: &str| trusting(&reader, reader.client(which, line));
        let list: Value = serde_json::from_str(&run("image list s: -f json").ok().stdout).unwrap();
        let mut listed: Vec<(String, String, u64, String)> = Vec::new();
        for image in list.as_array().unwrap() {
            let text = |key: &str| image[key].as_str().unwrap().to_owned();
            let size = image["size"].as_u64().unwrap();
            listed.push((text("fingerprint"), text("type"), size, text("architecture")));
        }
        let mut expected: Vec<_> = known
            .iter()
            .map(|(_, kind, fingerprint)| {
                let size = publisher.size(fingerprint);
                (fingerprint.clone(), (*kind).to_owned(), size, "x86_64".to_owned())
            })
            .collect();
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected);
        for (alias, _, fingerprint) in &known {
            let info = run(&format!("image info s:{alias}")).ok();
            info.says(fingerprint);
        }
        run("image info s:hidden").fails();
        // A pinned certificate is as good as an authority that vouches for it.
        let pinned = reader.work().join("pinned");
        std::fs::create_dir_all(pinned.join("servercerts")).unwrap();
        std::fs::write(pinned.join("servercerts/p.crt"), publisher.certificate()).unwrap();
        let address = publisher.address();
        let remote = format!("{{addr: \"{address}\", protocol: simplestreams, public: true}}");
        std::fs::write(pinned.join("config.yml"), format!("remotes: {{p: {remote}}}\n")).unwrap();
        let list = reader.client(which, "image list p: -f csv -c F").env("LXD_CONF", &pinned);
        list.ok().says(&known[0].2);
    }
}

#[test]
fn images_are_copied_under_their_fingerprints() {
    let authority = Authority::new();
    let publisher = Server::vouched(&authority);
    let known = fill(&publisher);
    for which in Client::both() {
        let ours = Server::ours_with(&authority, &[]);
        add_to(&publisher, &ours.daemon);
        for (alias, kind, fingerprint) in &known {
            let machine = if *kind == "virtual-machine" { " --vm" } else { "" };
            let line = format!("image copy s:{alias} local: --alias {alias}{machine}");
            trusting(&ours.daemon, ours.daemon.client(which, &line)).ok();
            assert_eq!(ours.target(alias), *fingerprint);
            ours.cli(&format!("image verify {alias}")).ok();
        }
    }
    let lxd = real_lxd(&authority);
    add_to(&publisher, &lxd);
    for (alias, kind, fingerprint) in &known {
        let machine = if *kind == "virtual-machine" { " --vm" } else { "" };
        let line = format!("image copy s:{alias} local: --alias {alias}{machine}");
        trusting(&lxd, lxd.lxc(&line)).ok();
        let image = lxd.http().metadata(&format!("/1.0/images/{fingerprint}"));
        assert_eq!(image["type"], *kind);
        assert_eq!(image["size"], publisher.image(fingerprint)["size"]);
    }
}

#[test]
fn versions_of_an_image_are_versions_of_its_product() {
    let authority = Authority::new();
    let (web, mut tree) = (Web::start(&authority), Tree::default());
    let mut build = |serial: &str| {
        let recipe = Recipe::new(serial).property("os", "Tiny");
        let (metadata, root) = (recipe.metadata(Compression::Xz), recipe.root(Compression::Xz));
        let fingerprint = tree.split("tiny:1", serial, &metadata, ("root.tar.xz", &root));
        web.publish(tree.files());
        fingerprint
    };
    let publisher = Server::vouched(&authority);
    let first = build("20260101_0000");
    let line = format!("remote add up {} --protocol simplestreams", web.address());
    publisher.lxc(&line).ok();
    publisher.lxc("image copy up:tiny local: --alias tiny --auto-update --public").ok();
    let second = build("20260201_0000");
    wait::until("the new build", || {
        publisher.lxc("image refresh tiny").ok();
        publisher.target("tiny") == second
    });
    let catalog: Value = publisher.daemon.http().get("/streams/v1/images.json").expect(200).json();
    let products = catalog["products"].as_object().unwrap();
    assert_eq!(products.len(), 1, "{catalog}");
    let product = products.values().next().unwrap();
    let serials: Vec<_> = product["versions"].as_object().unwrap().keys().collect();
    assert_eq!(serials, ["20260101_0000", "20260201_0000"]);
    let reader = Server::ours_with(&authority, &[]);
    add_to(&publisher, &reader.daemon);
    reader.lxc("image copy s:tiny local: --alias newest").ok();
    reader.lxc(&format!("image copy s:{first} local: --alias older")).ok();
    assert_eq!((reader.target("newest"), reader.target("older")), (second, first));
}

#[test]
fn an_image_is_imported_by_its_alias_in_a_url() {
    let authority = Authority::new();
    let publisher = Server::vouched(&authority);
    let image = publisher.import("tiny/web", "--public");
    publisher.import("hidden", "");
    let lxd = real_lxd(&authority);
    for which in Client::both() {
        let ours = Server::trusting(&authority, &[]);
        for daemon in [&ours, &lxd] {
            let import = |alias: &str| {
                let line = format!("image import {}/lxd/{alias}", publisher.address());
                trusting(daemon, daemon.client(which, &line))
            };
            import("tiny/web").ok().says(&image);
            let got = daemon.http().metadata(&format!("/1.0/images/{image}"));
            assert_eq!(got["properties"]["os"], "tiny");
            import("hidden").fails();
            import("nothing").fails();
            daemon.lxc(&format!("image delete {image}")).ok();
        }
    }
}

/// Reads from a server over TLS, a connection for each request, as Go's clients do.
#[derive(Clone)]
struct Reader {
    port: u16,
    config: Arc<ClientConfig>,
}

impl Reader {
    fn new(publisher: &Server, authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { port: publisher.port, config: Arc::new(config) }
    }

    /// Status and body.
    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let session = ClientConnection::new(self.config.clone(), name).unwrap();
        let mut stream = StreamOwned::new(session, stream);
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer[end + 4..].to_vec();
        let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
        assert_eq!(length.trim(), body.len().to_string(), "{path} is cut");
        (status, body)
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}");
        serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{path} is broken: {e}"))
    }

    /// Paths of all files in the catalog that the index names, with what they hash to.
    fn files(&self) -> BTreeMap<String, String> {
        let index = self.json("/streams/v1/index.json");
        let path = index["index"]["images"]["path"].as_str().unwrap().to_owned();
        let catalog = self.json(&format!("/{path}"));
        let mut files = BTreeMap::new();
        for product in catalog["products"].as_object().unwrap().values() {
            for version in product["versions"].as_object().unwrap().values() {
                for item in version["items"].as_object().unwrap().values() {
                    let text = |key: &str| item[key].as_str().unwrap().to_owned();
                    files.insert(text("path"), text("sha256"));
                }
            }
        }
        files
    }

    /// All files of a catalog are there and are what it says.
    fn fetch(&self, files: &BTreeMap<String, String>) {
        for (path, sha256) in files {
            let (status, body) = self.get(&format!("/{path}"));
            assert_eq!(status, 200, "{path} is listed in a catalog that is not old");
            assert_eq!(fingerprint(&[&body]), *sha256, "{path}");
        }
    }
}

#[test]
fn readers_never_see_a_broken_catalog_or_miss_a_file() {
    let authority = Authority::new();
    let publisher = Server::vouched(&authority);
    let reader = Reader::new(&publisher, &authority);
    publisher.import("first", "--public");
    let oldest = reader.files();
    let (done, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let http = publisher.daemon.http();
    let slowest = Mutex::new(Duration::ZERO);
    let guest = Server::trusting(&authority, &[]);
    add_to(&publisher, &guest);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let files = reader.files();
                    reader.fetch(&files);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                trusting(&guest, guest.lxc("image list s: -f csv")).ok();
            }
        });
        scope.spawn(|| {
            // Ends the readers also when an assertion fails here.
            let _end = Ending(&done);
            let mut kept = Vec::new();
            for change in 0..changes() {
                let begin = if change % 2 == 0 {
                    let image = Recipe::new(&format!("image{change}")).unified(Compression::Gz);
                    let alias = format!("alias=name{}", change % 10);
                    let headers = [
                        ("X-LXD-public", "true"),
                        ("X-LXD-aliases", alias.as_str()),
                        ("X-LXD-alias-reuse", "true"),
                    ];
                    let end = http.upload(&image, &headers);
                    assert_eq!(end["status_code"], 200, "{end}");
                    kept.push(fingerprint(&[&image]));
                    Instant::now()
                } else {
                    let gone = kept.remove(change % kept.len());
                    let path = format!("/1.0/images/{gone}");
                    let end = http.finish(&http.json("DELETE", &path, &Value::Null));
                    assert_eq!(end["status_code"], 200, "{end}");
                    Instant::now()
                };
                let files = reader.files();
                let took = begin.elapsed();
                let mut slowest = slowest.lock().unwrap();
                *slowest = slowest.max(took);
                let listed: Vec<_> = files.values().cloned().collect();
                for fingerprint in &kept {
                    assert!(listed.contains(fingerprint), "change {change} is not to be seen");
                }
                assert_eq!(listed.len(), kept.len() + 1, "change {change}");
            }
        });
    });
    reader.fetch(&oldest);
    let slowest = *slowest.lock().unwrap();
    let rounds = rounds.load(Ordering::Relaxed);
    eprintln!("{} changes, {rounds} rounds of readers, visible after {slowest:?}", changes());
    assert!(rounds > 3, "nobody has read");
    assert!(slowest < Duration::from_secs(1), "a change was seen after {slowest:?} only");
}

/// Says that all is over, however.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_was_deleted_is_served_over_a_crash_and_what_is_private_is_not() {
    let authority = Authority::new();
    let mut publisher = Server::vouched(&authority);
    let (gone, hidden) =
        (publisher.import("gone", "--public"), publisher.import("hidden", "--public"));
    let path = |fingerprint: &str| format!("/images/{fingerprint}/lxd_combined.tar.gz");
    let reader = Reader::new(&publisher, &authority);
    publisher.lxc("image delete gone").ok();
    let http = publisher.daemon.http();
    http.json("PATCH", &format!("/1.0/images/{hidden}"), &json!({ "public": false })).expect(200);
    for crashed in [false, true] {
        if crashed {
            publisher.daemon.kill();
            publisher.daemon.launch();
            let address = ("127.0.0.1", publisher.port);
            wait::until("the port is open", || TcpStream::connect(address).is_ok());
        }
        let (status, body) = reader.get(&path(&gone));
        assert_eq!((status, fingerprint(&[&body])), (200, gone.clone()));
        let private = reader.get(&path(&hidden));
        let missing = reader.get(&path(&"0".repeat(64)));
        assert_eq!(private, missing);
        assert_eq!(private.0, 404);
        assert!(reader.files().is_empty());
    }
    let check = {
        publisher.daemon.stop();
        publisher.daemon.imaged("fsck").ok()
    };
    check.says("the store is sound");
}
