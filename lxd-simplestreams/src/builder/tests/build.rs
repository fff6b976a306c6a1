//! What lies in a tree is published, and what is wrong is told.

use std::collections::BTreeSet;

use super::scan::base_name;
use super::*;
use crate::publish::INDEX;

#[test]
fn clients_find_what_lies_there() {
    let home = Home::new();
    let old = version(&home, "alpine", "20260101_1300");
    let new = version(&home, "alpine", "20260102_1300");
    let machine = home.machine(&format!("tree/{}", at("vm", "20260101")), &sample("vm", ""), 1);
    let whole = sample("whole", "20260103").unified();
    home.put("tree/images/somewhere/else/x.tar", &whole);
    home.put("tree/images/.hidden/lxd.tar.xz", b"junk");
    home.put("tree/images/readme.txt", b"hello");
    let report = home.build();
    assert_eq!(told(&report.broken), [""; 0]);
    assert_eq!((report.products, report.versions, report.images), (3, 4, 4));
    assert!(report.changed);
    let listed = home.listed();
    let expected = [old, new, machine, sha256(&[&whole])];
    assert_eq!(listed.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from(expected));
    assert_eq!(listed[&new].image.properties["serial"], "20260102_1300");
    assert_eq!(&*listed[&new].names, "alpine/1,alpine/1/default");
    assert_eq!(listed[&machine].image.kind, lxd_proto::image::InstanceType::VirtualMachine);
    // The serial that metadata lacks is the directory's.
    assert!(home.catalog().products["vm:1:amd64:default"].versions.contains_key("20260101"));
    for file in ["streams/v1/index.json", "streams/v1/images.json"] {
        let path = home.tree().join(file);
        let twin = documents::unpacked(&documents::twin(&path)).unwrap().unwrap();
        assert_eq!(twin, fs::read(&path).unwrap());
    }
    assert_eq!(home.verify().faults, []);
}

#[test]
fn nothing_is_written_when_nothing_has_changed() {
    let home = Home::new();
    version(&home, "alpine", "20260101_1300");
    assert_eq!(home.build().hashed_files, 2);
    let before = home.files();
    let later = "2027-01-01T00:00:00Z".parse().unwrap();
    let report = home.open().build(&BuildOptions::default(), later).unwrap();
    assert!(!report.changed);
    assert_eq!(report.hashed_files, 0);
    assert_eq!(home.files(), before);
    // What is remembered is only a matter of speed.
    fs::remove_dir_all(home.tree().join(STATE)).unwrap();
    let report = home.open().build(&BuildOptions::default(), later).unwrap();
    assert!(!report.changed && report.hashed_files == 2);
    version(&home, "alpine", "20260102_1300");
    let report = home.open().build(&BuildOptions::default(), later).unwrap();
    assert!(report.changed && report.hashed_files == 2);
    assert_eq!(home.catalog().updated, "Fri, 1 Jan 2027 00:00:00 +0000");
}

