//! Each way that images of strangers have got out of their tree, tried on a canary.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::archive::{Archive, Place};
use crate::rootfs::Error;

/// Unpacks an archive that must be refused, and checks that nothing is left of it.
fn refused(name: &str, archive: Archive) {
    let place = Place::new();
    refused_at(&place, name, &archive.finish());
}

fn refused_at(place: &Place, name: &str, image: &[u8]) {
    let result = place.unpack(image);
    assert!(result.is_err(), "{name} was unpacked: {result:?}");
    let left = fs::read_dir(place.path("tree")).unwrap().count();
    assert_eq!(left, 0, "{name} left something behind");
}

#[test]
fn a_root_that_becomes_a_link_is_refused() {
    // CVE-2026-48749: a directory first, then a link in its place.
    let place = Place::new();
    let outside = place.path("outside");
    let target = outside.to_str().unwrap();
    for (name, archive) in [
        ("link to /", Archive::image().symlink("rootfs", "/").file("rootfs/canary", b"bad")),
        ("link out", Archive::image().symlink("rootfs", target).file("rootfs/canary", b"bad")),
        ("slash", Archive::image().symlink("rootfs/", target).file("rootfs/canary", b"bad")),
        ("dot", Archive::image().symlink("./rootfs", target).file("rootfs/canary", b"bad")),
        (
            "below",
            Archive::image()
                .dir("rootfs/a")
                .symlink("rootfs/a", target)
                .file("rootfs/a/canary", b"bad"),
        ),
        (
            "link first",
            Archive::image().symlink("rootfs/a", target).file("rootfs/a/canary", b"bad"),
        ),
        (
            "directory over a link",
            Archive::image().symlink("rootfs/a", target).dir("rootfs/a").file("rootfs/a/x", b"bad"),
        ),
        (
            "file over a link",
            Archive::image().symlink("rootfs/a", &place.canary()).file("rootfs/a", b"bad"),
        ),
        (
            "only a link",
            Archive::default()
                .file("metadata.yaml", b"architecture: amd64\ncreation_date: 1\n")
                .symlink("rootfs", target),
        ),
    ] {
        refused_at(&place, name, &archive.finish());
    }
}

#[test]
fn parts_that_are_links_are_refused() {
    let place = Place::new();
    let outside = place.path("outside");
    let target = outside.to_str().unwrap();
    let rest = || Archive::default().dir("rootfs/");
    for (name, archive) in [
        // CVE-2026-48752.
        ("templates", Archive::image().symlink("templates", target)),
        ("template", Archive::image().dir("templates").symlink("templates/a", &place.canary())),
        ("template below", Archive::image().symlink("templates", target).file("templates/a", b"")),
        // CVE-2026-63343.
        ("metadata", rest().symlink("metadata.yaml", &place.canary())),
        ("metadata twice", Archive::image().symlink("metadata.yaml", &place.canary())),
        // CVE-2026-48750, CVE-2026-63125.
        ("exec-output", Archive::image().symlink("exec-output", target)),
        ("backup.yaml", Archive::image().symlink("backup.yaml", &place.canary())),
        ("unknown", Archive::image().file("backup.yaml", b"bad")),
        ("device", rest().device("metadata.yaml", b'3', 1, 3)),
        ("fifo", Archive::image().entry("templates/a", b'6', "", b"", |_| {})),
        ("hard link", Archive::image().file("rootfs/a", b"x").hard_link("templates/a", "rootfs/a")),
        (
            "metadata hard link",
            rest().file("rootfs/a", b"x").hard_link("metadata.yaml", "rootfs/a"),
        ),
    ] {
        refused_at(&place, name, &archive.finish());
    }
}

#[test]
fn names_that_lead_out_are_refused() {
    let place = Place::new();
    let canary = place.canary();
    for name in ["../outside/canary", "rootfs/../../outside/canary", &canary, "rootfs/..", "//x"] {
        let file = Archive::image().file(name, b"bad").finish();
        refused_at(&place, name, &file);
        let link = Archive::image().symlink(name, "x").finish();
        refused_at(&place, name, &link);
        let long = Archive::image().pax(&[("path", name.as_bytes())]).file("x", b"bad").finish();
        refused_at(&place, name, &long);
        let split =
            Archive::default().file("metadata.yaml", b"architecture: amd64\ncreation_date: 1\n");
        let root = Archive::default().file(name.trim_start_matches("rootfs/"), b"bad").finish();
        if name != "rootfs/.." || !root.is_empty() {
            assert!(place.unpack_split(&split.finish(), &root).is_err(), "{name}");
        }
    }
}

