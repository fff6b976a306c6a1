//! A simplestreams server as a remote (P6, C1-C4): real `lxc` and `lxd-cli`, our daemon and a real
//! LXD beside it on the same tree.

use lxd_tests::client::{Client, shown, system};
use lxd_tests::daemon::{Daemon, Kind};
use lxd_tests::fixtures::{Compression, Recipe, noise, squashfs};
use lxd_tests::server::{Server, trusting};
use lxd_tests::streams::Tree;
use lxd_tests::wait::{self, Turn};
use lxd_tests::web::{Authority, Fault, Web};
use serde_json::{Value, json};

/// A tree with two products, and what serves it.
struct Streams {
    authority: Authority,
    web: Web,
    tree: Tree,
}

impl Streams {
    fn start() -> Self {
        let authority = Authority::new();
        let web = Web::start(&authority);
        let mut streams = Self { authority, web, tree: Tree::default() };
        streams.build("debian:12", "20260101_0000");
        streams.build("alpine:3", "20260101_0000");
        streams
    }

    /// A split image with a squashfs and a tarball as its root; the squashfs' fingerprint.
    fn build(&mut self, product: &str, serial: &str) -> String {
        let recipe = Recipe::new(&format!("{}-{serial}", product.replace(':', "-")));
        let work = tempfile_dir();
        let (metadata, squashfs) =
            (recipe.metadata(Compression::Xz), recipe.root_squashfs(work.path()));
        let fingerprint = self.tree.split(product, serial, &metadata, ("squashfs", &squashfs));
        self.web.publish(self.tree.files());
        fingerprint
    }

    /// Makes it the remote `s` of a server's clients.
    fn add_to(&self, daemon: &Daemon) {
        let line = format!("remote add s {} --protocol simplestreams", self.web.address());
        trusting(daemon, daemon.lxc(&line)).ok();
    }
}

fn tempfile_dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn client(daemon: &Daemon, client: Client, line: &str) -> lxd_tests::client::Invocation {
    trusting(daemon, daemon.client(client, line))
}

/// Go prints a list that was never filled as null.
fn lists(mut images: Value) -> Value {
    for image in images.as_array_mut().unwrap() {
        if image["profiles"].is_null() {
            image["profiles"] = json!([]);
        }
    }
    images
}

#[test]
fn both_clients_show_the_same_of_it() {
    let streams = Streams::start();
    let daemon = Server::trusting(&streams.authority, &[]);
    streams.add_to(&daemon);
    for line in [
        "image list s: --format json",
        "image list s:debian --format json",
        "image list s: os=alpine --format csv -c lfpdats",
        "image alias list s: --format csv",
        "image show s:debian/12",
        "image list s: --format yaml",
    ] {
        let theirs = client(&daemon, Client::Lxc, line).ok().stdout;
        let ours = client(&daemon, Client::Cli, line).ok().stdout;
        match (serde_json::from_str::<Value>(&theirs), serde_json::from_str::<Value>(&ours)) {
            (Ok(theirs), Ok(ours)) => assert_eq!(lists(ours), lists(theirs), "{line}"),
            _ => assert_eq!(ours, theirs, "{line}"),
        }
    }
    // What is known already is asked for in one question, and the answer is that it still holds.
    streams.web.asked();
    streams.web.body_bytes();
    client(&daemon, Client::Cli, "image list s:").ok();
    let asked: Vec<u16> = streams.web.asked().iter().map(|asked| asked.status).collect();
    assert_eq!((asked, streams.web.body_bytes()), (vec![304], 0));
    for which in Client::both() {
        let info = client(&daemon, which, "image info s:debian").ok();
        info.says("Debian 12 amd64 (20260101_0000)".to_lowercase().as_str()).says("squashfs");
        client(&daemon, which, "image info s:nothing").fails();
        client(&daemon, which, "image delete s:debian").fails();
    }
}

#[test]
fn what_is_shown_from_the_cache_is_told_to_be_old() {
    let streams = Streams::start();
    let daemon = Server::trusting(&streams.authority, &[]);
    streams.add_to(&daemon);
    let fresh = client(&daemon, Client::Cli, "image list s: -f csv").ok();
    assert_eq!(fresh.stderr, "");
    drop(streams.web);
    for line in ["image list s: -f csv", "image info s:debian", "image alias list s:"] {
        let old = client(&daemon, Client::Cli, line).ok();
        assert_eq!(old.stderr.matches("Warning: ").count(), 1, "{old}");
        let old = old.complains("shown as last seen").complains("server https://127.0.0.1");
        if line.starts_with("image list") {
            assert_eq!(old.stdout, fresh.stdout);
        }
    }
}

