//! A tree on disk, built by `lxd-cli streams`, behind a web server that only hands out files.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lxd_tests::client::{Client, Invocation, shown};
use lxd_tests::daemon::{Daemon, Kind};
use lxd_tests::fixtures::{Compression, Recipe, fingerprint, noise, squashfs};
use lxd_tests::server::{Server, trusting};
use lxd_tests::wait::Turn;
use lxd_tests::web::{Authority, Web, files_below};
use rustix::process::Signal;
use serde_json::{Value, json};

/// What an image of `os` says about itself.
fn recipe(os: &str, serial: &str) -> Recipe {
    Recipe::new(os)
        .property("os", os)
        .property("release", "1")
        .property("variant", "default")
        .property("serial", serial)
}

/// A container as a builder leaves it: noise that all builds share, and one file that differs.
/// Its fingerprint.
fn built(home: &Path, os: &str, serial: &str) -> String {
    let directory = home.join(format!("out/{os}-{serial}"));
    let tree = home.join(format!("tree-{os}-{serial}"));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("big"), noise(5, 2 << 20)).unwrap();
    std::fs::write(tree.join("serial"), serial).unwrap();
    let (metadata, root) = (recipe(os, serial).metadata(Compression::Xz), squashfs(&tree));
    std::fs::write(directory.join("incus.tar.xz"), &metadata).unwrap();
    std::fs::write(directory.join("rootfs.squashfs"), &root).unwrap();
    std::fs::write(directory.join("image.yaml"), "image: {}\n").unwrap();
    fingerprint(&[&metadata, &root])
}

/// A directory with a tree in it, and what serves that.
struct Place {
    directory: tempfile::TempDir,
    authority: Authority,
    web: Web,
}

