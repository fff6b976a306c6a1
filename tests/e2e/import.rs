//! `image import`: every form of image, by both clients (rows I1, I2, I3, I5, F1-F3).

use lxd_tests::client::{Client, Finished, shown, subdir, system};
use lxd_tests::daemon::Daemon;
use lxd_tests::events::{Events, actions};
use lxd_tests::fixtures::{CREATED, Compression, Recipe, fingerprint};
use serde_json::{Value, json};

/// The image as the API tells it.
fn image(daemon: &Daemon, fingerprint: &str) -> Value {
    daemon.http().metadata(&format!("/1.0/images/{fingerprint}"))
}

/// The import must have said which image it made.
fn made(done: Finished, fingerprint: &str) {
    done.says(fingerprint);
}

#[test]
fn unified_tarballs_in_every_compression() {
    let daemon = Daemon::start();
    for client in Client::both() {
        for compression in Compression::ALL {
            let name = format!("{client:?}-{compression:?}");
            let bytes = Recipe::new(&name).property("os", "tiny").unified(compression);
            let extension = compression.extension();
            let file = daemon.file(&format!("{name}.{extension}"), &bytes);
            let line =
                format!("image import {} --alias {name} --public os=changed extra=1", shown(&file));
            let expected = fingerprint(&[&bytes]);
            made(daemon.client(client, &line).ok(), &expected);

            let image = image(&daemon, &expected);
            assert_eq!(image["aliases"], json!([{"name": name, "description": ""}]));
            assert_eq!(image["public"], true);
            assert_eq!(image["size"], bytes.len());
            assert_eq!(image["type"], "container");
            assert_eq!(image["architecture"], "x86_64");
            assert_eq!(image["created_at"], "2016-03-15T11:10:00Z");
            assert_eq!(image["filename"], format!("{name}.{extension}"));
            assert_eq!(
                image["properties"],
                json!({"description": format!("Image {name}"), "os": "changed", "extra": "1"})
            );
        }
    }
}

#[test]
fn split_tarballs_with_mixed_compressions() {
    let daemon = Daemon::start();
    for client in Client::both() {
        // Each format is once the metadata's and once the root's, and never both.
        let shifted = Compression::ALL.iter().cycle().skip(2);
        for (&meta, &root) in Compression::ALL.iter().zip(shifted) {
            let recipe = Recipe::new(&format!("{client:?}-{meta:?}-{root:?}"));
            let (metadata, rootfs) = (recipe.metadata(meta), recipe.root(root));
            let meta_file = daemon.file(&format!("meta.{}", meta.extension()), &metadata);
            let root_file = daemon.file(&format!("root.{}", root.extension()), &rootfs);
            let line = format!("image import {} {}", shown(&meta_file), shown(&root_file));
            let expected = fingerprint(&[&metadata, &rootfs]);
            made(daemon.client(client, &line).ok(), &expected);
            let image = image(&daemon, &expected);
            assert_eq!(image["size"], metadata.len() + rootfs.len());
            assert_eq!(image["type"], "container");
        }
    }
}

#[test]
fn split_with_a_squashfs_and_with_a_disk() {
    let daemon = Daemon::start();
    for client in Client::both() {
        let recipe = Recipe::new(&format!("squash{client:?}"));
        let (metadata, rootfs) =
            (recipe.metadata(Compression::Xz), recipe.root_squashfs(&daemon.work()));
        daemon.file("meta.tar.xz", &metadata);
        daemon.file("root.squashfs", &rootfs);
        let expected = fingerprint(&[&metadata, &rootfs]);
        made(daemon.client(client, "image import meta.tar.xz root.squashfs").ok(), &expected);
        assert_eq!(image(&daemon, &expected)["type"], "container");

        let disk = recipe.root_qcow2();
        daemon.file("disk.qcow2", &disk);
        let expected = fingerprint(&[&metadata, &disk]);
        made(
            daemon.client(client, "image import meta.tar.xz disk.qcow2 --alias vm").ok(),
            &expected,
        );
        assert_eq!(image(&daemon, &expected)["type"], "virtual-machine");
        daemon.client(client, "image delete vm").ok();
    }
}

#[test]
fn a_unified_squashfs() {
    let daemon = Daemon::start();
    for client in Client::both() {
        let bytes = Recipe::new(&format!("flat{client:?}")).unified_squashfs(&daemon.work());
        daemon.file("image.squashfs", &bytes);
        let expected = fingerprint(&[&bytes]);
        made(daemon.client(client, "image import image.squashfs").ok(), &expected);
        let image = image(&daemon, &expected);
        assert_eq!(image["type"], "container");
        assert_eq!(image["properties"]["description"], format!("Image flat{client:?}"));
    }
}

