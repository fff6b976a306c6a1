//! Images made by `mksquashfs`, and the same ones spoilt.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::format::qcow2;
use crate::format::testing::{METADATA, Random};
use crate::image::InstanceType;

/// Packs a directory with Debian's squashfs-tools, which the test command installs.
pub(crate) fn mksquashfs(dir: &Path, options: &[&str]) -> Vec<u8> {
    let target = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new("mksquashfs")
        .arg(dir)
        .arg(target.path())
        .args(["-noappend", "-no-progress", "-all-root", "-no-exports"])
        .args(options)
        .output()
        .expect("mksquashfs must be installed (package squashfs-tools) to run these tests");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(target.path()).unwrap()
}

/// Nothing compressed but data, so that tables can be spoilt by hand.
const PLAIN_TABLES: &[&str] = &["-noI", "-noId", "-noX"];

/// A directory with a unified image in it.
pub(crate) fn image_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("metadata.yaml"), METADATA).unwrap();
    fs::create_dir_all(at("templates")).unwrap();
    fs::write(at("templates/hosts.tpl"), "127.0.0.1").unwrap();
    fs::create_dir_all(at("rootfs/etc/deep/er")).unwrap();
    fs::create_dir(at("rootfs/many")).unwrap();
    for i in 0..700 {
        fs::write(at(&format!("rootfs/many/file-{i:04}")), i.to_string()).unwrap();
    }
    let noise = Random::new(1).bytes(300_000);
    fs::write(at("rootfs/etc/noise"), &noise).unwrap();
    fs::write(at("rootfs/etc/text"), "some words ".repeat(50_000)).unwrap();
    fs::write(at("rootfs/etc/zeros"), vec![0; 1 << 20]).unwrap();
    fs::write(at("rootfs/etc/deep/er/last"), &noise[..1000]).unwrap();
    fs::hard_link(at("rootfs/etc/text"), at("rootfs/etc/text2")).unwrap();
    symlink("/usr/bin", at("rootfs/bin")).unwrap();
    symlink("../../../..", at("rootfs/up")).unwrap();
    dir
}

fn run(role: Role, image: &[u8], verify_data: bool) -> Result<Walked, String> {
    check(&image, role, &Limits::default(), verify_data).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(role: Role, image: &[u8], reason: &str) {
    let error = run(role, image, false).unwrap_err();
    assert!(error.contains(reason), "{error:?} should have {reason:?}");
}

#[test]
fn images_of_every_compression_are_read() {
    let dir = image_dir();
    let nodes = dir.path().join("pseudo");
    fs::write(
        &nodes,
        "rootfs/null c 666 0 0 1 3\nrootfs/disk b 660 0 6 8 0\nrootfs/pipe i 644 0 0 f\n",
    )
    .unwrap();
    let nodes = nodes.to_str().unwrap();
    for comp in ["gzip", "xz", "zstd", "lz4"] {
        for more in [&[][..], &["-no-fragments"], &["-b", "4096"], &["-no-xattrs"]] {
            let fixed = ["-comp", comp, "-e", "pseudo", "-pf", nodes];
            // The list of files left out must come last.
            let options = [&fixed[..2], &fixed[4..], more, &fixed[2..4]].concat();
            let image = mksquashfs(dir.path(), &options);
            let walked = run(Role::Unified, &image, true).unwrap();
            assert_eq!(walked.parts.kind, Some(InstanceType::Container), "{options:?}");
            assert_eq!(walked.parts.metadata.unwrap().creation_date, 1_424_284_563);
            assert_eq!(walked.entries, 718, "{options:?}");
            assert!(walked.unpacked > 2 << 20);
        }
    }
}

#[test]
fn an_uncompressed_image_is_read() {
    let dir = image_dir();
    let image = mksquashfs(dir.path(), &["-noI", "-noD", "-noF", "-noX", "-noId"]);
    run(Role::Unified, &image, true).unwrap();
}

#[test]
fn a_root_file_system_of_its_own_is_read() {
    let dir = image_dir();
    let image = mksquashfs(&dir.path().join("rootfs"), &["-comp", "zstd"]);
    let walked = run(Role::Rootfs, &image, true).unwrap();
    assert_eq!(walked.parts.kind, Some(InstanceType::Container));
    assert!(walked.parts.metadata.is_none());
    refused(Role::Unified, &image, "doesn't belong there");
}

#[test]
fn a_virtual_machine_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("metadata.yaml"), METADATA).unwrap();
    let disk = dir.path().join("rootfs.img");
    fs::write(&disk, qcow2::tests::disk(|_| {})).unwrap();
    let image = mksquashfs(dir.path(), &[]);
    let walked = run(Role::Unified, &image, true).unwrap();
    assert_eq!(walked.parts.kind, Some(InstanceType::VirtualMachine));
    fs::write(&disk, qcow2::tests::disk(|head| head[15] = 1)).unwrap();
    refused(Role::Unified, &mksquashfs(dir.path(), &[]), "backing file");
}

