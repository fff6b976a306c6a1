//! Containers of a test: an image of a tiny system, and nothing left of them afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Finished, shown};
use crate::daemon::Daemon;
use crate::fixtures::{Recipe, Tar};
use crate::tool;
use crate::wait;

/// What busybox stands for in the containers of tests.
const PROGRAMS: &[&str] = &[
    "cat",
    "cp",
    "date",
    "dd",
    "echo",
    "env",
    "false",
    "hostname",
    "id",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mount",
    "ps",
    "pwd",
    "rm",
    "rmdir",
    "sh",
    "sha256sum",
    "sleep",
    "stat",
    "stty",
    "touch",
    "tr",
    "true",
    "wc",
];

/// A unified image, not compressed, of a system that boots: busybox and little else.
///
/// `more` are lines for metadata.yaml; its templates may use `NAME.tpl` from `templates`.
pub fn busybox(recipe: &Recipe, templates: &[(&str, &str)]) -> Vec<u8> {
    busybox_with(recipe, templates, |_| ())
}

/// The same with more files in it, below `rootfs/`.
pub fn busybox_with(
    recipe: &Recipe,
    templates: &[(&str, &str)],
    more: impl FnOnce(&mut Tar),
) -> Vec<u8> {
    let mut tar = Tar::new();
    tar.file("metadata.yaml", recipe.yaml().as_bytes());
    tar.dir("templates/");
    for (name, text) in templates {
        tar.file(&format!("templates/{name}"), text.as_bytes());
    }
    for dir in ["", "bin/", "dev/", "etc/", "proc/", "root/", "run/", "sbin/", "sys/", "tmp/"] {
        tar.dir(&format!("rootfs/{dir}"));
    }
    let program = std::fs::read(tool::require("busybox")).expect("read busybox");
    tar.program("rootfs/bin/busybox", &program);
    for name in PROGRAMS {
        tar.link(&format!("rootfs/bin/{name}"), "busybox");
    }
    for name in ["init", "halt", "poweroff", "reboot"] {
        tar.link(&format!("rootfs/sbin/{name}"), "/bin/busybox");
    }
    let inittab = "::sysinit:/bin/echo system is up\n::ctrlaltdel:/sbin/poweroff\n";
    tar.file("rootfs/etc/inittab", inittab.as_bytes());
    tar.file("rootfs/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n");
    tar.file("rootfs/etc/group", b"root:x:0:\nuser:x:1000:\n");
    tar.file("rootfs/etc/not-a-program", b"text\n");
    more(&mut tar);
    tar.end()
}

/// A running daemon with the image `busybox`; its fingerprint too.
pub fn hosting() -> (Daemon, String) {
    assert!(tool::is_root(), "containers need root: run the tests as root");
    tool::require("lxc-start");
    let daemon = Daemon::start();
    let print = import(&daemon, "busybox", &busybox(&Recipe::new("busybox"), &[]), "");
    (daemon, print)
}

/// Imports a unified image under `alias`; its fingerprint.
pub fn import(daemon: &Daemon, alias: &str, image: &[u8], more: &str) -> String {
    let file = daemon.file(&format!("{alias}.tar"), image);
    daemon.lxc(&format!("image import {} --alias {alias} {more}", shown(&file))).ok();
    std::fs::remove_file(file).expect("remove what was imported");
    crate::fixtures::fingerprint(&[image])
}

/// Runs a line of shell in a container; it must exit with 0.
pub fn shell(daemon: &Daemon, container: &str, line: &str) -> Finished {
    assert!(!line.contains('\''), "{line}");
    daemon.lxc(&format!("exec {container} -- sh -c '{line}'")).ok()
}

/// Where the root of a container is seen while it is mounted.
pub fn root(daemon: &Daemon, container: &str) -> PathBuf {
    daemon.dir().join("instances").join(container).join("rootfs")
}

/// `Running`, `Stopped` and so on.
pub fn status(daemon: &Daemon, container: &str) -> String {
    let object = daemon.http().metadata(&format!("/1.0/instances/{container}"));
    object["status"].as_str().expect("a status is text").to_owned()
}

/// The process id of a container's init, as the host sees it.
pub fn init_of(daemon: &Daemon, container: &str) -> i64 {
    let state = daemon.http().metadata(&format!("/1.0/instances/{container}/state"));
    state["pid"].as_i64().expect("a process id is a number")
}

/// Mount points below `dir`, innermost last.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(dir)).collect()
}

/// Processes that look after containers of the daemon at `dir`.
pub fn monitors(dir: &Path) -> Vec<Pid> {
    let title = format!("[lxc monitor] {}/", dir.display());
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.starts_with(title.as_bytes())
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .collect()
}

/// Ends all containers of the daemon at `dir` and unmounts what is mounted there.
pub(crate) fn clear(dir: &Path) {
    for monitor in monitors(dir) {
        let id = monitor.as_raw_nonzero();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            if let Some(child) = child.parse().ok().and_then(Pid::from_raw) {
                let _ = kill_process(child, Signal::KILL);
            }
        }
    }
    if !wait::within(Duration::from_secs(5), || monitors(dir).is_empty()) {
        for monitor in monitors(dir) {
            let _ = kill_process(monitor, Signal::KILL);
        }
    }
    for point in mounts_below(dir).iter().rev() {
        let _ = rustix::mount::unmount(point, UnmountFlags::DETACH);
    }
}
