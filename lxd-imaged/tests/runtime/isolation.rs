//! What an instance is kept from, and what it may use.

use std::os::unix::fs::MetadataExt;
use std::process::Command as Program;

use lxd_imaged::lxc::mounts::{self, Layers};
use lxd_imaged::lxc::{Error, Status};

use crate::machine::{LONG, Machine, shell};

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_writes_belongs_to_its_own_ids() {
    let machine = Machine::new();
    let name = machine.started("c1").await;
    let base = machine.runtime.ids().base;
    machine
        .shell(&name, "touch /root/new; echo x >>/etc/inittab; rm /bin/tty; mv /etc /etc2")
        .await;
    let upper = machine.directory(&name).join("upper");
    assert_eq!(std::fs::metadata(upper.join("root/new")).unwrap().uid(), base);
    // The image's tree is as it was, with the ids it came with.
    let inittab = machine.tree().join("etc/inittab");
    assert_eq!(std::fs::metadata(&inittab).unwrap().uid(), 0);
    assert!(!std::fs::read_to_string(&inittab).unwrap().ends_with("x\n"));
    assert!(machine.tree().join("bin/tty").is_symlink());

    // What is published is the same, seen from outside.
    machine.runtime.kill(&name).await.unwrap();
    let view = machine.root().join("view");
    let layers = Layers::ReadOnly(vec![upper, machine.mapped()]);
    machine.runtime.mount_overlay(&layers, &view).unwrap();
    machine.runtime.mount_overlay(&layers, &view).unwrap();
    let changed = std::fs::read_to_string(view.join("etc2/inittab"));
    let left = (view.join("etc").exists(), view.join("bin/tty").exists());
    let refused = std::fs::write(view.join("x"), "").is_err();
    mounts::unmount(&view).unwrap();
    mounts::unmount(&view).unwrap();
    assert!(!mounts::is_mounted(&view));
    assert!(changed.unwrap().ends_with("x\n"));
    assert_eq!(left, (false, false));
    assert!(refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn device_nodes_of_an_image_do_nothing() {
    let machine = Machine::new();
    let node = machine.tree().join("stolen");
    program("mknod", &["-m", "666", node.to_str().unwrap(), "c", "1", "5"]);
    let name = machine.started("c1").await;
    let read = machine.run(&name, shell("head -c 1 /stolen"), b"").await;
    assert_ne!(read.status, 0, "{read:?}");
    assert!(read.stderr.contains("ermission denied"), "{read:?}");
    let made = machine.run(&name, shell("mknod /mine c 1 5"), b"").await;
    assert_ne!(made.status, 0, "{made:?}");
    assert_eq!(machine.shell(&name, "head -c 3 /dev/zero | wc -c").await.trim(), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_host_is_mounted_in_an_instance() {
    let machine = Machine::new();
    let name = machine.started("c1").await;
    let mounts = machine.shell(&name, "cat /proc/1/mountinfo").await;
    let root = machine.root().to_str().unwrap();
    for line in mounts.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let filesystem = line.split_once(" - ").unwrap().1.split(' ').next().unwrap();
        let known = ["overlay", "proc", "sysfs", "tmpfs", "devpts", "devtmpfs", "mqueue"];
        let group = filesystem.starts_with("cgroup");
        assert!(group || known.contains(&filesystem), "{line}");
        assert!(!fields[4].starts_with(root), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_instance_waits_and_can_be_ended() {
    let machine = Machine::new();
    if !std::path::Path::new("/sys/fs/cgroup").read_dir().unwrap().any(|_| true) {
        eprintln!("no control groups are mounted here: nothing can be frozen");
        return;
    }
    let name = machine.started("c1").await;
    machine.runtime.freeze(&name).unwrap();
    assert_eq!(machine.runtime.status(&name), Status::Frozen);
    let refused = machine.runtime.exec(&name, shell("true")).await.unwrap_err();
    assert!(matches!(refused, Error::Frozen(_)), "{refused}");
    machine.runtime.unfreeze(&name).unwrap();
    assert_eq!(machine.runtime.status(&name), Status::Running);
    machine.shell(&name, "true").await;
    machine.runtime.freeze(&name).unwrap();
    machine.runtime.stop(&name, Some(LONG)).await.unwrap();
    assert_eq!(machine.runtime.status(&name), Status::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_the_environment_reach_the_first_process() {
    let machine = Machine::new();
    let mut spec = machine.prepare("c1");
    spec.environment = vec![("ODD".to_owned(), "  'a\" = b\" ".to_owned())];
    spec.hostname = "other.example".to_owned();
    spec.limits.processes = Some(30);
    spec.limits.memory = Some(64 << 20);
    spec.limits.cpus = Some(1);
    match machine.runtime.start(&spec).await {
        Err(Error::NoController { .. }) => {
            eprintln!("no control groups are mounted here: without limits");
            spec.limits = lxd_imaged::lxc::Limits::default();
            machine.runtime.start(&spec).await.unwrap();
        }
        outcome => {
            outcome.unwrap();
            let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 \
                          26 27 28 29 30; do sleep 1000 & done; true";
            let bomb = machine.run(&spec.name, shell(script), b"");
            let outcome = tokio::time::timeout(LONG, bomb);
            tokio::select! {
                // The sleeping ones keep the output open.
                _ = outcome => {}
                () = full(&machine, &spec.name) => {}
            }
        }
    }
    let environ = std::fs::read(format!(
        "/proc/{}/environ",
        machine.runtime.state(&spec.name).await.unwrap().pid
    ));
    let environ = String::from_utf8(environ.unwrap()).unwrap();
    assert!(environ.split('\0').any(|one| one == "ODD=  'a\" = b\" "), "{environ:?}");
    for odd in ["a\nlxc.hook.pre-start = /bin/false", "a\rb", "a\0b"] {
        spec.environment = vec![("KEY".to_owned(), odd.to_owned())];
        machine.runtime.kill(&spec.name).await.ok();
        let refused = machine.runtime.start(&spec).await.unwrap_err();
        assert!(matches!(refused, Error::Invalid { .. }), "{refused}");
    }
}

/// Until the instance has as many processes as it may.
async fn full(machine: &Machine, name: &lxd_imaged::lxc::Name) {
    let mut pause = tokio::time::interval(std::time::Duration::from_millis(20));
    loop {
        pause.tick().await;
        let state = machine.runtime.state(name).await.unwrap();
        assert!(state.processes <= 30, "{state:?}");
        // The shell ends when it cannot make another one.
        if state.processes >= 28 {
            assert!(state.memory > 0 && state.memory <= 64 << 20, "{state:?}");
            assert!(state.cpu > 0, "{state:?}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_can_be_a_plain_copy() {
    let machine = Machine::new();
    let mut spec = machine.prepare("c1");
    let base = machine.runtime.ids().base;
    let plain = machine.directory(&spec.name).join("plain");
    program("cp", &["-a", machine.tree().to_str().unwrap(), plain.to_str().unwrap()]);
    program("chown", &["-hR", &format!("{base}:{base}"), plain.to_str().unwrap()]);
    program("mknod", &["-m", "666", plain.join("zero").to_str().unwrap(), "c", "1", "5"]);
    spec.rootfs = plain;
    machine.runtime.start(&spec).await.unwrap();
    machine.shell(&spec.name, "touch /root/new").await;
    let read = machine.run(&spec.name, shell("head -c 1 /zero"), b"").await;
    assert!(read.status != 0 && read.stderr.contains("ermission denied"), "{read:?}");
}

#[test]
fn overlays_work_here() {
    let machine = Machine::new();
    assert_eq!(machine.runtime.no_overlay(), None);
    assert!(!machine.root().join(".overlay-probe").exists());
}

/// Runs a program of the host, which must succeed.
fn program(name: &str, arguments: &[&str]) {
    assert!(Program::new(name).args(arguments).status().unwrap().success(), "{name}");
}