#[test]
fn parts_that_are_missing_or_wrong_are_named() {
    let dir = image_dir();
    let at = |name: &str| dir.path().join(name);
    let image = || mksquashfs(dir.path(), &[]);

    for name in ["backup.yaml", "exec-output"] {
        symlink("/etc/shadow", at(name)).unwrap();
        refused(Role::Unified, &image(), "doesn't belong there");
        fs::remove_file(at(name)).unwrap();
    }
    fs::rename(at("templates"), at("kept")).unwrap();
    symlink("/", at("templates")).unwrap();
    let templates = mksquashfs(dir.path(), &["-e", "kept"]);
    refused(Role::Unified, &templates, "must be a regular file or a directory");
    fs::remove_file(at("templates")).unwrap();

    let bare = mksquashfs(dir.path(), &["-e", "kept", "metadata.yaml"]);
    refused(Role::Unified, &bare, "missing metadata.yaml");
    let bare = mksquashfs(dir.path(), &["-e", "kept", "rootfs"]);
    refused(Role::Unified, &bare, "Invalid instance type");

    fs::remove_dir_all(at("kept")).unwrap();
    fs::remove_file(at("metadata.yaml")).unwrap();
    symlink("rootfs/etc/text", at("metadata.yaml")).unwrap();
    refused(Role::Unified, &image(), "must be a regular file");
    fs::remove_file(at("metadata.yaml")).unwrap();
    fs::write(at("metadata.yaml"), vec![b' '; (1 << 20) + 1]).unwrap();
    refused(Role::Unified, &image(), "larger than 1 MiB");

    fs::write(at("metadata.yaml"), METADATA).unwrap();
    fs::remove_dir_all(at("rootfs")).unwrap();
    symlink("/", at("rootfs")).unwrap();
    refused(Role::Unified, &image(), "must be a directory");
}

/// Replaces every occurrence of a name, which is there at least once.
fn rename(image: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut image = image.to_vec();
    let mut found = 0;
    for at in 0..image.len() - from.len() {
        if image[at..].starts_with(from.as_bytes()) {
            image[at..at + to.len()].copy_from_slice(to.as_bytes());
            found += 1;
        }
    }
    assert!(found > 0, "{from} is not there");
    image
}

#[test]
fn names_that_no_tool_would_write_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["qa-one", "qb-one", "qc", "qd-dir"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let image = mksquashfs(dir.path(), PLAIN_TABLES);
    run(Role::Rootfs, &image, true).unwrap();
    let check = |image: &[u8], reason| refused(Role::Rootfs, image, reason);
    check(&rename(&image, "qb-one", "qa-one"), "two entries named \"qa-one\"");
    check(&rename(&image, "qa-one", "qc-one"), "not in order");
    check(&rename(&image, "qc", ".."), "leaves its root: entry \"..\"");
    check(&rename(&image, "qc", "q/"), "leaves its root");
    check(&rename(&image, "qc", "qb"), "not in order");
    check(&rename(&image, "qd-dir", "qd\0dir"), "no file system takes");
}

#[test]
fn directories_with_two_parents_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("aa/inner")).unwrap();
    fs::create_dir_all(dir.path().join("bb")).unwrap();
    let mut image = mksquashfs(dir.path(), PLAIN_TABLES);
    let root = usize::try_from(number(&image, 72, 8)).unwrap() + 2;
    // The entry for "bb" is made to point to the inode of "inner", which is of the same type:
    // an entry is offset, number, type, length and name.
    let find = |image: &[u8], name: &[u8]| {
        (root..image.len()).find(|&at| image[at..].starts_with(name)).unwrap() - 8
    };
    let (inner, other) = (find(&image, b"inner"), find(&image, b"bb"));
    let offset = [image[inner], image[inner + 1]];
    image[other..other + 2].copy_from_slice(&offset);
    refused(Role::Rootfs, &image, "doesn't know its parent");
}