#[test]
fn hard_links_stay_inside() {
    let place = Place::new();
    let canary = place.canary();
    for target in [
        &*canary,
        "../outside/canary",
        "rootfs/../../outside/canary",
        "metadata.yaml",
        "rootfs/none",
    ] {
        refused(target, Archive::image().hard_link("rootfs/a", target));
        refused_at(&place, target, &Archive::image().hard_link("rootfs/a", target).finish());
    }
    // Through a link: "rootfs/out" leads to the directory of the canary.
    let outside = place.path("outside");
    let through = Archive::image()
        .symlink("rootfs/out", outside.to_str().unwrap())
        .hard_link("rootfs/a", "rootfs/out/canary");
    refused_at(&place, "through a link", &through.finish());
    // A hard link to a symbolic link is the link itself.
    let image = Archive::image()
        .symlink("rootfs/link", &canary)
        .hard_link("rootfs/a", "rootfs/link")
        .hard_link("rootfs/deep/b", "rootfs/a")
        .finish();
    place.unpack(&image).unwrap();
    for name in ["rootfs/link", "rootfs/a", "rootfs/deep/b"] {
        let metadata = fs::symlink_metadata(place.tree(name)).unwrap();
        assert!(metadata.is_symlink(), "{name}");
        assert_eq!(metadata.nlink(), 3, "{name}");
    }
}

#[test]
fn links_and_devices_are_kept_and_never_used() {
    let place = Place::new();
    let canary = place.canary();
    let image = Archive::image()
        .symlink("rootfs/absolute", &canary)
        .symlink("rootfs/up", "../../outside")
        .pax(&[("SCHILY.xattr.user.x", b"1"), ("SCHILY.xattr.trusted.y", b"2")])
        .symlink("rootfs/marked", &canary)
        .device("rootfs/null", b'3', 1, 3)
        .device("rootfs/disk", b'4', 254, 0)
        .device("rootfs/whiteout", b'3', 0, 0)
        .entry("rootfs/pipe", b'6', "", b"", |_| {})
        .finish();
    let unpacked = place.unpack(&image).unwrap();
    assert_eq!(unpacked.dropped_xattrs, 1, "a link takes no user attributes");
    let null = fs::symlink_metadata(place.tree("rootfs/null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
    let disk = fs::symlink_metadata(place.tree("rootfs/disk")).unwrap();
    assert!(disk.file_type().is_block_device());
    assert_eq!(disk.rdev(), rustix::fs::makedev(254, 0));
    assert!(fs::symlink_metadata(place.tree("rootfs/pipe")).unwrap().file_type().is_fifo());
    for (name, target) in [("absolute", &*canary), ("up", "../../outside"), ("marked", &canary)] {
        let link = fs::read_link(place.tree("rootfs").join(name)).unwrap();
        assert_eq!(link.to_str(), Some(target));
    }
    // A device whose name is used again is not written to.
    refused("device", Archive::image().device("rootfs/a", b'4', 254, 0).file("rootfs/a", b"bad"));
    refused("below", Archive::image().device("rootfs/a", b'3', 1, 3).file("rootfs/a/b", b"bad"));
}

#[test]
fn odd_names_are_names() {
    let place = Place::new();
    let image = Archive::image()
        .file("rootfs/a", b"lower")
        .file("rootfs/A", b"upper")
        .file("rootfs/new\nline", b"1")
        .file("rootfs/-rf *", b"2")
        .file("rootfs/\u{202e}txt", b"3")
        .file("rootfs/..a", b"4")
        .file("./rootfs/.//deep/./er", b"5")
        .pax(&[("path", b"rootfs/\xff\xfe")])
        .file("x", b"6")
        .finish();
    place.unpack(&image).unwrap();
    let names = fs::read_dir(place.tree("rootfs")).unwrap().count();
    assert_eq!(names, 8);
    assert_eq!(fs::read(place.tree("rootfs/a")).unwrap(), b"lower");
    assert_eq!(fs::read(place.tree("rootfs/A")).unwrap(), b"upper");
    assert_eq!(fs::read(place.tree("rootfs/new\nline")).unwrap(), b"1");
    assert_eq!(fs::read(place.tree("rootfs/deep/er")).unwrap(), b"5");
    for twice in ["rootfs/a", "rootfs//a", "./rootfs/a", "rootfs/./a"] {
        refused(twice, Archive::image().file("rootfs/a", b"1").file(twice, b"2"));
    }
    refused("nul", Archive::image().pax(&[("path", b"rootfs/a\0b")]).file("x", b""));
}

#[test]
fn privileges_survive_their_own_order() {
    let place = Place::new();
    // cap_net_raw=ep, as ping has it.
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let owned = |header: &mut [u8; 512]| {
        header[100..107].copy_from_slice(b"0006755");
        header[108..115].copy_from_slice(b"0001750");
        header[116..123].copy_from_slice(b"0001751");
    };
    let image = Archive::image()
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.comment", b"a\nb=c"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/../../outside"),
            ("mtime", b"1424284563.25"),
        ])
        .entry("rootfs/ping", b'0', "", b"data", owned)
        .pax(&[("uid", b"3000000000"), ("gid", b"70000")])
        .entry("rootfs/foreign", b'0', "", b"", |_| {})
        .finish();
    let unpacked = place.unpack(&image).unwrap();
    assert_eq!(unpacked.dropped_xattrs, 2, "what steers an overlay is not a stranger's to say");
    let ping = place.tree("rootfs/ping");
    let metadata = fs::metadata(&ping).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1000, 1001));
    assert_eq!(metadata.mode() & 0o7777, 0o6755);
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_424_284_563, 250_000_000));
    let value = |name| {
        let mut value = vec![0; 100];
        let len = rustix::fs::getxattr(&ping, name, &mut value[..])?;
        value.truncate(len);
        Ok::<_, rustix::io::Errno>(value)
    };
    assert_eq!(value("security.capability").as_deref(), Ok(&capability[..]));
    assert_eq!(value("user.comment").as_deref(), Ok(&b"a\nb=c"[..]));
    assert!(value("trusted.overlay.opaque").is_err());
    let foreign = fs::metadata(place.tree("rootfs/foreign")).unwrap();
    assert_eq!((foreign.uid(), foreign.gid()), (3_000_000_000, 70_000));
    refused("uid", Archive::image().pax(&[("uid", b"4294967295")]).file("rootfs/a", b""));
    refused("gid", Archive::image().pax(&[("gid", b"99999999999")]).file("rootfs/a", b""));
}

