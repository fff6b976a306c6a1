//! `lxc file`: into and out of containers that run and that do not, and never past their root.

use lxd_tests::client::shown;
use lxd_tests::containers::{hosting, shell};
use lxd_tests::fixtures::noise;

#[test]
fn files_go_in_and_come_out() {
    let (daemon, _) = hosting();
    daemon.lxc("init busybox c1").ok();
    let bytes = noise(3, 3 << 20);
    daemon.file("in", &bytes);
    for running in [false, true] {
        if running {
            daemon.lxc("start c1").ok();
        }
        daemon.lxc("file push in c1/root/file --mode 0640 --uid 1000 --gid 1000").ok();
        daemon.lxc("file pull c1/root/file out").ok();
        assert_eq!(std::fs::read(daemon.work().join("out")).unwrap(), bytes);
        daemon.lxc("file pull c1/etc/passwd -").ok().says("root:x:0:0");
        if running {
            shell(&daemon, "c1", "stat -c %a:%u:%g /root/file").prints("640:1000:1000\n");
        }
        daemon.lxc("file push -p in c1/root/new/dir/file").ok();
        daemon.lxc("file delete c1/root/new/dir/file").ok();
        daemon.lxc("file pull c1/root/new/dir/file out2").fails();
        daemon.lxc("file delete c1/root/new/dir").ok();
        daemon.lxc("file delete c1/root/new").ok();
        daemon.lxc("file pull c1/none out2").fails();
        daemon.lxc("file push in c1/none/file").fails();
    }
    daemon.file("tree/a", b"a");
    daemon.file("tree/sub/b", b"b");
    std::os::unix::fs::symlink("a", daemon.work().join("tree/link")).unwrap();
    daemon.lxc("file push -r tree c1/root/").ok();
    shell(&daemon, "c1", "cat /root/tree/link /root/tree/sub/b").prints("ab");
    std::fs::create_dir(daemon.work().join("back")).unwrap();
    daemon.lxc("file pull -r c1/root/tree back").ok();
    assert_eq!(std::fs::read(daemon.work().join("back/tree/sub/b")).unwrap(), b"b");
    let link = std::fs::read_link(daemon.work().join("back/tree/link")).unwrap();
    assert_eq!(link.to_str(), Some("a"));
}

#[test]
fn links_of_a_container_lead_nowhere_else() {
    let (daemon, _) = hosting();
    let canary = daemon.file("outside/canary", b"secret of the host\n");
    let outside = canary.parent().unwrap().to_owned();
    daemon.file("payload", b"hostile\n");
    daemon.lxc("launch busybox c1").ok();
    let line = format!(
        "ln -s {out} /root/abs; ln -s ../../../../../../../../..{out} /root/rel; \
         ln -s {out}/canary /root/direct; ln -s {out}/new /root/dangling; \
         ln -s /proc/1/root /root/magic",
        out = shown(&outside)
    );
    shell(&daemon, "c1", &line);
    for running in [true, false] {
        if !running {
            daemon.lxc("stop -f c1").ok();
        }
        let reads = ["abs/canary", "rel/canary", "direct"].map(|path| format!("root/{path}"));
        let above = "../".repeat(12) + shown(&canary).trim_start_matches('/');
        let magic = format!("root/magic{}", shown(&canary));
        for path in reads.iter().chain([&above, &magic]) {
            let answer = daemon.http().get(&format!("/1.0/instances/c1/files?path=/{path}"));
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(!text.contains("secret of the host"), "{path} reads the host's file");
            let url = format!("/1.0/instances/c1/files?path=/{path}");
            daemon.http().request("POST", &url).header("X-LXD-type", "file").send(b"hostile");
            daemon.http().request("DELETE", &url).send(b"");
        }
        let writes = ["abs/new", "rel/new", "dangling", "abs/dir/new"];
        for path in writes {
            daemon.lxc(&format!("file push -p payload c1/root/{path}")).run();
        }
        let kept = std::fs::read(&canary).unwrap();
        assert_eq!(kept, b"secret of the host\n", "running: {running}");
        let names: Vec<_> = std::fs::read_dir(&outside).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "something was made outside: {names:?}");
    }
}
