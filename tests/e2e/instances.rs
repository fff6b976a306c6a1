//! Launching and looking after containers with `lxc`: which image, which state, over restarts.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use lxd_tests::containers::{
    busybox, busybox_with, hosting, import, init_of, monitors, mounts_below, shell, status,
};
use lxd_tests::daemon::{Daemon, Kind};
use lxd_tests::fixtures::{Compression, Recipe};
use lxd_tests::server::Server;
use lxd_tests::tool;
use lxd_tests::wait::{self, Turn};
use lxd_tests::wire::Wire;
use serde_json::json;

#[test]
fn launch_takes_an_alias_and_any_unique_part_of_a_fingerprint() {
    let (daemon, print) = hosting();
    for (name, image) in [("c1", "busybox"), ("c2", &print), ("c3", &print[..12])] {
        daemon.lxc(&format!("launch {image} {name}")).ok().says(&format!("Starting {name}"));
        let instance = daemon.http().metadata(&format!("/1.0/instances/{name}"));
        assert_eq!(instance["status"], "Running", "{instance}");
        assert_eq!(instance["config"]["volatile.base_image"], print, "{instance}");
        assert_eq!(instance["config"]["image.description"], "Image busybox", "{instance}");
        shell(&daemon, name, "hostname").prints(&format!("{name}\n"));
    }
    assert_eq!(daemon.files_in("trees").len(), 1, "one tree for three containers");
    let listed = daemon.lxc("list --format csv -c nst").ok();
    assert_eq!(listed.stdout.lines().count(), 3, "{listed}");
    let listed = listed.says("c1,RUNNING,CONTAINER").says("c2,RUNNING,CONTAINER");
    drop(listed);
    daemon.lxc("info c1").ok().says("Status: RUNNING");
    daemon.lxc("launch busybox").ok().says("Instance name is: ");

    ambiguous(&daemon, &print);
    let refused = daemon.lxc(&format!("launch {} c9", &print[..1])).fails();
    refused.complains("More than one image matches");
    assert_eq!(daemon.http().get("/1.0/instances/c9").status, 404);
}

/// Imports images until one begins with the same digit as `print`; its fingerprint.
fn ambiguous(daemon: &Daemon, print: &str) -> String {
    (0..1000)
        .map(|number| Recipe::new(&format!("like{number}")).unified(Compression::Plain))
        .find(|image| lxd_tests::fixtures::fingerprint(&[image]).starts_with(&print[..1]))
        .map(|image| daemon.http().import(&image))
        .expect("one in sixteen does")
}

#[test]
fn what_cannot_be_launched_says_why_and_leaves_nothing() {
    let (daemon, _) = hosting();
    let recipe = Recipe::new("machine");
    daemon.http().import_split(&recipe.metadata(Compression::Gz), &recipe.root_qcow2());
    let images = daemon.http().metadata("/1.0/images?recursion=1");
    let machine = images.as_array().unwrap().iter().find(|it| it["type"] == "virtual-machine");
    let machine = machine.unwrap()["fingerprint"].as_str().unwrap().to_owned();
    daemon.lxc("launch busybox c1").ok();
    daemon.lxc("launch nothing c2").fails().complains("not found");
    daemon.lxc("launch busybox c1").fails().complains("already exists");
    daemon.lxc("launch busybox bad_name").fails().complains("Invalid instance name");
    daemon.lxc("launch busybox c2 -p nope").fails().complains("nope");
    daemon.lxc("launch busybox c2 -c bad").fails().complains("bad");
    let post = json!({"name": "c2", "source": {"type": "image", "fingerprint": machine}});
    let http = daemon.http();
    let answer = http.json("POST", "/1.0/instances", &post);
    let text =
        if answer.status == 202 { http.finish(&answer).to_string() } else { answer.to_string() };
    assert!(text.contains("virtual-machine"), "{text}");
    assert_eq!(http.metadata("/1.0/instances"), json!(["/1.0/instances/c1"]));
    assert_eq!(daemon.files_in("instances"), ["c1"]);
    daemon.lxc("delete c1").fails().complains("currently running");
    daemon.lxc("delete -f c1").ok();
    daemon.lxc("info c1").fails().complains("Instance not found");
    assert_eq!(daemon.files_in("instances"), [""; 0]);
}

