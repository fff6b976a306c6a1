//! Instances start, stop, freeze, and outlive the daemon.

use std::time::{Duration, Instant};

use lxd_imaged::lxc::{Error, Name, Status};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_from_inside_is_no_end() {
    let machine = Machine::new();
    let name = machine.started("c1").await;
    let before = machine.runtime.state(&name).await.unwrap().pid;
    machine.run(&name, shell("kill -TERM 1"), b"").await;
    let again = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        loop {
            pause.tick().await;
            let pid = machine.runtime.state(&name).await.unwrap().pid;
            if pid != 0 && pid != before {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, again).await.unwrap();
    assert_eq!(machine.shell(&name, "hostname").await, "c1\n");
    machine.runtime.kill(&name).await.unwrap();
    assert_eq!(machine.runtime.status(&name), Status::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_log_has_a_limit_and_can_be_cleared() {
    const LIMIT: u64 = 1 << 20;
    let machine = Machine::new();
    let name = machine.started("c1").await;
    let flood = "head -c 4000000 /dev/zero | tr '\\0' x >/dev/console; echo the end >/dev/console";
    machine.shell(&name, flood).await;
    let log = console_with(&machine, &name, "the end").await;
    assert!(log.len() as u64 <= LIMIT, "{}", log.len());
    let files = machine.directory(&name).read_dir().unwrap().flatten();
    let sizes = files
        .filter(|file| file.file_name().to_string_lossy().starts_with("console.log"))
        .map(|file| file.metadata().unwrap().len());
    let size: u64 = sizes.sum();
    assert!(size <= 2 * LIMIT + 4096, "{size}");

    machine.runtime.clear_console_log(&name).unwrap();
    assert_eq!(machine.runtime.console_log(&name).unwrap(), b"");
    machine.shell(&name, "echo afresh >/dev/console").await;
    let log = console_with(&machine, &name, "afresh").await;
    assert_eq!(log, "afresh\r\n");
}

/// The console log, once it contains `expected`.
async fn console_with(machine: &Machine, name: &Name, expected: &str) -> String {
    let wait = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        loop {
            pause.tick().await;
            let log = machine.runtime.console_log(name).unwrap();
            let log = String::from_utf8(log).unwrap();
            if log.contains(expected) {
                return log;
            }
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_states_take_little() {
    let machine = Machine::new();
    let mut names = Vec::new();
    for number in 0..5 {
        names.push(machine.started(&format!("c{number}")).await);
    }
    names.push(Name::new("no-such").unwrap());
    let begin = Instant::now();
    let states = machine.runtime.states(names.clone()).await.unwrap();
    eprintln!("six states took {:?}", begin.elapsed());
    let running: Vec<_> = states.iter().map(|state| state.status == Status::Running).collect();
    assert_eq!(running, [true, true, true, true, true, false]);
    // This thread of the test has stayed where it was.
    let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    assert_eq!(here, std::fs::read_link("/proc/self/ns/net").unwrap());
    let begin = Instant::now();
    let kills = names.iter().take(5).map(|name| machine.runtime.kill(name));
    for killed in futures_util::future::join_all(kills).await {
        killed.unwrap();
    }
    eprintln!("five killed at once in {:?}", begin.elapsed());
}
