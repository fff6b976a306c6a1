//! A tree with everything that a root file system can hold, packed, unpacked and copied.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use lxd_proto::format::{Compression, Compressor};
use lxd_proto::remote::Progress;
use rustix::fs::{FileType, Mode, XattrFlags};
use tokio_util::sync::CancellationToken;

use super::archive::METADATA;
use crate::rootfs::{Copied, Error, Source, copy, pack, unpack};

/// `cap_net_raw=ep`, as ping has it; for the machine's root.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// What one entry is, but for where it is on the disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) device: u64,
    pub(super) mtime: i64,
    pub(super) links: u64,
    pub(super) content: Vec<u8>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first of the names of the same file.
    pub(super) first: PathBuf,
    pub(super) is_sparse: bool,
}

pub(super) fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let place = root.join(&path);
        let metadata = fs::symlink_metadata(&place).unwrap();
        let content = if metadata.is_symlink() {
            fs::read_link(&place).unwrap().as_os_str().as_bytes().to_vec()
        } else if metadata.is_file() && metadata.len() < 1 << 20 {
            fs::read(&place).unwrap()
        } else if metadata.is_file() {
            let mut ends = vec![0; 8192];
            let file = fs::File::open(&place).unwrap();
            file.read_exact_at(&mut ends[..4096], 0).unwrap();
            file.read_exact_at(&mut ends[4096..], metadata.len() - 4096).unwrap();
            ends.extend_from_slice(&metadata.len().to_le_bytes());
            ends
        } else {
            Vec::new()
        };
        if metadata.is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort_by(|a, b| b.cmp(a));
            waiting.extend(names.into_iter().map(|name| path.join(name)));
        }
        let mut names = vec![0; 65536];
        let len = rustix::fs::llistxattr(&place, &mut names[..]).unwrap();
        let xattrs = names[..len]
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| {
                let mut value = vec![0; 65536];
                let len = rustix::fs::lgetxattr(&place, name, &mut value[..]).unwrap();
                (name.to_vec(), value[..len].to_vec())
            })
            .collect();
        let id = metadata.ino();
        seen.insert(
            path.clone(),
            Seen {
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                device: metadata.rdev(),
                mtime: metadata.mtime(),
                links: if metadata.is_dir() { 0 } else { metadata.nlink() },
                content,
                xattrs,
                first: first.entry(id).or_insert(path).clone(),
                is_sparse: metadata.blocks() * 512 + (1 << 20) < metadata.len(),
            },
        );
    }
    seen
}

pub(super) fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn acl(user: u32) -> Vec<u8> {
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in [
        (1_u16, 7_u16, u32::MAX),
        (2, 5, user),
        (4, 5, u32::MAX),
        (16, 7, u32::MAX),
        (32, 5, u32::MAX),
    ] {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    acl
}

/// Everything there is; owners are `base` and up.
pub(super) fn furnish(root: &Path, base: u32) {
    let at = |name: &str| root.join(name);
    let node = |name: &str, kind, device| {
        let dir = fs::File::open(root).unwrap();
        rustix::fs::mknodat(&dir, name, kind, Mode::from_raw_mode(0o660), device).unwrap();
    };
    fs::create_dir_all(at("bin")).unwrap();
    fs::create_dir_all(at("journal/empty")).unwrap();
    fs::create_dir_all(at(&"a-long-name-of-a-directory/".repeat(20))).unwrap();
    fs::write(at("bin/ping"), "program").unwrap();
    fs::write(at("bin/su"), "set-uid").unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("block"), [7; 512]).unwrap();
    fs::write(at("block+1"), [7; 513]).unwrap();
    fs::write(at(&"x".repeat(255)), "long").unwrap();
    fs::write(at(&("a-long-name-of-a-directory/".repeat(20) + "deep")), "deep").unwrap();
    fs::write(at("new\nline"), "odd").unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "not utf-8").unwrap();
    for name in ["zz-link", "bin/link", "journal/link"] {
        fs::hard_link(at("bin/ping"), at(name)).unwrap();
    }
    symlink("/etc/passwd", at("link")).unwrap();
    symlink("l/".repeat(100), at("long-link")).unwrap();
    fs::hard_link(at("link"), at("link-to-link")).unwrap();
    node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("disk", FileType::BlockDevice, rustix::fs::makedev(259, 1_000_000));
    node("pipe", FileType::Fifo, 0);
    let mut sparse = fs::File::create(at("sparse")).unwrap();
    sparse.write_all(b"start").unwrap();
    sparse.write_all_at(b"middle", 5 << 20).unwrap();
    sparse.set_len((8 << 20) + 3).unwrap();
    fs::File::create(at("hole")).unwrap().set_len(2 << 20).unwrap();
    for (number, path) in look(root).keys().enumerate() {
        let id = base + u32::try_from(number).unwrap() % 50;
        std::os::unix::fs::lchown(root.join(path), Some(id), Some(id + 1)).unwrap();
    }
    std::os::unix::fs::lchown(at("bin/su"), Some(base + 60_000), Some(base)).unwrap();
    for (name, mode) in [("bin/su", 0o6755), ("journal", 0o3771), ("empty", 0o000), ("pipe", 0o622)]
    {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut capability = CAPABILITY.to_vec();
    if base != 0 {
        capability[3] = 3;
        capability.extend_from_slice(&base.to_le_bytes());
    }
    set(&at("bin/ping"), "security.capability", &capability);
    set(&at("block"), "user.comment", b"a\nb=\0c");
    set(&at("block"), "user.empty", b"");
    set(&at("bin"), "user.dir", &[b'x'; 1000]);
    set(&at("link"), "trusted.link", b"1");
    set(&at("journal"), "system.posix_acl_default", &acl(base + 33));
    set(&at("empty"), "system.posix_acl_access", &acl(base + 34));
    for (number, path) in look(root).keys().enumerate() {
        let seconds = 1_400_000_000 + i64::try_from(number).unwrap();
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        let nofollow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, root.join(path), &times, nofollow).unwrap();
    }
}