#[test]
fn images_are_copied_by_alias_and_by_fingerprint() {
    let mut streams = Streams::start();
    let debian = streams.build("debian:12", "20260102_0000");
    for which in Client::both() {
        let server = Server::ours_with(&streams.authority, &[]);
        streams.add_to(&server.daemon);
        let run = |line: &str| client(&server.daemon, which, line);
        run("image copy s:debian local: --alias one --alias two --copy-aliases --public").ok();
        assert_eq!(server.target("one"), debian);
        assert_eq!(server.target("two"), debian);
        assert_eq!(server.target("debian/12"), debian);
        let image = server.image(&debian);
        assert_eq!(image["public"], true);
        assert_eq!(image["properties"]["os"], "debian");
        assert_eq!(image["properties"]["serial"], "20260102_0000");
        run(&format!("image delete {}", &debian[..12])).ok();
        run(&format!("image copy s:{debian} local: --alias three")).ok();
        run(&format!("image copy s:{} local: --alias four", &debian[..12])).ok();
        assert_eq!(server.target("four"), debian);
        run("image copy s:nothing local:").fails();
    }
}

/// The parts of an image object that tell what was copied, not when or by whom.
fn content(image: &Value) -> Value {
    let mut image = image.clone();
    let object = image.as_object_mut().unwrap();
    // The name of the file is told by the catalog; LXD 5.0.2 forgets it.
    for key in ["uploaded_at", "last_used_at", "refresh", "filename"] {
        object.remove(key);
    }
    if let Some(source) = image.get_mut("update_source").and_then(Value::as_object_mut) {
        source.remove("server");
    }
    image
}

#[test]
fn a_copy_is_recorded_as_a_real_lxd_records_it() {
    let streams = Streams::start();
    let ours = Server::trusting(&streams.authority, &[]);
    let theirs = {
        let mut lxd = Daemon::prepare(Kind::Lxd, Turn::shared());
        let file = lxd.file("authority.crt", streams.authority.pem().as_bytes());
        lxd.set_env("SSL_CERT_FILE", file.to_str().unwrap());
        lxd.launch();
        lxd.lxc("storage create default dir").ok();
        lxd
    };
    let mut recorded = Vec::new();
    for daemon in [&ours, &theirs] {
        streams.add_to(daemon);
        let line = "image copy s:debian local: --alias x --auto-update";
        client(daemon, Client::Lxc, line).ok();
        let images = daemon.http().metadata("/1.0/images?recursion=1");
        recorded.push(content(&images[0]));
    }
    assert_eq!(recorded[0], recorded[1]);
}

#[test]
fn a_new_build_replaces_the_copy_and_can_be_taken_back() {
    for which in Client::both() {
        let mut streams = Streams::start();
        let server = Server::ours_with(&streams.authority, &[]);
        streams.add_to(&server.daemon);
        let run = |line: &str| client(&server.daemon, which, line);
        run("image copy s:debian local: --alias debian --auto-update").ok();
        let first = server.target("debian");
        run("image set-property debian note mine").ok();
        run("image refresh debian").ok();
        assert_eq!(server.target("debian"), first);

        let second = streams.build("debian:12", "20260201_0000");
        // An answer of this very second is taken as current.
        wait::until("the new build", || {
            run("image refresh debian").ok();
            server.target("debian") == second
        });
        let image = server.image(&second);
        assert_eq!(image["properties"]["note"], "mine");
        assert_eq!(image["properties"]["serial"], "20260201_0000");
        assert_eq!(image["auto_update"], true);
        run("image list local: --format csv -c f").ok().says_not(&first[..12]);

        let history = server.cli("image history debian").ok();
        history.says(&second[..12]).says(&first[..12]);
        server.cli("image rollback debian").ok();
        assert_eq!(server.target("debian"), first);
        let third = streams.build("debian:12", "20260301_0000");
        wait::until("the next build", || {
            run("image refresh debian").ok();
            server.target("debian") == third
        });

        // What was known of a server that is in trouble is no answer to "is there a newer one?".
        streams.web.fault("/streams/v1/images.json", Fault::Status(503));
        wait::until("a failed check", || run("image refresh debian").run().code != 0);
        let why = server.image(&third)["refresh"]["error"].to_string();
        assert!(why.contains("503"), "{why}");
        streams.web.fault("/streams/v1/images.json", None);

        // The server forgets about it all: nothing changes here, and why is told.
        for serial in ["20260101_0000", "20260201_0000", "20260301_0000"] {
            streams.tree.withdraw("debian:12", serial);
        }
        streams.web.publish(streams.tree.files());
        wait::until("a failure", || run("image refresh debian").run().code != 0);
        assert_eq!(server.target("debian"), third);
        let image = server.image(&third);
        assert!(image["refresh"]["error"].is_string(), "{image}");
        server.cli("image info debian").ok().says("Last error: ");
    }
}