#[test]
fn a_broken_version_never_stops_the_others() {
    let image = sample("x", "20260101");
    let (metadata, root) = (image.metadata(), image.root());
    let no_date = Sample { more: "", arch: "vax", ..sample("x", "20260101") }.metadata();
    let null = [entry("metadata.yaml", b'0', b"properties: null\n"), vec![0; 1024]].concat();
    let sums = |name: &str, bytes: &[u8]| format!("{}  {name}\n", sha256(&[bytes])).into_bytes();
    let whole = |text: &[u8]| [sums("lxd.tar.xz", &metadata), text.to_vec()].concat();
    let foreign = Sample { arch: "arm64", ..sample("x", "20260101") }.metadata();
    type Files<'a> = &'a [(&'a str, &'a [u8])];
    let cases: &[(Files<'_>, &str)] = &[
        (&[("lxd.tar.xz", &metadata)], "there is no root file system and no disk"),
        (&[("root.tar.xz", &root)], "there is no metadata file for it"),
        (&[("lxd.tar.xz", &no_date), ("root.tar.xz", &root)], "Architecture isn't supported: vax"),
        (&[("lxd.tar.xz", &null), ("root.tar.xz", &root)], "lxd.tar.xz: "),
        (&[("lxd.tar.xz", &metadata), ("root.tar.xz", &root[..700])], "is truncated"),
        (&[("lxd.tar.xz", &metadata), ("rootfs.squashfs", b"hsqs and junk")], "squashfs"),
        (&[("lxd.tar.xz", &metadata), ("disk.qcow2", b"")], "truncated"),
        (
            &[
                ("lxd.tar.xz", &metadata),
                ("root.tar.xz", &root),
                ("SHA256SUMS", &whole(&sums("root.tar.xz", b"other"))),
            ],
            "root.tar.xz has another hash than SHA256SUMS says",
        ),
        (
            &[("lxd.tar.xz", &foreign), ("root.tar.xz", &root)],
            "its metadata says that it is for aarch64, its directory that it is for x86_64",
        ),
        (
            &[("lxd.tar.xz", &metadata), ("a.tar", &root), ("b.tar", &root)],
            "each of a.tar, b.tar could be its root",
        ),
    ];
    for (files, reason) in cases {
        let home = Home::new();
        let good = version(&home, "good", "20260101");
        for (name, bytes) in *files {
            let name = name.rsplit('/').next().unwrap();
            home.put(&format!("tree/{}/{name}", at("x", "20260101")), bytes);
        }
        let report = home.build();
        let told = told(&report.broken);
        assert_eq!(told.len(), 1, "{reason}: {told:?}");
        assert!(told[0].starts_with("images/x/") && told[0].contains(reason), "{told:?}");
        assert!(home.listed().contains_key(&good), "{reason}");
    }
}

#[test]
fn a_file_that_was_replaced_is_noticed() {
    let home = Home::new();
    version(&home, "alpine", "20260101");
    version(&home, "alpine", "20260102");
    home.build();
    let other = sample("alpine", "20260109").root();
    home.put(&format!("tree/{}/root.tar.xz", at("alpine", "20260101")), &other);
    let report = home.build();
    assert!(told(&report.broken)[0].contains("another hash"), "{:?}", report.broken);
    assert_eq!(report.versions, 1);
}

#[test]
fn one_at_a_time() {
    let home = Home::new();
    let tree = home.open();
    let again = || LocalTree::open(&home.tree(), true, NonZeroUsize::MIN, Progress::default());
    assert!(matches!(again(), Err(TreeError::Locked(_))));
    let verified = verify(&home.tree(), NonZeroUsize::MIN, &Progress::default());
    assert!(matches!(verified, Err(TreeError::Locked(_))));
    drop(tree);
    drop(again().unwrap());
    let missing = home.path("nowhere");
    let opened = LocalTree::open(&missing, false, NonZeroUsize::MIN, Progress::default());
    assert!(matches!(opened, Err(TreeError::NoDirectory(_))));
}

#[test]
fn an_empty_tree_is_a_tree() {
    let home = Home::new();
    assert_eq!(home.build().products, 0);
    assert!(home.tree().join(INDEX).is_file());
    assert_eq!(home.verify().faults, []);
}

#[test]
fn the_same_image_is_published_once() {
    let home = Home::new();
    version(&home, "alpine", "20260101");
    home.image(&format!("tree/{}", at("alpine", "20260102")), &sample("alpine", "20260101"));
    let report = home.build();
    assert_eq!(told(&report.broken), [""; 0]);
    let double = &report.doubles[0];
    assert_eq!(double.path, at("alpine", "20260102"));
    assert_eq!(double.first, at("alpine", "20260101"));
    assert_eq!(report.images, 1);
}

/// `bytes`, compressed.
fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, bytes).unwrap();
    packer.finish().unwrap()
}

/// A root file system, or a whole image, with two megabytes of noise in it.
fn large(below: &str, head: &[u8]) -> Vec<u8> {
    let mut tar = head[..head.len() - 1024].to_vec();
    tar.extend(entry(&format!("{below}noise"), b'0', &qcow2("", 3)));
    tar.extend(entry(&format!("{below}more"), b'0', &qcow2("", 4)));
    tar.extend(entry(&format!("{below}last"), b'0', &qcow2("", 5)));
    tar.extend([0; 1024]);
    tar
}

