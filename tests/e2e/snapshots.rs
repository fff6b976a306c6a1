//! Snapshots, copies and new names, of running and of stopped containers.

use std::time::Duration;

use lxd_tests::client::Invocation;
use lxd_tests::containers::{hosting, shell, status};
use lxd_tests::{tool, wait};
use serde_json::json;

#[test]
fn a_snapshot_brings_back_what_was() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    for running in [true, false] {
        if !running {
            daemon.lxc("stop -f c1").ok();
        }
        let name = if running { "warm" } else { "cold" };
        if running {
            shell(&daemon, "c1", "echo before > /root/file; rm /etc/group; mkdir /root/dir");
        }
        daemon.lxc(&format!("snapshot c1 {name}")).ok();
        if !running {
            daemon.lxc("start c1").ok();
        }
        shell(&daemon, "c1", "echo after > /root/file; rmdir /root/dir; touch /etc/group");
        daemon.lxc(&format!("restore c1 {name}")).ok();
        if status(&daemon, "c1") != "Running" {
            daemon.lxc("start c1").ok();
        }
        shell(&daemon, "c1", "cat /root/file").prints("before\n");
        shell(&daemon, "c1", "test -d /root/dir && test ! -e /etc/group");
    }
    daemon.lxc("snapshot c1").ok();
    daemon.lxc("snapshot c1 warm").fails().complains("already exists");
    daemon.lxc("info c1").ok().says("warm").says("cold").says("snap0");
    daemon.lxc("restore c1 none").fails();
    daemon.lxc("rename c1/cold c1/ice").ok();
    daemon.lxc("delete c1/warm").ok();
    let left = daemon.http().metadata("/1.0/instances/c1/snapshots");
    let left = left.to_string();
    assert!(left.contains("ice") && left.contains("snap0") && !left.contains("warm"), "{left}");
    daemon.lxc("delete -f c1").ok();
    assert_eq!(daemon.files_in("snapshots"), [""; 0]);
}

#[test]
fn a_copy_is_of_its_own() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox c1 -c user.x=1").ok();
    shell(&daemon, "c1", "echo one > /root/file");
    daemon.lxc("snapshot c1 s0").ok();
    shell(&daemon, "c1", "echo two > /root/file");
    daemon.lxc("copy c1/s0 c2").ok();
    daemon.lxc("stop -f c1").ok();
    daemon.lxc("copy c1 c3").ok();
    daemon.lxc("start c1 c2 c3").ok();
    for (name, text) in [("c1", "two\n"), ("c2", "one\n"), ("c3", "two\n")] {
        shell(&daemon, name, "cat /root/file").prints(text);
        daemon.lxc(&format!("config get {name} user.x")).ok().prints("1\n");
    }
    shell(&daemon, "c3", "echo three > /root/file");
    shell(&daemon, "c1", "cat /root/file").prints("two\n");
    daemon.lxc("copy c1 c3").fails();
    daemon.lxc("copy none c4").fails().complains("not found");
    let snapshots = daemon.http().metadata("/1.0/instances/c3/snapshots");
    assert_eq!(snapshots, json!(["/1.0/instances/c3/snapshots/s0"]));
}

#[test]
fn a_new_name_takes_everything_along() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    shell(&daemon, "c1", "echo one > /root/file");
    daemon.lxc("snapshot c1 s0").ok();
    daemon.lxc("rename c1 c2").fails();
    daemon.lxc("stop -f c1").ok();
    daemon.lxc("rename c1 bad_name").fails();
    daemon.lxc("rename c1 c2").ok();
    daemon.lxc("info c1").fails();
    daemon.lxc("start c2").ok();
    shell(&daemon, "c2", "cat /root/file; hostname").prints("one\nc2\n");
    daemon.lxc("restore c2 s0").ok();
    assert_eq!(daemon.files_in("instances"), ["c2"]);
    assert_eq!(daemon.files_in("snapshots"), ["c2"]);
}