#[test]
fn directories_keep_their_attributes_in_any_order() {
    let place = Place::new();
    let mut default_acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in [
        (1_u16, 7_u16, u32::MAX),
        (2, 7, 1000),
        (4, 5, u32::MAX),
        (16, 7, u32::MAX),
        (32, 5, u32::MAX),
    ] {
        default_acl.extend_from_slice(&tag.to_le_bytes());
        default_acl.extend_from_slice(&permissions.to_le_bytes());
        default_acl.extend_from_slice(&id.to_le_bytes());
    }
    let setgid = |header: &mut [u8; 512]| {
        header[100..107].copy_from_slice(b"0002750");
        header[116..123].copy_from_slice(b"0000050");
    };
    let image = Archive::image()
        .file("rootfs/late/child", b"1")
        .pax(&[("SCHILY.xattr.system.posix_acl_default", &default_acl)])
        .entry("rootfs/group", b'5', "", b"", setgid)
        .file("rootfs/late/sibling", b"2")
        .file("rootfs/group/file", b"3")
        .dir("rootfs/group/dir")
        .entry("rootfs/group/pipe", b'6', "", b"", |_| {})
        .symlink("rootfs/group/link", "x")
        .entry("rootfs/late", b'5', "", b"", |header| header[100..107].copy_from_slice(b"0001700"))
        .file("rootfs/late/third", b"4")
        .finish();
    place.unpack(&image).unwrap();
    let look = |name: &str| fs::symlink_metadata(place.tree(name)).unwrap();
    for name in ["rootfs", "rootfs/late", "rootfs/group", "rootfs/group/dir"] {
        assert_eq!(look(name).mtime(), 0o14_471_142_123, "{name}");
    }
    assert_eq!(look("rootfs/late").mode() & 0o7777, 0o1700);
    assert_eq!((look("rootfs/group").mode() & 0o7777, look("rootfs/group").gid()), (0o2750, 40));
    // Nothing is inherited from the directory that isn't in the archive.
    for name in ["file", "dir", "pipe", "link"] {
        let metadata = look(&format!("rootfs/group/{name}"));
        assert_eq!(metadata.gid(), 0, "{name}");
        if !metadata.is_symlink() {
            assert_eq!(metadata.mode() & 0o7777, 0o644, "{name}");
        }
        let path = place.tree("rootfs/group").join(name);
        for acl in ["system.posix_acl_access", "system.posix_acl_default"] {
            assert!(rustix::fs::lgetxattr(&path, acl, &mut [0_u8; 100][..]).is_err(), "{name}");
        }
    }
}

