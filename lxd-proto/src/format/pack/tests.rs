//! Directories packed, checked, unpacked by GNU tar, and packed again.

use std::fs::{Permissions, hard_link, set_permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use super::*;
use crate::format::testing::{METADATA, Random};
use crate::format::{Checker, FileType, Findings, Limits, Role};

fn image_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("metadata.yaml"), METADATA).unwrap();
    fs::create_dir(at("templates")).unwrap();
    fs::write(at("templates/hosts.tpl"), "127.0.0.1").unwrap();
    let long = format!("rootfs/{}", "directory/".repeat(20));
    fs::create_dir_all(at(&long)).unwrap();
    fs::write(at(&long).join("file"), Random::new(2).bytes(600_000)).unwrap();
    fs::write(at("rootfs/empty"), "").unwrap();
    fs::write(at("rootfs/setuid"), "program").unwrap();
    set_permissions(at("rootfs/setuid"), Permissions::from_mode(0o4755)).unwrap();
    hard_link(at("rootfs/setuid"), at("rootfs/another")).unwrap();
    hard_link(at("templates/hosts.tpl"), at("rootfs/hosts")).unwrap();
    hard_link(at("templates/hosts.tpl"), at("templates/other.tpl")).unwrap();
    symlink("/usr/bin", at("rootfs/bin")).unwrap();
    symlink("t".repeat(150), at("rootfs/long-link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("rootfs/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    drop(UnixListener::bind(at("rootfs/socket")).unwrap());
    dir
}

fn pack(dir: &Path, compression: Compression) -> Vec<u8> {
    let mut out = Vec::new();
    pack_directory(dir, compression, None, &mut out).unwrap();
    out
}

fn check(file: &[u8]) -> Findings {
    let mut checker = Checker::new(Role::Unified, Limits::default());
    checker.feed(file).unwrap();
    checker.finish(&file).unwrap()
}

fn tar(args: &[&str], file: &Path) -> String {
    let output = Command::new("tar").arg("-f").arg(file).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_packed_passes_the_check() {
    let dir = image_dir();
    for compression in Compression::ALL {
        let findings = check(&pack(dir.path(), compression));
        assert_eq!(findings.file_type, FileType::Tar(compression));
        assert_eq!(findings.entries, 33, "{compression}");
        assert_eq!(findings.metadata.unwrap().creation_date, 1_424_284_563);
    }
}

#[test]
fn gnu_tar_reads_it_back() {
    let dir = image_dir();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), pack(dir.path(), Compression::Gzip)).unwrap();
    let names = tar(&["-z", "-t"], file.path());
    let first: Vec<&str> = names.lines().take(4).collect();
    assert_eq!(first, ["metadata.yaml", "rootfs/", "rootfs/another", "rootfs/bin"]);
    assert!(!names.contains("socket"));
    let out = tempfile::tempdir().unwrap();
    tar(&["-z", "-x", "-p", "-C", out.path().to_str().unwrap()], file.path());
    let at = |name: &str| out.path().join(name);
    assert_eq!(fs::metadata(at("rootfs/setuid")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(fs::metadata(at("rootfs/another")).unwrap().nlink(), 2);
    assert_eq!(fs::read_link(at("rootfs/long-link")).unwrap(), Path::new(&"t".repeat(150)));
    let newest = fs::metadata(at("rootfs/setuid")).unwrap().mtime();
    assert_eq!(newest, 1_424_284_563);
    // What came out packs to the same bytes.
    assert!(pack(out.path(), Compression::Gzip) == fs::read(file.path()).unwrap());
}

#[test]
fn devices_and_attributes_are_kept() {
    let dir = image_dir();
    let target = dir.path().join("rootfs/setuid");
    let set = |name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(&target, name, value, rustix::fs::XattrFlags::empty())
    };
    set("user.zz", b"last\n= ").unwrap();
    set("user.aa", b"").unwrap();
    let archive = pack(dir.path(), Compression::None);
    check(&archive);
    let find = |needle: &[u8]| archive.windows(needle.len()).position(|part| part == needle);
    let (aa, zz) = (find(b"SCHILY.xattr.user.aa=\n"), find(b"SCHILY.xattr.user.zz=last\n= \n"));
    assert!(aa.is_some() && aa < zz);

    // Only root can make one; its header is tested for everyone.
    let null = fs::symlink_metadata("/dev/null").unwrap();
    let attributes = &Attributes::default();
    let (name, link, kind) = (&b"rootfs/null"[..], &b""[..], entry_kind(&null));
    let entry = Entry { name, link, kind, size: 0, sparse: false, attributes };
    let block = encode_entry(&entry, None);
    assert_eq!(block[156], b'3');
    assert_eq!(&block[329..345], b"0000001\x000000003\0");
}

#[test]
fn directories_that_are_no_image_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let refused = |reason: &str| {
        let error = pack_directory(dir.path(), Compression::None, None, &mut io::sink())
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error:?} should have {reason:?}");
    };
    refused("has no metadata.yaml");
    fs::write(at("metadata.yaml"), "architecture: amd64\n").unwrap();
    refused("Missing creation date");
    fs::write(at("metadata.yaml"), METADATA).unwrap();
    refused("has no rootfs/");
    fs::create_dir(at("rootfs")).unwrap();
    // What lies beside an image, as in a directory under version control, stays out of it.
    fs::write(at("backup.yaml"), "").unwrap();
    drop(UnixListener::bind(at("rootfs/socket")).unwrap());
    let mut out = Vec::new();
    let left_out = pack_directory(dir.path(), Compression::None, None, &mut out).unwrap();
    assert_eq!(left_out, [at("backup.yaml"), at("rootfs/socket")]);
    check(&out);
    let wrong = pack_directory(dir.path(), Compression::Zstd, Some(99), &mut io::sink());
    assert!(wrong.unwrap_err().to_string().contains("zstd has levels 1 to 22"));
    let missing = pack_directory(&at("nowhere"), Compression::None, None, &mut io::sink());
    assert!(missing.is_err());
}