/// A split image whose squashfs has one large file and one that tells builds apart.
fn build_with_delta(streams: &mut Streams, serial: &str, base: Option<(&str, &[u8])>) -> Vec<u8> {
    let work = tempfile_dir();
    let tree = work.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("big"), noise(5, 2 << 20)).unwrap();
    std::fs::write(tree.join("serial"), serial).unwrap();
    let root = squashfs(&tree);
    let metadata = Recipe::new(serial).metadata(Compression::Xz);
    streams.tree.split("delta:1", serial, &metadata, ("squashfs", &root));
    if let Some((base, bytes)) = base {
        let [old, new, delta] = ["old", "new", "delta"].map(|name| work.path().join(name));
        std::fs::write(&old, bytes).unwrap();
        std::fs::write(&new, &root).unwrap();
        let line = format!("-e -S none -s {} {} {}", shown(&old), shown(&new), shown(&delta));
        system("xdelta3", &line).ok();
        let delta = std::fs::read(delta).unwrap();
        assert!(delta.len() < root.len() / 4, "{} of {}", delta.len(), root.len());
        streams.tree.delta("delta:1", serial, base, &delta);
    }
    streams.web.publish(streams.tree.files());
    root
}

#[test]
fn a_new_build_comes_as_a_difference_where_that_helps() {
    let mut streams = Streams::start();
    let server = Server::ours_with(&streams.authority, &[]);
    streams.add_to(&server.daemon);
    let first = build_with_delta(&mut streams, "20260101_0000", None);
    server.lxc("image copy s:delta local: --alias x --auto-update").ok();
    let one = server.target("x");
    let second = build_with_delta(&mut streams, "20260102_0000", Some(("20260101_0000", &first)));
    let paths = |streams: &Streams| -> Vec<String> {
        let asked = streams.web.asked();
        let files = asked.into_iter().filter(|asked| asked.path.starts_with("/images/"));
        files.map(|asked| asked.path.rsplit('/').next().unwrap_or_default().to_owned()).collect()
    };
    let refresh = |server: &Server, old: &str| {
        wait::until("the new build", || {
            server.lxc("image refresh x").ok();
            server.target("x") != old
        });
    };
    paths(&streams);
    refresh(&server, &one);
    assert_eq!(paths(&streams), ["lxd.tar.xz", "squashfs.vcdiff"]);
    let two = server.target("x");
    server.cli("image verify x").ok();

    // A difference that is of no use: the whole file it is.
    let third = Some(("20260102_0000", &second[..]));
    build_with_delta(&mut streams, "20260103_0000", third);
    let path = Tree::path("delta:1", "20260103_0000", "squashfs.vcdiff");
    streams.web.fault(&path, Fault::WrongByte);
    refresh(&server, &two);
    let asked = paths(&streams);
    assert!(asked.contains(&"squashfs".to_owned()), "{asked:?}");
    server.cli("image verify x").ok();
}

#[test]
fn a_relayed_copy_of_a_simplestreams_image_reaches_a_server_that_sees_nothing() {
    let streams = Streams::start();
    // Our daemon here trusts nobody, so it cannot pull.
    let (local, blind) = (Server::ours_with(&streams.authority, &[]), Server::ours());
    streams.add_to(&local.daemon);
    local.add("blind", &blind);
    let list = client(&local.daemon, Client::Cli, "image list s:alpine --format csv -c F").ok();
    // Real lxc takes only a fingerprint when it relays from such a server.
    for (which, image, alias) in
        [(Client::Lxc, list.line(), "by-lxc"), (Client::Cli, "alpine", "by-cli")]
    {
        let line = format!("image copy s:{image} blind: --mode relay --alias {alias}");
        client(&local.daemon, which, &line).ok();
        let fingerprint = blind.target(alias);
        assert_eq!(blind.image(&fingerprint)["update_source"], json!(null));
        blind.lxc(&format!("image delete {alias}")).ok();
    }
    client(&local.daemon, Client::Lxc, "image copy s:alpine blind: --mode pull").fails();
}