#[test]
fn a_cut_image_is_refused() {
    let dir = image_dir();
    let image = mksquashfs(dir.path(), &["-comp", "zstd"]);
    let used = usize::try_from(number(&image, 40, 8)).unwrap();
    assert!(used > 300_000);
    let mut lens: Vec<usize> = (0..100).chain(used - 100..used).collect();
    lens.extend((0..50).map(|part| used / 50 * part));
    for len in lens {
        refused(Role::Unified, &image[..len], "squashfs image is truncated");
    }
    run(Role::Unified, &image[..used], true).unwrap();
}

#[test]
fn wrong_superblocks_are_refused() {
    let dir = image_dir();
    let image = mksquashfs(dir.path(), &[]);
    let check = |at: usize, bytes: &[u8], reason| {
        let mut image = image.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        refused(Role::Unified, &image, reason);
    };
    check(0, b"sqsh", "doesn't begin");
    check(28, &[3], "version is not 4.0");
    check(20, &[3], "lzo");
    check(20, &[7], "not known here");
    check(12, &[1], "block size");
    check(22, &[30], "block size");
    check(4, &[0; 4], "empty");
    check(40, &[255; 7], "truncated");
    check(64, &[0; 8], "table is not where");
    check(64, &[255; 8], "table is not where");
    check(72, &[255; 7], "table is not where");
    check(48, &[0; 8], "table is not where");
    check(80, &[255; 8], "fragment table is missing");
    check(32, &[255; 8], "an inode is not in the inode table");
    check(16, &[255; 3], "");
}

#[test]
fn spoilt_data_is_found_when_asked_for() {
    let dir = image_dir();
    for comp in ["gzip", "xz"] {
        let mut image = mksquashfs(&dir.path().join("rootfs"), &["-comp", comp, "-b", "16384"]);
        // The compressed blocks, those of the text and of the small files, come last.
        let tables = usize::try_from(number(&image, 64, 8)).unwrap();
        for at in (tables - 4000..tables).step_by(300) {
            image[at] ^= 0x55;
        }
        run(Role::Rootfs, &image, false).unwrap();
        let error = run(Role::Rootfs, &image, true).unwrap_err();
        assert!(error.contains("squashfs image is corrupt"), "{error}");
    }
}

#[test]
fn limits_hold() {
    let dir = image_dir();
    let image = mksquashfs(dir.path(), &[]);
    let with = |limits: Limits| {
        check(&image, Role::Unified, &limits, false).map_err(|error| error.to_string())
    };
    let defaults = Limits::default();
    let error = with(Limits { entries: 700, ..defaults }).unwrap_err();
    assert!(error.contains("more than 700 entries"), "{error}");
    let error = with(Limits { unpacked: 1 << 20, ..defaults }).unwrap_err();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
    let error = with(Limits { ratio: 1, ratio_floor: 1000, ..defaults }).unwrap_err();
    assert!(error.contains("bomb"), "{error}");
}

#[test]
fn damaged_images_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..20 {
        let sub = dir.path().join(format!("dir{}/sub{i}", i % 4));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join("file"), vec![b'x'; 3000 * i]).unwrap();
        symlink("../file", sub.join("link")).unwrap();
    }
    let mut random = Random::new(3);
    for options in [PLAIN_TABLES, &["-comp", "gzip"], &["-comp", "zstd"], &["-comp", "lz4"]] {
        let image = mksquashfs(dir.path(), options);
        let used = usize::try_from(number(&image, 40, 8)).unwrap();
        let tables = usize::try_from(number(&image, 64, 8)).unwrap();
        for _ in 0..4000 {
            let mut damaged = image.clone();
            for _ in 0..=random.below(3) {
                let (from, to) = if random.below(4) == 0 { (4, 96) } else { (tables, used) };
                damaged[from + random.below(to - from)] = random.byte();
            }
            let _ = run(Role::Rootfs, &damaged, random.below(8) == 0);
        }
    }
}