#[test]
fn an_image_of_a_remote_is_cached_and_not_fetched_again() {
    for real in [false, true] {
        let origin = if real { Server::lxd() } else { Server::ours() };
        let ours = Server::ours();
        let image = busybox(&Recipe::new("far"), &[]);
        let print = origin.import_bytes("far", &image, "--public");
        let wire = Wire::to(origin.port);
        let line = format!(
            "remote add far https://127.0.0.1:{} --accept-certificate --public",
            wire.port()
        );
        ours.lxc(&line).ok();
        ours.lxc("launch far:far c1").ok();
        let cached = ours.image(&print);
        assert_eq!(cached["cached"], true, "{cached}");
        assert_eq!(cached["aliases"], json!([]), "{cached}");
        let sent = wire.bytes();
        assert!(sent > image.len() as u64, "the image came over the wire");
        ours.lxc(&format!("launch far:{} c2", &print[..10])).ok();
        assert!(wire.bytes() < sent + 64_000, "{} bytes more", wire.bytes() - sent);
        shell(&ours.daemon, "c2", "true");

        // The network is gone: what is here still launches.
        drop(wire);
        drop(origin);
        ours.lxc(&format!("launch {print} c3")).ok();
        assert_eq!(status(&ours.daemon, "c3"), "Running");
    }
}

#[test]
fn a_private_image_of_a_remote_is_launched_by_who_may_read_it() {
    let (origin, ours) = (Server::ours(), Server::ours());
    let print = origin.import_bytes("secret", &busybox(&Recipe::new("secret"), &[]), "");
    ours.add("mine", &origin);
    ours.lxc("launch mine:secret c1").ok();
    assert_eq!(ours.image(&print)["cached"], true);
    ours.lxc("remote remove mine").ok();
    // The client keeps its certificate; a stranger has none.
    let stranger = Server::ours();
    stranger.add_public("theirs", &origin);
    stranger.lxc("launch theirs:secret c1").fails();
    assert!(!stranger.has(&print));
    assert_eq!(stranger.daemon.http().metadata("/1.0/instances"), json!([]));
}

#[test]
fn states_follow_what_is_asked() {
    let (daemon, _) = hosting();
    daemon.lxc("init busybox c1").ok();
    assert_eq!(status(&daemon, "c1"), "Stopped");
    daemon.lxc("exec c1 -- true").fails().complains("not running");
    daemon.lxc("stop c1").fails().complains("already stopped");
    daemon.lxc("start c1").ok();
    daemon.lxc("start c1").fails().complains("already running");
    let first = init_of(&daemon, "c1");
    daemon.lxc("restart -f c1").ok();
    assert_ne!(init_of(&daemon, "c1"), first);
    daemon.lxc("pause c1").ok();
    assert_eq!(status(&daemon, "c1"), "Frozen");
    daemon.lxc("start c1").ok();
    assert_eq!(status(&daemon, "c1"), "Running");
    shell(&daemon, "c1", "echo kept > /root/file");
    daemon.lxc("stop c1").ok();
    assert_eq!(status(&daemon, "c1"), "Stopped");
    assert_eq!(monitors(&daemon.dir()).len(), 0);
    daemon.lxc("start c1").ok();
    shell(&daemon, "c1", "cat /root/file").prints("kept\n");
    daemon.lxc("console c1 --show-log").ok().says("system is up");
    daemon.lxc("stop -f c1").ok();
    daemon.lxc("delete c1").ok();
    let mounts = mounts_below(&daemon.dir().join("instances"));
    assert!(mounts.is_empty(), "{mounts:?}");
}

#[test]
fn a_clean_stop_gives_up_in_time() {
    let recipe = Recipe::new("stubborn");
    let image = busybox_with(&recipe, &[], |tar| {
        tar.program(
            "rootfs/bin/deaf",
            b"#!/bin/sh\ntrap : PWR TERM INT USR1 USR2\nwhile :; do sleep 1; done\n",
        );
    });
    let (daemon, _) = hosting();
    import(&daemon, "stubborn", &image, "");
    daemon.lxc("init stubborn c1").ok();
    let script = "#!/bin/sh\nexec /bin/deaf\n";
    daemon.file("init", script.as_bytes());
    daemon.lxc("file delete c1/sbin/init").ok();
    daemon.lxc("file push init c1/sbin/init --mode 0755").ok();
    daemon.lxc("start c1").ok();
    let began = Instant::now();
    daemon.lxc("stop c1 --timeout 1").fails();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(status(&daemon, "c1"), "Running");
    daemon.lxc("stop c1 --force").ok();
    assert_eq!(status(&daemon, "c1"), "Stopped");
}