#[test]
fn archives_that_break_off_are_not_published() {
    let image = sample("x", "20260101");
    let (root, whole) = (large("", &image.root()), large("rootfs/", &image.unified()));
    let cut = |bytes: &[u8]| bytes[..bytes.len() * 3 / 4].to_vec();
    let (metadata, directory) = (image.metadata(), format!("tree/{}", at("x", "20260101")));
    for (name, bytes) in [("rootfs.tar", root.clone()), ("rootfs.tar.gz", gzipped(&root))] {
        let home = Home::new();
        home.put(&format!("{directory}/lxd.tar.xz"), &metadata);
        home.put(&format!("{directory}/{name}"), &cut(&bytes));
        for _ in 0..2 {
            let report = home.build();
            assert_eq!(report.images, 0);
            let told = told(&report.broken);
            assert!(told.len() == 1 && told[0].contains(name), "{told:?}");
            assert!(told[0].contains("truncated"), "{told:?}");
        }
        home.put(&format!("{directory}/{name}"), &bytes);
        assert_eq!(home.build().images, 1);
        let again = home.build();
        assert_eq!((again.images, again.hashed_files), (1, 0), "it is checked once");
    }
    for (name, bytes) in [("x.tar", whole.clone()), ("x.tar.gz", gzipped(&whole))] {
        let home = Home::new();
        home.put(&format!("{directory}/{name}"), &cut(&bytes));
        assert_eq!(home.build().images, 0, "{name}");
        home.put(&format!("{directory}/{name}"), &bytes);
        assert_eq!((home.build().images, home.build().hashed_files), (1, 0), "{name}");
    }
}

#[test]
fn what_an_older_builder_has_not_read_whole_is_read_again() {
    let home = Home::new();
    version(&home, "alpine", "20260101");
    home.build();
    let path = home.tree().join(STATE).join("state.json");
    let text = read(&path);
    assert!(text.contains("whole-tarball"), "{text}");
    fs::write(&path, text.replace("whole-tarball", "tarball")).unwrap();
    assert_eq!(home.build().hashed_files, 1);
    assert_eq!(home.build().hashed_files, 0);
}

#[test]
fn small_metadata_is_metadata() {
    let home = Home::new();
    let image = sample("x", "20260101");
    let metadata = gzipped(&image.metadata());
    assert!(metadata.len() < lxd_proto::format::FileType::DETECT_BYTES, "{}", metadata.len());
    home.put(&format!("tree/{}/lxd.tar.gz", at("x", "20260101")), &metadata);
    home.put(&format!("tree/{}/rootfs.tar", at("x", "20260101")), &image.root());
    let report = home.build();
    assert_eq!((told(&report.broken), report.images), (Vec::new(), 1));
}

#[test]
fn other_tarballs_and_disks_beside_an_image_are_not_it() {
    let logs = [entry("logs/build.log", b'0', b"hello"), vec![0; 1024]].concat();
    let image = sample("x", "20260101");
    let directory = format!("tree/{}", at("x", "20260101"));
    let put = |home: &Home, name: &str, bytes: &[u8]| {
        home.put(&format!("{directory}/{name}"), bytes);
    };
    let home = Home::new();
    let expected = home.image(&directory, &image);
    // The first by its name, and a disk for the second.
    put(&home, "a-root.tar", &sample("other", "1").root());
    put(&home, "logs.tar.gz", &gzipped(&logs));
    put(&home, "base.qcow2", &qcow2("base", 1));
    let report = home.build();
    assert_eq!(told(&report.broken), [""; 0]);
    let warned: Vec<&str> = report.warnings.iter().map(|one| base_name(&one.path)).collect();
    assert_eq!(warned, ["a-root.tar", "base.qcow2"]);
    assert_eq!(home.listed().into_keys().collect::<Vec<_>>(), [expected]);
    // Nothing else is there that could be the root.
    let home = Home::new();
    put(&home, "lxd.tar.xz", &image.metadata());
    put(&home, "logs.tar.gz", &gzipped(&logs));
    assert!(told(&home.build().broken)[0].contains("there is no root file system"));
}

#[test]
fn hashes_beside_the_files_only_have_to_be_right() {
    let image = sample("x", "20260101");
    let hash = sha256(&[&image.metadata()]);
    for text in [
        String::new(),
        format!("{hash}  lxd.tar.xz\n"),
        format!("{hash}  image.yaml\n"),
        format!("{hash}  logs/build.log\n{hash}  lxd.tar.xz\n"),
        format!("SHA256 (lxd.tar.xz) = {hash}\n"),
    ] {
        let home = Home::new();
        version(&home, "x", "20260101");
        home.put(&format!("tree/{}/SHA256SUMS", at("x", "20260101")), text.as_bytes());
        let report = home.build();
        assert_eq!((told(&report.broken).len(), report.images), (0, 1), "{text}");
        assert_eq!(home.verify().faults, [], "{text}");
    }
    let home = Home::new();
    version(&home, "x", "20260101");
    let text = format!("SHA256 (root.tar.xz) = {hash}\n");
    home.put(&format!("tree/{}/SHA256SUMS", at("x", "20260101")), text.as_bytes());
    assert!(told(&home.build().broken)[0].contains("another hash"));
}