#[test]
fn killed_while_restoring_the_container_is_one_or_the_other() {
    let (mut daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    shell(&daemon, "c1", "dd if=/dev/zero of=/root/big bs=1M count=24; echo before > /root/file");
    daemon.lxc("snapshot c1 s0").ok();
    shell(&daemon, "c1", "echo after > /root/file");
    daemon.lxc("stop -f c1").ok();
    for round in 0_u64..4 {
        let restore = daemon.lxc("restore c1 s0").spawn();
        wait::within(Duration::from_millis(10 + 25 * round), || false);
        daemon.kill();
        restore.wait();
        daemon.launch();
        assert_eq!(daemon.files_in("instances"), ["c1"]);
        assert_eq!(daemon.files_in("snapshots/c1"), ["s0"]);
        daemon.lxc("start c1").ok();
        let file = shell(&daemon, "c1", "cat /root/file");
        assert!(["before", "after"].contains(&file.line()), "{file}");
        shell(&daemon, "c1", "wc -c /root/big").says(&(24 << 20).to_string());
        daemon.lxc("stop -f c1").ok();
    }
    daemon.lxc("restore c1 s0").ok();
    daemon.lxc("start c1").ok();
    shell(&daemon, "c1", "cat /root/file").prints("before\n");
}

#[test]
fn a_running_ephemeral_container_outlives_its_restore() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox c1 -e").ok();
    shell(&daemon, "c1", "echo before > /root/file");
    daemon.lxc("snapshot c1 s0").ok();
    shell(&daemon, "c1", "echo after > /root/file");
    daemon.lxc("restore c1 s0").ok();
    assert_eq!(status(&daemon, "c1"), "Running");
    shell(&daemon, "c1", "cat /root/file").prints("before\n");
    // What cannot be copied is noticed before anything is stopped.
    let init = daemon.http().metadata("/1.0/instances/c1/state")["pid"].clone();
    std::fs::remove_dir_all(daemon.dir().join("snapshots/c1/s0/upper")).unwrap();
    daemon.lxc("restore c1 s0").fails();
    assert_eq!(daemon.http().metadata("/1.0/instances/c1/state")["pid"], init);
    assert_eq!(status(&daemon, "c1"), "Running");
}

#[test]
fn publishing_a_snapshot_holds_nobody_up() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    shell(&daemon, "c1", "dd if=/dev/urandom of=/root/large bs=1M count=24 2>/dev/null");
    daemon.lxc("snapshot c1 s0").ok();
    let publish = daemon.lxc("publish c1/s0 --alias made --compression xz").spawn();
    let packing = || {
        let all = daemon.http().metadata("/1.0/operations?recursion=1");
        all.to_string().contains("create_image_from_container_pack")
    };
    wait::until("the packing to go on", packing);
    daemon.lxc("stop -f c1").ok();
    daemon.lxc("start c1").ok();
    daemon.lxc("snapshot c1 s1").ok();
    assert!(packing(), "it was over before anything could be held up");
    // What is being read goes when it has been.
    daemon.lxc("delete c1/s0").ok();
    assert_eq!(publish.wait().code, 0);
    daemon.lxc("image info made").ok();
    let left = daemon.http().metadata("/1.0/instances/c1/snapshots").to_string();
    assert!(left.contains("s1") && !left.contains("s0"), "{left}");
}

#[test]
fn no_depth_of_directories_harms_the_daemon() {
    let (mut daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    // Chains are put below one another from above: no path is too long for that.
    let deep = "mkdir /deep; for r in 1 2 3 4; do cd /deep; mkdir n; cd n; i=0; \
                while [ $i -lt 900 ]; do mkdir d; cd d; i=$((i+1)); done; \
                [ -e /deep/o ] && mv /deep/o .; mv /deep/n /deep/o; done";
    shell(&daemon, "c1", deep);
    daemon.lxc("snapshot c1 s0").run();
    daemon.lxc("delete -f c1").ok();
    wait::until("its files to go", || daemon.files_in("instances").is_empty());
    assert!(daemon.is_running());
    daemon.lxc("launch busybox c2").ok();
}

#[test]
fn a_shutdown_waits_for_no_packing() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    shell(&daemon, "c1", "dd if=/dev/urandom of=/root/large bs=1M count=64 2>/dev/null");
    daemon.lxc("stop -f c1").ok();
    let publish = daemon.lxc("publish c1 --compression xz").spawn();
    wait::until("the packing to go on", || {
        let all = daemon.http().metadata("/1.0/operations?recursion=1");
        all.to_string().contains("create_image_from_container_pack")
    });
    daemon.point(Invocation::new(&tool::ours("lxd-imaged"), "shutdown")).ok();
    assert_ne!(publish.wait().code, 0, "the daemon ended only when the packing was over");
}