#[test]
fn metadata_as_people_write_it() {
    let daemon = Daemon::start();
    let recipe = Recipe::new("odd")
        .architecture("amd64")
        .more("  release: 22.04\n  lts: true\nexpiry_date: 1900000000\nunknown_key: [1, 2]\n")
        .more(
            "templates:\n  /etc/hostname:\n    when: [create, copy]\n    template: hostname.tpl\n",
        );
    let fingerprint = daemon.http().import(&recipe.unified(Compression::Gz));
    let image = image(&daemon, &fingerprint);
    assert_eq!(image["architecture"], "x86_64");
    assert_eq!(image["expires_at"], "2030-03-17T17:46:40Z");
    assert_eq!(image["properties"]["release"], "22.04");
    assert_eq!(image["properties"]["lts"], "true");
    assert_eq!(image["profiles"], json!(["default"]));
    assert_eq!(image["last_used_at"], "0001-01-01T00:00:00Z");
    assert_eq!(image["cached"], false);
    assert_eq!(image["auto_update"], false);
    assert!(image.get("update_source").is_none());
}

#[test]
fn a_directory() {
    let daemon = Daemon::start();
    for client in Client::both() {
        let dir = subdir(&daemon.work(), &format!("tree{client:?}"));
        Recipe::new(&format!("dir{client:?}")).directory(&dir);
        // lxc's own tar insists on it.
        subdir(&dir, "templates");
        let line = format!("image import {} --alias d{client:?}", shown(&dir));
        daemon.client(client, &line).ok();
        let image = daemon.http().metadata(&format!("/1.0/images/aliases/d{client:?}"));
        let image = self::image(&daemon, image["target"].as_str().unwrap());
        assert_eq!(image["properties"]["description"], format!("Image dir{client:?}"));
        assert_eq!(image["type"], "container");
    }
}

#[test]
fn cli_packs_a_directory_the_same_way_every_time() {
    let daemon = Daemon::start();
    let dir = subdir(&daemon.work(), "tree");
    Recipe::new("again").directory(&dir);
    let import = |line: &str| {
        let done = daemon.cli(line).ok();
        let fingerprint = done.line().to_owned();
        assert_eq!(fingerprint.len(), 64, "-q prints the bare fingerprint:\n{done}");
        fingerprint
    };
    let first = import("-q image import tree");
    // Another time and another order of creation must not make another image.
    let hostname = dir.join("rootfs/etc/hostname");
    std::fs::remove_file(&hostname).unwrap();
    std::fs::write(dir.join("rootfs/etc/aaa"), "").unwrap();
    std::fs::write(&hostname, "again").unwrap();
    std::fs::remove_file(dir.join("rootfs/etc/aaa")).unwrap();
    assert_eq!(import("-q image import tree"), first);
    let xz = import("-q image import tree --compression xz");
    assert_ne!(xz, first);
    let packed = daemon.http().get(&format!("/1.0/images/{xz}/export")).expect(200);
    assert!(packed.body.starts_with(b"\xfd7zXZ"), "not an xz");
}

#[test]
fn cli_takes_two_files_in_either_order() {
    let daemon = Daemon::start();
    let recipe = Recipe::new("order");
    let (metadata, rootfs) = (recipe.metadata(Compression::Gz), recipe.root(Compression::Xz));
    daemon.file("a", &rootfs);
    daemon.file("b", &metadata);
    made(daemon.cli("image import a b").ok(), &fingerprint(&[&metadata, &rootfs]));

    let squashed = Recipe::new("order2");
    let (metadata, rootfs) =
        (squashed.metadata(Compression::Gz), squashed.root_squashfs(&daemon.work()));
    daemon.file("a", &rootfs);
    daemon.file("b", &metadata);
    made(daemon.cli("image import a b").ok(), &fingerprint(&[&metadata, &rootfs]));
}

#[test]
fn from_a_pipe() {
    let daemon = Daemon::start();
    let bytes = Recipe::new("piped").unified(Compression::Zst);
    made(daemon.cli("image import -").stdin(&bytes).ok(), &fingerprint(&[&bytes]));

    let bytes = Recipe::new("fifo").unified(Compression::Gz);
    let fifo = daemon.work().join("fifo");
    system("mkfifo", shown(&fifo)).ok();
    let copy = bytes.clone();
    let writer = std::thread::spawn(move || std::fs::write(fifo, copy).unwrap());
    made(daemon.cli("image import fifo").ok(), &fingerprint(&[&bytes]));
    writer.join().unwrap();
}