#[test]
fn what_is_passed_over_is_told_and_keeps_nothing() {
    use std::os::unix::ffi::OsStrExt;
    let home = Home::new();
    version(&home, "x", "20260101");
    let directory = format!("tree/{}", at("x", "20260101"));
    for copy in ["root.tar.xz.bak", "lxd.tar.xz.old", "lxd.tar.xz~", "a.tar.orig", "b.tar.part"] {
        home.put(&format!("{directory}/{copy}"), b"junk");
    }
    home.put("tree/images/new\nline/notes", b"");
    let images = home.tree().join("images");
    fs::create_dir(images.join(std::ffi::OsStr::from_bytes(b"b\xff"))).unwrap();
    std::os::unix::fs::symlink("x", images.join("latest")).unwrap();
    let report = home.build();
    assert_eq!((told(&report.broken).len(), report.images), (0, 1));
    let warned: Vec<&str> = report.warnings.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(warned, ["images/b\u{fffd}", "images/latest", "images/new\\nline"]);
    let verified = home.verify();
    assert_eq!((verified.faults.len(), verified.warnings.len()), (0, 3));
}

#[test]
fn an_odd_path_is_published_with_a_warning() {
    let home = Home::new();
    home.image("tree/images/a#b", &sample("x", "20260101"));
    let report = home.build();
    assert_eq!((told(&report.broken).len(), report.images), (0, 1));
    assert!(report.warnings[0].reason.contains("its path has '#'"), "{:?}", report.warnings);
    let from = Home::new();
    from.image("src/a#b", &sample("x", "20260101"));
    from.open().take(&from.path("src"), Means::Copy, None).unwrap();
    assert_eq!(from.build().warnings, []);
}

#[test]
fn links_and_pipes_are_refused_at_once() {
    let pipe = |path: &Path| {
        let (file, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, path, file, mode, 0).unwrap();
    };
    let open =
        |home: &Home| LocalTree::open(&home.tree(), true, NonZeroUsize::MIN, Progress::default());
    for name in [LOCK, STATE] {
        let home = Home::new();
        fs::create_dir_all(home.tree()).unwrap();
        home.put("other/incoming/precious", b"here");
        std::os::unix::fs::symlink("../other", home.tree().join(name)).unwrap();
        let error = open(&home).unwrap_err().to_string();
        assert!(error.contains("link"), "{error}");
        assert!(home.path("other/incoming/precious").exists());
    }
    let home = Home::new();
    fs::create_dir_all(home.tree()).unwrap();
    std::os::unix::fs::symlink("../outside", home.tree().join(LOCK)).unwrap();
    open(&home).unwrap_err();
    assert!(!home.path("outside").exists());

    let home = Home::new();
    version(&home, "x", "20260101");
    home.build();
    fs::remove_file(home.tree().join(LOCK)).unwrap();
    pipe(&home.tree().join(LOCK));
    assert_eq!(home.verify().faults, []);
    assert!(open(&home).unwrap_err().to_string().contains("no regular file"));
    fs::remove_file(home.tree().join(LOCK)).unwrap();
    fs::remove_file(home.tree().join(CATALOG)).unwrap();
    pipe(&home.tree().join(CATALOG));
    let error = home.open().build(&BuildOptions::default(), now()).unwrap_err().to_string();
    assert!(error.contains("images.json: it is no regular file"), "{error}");
    assert!(!home.verify().faults.is_empty());
}

#[test]
fn a_directory_that_cannot_be_read_keeps_no_other() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    version(&home, "x", "20260101");
    home.put("tree/images/secret/lxd.tar.xz", b"");
    let secret = home.tree().join("images/secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&secret).is_ok() {
        // Nothing is closed to root.
        return;
    }
    let report = home.build();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(report.images, 1);
    assert!(told(&report.broken)[0].starts_with("images/secret: cannot read this directory"));
}