fn pack_to(root: &Path, templates: &Path, shift: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let cancel = CancellationToken::new();
    pack(METADATA, templates, root, shift, &mut out, &Progress::default(), &cancel).unwrap();
    out
}

fn unpack_to(image: &[u8], into: &Path) {
    let file = into.with_extension("image");
    fs::write(&file, image).unwrap();
    fs::create_dir(into).unwrap();
    let source = Source { head: &file, rootfs: None };
    let unpacked = unpack(source, into, &Progress::default(), &CancellationToken::new()).unwrap();
    assert_eq!(unpacked.dropped_xattrs, 0);
}

#[track_caller]
fn same(one: &Path, other: &Path) {
    let (one, other) = (look(one), look(other));
    for (path, seen) in &one {
        assert_eq!(Some(seen), other.get(path), "{path:?}");
    }
    assert_eq!(one.len(), other.len());
}

#[test]
fn a_packed_tree_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("root")).unwrap();
    fs::create_dir_all(at("templates/below")).unwrap();
    fs::write(at("templates/below/hostname.tpl"), "{{ container.name }}").unwrap();
    furnish(&at("root"), 0);
    std::os::unix::net::UnixListener::bind(at("root/socket")).unwrap();
    let image = pack_to(&at("root"), &at("templates"), 0);
    fs::remove_file(at("root/socket")).unwrap();
    let time = rustix::fs::Timespec { tv_sec: 1_400_000_000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, at("root"), &times, rustix::fs::AtFlags::empty())
        .unwrap();
    // The holes are not in the archive.
    assert!(image.len() < 1 << 20, "{}", image.len());
    let image = pack_to(&at("root"), &at("templates"), 0);
    assert_eq!(pack_to(&at("root"), &at("templates"), 0), image, "packed twice");
    unpack_to(&image, &at("again"));
    same(&at("root"), &at("again/rootfs"));
    assert!(look(&at("again/rootfs"))[Path::new("sparse")].is_sparse);
    assert_eq!(fs::read(at("again/metadata.yaml")).unwrap(), METADATA);
    let template = fs::read_to_string(at("again/templates/below/hostname.tpl")).unwrap();
    assert_eq!(template, "{{ container.name }}");
    assert_eq!(pack_to(&at("again/rootfs"), &at("again/templates"), 0), image, "packed again");
}

