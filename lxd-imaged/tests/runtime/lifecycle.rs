//! Instances start, stop, freeze, and outlive the daemon.

use std::time::{Duration, Instant};

use lxd_imaged::lxc::{Error, Status};

use crate::machine::{LONG, Machine, runtime, shell};

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_starts_and_stops() {
    let machine = Machine::new();
    let begin = Instant::now();
    let spec = machine.prepare("c1");
    machine.runtime.start(&spec).await.unwrap();
    eprintln!("prepared and started in {:?}", begin.elapsed());
    assert_eq!(machine.runtime.status(&spec.name), Status::Running);
    let again = machine.runtime.start(&spec).await.unwrap_err();
    assert!(matches!(again, Error::Running(_)), "{again}");

    assert_eq!(machine.shell(&spec.name, "hostname; id -u; pwd").await, "c1\n0\n/root\n");
    let begin = Instant::now();
    machine.runtime.stop(&spec.name, Some(LONG)).await.unwrap();
    eprintln!("stopped in {:?}", begin.elapsed());
    assert_eq!(machine.runtime.status(&spec.name), Status::Stopped);
    let console = machine.runtime.console_log(&spec.name).unwrap();
    let console = String::from_utf8(console).unwrap();
    assert!(console.contains("the console speaks"), "{console:?}");

    machine.runtime.start(&spec).await.unwrap();
    let begin = Instant::now();
    machine.runtime.kill(&spec.name).await.unwrap();
    eprintln!("killed in {:?}", begin.elapsed());
    assert_eq!(machine.runtime.status(&spec.name), Status::Stopped);
    let gone = machine.runtime.kill(&spec.name).await.unwrap_err();
    assert!(matches!(gone, Error::NotRunning(_)), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_daemon_finds_what_runs_and_notices_its_end() {
    let machine = Machine::new();
    let name = machine.started("c1").await;
    let pid = machine.runtime.state(&name).await.unwrap().pid;
    assert!(pid > 1);

    let later = runtime(machine.root());
    assert_eq!(later.status(&name), Status::Running);
    assert_eq!(later.state(&name).await.unwrap().pid, pid);
    let (watched, watcher) = (name.clone(), later.clone());
    let watch = tokio::spawn(async move { watcher.watch(&watched).await });
    // It may be gone before it has said how it ended.
    machine.run(&name, shell("kill -USR1 1"), b"").await;
    tokio::time::timeout(LONG, watch).await.unwrap().unwrap().unwrap();
    assert_eq!(later.status(&name), Status::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_does_not_obey_can_be_killed() {
    let machine = Machine::new();
    let spec = machine.prepare("c1");
    let init = spec.rootfs.join("sbin/init");
    std::fs::remove_file(&init).unwrap();
    std::fs::write(&init, "#!/bin/sh\ntrap '' PWR\nwhile true; do sleep 1; done\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&init, mode).unwrap();
    machine.runtime.start(&spec).await.unwrap();
    let short = Some(Duration::from_millis(300));
    let refused = machine.runtime.stop(&spec.name, short).await.unwrap_err();
    assert!(matches!(refused, Error::StillRunning { .. }), "{refused}");
    assert_eq!(machine.runtime.status(&spec.name), Status::Running);
    machine.runtime.kill(&spec.name).await.unwrap();
}
