//! An image made by hand (row B3): a root file system, a metadata.yaml, two tarballs.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use lxd_tests::client::{Client, subdir, system};
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Recipe, noise};
use lxd_tests::tool;

/// What a Debian root has that a lazy archive reader trips over.
fn root_file_system(root: &Path) {
    for dir in ["bin", "etc/apt", "usr/lib", "var/log", "tmp", "dev"] {
        subdir(root, dir);
    }
    let write = |name: &str, bytes: &[u8], mode: u32| {
        let path = root.join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write("bin/su", b"#!/bin/sh\n", 0o4755);
    write("etc/shadow", b"root:*:1::::::\n", 0o640);
    write("etc/hostname", b"debian\n", 0o644);
    write("usr/lib/libbig.so", &noise(1, 600_000), 0o644);
    write("var/log/empty", b"", 0o600);
    write(&format!("usr/lib/{}", "long-name-".repeat(20)), b"long", 0o644);
    write("etc/ünïcode name", b"x", 0o644);
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("/proc/self/mounts", root.join("etc/mtab")).unwrap();
    symlink("usr/lib", root.join("lib")).unwrap();
    symlink("../../../outside", root.join("etc/apt/odd")).unwrap();
    std::fs::hard_link(root.join("etc/hostname"), root.join("etc/hostname.linked")).unwrap();
    let sparse = std::fs::File::create(root.join("var/log/sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    if tool::is_root() {
        system("mknod", &format!("{}/dev/null c 1 3", root.display())).ok();
        system("mkfifo", &format!("{}/dev/initctl", root.display())).ok();
    }
}

#[test]
fn two_tarballs_packed_by_tar() {
    let daemon = Daemon::start();
    let work = daemon.work();
    let root = subdir(&work, "image/rootfs");
    root_file_system(&root);
    let recipe = Recipe::new("debian").property("os", "Debian").property("release", "bookworm");
    std::fs::write(work.join("image/metadata.yaml"), recipe.yaml()).unwrap();
    subdir(&work, "image/templates");

    for (number, client) in Client::both().into_iter().enumerate() {
        let flags = if number == 0 { "-cJf" } else { "--format=posix -czSf" };
        let tar = |line: String| daemon.point(system("tar", &line)).ok();
        tar(format!("--numeric-owner {flags} rootfs{number} -C image/rootfs ."));
        tar(format!("{flags} meta{number} -C image metadata.yaml templates"));
        tar(format!(
            "--numeric-owner --xattrs {flags} whole{number} -C image metadata.yaml templates rootfs"
        ));
        let run = |line: String| daemon.client(client, &line).ok();
        run(format!("image import meta{number} rootfs{number} --alias split-Debian{number}"));
        run(format!("image import whole{number} --alias unified-Debian{number}"));
        run(format!("image info split-Debian{number}")).says("    os: Debian");
        run(format!("image list Debian{number} os=Debian -f csv -c l"))
            .prints(&format!("split-Debian{number}\nunified-Debian{number}\n"));

        let out = subdir(&work, &format!("out{number}"));
        for name in ["split", "unified"] {
            let dir = subdir(&out, name);
            daemon.client(client, &format!("image export {name}-Debian{number} .")).dir(&dir).ok();
        }
        let exported = |dir: &str, meta: bool| {
            let files = out.join(dir).read_dir().unwrap().flatten().map(|e| e.path());
            let is_meta = |p: &Path| p.file_name().unwrap().to_string_lossy().starts_with("meta-");
            files.into_iter().find(|p| is_meta(p) == meta).unwrap()
        };
        let same = |name: String, file: std::path::PathBuf| {
            daemon.point(system("cmp", &format!("{name} {}", file.display()))).ok().silent();
        };
        same(format!("meta{number}"), exported("split", true));
        same(format!("rootfs{number}"), exported("split", false));
        same(format!("whole{number}"), exported("unified", false));
        // And what was packed can be unpacked to what it was.
        let unpacked = subdir(&work, &format!("unpacked{number}"));
        let file = exported("split", false);
        tar(format!("-xf {} -C {}", file.display(), unpacked.display()));
        daemon
            .point(system(
                "diff",
                &format!("-r --no-dereference image/rootfs/etc {}/etc", unpacked.display()),
            ))
            .ok()
            .silent();
    }
}
