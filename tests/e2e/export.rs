//! `image export`: the same bytes out as in (row L7), under the right names.

use lxd_tests::client::{Client, subdir};
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe, fingerprint};

#[test]
fn unified_round_trips_in_every_compression() {
    let daemon = Daemon::start();
    for compression in Compression::ALL {
        let bytes = Recipe::new(&format!("u{compression:?}")).unified(compression);
        let imported = daemon.http().import(&bytes);
        assert_eq!(imported, fingerprint(&[&bytes]));
        for client in Client::both() {
            let dir = subdir(&daemon.work(), &format!("{client:?}{compression:?}"));
            daemon.client(client, &format!("image export {imported}")).dir(&dir).ok();
            let file = dir.join(format!("{imported}.{}", compression.extension()));
            assert!(std::fs::read(&file).unwrap() == bytes, "{} differs", file.display());
            assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "temporary files stay behind");
        }
    }
}

#[test]
fn split_round_trips_and_imports_again() {
    let daemon = Daemon::start();
    let shifted = Compression::ALL.iter().cycle().skip(1);
    for (&meta, &root) in Compression::ALL.iter().zip(shifted) {
        let recipe = Recipe::new(&format!("s{meta:?}{root:?}"));
        let (metadata, rootfs) = (recipe.metadata(meta), recipe.root(root));
        round_trip(&daemon, &metadata, &rootfs, meta.extension(), root.extension());
    }
    let recipe = Recipe::new("squashed");
    let (metadata, rootfs) =
        (recipe.metadata(Compression::Xz), recipe.root_squashfs(&daemon.work()));
    round_trip(&daemon, &metadata, &rootfs, "tar.xz", "squashfs");
    round_trip(&daemon, &metadata, &recipe.root_qcow2(), "tar.xz", "qcow2");
}

/// In by one client, out by each, and in again by the other: always the same image.
fn round_trip(daemon: &Daemon, metadata: &[u8], rootfs: &[u8], meta: &str, root: &str) {
    let imported = daemon.http().import_split(metadata, rootfs);
    assert_eq!(imported, fingerprint(&[metadata, rootfs]));
    for client in Client::both() {
        let dir = subdir(&daemon.work(), &format!("{client:?}{}", &imported[..12]));
        daemon.client(client, &format!("image export {imported} .")).dir(&dir).ok();
        let meta_name = format!("meta-{imported}.{meta}");
        let root_name = format!("{imported}.{root}");
        assert!(std::fs::read(dir.join(&meta_name)).unwrap() == metadata, "{meta_name} differs");
        assert!(std::fs::read(dir.join(&root_name)).unwrap() == rootfs, "{root_name} differs");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2, "temporary files stay behind");
        daemon.client(client, &format!("image delete {imported}")).ok();
        let again = daemon.client(client, &format!("image import {meta_name} {root_name}"));
        again.dir(&dir).ok().says(&imported);
    }
}

#[test]
fn a_unified_squashfs_round_trips() {
    let daemon = Daemon::start();
    let bytes = Recipe::new("flat").unified_squashfs(&daemon.work());
    let imported = daemon.http().import(&bytes);
    for client in Client::both() {
        let dir = subdir(&daemon.work(), &format!("{client:?}"));
        daemon.client(client, &format!("image export {imported}")).dir(&dir).ok();
        assert!(std::fs::read(dir.join(format!("{imported}.squashfs"))).unwrap() == bytes);
    }
}

#[test]
fn to_a_name() {
    let daemon = Daemon::start();
    let unified = Recipe::new("u").unified(Compression::Xz);
    let split = Recipe::new("s");
    let (metadata, rootfs) = (split.metadata(Compression::Gz), split.root(Compression::Zst));
    let one = daemon.http().import(&unified);
    let two = daemon.http().import_split(&metadata, &rootfs);
    let read = |name: &str| std::fs::read(daemon.work().join(name)).unwrap_or_default();

    daemon.lxc(&format!("image export {one} mine")).ok();
    assert!(read("mine.tar.xz") == unified);
    daemon.lxc(&format!("image export {two} lxc-split")).ok();
    assert!(read("lxc-split") == metadata && read("lxc-split.root") == rootfs);

    daemon.cli(&format!("image export {one} ours")).ok();
    assert!(read("ours.tar.xz") == unified);
    daemon.cli(&format!("image export {two} ours-split")).ok();
    let files = daemon.work().read_dir().unwrap().flatten().map(|e| e.path());
    let ours: Vec<_> = files.filter(|p| p.to_string_lossy().contains("ours-split")).collect();
    assert_eq!(ours.len(), 2, "{ours:?}");
    for (bytes, extension) in [(metadata, "tar.gz"), (rootfs, "tar.zst")] {
        let file = ours.iter().find(|p| p.to_string_lossy().ends_with(extension));
        let file = file.unwrap_or_else(|| panic!("no real extension {extension}: {ours:?}"));
        assert!(std::fs::read(file).unwrap() == bytes, "{} differs", file.display());
    }
}