#[test]
fn a_container_outlives_its_daemon() {
    let (mut daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    daemon.lxc("launch busybox c2").ok();
    let init = init_of(&daemon, "c1");
    for clean in [false, true] {
        if clean {
            assert!(daemon.stop().success());
        } else {
            daemon.kill();
        }
        assert!(std::path::Path::new(&format!("/proc/{init}")).exists(), "clean: {clean}");
        daemon.launch();
        assert_eq!(status(&daemon, "c1"), "Running");
        assert_eq!(init_of(&daemon, "c1"), init);
        shell(&daemon, "c1", "echo here").prints("here\n");
    }
    // The end of a container that an earlier daemon started is noticed,
    daemon.lxc("exec c1 -- /sbin/poweroff").run();
    wait::until("the end of c1", || status(&daemon, "c1") == "Stopped");
    wait::until("its root to be unmounted", || {
        mounts_below(&daemon.dir().join("instances/c1")).is_empty()
    });
    daemon.lxc("start c1").ok();
    // and of one that ends while there is no daemon.
    daemon.kill();
    let pid = rustix_pid(init_of_offline(&daemon));
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait::until("the end of a container", || monitors(&daemon.dir()).len() == 1);
    daemon.launch();
    let states = ["c1", "c2"].map(|name| status(&daemon, name));
    assert_eq!(states.iter().filter(|state| *state == "Stopped").count(), 1, "{states:?}");
}

/// The init of some container of a daemon that does not run.
fn init_of_offline(daemon: &Daemon) -> i32 {
    let monitor = monitors(&daemon.dir())[0].as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children"));
    children.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

fn rustix_pid(id: i32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(id).unwrap()
}

#[test]
fn a_shutdown_stops_containers_and_the_next_start_starts_them() {
    let (mut daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    daemon.lxc("init busybox c2").ok();
    shell(&daemon, "c1", "echo kept > /root/file");
    daemon.imaged("shutdown --timeout 20").ok();
    daemon.wait_end();
    assert_eq!(monitors(&daemon.dir()).len(), 0);
    daemon.launch();
    wait::until("c1 to run again", || init_of(&daemon, "c1") > 0);
    assert_eq!(status(&daemon, "c2"), "Stopped");
    shell(&daemon, "c1", "cat /root/file").prints("kept\n");
}

#[test]
fn an_ephemeral_container_goes_when_it_stops() {
    let (daemon, _) = hosting();
    daemon.lxc("launch -e busybox c1").ok();
    daemon.lxc("restart -f c1").ok();
    assert_eq!(status(&daemon, "c1"), "Running");
    daemon.lxc("stop -f c1").ok();
    wait::until("c1 to go", || daemon.http().get("/1.0/instances/c1").status == 404);
    wait::until("its files to go", || daemon.files_in("instances").is_empty());
}

#[test]
fn configuration_reaches_the_container() {
    let (daemon, _) = hosting();
    daemon
        .lxc("launch busybox c1 -c environment.COLOUR=blue -c limits.memory=64MiB -c user.x=1")
        .ok();
    daemon.lxc("config get c1 user.x").ok().prints("1\n");
    daemon.lxc("config set c1 user.x 2").ok();
    daemon.lxc("config get c1 user.x").ok().prints("2\n");
    daemon.lxc("config unset c1 user.x").ok();
    daemon.lxc("config get c1 user.x").ok().prints("\n");
    daemon.lxc("config show c1").ok().says("environment.COLOUR: blue").says("limits.memory: 64MiB");
    shell(&daemon, "c1", "echo $COLOUR").prints("blue\n");
    daemon.lxc("config set c1 limits.memory much").fails();
    daemon.lxc("config set c1 no.such.key 1").fails();
    let state = daemon.http().metadata("/1.0/instances/c1/state");
    assert!(state["memory"]["usage"].as_u64().unwrap() < 64 << 20, "{state}");
    assert!(state["processes"].as_i64().unwrap() >= 1, "{state}");
    // More than the limit is refused by the kernel.
    let hungry = daemon.lxc("exec c1 -- dd if=/dev/zero of=/dev/null bs=256M count=1").run();
    assert_ne!(hungry.code, 0, "{hungry}");
}

#[test]
fn limits_hold_at_once_for_what_runs() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox limited -c limits.cpu=0-0 -c limits.memory=50%").ok();
    shell(&daemon, "limited", "grep Cpus_allowed_list /proc/self/status").says("\t0\n");
    daemon.lxc("config unset limited limits.cpu").ok();
    daemon.lxc("config set limited limits.processes 40").ok();
    // No other test has a container of this name, so its groups are called by it.
    let group = |controller: &str, file: &str| {
        let path = format!("/sys/fs/cgroup/{controller}/lxc.payload.limited/{file}");
        std::fs::read_to_string(path).map(|text| text.trim().to_owned())
    };
    let Ok(most) = group("pids", "pids.max") else {
        eprintln!("no control groups of version 1 here: their files are not looked at");
        return;
    };
    assert_eq!(most, "40");
    assert_eq!(group("cpuset", "cpuset.cpus").unwrap(), group("cpuset", "../cpuset.cpus").unwrap());
    daemon.lxc("config set limited limits.memory=64MiB limits.cpu.allowance=25ms/100ms").ok();
    assert_eq!(group("memory", "memory.limit_in_bytes").unwrap(), (64 << 20).to_string());
    assert_eq!(group("cpu", "cpu.cfs_quota_us").unwrap(), "25000");
    // The kernel has no such processor: nothing changes, neither here nor in what is shown.
    daemon.lxc("config set limited limits.memory=32MiB limits.cpu=4000-4001").fails();
    daemon.lxc("config get limited limits.cpu").ok().prints("\n");
    assert_eq!(group("memory", "memory.limit_in_bytes").unwrap(), (64 << 20).to_string());
}

#[test]
fn keys_of_the_configuration_mean_what_they_mean_to_lxd() {
    let (daemon, _) = hosting();
    daemon.lxc("init busybox c1 -c security.protection.delete=true -c snapshots.expiry=1d").ok();
    daemon.lxc("delete c1").fails().complains("Instance is protected");
    daemon.lxc("config unset c1 security.protection.delete").ok();
    daemon.lxc("snapshot c1 s1").ok();
    let snapshot = daemon.http().metadata("/1.0/instances/c1/snapshots/s1");
    // Without the key it would be the year 1.
    let [made, kept] = ["created_at", "expires_at"].map(|key| snapshot[key].as_str().unwrap());
    assert!(kept[.."2026-11-24".len()] > made[.."2026-11-24".len()], "{snapshot}");
    for wrong in ["boot.autostart=bogus", "limits.bogus=1", "limits.cpu.priority=11"] {
        daemon.lxc(&format!("config set c1 {wrong}")).fails();
    }
    daemon.lxc("delete c1").ok();
}

#[test]
fn a_tree_stays_as_long_as_it_is_used() {
    let (daemon, print) = hosting();
    daemon.lxc("launch busybox c1").ok();
    daemon.lxc("init busybox c2").ok();
    daemon.lxc(&format!("image delete {print}")).ok();
    assert_eq!(daemon.files_in("trees"), [print.as_str()]);
    shell(&daemon, "c1", "ls /bin/busybox").prints("/bin/busybox\n");
    daemon.lxc("start c2").ok();
    daemon.lxc("copy c2 c3").ok();
    daemon.lxc("delete -f c1 c2").ok();
    daemon.lxc("start c3").ok();
    shell(&daemon, "c3", "true");
    daemon.lxc("delete -f c3").ok();
    wait::until("the tree to go", || daemon.files_in("trees").is_empty());
    let mounts = mounts_below(&daemon.dir());
    assert!(
        mounts.iter().all(|point| !point.starts_with(daemon.dir().join("trees"))),
        "{mounts:?}"
    );
}

#[test]
fn without_a_runtime_images_still_work() {
    let mut daemon = Daemon::prepare(Kind::Ours, Turn::shared());
    let program = daemon.work().join("lxd-imaged");
    tool::copy_for_all(&tool::ours("lxd-imaged"), &program);
    if tool::is_root() {
        // Nobody may not make containers, whatever is installed.
        let base = daemon.dir().parent().unwrap().to_owned();
        std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(daemon.dir(), Some(65534), Some(65534)).unwrap();
        daemon.run_as(65534, &program);
    }
    daemon.launch();
    let print = import(&daemon, "busybox", &busybox(&Recipe::new("busybox"), &[]), "");
    daemon.lxc("launch busybox c1").fails().complains("must run as root");
    daemon.lxc("image info busybox").ok().says(&print);
    daemon.lxc("image export busybox out").ok();
    daemon.lxc("list").ok();
    daemon.lxc("image delete busybox").ok();
}

#[test]
fn killed_while_creating_nothing_is_half_made() {
    let (mut daemon, _) = hosting();
    let image = busybox_with(&Recipe::new("large"), &[], |tar| {
        tar.file("rootfs/large", &lxd_tests::fixtures::noise(1, 24 << 20));
    });
    import(&daemon, "large", &image, "");
    for round in 0_u64..4 {
        let launch = daemon.lxc(&format!("init large k{round}")).spawn();
        let trees = daemon.dir().join("trees");
        wait::within(Duration::from_millis(30 + 60 * round), || {
            round == 0 && std::fs::read_dir(&trees).is_ok_and(|entries| entries.count() > 0)
        });
        daemon.kill();
        launch.wait();
        daemon.launch();
        let listed = daemon.http().metadata("/1.0/instances?recursion=1");
        for instance in listed.as_array().unwrap() {
            let name = instance["name"].as_str().unwrap();
            daemon.lxc(&format!("start {name}")).ok();
            shell(&daemon, name, "wc -c /large").says(&(24 << 20).to_string());
            daemon.lxc(&format!("delete -f {name}")).ok();
        }
        wait::until("leftovers to go", || {
            daemon.files_in("instances").is_empty()
                && daemon.files_in("trees").iter().all(|name| !name.ends_with(".partial"))
        });
        assert!(daemon.is_running());
    }
    daemon.lxc("launch large whole").ok();
    shell(&daemon, "whole", "wc -c /large").says(&(24 << 20).to_string());
}