#[test]
fn ids_are_those_of_the_image_again() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("plain")).unwrap();
    fs::create_dir(at("shifted")).unwrap();
    furnish(&at("plain"), 0);
    furnish(&at("shifted"), 1_000_000);
    let none = at("none");
    let image = pack_to(&at("plain"), &none, 0);
    assert_eq!(pack_to(&at("shifted"), &none, 1_000_000), image);
    let cancel = CancellationToken::new();
    copy(&at("plain"), &at("copied"), 1_000_000, &cancel).unwrap();
    same(&at("shifted"), &at("copied"));
    copy(&at("copied"), &at("back"), -1_000_000, &cancel).unwrap();
    same(&at("plain"), &at("back"));
    // Who is outside of the range becomes nobody, and never root.
    let image = pack_to(&at("plain"), &none, 1_000_000);
    unpack_to(&image, &at("nobody"));
    assert!(look(&at("nobody/rootfs")).values().all(|seen| seen.owner == (65534, 65534)));
}

#[test]
fn layers_are_copied_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("upper")).unwrap();
    furnish(&at("upper"), 1_000_000);
    let upper = fs::File::open(at("upper")).unwrap();
    let gone = rustix::fs::makedev(0, 0);
    rustix::fs::mknodat(&upper, "gone", FileType::CharacterDevice, Mode::empty(), gone).unwrap();
    rustix::fs::mknodat(&upper, "socket", FileType::Socket, Mode::RUSR, 0).unwrap();
    set(&at("upper/journal"), "trusted.overlay.opaque", b"y");
    set(&at("upper/bin"), "trusted.overlay.redirect", b"/old/name");
    set(&at("upper"), "trusted.overlay.origin", b"\0\xfb\x1d");
    let before = look(&at("upper"));
    let Copied { entries, .. } =
        copy(&at("upper"), &at("copy"), 0, &CancellationToken::new()).unwrap();
    assert_eq!(usize::try_from(entries).unwrap() + 1, before.len());
    same(&at("upper"), &at("copy"));
    assert_eq!(before, look(&at("upper")), "the source is as it was");
    let whiteout = fs::symlink_metadata(at("copy/gone")).unwrap();
    assert_eq!((whiteout.rdev(), whiteout.mode()), (0, 0o020_000));
    // Nothing is written over.
    assert!(copy(&at("upper"), &at("copy"), 0, &CancellationToken::new()).is_err());
    same(&at("upper"), &at("copy"));
    let cancel = CancellationToken::new();
    cancel.cancel();
    assert!(matches!(copy(&at("upper"), &at("cut"), 0, &cancel), Err(Error::Cancelled)));
    assert!(!at("cut").exists());
    // In an image, what belongs to the overlay is left out.
    let image = pack_to(&at("upper"), &at("none"), 1_000_000);
    assert!(!image.windows(15).any(|part| part == b"trusted.overlay"));
}

#[test]
fn work_that_is_called_off_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("root")).unwrap();
    fs::write(at("root/large"), vec![1; 3 << 20]).unwrap();
    let image = pack_to(&at("root"), &at("none"), 0);
    fs::write(at("image"), &image).unwrap();
    fs::create_dir(at("tree")).unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let source = Source { head: &at("image"), rootfs: None };
    let unpacked = unpack(source, &at("tree"), &Progress::default(), &cancel);
    assert!(matches!(unpacked, Err(Error::Cancelled)));
    assert_eq!(fs::read_dir(at("tree")).unwrap().count(), 0);
    let packed =
        pack(METADATA, &at("none"), &at("root"), 0, &mut Vec::new(), &Progress::default(), &cancel);
    assert!(matches!(packed, Err(Error::Cancelled)));
    // A writer that fails is the reason, and the reader ends.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let cancel = CancellationToken::new();
    let packed = pack(METADATA, &at("none"), &at("root"), 0, full, &Progress::default(), &cancel);
    assert!(matches!(packed, Err(Error::Output { .. })), "{packed:?}");
}

#[test]
fn every_compression_is_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("root")).unwrap();
    furnish(&at("root"), 0);
    let image = pack_to(&at("root"), &at("none"), 0);
    for compression in Compression::ALL {
        let mut packed = Vec::new();
        let mut compressor = Compressor::new(compression, None, &mut packed).unwrap();
        compressor.write_all(&image).unwrap();
        compressor.finish().unwrap();
        let name = compression.to_string();
        unpack_to(&packed, &at(&name));
        same(&at("root"), &at(&name).join("rootfs"));
    }
}