#[test]
fn cli_overwrites_only_when_told() {
    let daemon = Daemon::start();
    let bytes = Recipe::new("keep").unified(Compression::Gz);
    let imported = daemon.http().import(&bytes);
    let file = daemon.file(&format!("{imported}.tar.gz"), b"precious");
    daemon.cli(&format!("image export {imported}")).fails().complains("--force");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    daemon.cli(&format!("image export {imported} --force")).ok();
    assert!(std::fs::read(&file).unwrap() == bytes);
    daemon.lxc(&format!("image export {imported}")).ok();
}

#[test]
fn cli_writes_to_standard_output() {
    use std::io::Read;
    let daemon = Daemon::start();
    let bytes = Recipe::new("stdout").unified(Compression::Gz);
    let imported = daemon.http().import(&bytes);
    let mut running = daemon.cli(&format!("image export {imported} -")).spawn();
    let mut out = Vec::new();
    running.take_stdout().read_to_end(&mut out).unwrap();
    let done = running.wait();
    assert_eq!(done.code, 0, "{done}");
    assert!(out == bytes, "{} bytes came out", out.len());
    let split = Recipe::new("two");
    let two =
        daemon.http().import_split(&split.metadata(Compression::Gz), &split.root(Compression::Gz));
    let done = daemon.cli(&format!("image export {two} -")).run();
    assert_ne!(done.code, 0, "two files in one stream are no image:\n{done}");
}

#[test]
fn cli_says_where_the_files_are() {
    let daemon = Daemon::start();
    let bytes = Recipe::new("where").unified(Compression::Gz);
    let imported = daemon.http().import(&bytes);
    let name = format!("{imported}.tar.gz");
    daemon.cli(&format!("image export {imported}")).ok().says(&name);
    let quiet = daemon.cli(&format!("-q image export {imported} again")).ok();
    assert_eq!(quiet.stdout.lines().count(), 1, "only the path:\n{quiet}");
    assert!(quiet.line().ends_with("again.tar.gz"), "{quiet}");
    let told = daemon.cli(&format!("image export {imported} third --format json")).ok().json();
    assert!(told.to_string().contains("third.tar.gz"), "{told}");
    assert!(told.to_string().contains(&imported), "{told}");
}

#[test]
fn what_is_not_there_and_where_nothing_can_be() {
    let daemon = Daemon::start();
    let imported = daemon.http().import(&Recipe::new("x").unified(Compression::Gz));
    for client in Client::both() {
        daemon.client(client, "image export nothing").fails().complains("not found");
        daemon
            .client(client, &format!("image export {imported} no/such/dir"))
            .fails()
            .complains("no/such/dir");
    }
    let left: Vec<_> = daemon.work().read_dir().unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.is_empty(), "{left:?} stay behind");
}

#[test]
fn a_big_image_comes_out_whole() {
    let daemon = Daemon::start();
    let bytes =
        lxd_tests::fixtures::big::unified(Vec::new(), "big", 40, Compression::Plain).unwrap();
    daemon.file("big.tar", &bytes);
    for client in Client::both() {
        let dir = subdir(&daemon.work(), &format!("{client:?}"));
        daemon.client(client, "image import big.tar --alias big").ok();
        daemon.client(client, "image export big").dir(&dir).ok();
        let file = dir.join(format!("{}.tar", fingerprint(&[&bytes])));
        assert!(std::fs::read(file).unwrap() == bytes);
        daemon.client(client, "image delete big").ok();
    }
}