#[test]
fn bombs_go_off_before_the_disk_is_full() {
    let size = |size: u64| {
        move |header: &mut [u8; 512]| {
            header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        }
    };
    // 4 GiB announced, nothing there.
    refused("cut", Archive::image().entry("rootfs/a", b'0', "", b"", size(4 << 30)));
    let huge = Archive::image()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"2199023255552"),
        ])
        .file("rootfs/a", b"0\n");
    refused("sparse beyond the limit", huge);
    let zeros = Archive::image().file("rootfs/a", &vec![0; 600 << 20]).finish();
    let mut packed = Vec::new();
    let mut compressor = lxd_proto::format::Compressor::new(
        lxd_proto::format::Compression::Zstd,
        Some(1),
        &mut packed,
    )
    .unwrap();
    std::io::Write::write_all(&mut compressor, &zeros).unwrap();
    compressor.finish().unwrap();
    let place = Place::new();
    refused_at(&place, "zeros", &packed);
    // A sparse file costs nothing, whatever its size.
    let mut map = b"2\n0\n3\n1073741824\n2\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"abcde");
    let image = Archive::image()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"rootfs/sparse"),
            ("GNU.sparse.realsize", b"4294967296"),
        ])
        .file("x", &map)
        .finish();
    place.unpack(&image).unwrap();
    let sparse = fs::metadata(place.tree("rootfs/sparse")).unwrap();
    assert_eq!(sparse.len(), 4 << 30);
    assert!(sparse.blocks() < 100, "{}", sparse.blocks());
    let file = fs::File::open(place.tree("rootfs/sparse")).unwrap();
    let mut found = [0; 4];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, (1 << 30) - 1).unwrap();
    assert_eq!(&found, b"\0de\0");
}

#[test]
fn depth_costs_no_descriptors() {
    let place = Place::new();
    let deep = |levels: usize| format!("rootfs/{}", "d/".repeat(levels));
    let name = deep(1900) + "file";
    let other = deep(1000) + "other";
    let image = Archive::image()
        .pax(&[("path", name.as_bytes())])
        .file("x", b"deep")
        .pax(&[("path", other.as_bytes())])
        .file("x", b"higher")
        .pax(&[("path", (deep(1900) + "again").as_bytes())])
        .file("x", b"deep again")
        .finish();
    place.unpack(&image).unwrap();
    assert_eq!(fs::read(place.tree(&deep(1000)).join("other")).unwrap(), b"higher");
    let too_deep = deep(3000) + "file";
    refused("too deep", Archive::image().pax(&[("path", too_deep.as_bytes())]).file("x", b""));
}

#[test]
fn disks_are_not_containers() {
    let place = Place::new();
    let metadata = b"architecture: amd64\ncreation_date: 1\n";
    let disk = Archive::default().file("metadata.yaml", metadata).file("rootfs.img", b"raw");
    assert!(matches!(place.unpack(&disk.finish()), Err(Error::VirtualMachine)));
    let head = Archive::default().file("metadata.yaml", metadata).finish();
    let qcow2 = [b"QFI\xfb\0\0\0\x03".to_vec(), vec![0; 600]].concat();
    assert!(matches!(place.unpack_split(&head, &qcow2), Err(Error::VirtualMachine)));
    let root = Archive::default().file("etc/hostname", b"c1").finish();
    let unpacked = place.unpack_split(&head, &root).unwrap();
    assert_eq!((unpacked.entries, unpacked.bytes), (2, 37 + 2));
    assert_eq!(fs::read(place.tree("rootfs/etc/hostname")).unwrap(), b"c1");
    assert_eq!(fs::metadata(place.tree("metadata.yaml")).unwrap().mode() & 0o7777, 0o600);
}