impl Place {
    fn new() -> Self {
        let authority = Authority::new();
        let web = Web::start(&authority);
        Self { directory: tempfile::tempdir().unwrap(), authority, web }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn tree(&self) -> PathBuf {
        self.path().join("tree")
    }

    fn cli(&self, line: &str) -> Invocation {
        let program = lxd_tests::tool::ours("lxd-cli");
        Invocation::new(&program, line).dir(self.path()).env("LXD_CONF", self.path().join("conf"))
    }

    fn serve(&self) {
        self.web.publish(files_below(&self.tree()));
    }

    /// Makes it the remote `s` of a daemon's clients.
    fn add_to(&self, daemon: &Daemon) {
        let line = format!("remote add s {} --protocol simplestreams", self.web.address());
        trusting(daemon, daemon.lxc(&line)).ok();
    }

    fn lxd(&self) -> Daemon {
        let mut lxd = Daemon::prepare(Kind::Lxd, Turn::shared());
        let file = lxd.file("authority.crt", self.authority.pem().as_bytes());
        lxd.set_env("SSL_CERT_FILE", shown(&file));
        lxd.launch();
        lxd.lxc("storage create default dir").ok();
        lxd
    }

    /// The file names that were asked for.
    fn asked(&self) -> BTreeSet<String> {
        let asked = self.web.asked().into_iter();
        asked
            .filter(|asked| asked.path.starts_with("/images/") && asked.status == 200)
            .map(|asked| asked.path.rsplit('/').next().unwrap_or_default().to_owned())
            .collect()
    }
}

fn run(daemon: &Daemon, which: Client, line: &str) -> Invocation {
    trusting(daemon, daemon.client(which, line))
}

#[test]
fn what_a_builder_leaves_is_read_by_all() {
    let place = Place::new();
    let container = built(place.path(), "tiny", "20260102_1300");
    built(place.path(), "tiny", "20260101_1300");
    let machine = recipe("machine", "20260101_1300");
    let vm = place.path().join("out/vm");
    std::fs::create_dir_all(&vm).unwrap();
    let (metadata, disk) = (machine.metadata(Compression::Xz), machine.root_qcow2());
    std::fs::write(vm.join("incus.tar.xz"), &metadata).unwrap();
    std::fs::write(vm.join("disk.qcow2"), &disk).unwrap();
    let whole = recipe("whole", "20260101_1300").unified(Compression::Gz);
    std::fs::write(place.path().join("out/whole.tar.gz"), &whole).unwrap();
    place.cli("streams build tree --from out").ok().says("Published: 3 products");
    place.serve();

    let ours = Server::ours_with(&place.authority, &[]);
    let theirs = place.lxd();
    let (machine, whole) = (fingerprint(&[&metadata, &disk]), fingerprint(&[&whole]));
    for daemon in [&ours.daemon, &theirs] {
        place.add_to(daemon);
        let lists: Vec<Value> = [Client::Lxc, Client::Cli]
            .map(|which| run(daemon, which, "image list s: --format json").ok().json())
            .map(|list| {
                let images = list.as_array().unwrap().iter();
                let told = |image: &Value| {
                    // Go prints a list that was never filled as null.
                    let aliases = image["aliases"].as_array().cloned().unwrap_or_default();
                    json!([image["fingerprint"], image["type"], image["size"], aliases])
                };
                images.map(told).collect::<Vec<_>>().into()
            })
            .into();
        assert_eq!(lists[0], lists[1]);
        assert_eq!(lists[0].as_array().unwrap().len(), 4);
        for (line, expected) in [
            ("s:tiny/1", &container),
            ("s:machine/1 --vm", &machine),
            ("s:whole/1/default", &whole),
        ] {
            run(daemon, Client::Lxc, &format!("image copy {line} local: --alias x")).ok();
            let alias = daemon.http().metadata("/1.0/images/aliases/x");
            assert_eq!(alias["target"], json!(expected));
            daemon.lxc("image delete x").ok();
        }
    }
    place.cli("streams verify tree").ok().says("The tree is sound");
    let before = files_below(&place.tree());
    place.cli("streams build tree --from out").ok().says("Nothing has changed");
    assert_eq!(files_below(&place.tree()), before);
}

#[test]
fn a_real_lxd_applies_our_deltas_and_so_do_we() {
    let place = Place::new();
    let old = built(place.path(), "tiny", "20260101_1300");
    let new = built(place.path(), "tiny", "20260102_1300");
    place.cli("streams build tree --from out --deltas").ok().says("Delta: images/tiny/");
    place.serve();
    let (ours, theirs) = (Server::ours_with(&place.authority, &[]), place.lxd());
    for daemon in [&ours.daemon, &theirs] {
        place.add_to(daemon);
        run(daemon, Client::Lxc, &format!("image copy s:{old} local:")).ok();
        assert!(place.asked().contains("rootfs.squashfs"));
        run(daemon, Client::Lxc, &format!("image copy s:{new} local:")).ok();
        let expected = ["lxd.tar.xz", "rootfs.20260101_1300.vcdiff"].map(str::to_owned);
        assert_eq!(place.asked(), BTreeSet::from(expected));
        daemon.http().metadata(&format!("/1.0/images/{new}"));
    }
    ours.cli(&format!("image verify {new}")).ok();
}

#[test]
fn the_public_images_of_a_daemon_become_a_tree() {
    let place = Place::new();
    let server = Server::ours_with(&place.authority, &[]);
    let daemon = &server.daemon;
    for (name, flags) in [("one", "--public"), ("two", "--public"), ("three", "")] {
        let (metadata, root) = (
            recipe(name, "20260101_1300").metadata(Compression::Xz),
            Recipe::new(name).root(Compression::Gz),
        );
        daemon.file("meta.tar.xz", &metadata);
        daemon.file("root.tar.gz", &root);
        let line = format!("image import meta.tar.xz root.tar.gz --alias my/{name} {flags}");
        daemon.cli(&line).ok();
    }
    let tree = place.tree();
    let build = format!("streams build {} --from local:", shown(&tree));
    daemon.cli(&build).ok().says("Taken: one:1:amd64:default").says_not("three");
    place.serve();
    place.add_to(daemon);
    for name in ["one", "two"] {
        let here = server.target(&format!("my/{name}"));
        for alias in [format!("my/{name}"), format!("{name}/1")] {
            let there = run(daemon, Client::Lxc, &format!("image info s:{alias}")).ok();
            assert!(there.stdout.contains(&here), "{there}");
        }
    }
    let before = files_below(&tree);
    daemon.cli(&build).ok().says("2 images already present").says("Nothing has changed");
    assert_eq!(files_below(&tree), before);
    daemon.cli("image alias rename my/one my/first").ok();
    daemon.cli(&build).ok().says("Published");
    place.serve();
    // What is deleted there stays here until somebody takes it out.
    daemon.cli("image delete my/two").ok();
    let two = tree.join("images/two");
    daemon.cli(&build).ok().says("Still published: images/two/1/").says("remove its directory");
    assert!(two.is_dir());
    std::fs::remove_dir_all(two).unwrap();
    daemon.cli(&build).ok().says("Published: 1 product").says_not("Still published");
    // Without the daemon the names stay.
    std::fs::remove_dir_all(tree.join("streams")).unwrap();
    place.cli("streams build tree").ok();
    let catalog = std::fs::read_to_string(tree.join("streams/v1/images.json")).unwrap();
    assert!(catalog.contains("my/first") && !catalog.contains("my/one"), "{catalog}");
}

/// What a reader of the tree sees: the images of its catalog, each file as it is listed.
fn seen(tree: &Path) -> BTreeSet<String> {
    let read = |path: &str| std::fs::read(tree.join(path)).unwrap();
    let index: Value = serde_json::from_slice(&read("streams/v1/index.json")).unwrap();
    let path = index["index"]["images"]["path"].as_str().unwrap();
    let catalog: Value = serde_json::from_slice(&read(path)).unwrap();
    let mut seen = BTreeSet::new();
    for product in catalog["products"].as_object().unwrap().values() {
        for version in product["versions"].as_object().unwrap().values() {
            for item in version["items"].as_object().unwrap().values() {
                let bytes = read(item["path"].as_str().unwrap());
                assert_eq!(item["sha256"], json!(fingerprint(&[&bytes])), "{item}");
                let combined = item["combined_squashfs_sha256"].as_str();
                seen.extend(combined.map(str::to_owned));
            }
        }
    }
    seen
}

#[test]
fn a_build_that_is_killed_leaves_the_old_tree_or_the_new_one() {
    let place = Place::new();
    let mut old = BTreeSet::from([built(place.path(), "tiny", "20260101_0000")]);
    place.cli("streams build tree --from out --deltas").ok();
    assert_eq!(seen(&place.tree()), old);
    let mut killed = 0;
    for round in 2..=9_u32 {
        let mut new = old.clone();
        new.insert(built(place.path(), "tiny", &format!("2026010{round}_0000")));
        new.insert(built(place.path(), "other", &format!("2026010{round}_0000")));
        // Later and later, until one gets through.
        for pause in 0.. {
            let build = place.cli("streams build tree --from out --deltas").spawn();
            std::thread::sleep(Duration::from_millis(3 + pause * u64::from(round) * 4));
            build.signal(Signal::KILL);
            let ended = build.wait();
            let now = seen(&place.tree());
            assert!(now == old || now == new, "neither the old tree nor the new one: {ended}");
            killed += u32::from(ended.code != 0);
            if ended.code == 0 || pause > 40 {
                break;
            }
        }
        // Whatever it left, the next one ends well.
        place.cli("streams build tree --from out --deltas").ok();
        place.cli("streams verify tree").ok();
        assert_eq!(seen(&place.tree()), new);
        old = new;
    }
    assert!(killed >= 8, "only {killed} builds were killed");
}

#[test]
fn mistakes_are_told() {
    let place = Place::new();
    for line in ["streams", "streams build", "streams prune tree --keep 0", "streams verify a b"] {
        place.cli(line).exits(2);
    }
    place.cli("streams build tree --deltas=some").exits(2).complains("squashfs, all");
    place.cli("streams build tree --deltas all").exits(2).complains("--deltas=all");
    for line in ["streams verify nowhere", "streams prune nowhere"] {
        place.cli(line).fails().complains("nowhere is no directory");
    }
    assert!(!place.path().join("nowhere").exists());
    let empty = place.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    for line in ["streams prune empty", "streams prune empty --dry-run"] {
        place.cli(line).fails().complains("empty is no simplestreams tree");
    }
    let done = place.cli("streams build empty --deltas").env("PATH", "/nonexistent").fails();
    done.complains("install the package xdelta3");
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
    let done = place.cli("streams build tree --from nowhere").fails();
    done.complains("nowhere is no directory").complains("with its colon, from a remote");
    place.cli("streams build tree --from nobody:").fails().complains("doesn't exist");

    built(place.path(), "tiny", "20260101_1300");
    std::fs::create_dir_all(place.path().join("out/bad")).unwrap();
    std::fs::write(place.path().join("out/bad/rootfs.squashfs"), "hsqs and junk").unwrap();
    let done = place.cli("streams build tree --from out").fails().says("Published: 1 product");
    done.complains("out/bad/rootfs.squashfs: ").complains("1 thing could not be published");
    let done = place.cli("streams build tree --from out --format json").fails();
    assert_eq!(done.json()["broken"][0]["path"], "out/bad/rootfs.squashfs");

    let lock = File::open(place.tree().join(".lock")).unwrap();
    lock.lock().unwrap();
    for line in ["streams build tree", "streams prune tree", "streams verify tree"] {
        place.cli(line).fails().complains("another program is at work on the tree tree");
    }
    drop(lock);

    std::fs::rename(place.tree().join("images"), place.path().join("away")).unwrap();
    for line in ["streams build tree", "streams prune tree"] {
        place.cli(line).fails().complains("it lists products (1)").complains("--force");
    }
    std::fs::rename(place.path().join("away"), place.tree().join("images")).unwrap();
    place.cli("streams build tree").ok().says("Nothing has changed: 1 product");

    let root = place.tree().join("images/tiny/1/amd64/default/20260101_1300/rootfs.squashfs");
    std::fs::write(&root, "short").unwrap();
    std::fs::write(place.tree().join("streams/v1/index.json.gz"), "junk").unwrap();
    let done = place.cli("streams verify tree --format json").fails();
    let kinds: Vec<Value> =
        done.json()["faults"].as_array().unwrap().iter().map(|f| f["kind"].clone()).collect();
    // The documents come first.
    assert_eq!(kinds, [json!("twin"), json!("size")], "{done}");
    place.cli("streams verify tree").fails().complains("the tree has 2 faults");
}

#[test]
fn old_versions_go_after_a_while() {
    let place = Place::new();
    for day in 1..=3 {
        built(place.path(), "tiny", &format!("2026010{day}_1300"));
    }
    place.cli("streams build tree --from out --deltas").ok();
    let dry = place.cli("streams prune tree --keep 2 --dry-run").ok();
    dry.says("Would withdraw: images/tiny/1/amd64/default/20260101_1300: ")
        .says("it has 2 newer versions, the newest 2 are kept")
        .says("the version 20260101_1300 that it starts from is not published")
        .says("Nothing was changed");
    place.cli("streams prune tree --keep 2").ok().says("Withdrawn: ").says_not("Removed");
    let gone = place.tree().join("images/tiny/1/amd64/default/20260101_1300");
    assert!(gone.is_dir());
    place.cli("streams verify tree").ok();
    place.cli("streams prune tree --keep 2 --grace 0").ok().says("Removed: ");
    assert!(!gone.exists());
    place.cli("streams verify tree").ok();
    assert_eq!(seen(&place.tree()).len(), 2);
}