#[test]
fn lxc_refuses_an_image_that_is_there() {
    let daemon = Daemon::start();
    daemon.file("x.tar.gz", &Recipe::new("twice").unified(Compression::Gz));
    daemon.lxc("image import x.tar.gz").ok();
    daemon
        .lxc("image import x.tar.gz --alias again")
        .fails()
        .complains("Image with same fingerprint already exists");
    daemon.http().get("/1.0/images/aliases/again").refuses(404, "Image alias not found");
}

#[test]
fn cli_importing_again_uploads_nothing() {
    let daemon = Daemon::start();
    let bytes = Recipe::new("again").unified(Compression::Gz);
    let expected = fingerprint(&[&bytes]);
    daemon.file("x.tar.gz", &bytes);
    daemon.cli("image import x.tar.gz").ok();

    let mut events = Events::listen(&daemon.http(), "type=operation,lifecycle");
    let done = daemon.cli("image import x.tar.gz --alias named fresh=yes").ok().says(&expected);
    assert!(
        format!("{done}").contains("already"),
        "it should say that the image is already there:\n{done}"
    );
    daemon.http().json("POST", "/1.0/images/aliases", &json!({"name": "last", "target": expected}));
    let seen = events.until("of the last alias", |e| {
        e["metadata"]["source"].as_str().is_some_and(|s| s.ends_with("/last"))
    });
    let uploads: Vec<_> = seen.iter().filter(|e| e["type"] == "operation").collect();
    assert!(uploads.is_empty(), "it uploaded again: {uploads:#?}");
    assert!(actions(&seen).contains(&"image-alias-created".to_owned()));
    let image = image(&daemon, &expected);
    assert_eq!(image["properties"]["fresh"], "yes");
    let names = image["aliases"].as_array().unwrap().iter().map(|alias| &alias["name"]);
    assert!(names.into_iter().any(|name| name == "named"), "{image}");

    let split = Recipe::new("split-again");
    daemon.file("m", &split.metadata(Compression::Gz));
    daemon.file("r", &split.root(Compression::Gz));
    daemon.cli("image import m r").ok();
    daemon.cli("image import r m --alias split").ok();
    daemon.cli("image list split -f csv -c l").ok().prints("split\n");
}

#[test]
fn an_alias_of_another_image() {
    let daemon = Daemon::start();
    for name in ["one", "two", "three"] {
        daemon.file(&format!("{name}.tar.gz"), &Recipe::new(name).unified(Compression::Gz));
    }
    let target = |alias: &str| {
        let alias = daemon.http().metadata(&format!("/1.0/images/aliases/{alias}"));
        image(&daemon, alias["target"].as_str().unwrap())["properties"]["description"].clone()
    };
    daemon.lxc("image import one.tar.gz --alias moving").ok();
    // lxc moves it without a word; lxd-cli only when asked.
    daemon.lxc("image import two.tar.gz --alias moving").ok();
    assert_eq!(target("moving"), "Image two");
    daemon.cli("image import three.tar.gz --alias moving").fails().complains("moving");
    assert_eq!(target("moving"), "Image two");
    daemon.cli("image import three.tar.gz --alias moving --reuse").ok();
    assert_eq!(target("moving"), "Image three");
}

#[test]
fn what_is_no_image() {
    let daemon = Daemon::start();
    daemon.file("text", b"this is no archive at all");
    daemon.file("meta.tar.gz", &Recipe::new("m").metadata(Compression::Gz));
    for client in Client::both() {
        daemon.client(client, "image import missing.tar.gz").fails().complains("missing.tar.gz");
        daemon.client(client, "image import text").fails();
        daemon.client(client, "image import http://127.0.0.1:1/x").fails().complains("https");
    }
    daemon.lxc("image import text").fails().complains("Unsupported compression");
    daemon.lxc("image import meta.tar.gz").fails().complains("Invalid instance type");
    assert_eq!(daemon.http().metadata("/1.0/images"), json!([]));
    assert_eq!(CREATED, 1_458_040_200, "the time that the tests above spell out");
}

#[test]
fn an_expected_hash_is_checked() {
    let daemon = Daemon::start();
    let bytes = Recipe::new("hash").unified(Compression::Gz);
    let wrong = "0".repeat(64);
    let done = daemon.http().upload(&bytes, &[("X-LXD-fingerprint", &wrong)]);
    assert_eq!(done["status"], "Failure");
    assert!(done["err"].as_str().unwrap().contains("fingerprint"), "{done}");
    assert_eq!(daemon.http().metadata("/1.0/images"), json!([]));
    let done = daemon.http().upload(&bytes, &[("X-LXD-fingerprint", &fingerprint(&[&bytes]))]);
    assert_eq!(done["status"], "Success", "{done}");
}
