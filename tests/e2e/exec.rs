//! Commands in containers with `lxc exec`: bytes, exit codes, signals, terminals.

use std::thread;

use lxd_tests::containers::{hosting, init_of, shell};
use lxd_tests::fixtures::{fingerprint, noise};
use lxd_tests::terminal::Session;
use lxd_tests::wait;
use rustix::process::Signal;

#[test]
fn bytes_pass_both_ways_intact() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    let bytes = noise(5, 64 << 20);
    let file = daemon.file("bytes", &bytes);
    let hash = fingerprint(&[&bytes]);
    daemon.lxc("exec c1 -- sha256sum").stdin(&bytes).ok().says(&hash);
    // Shell pipes on the host: what comes back is not text.
    let line = format!("-c 'lxc exec c1 -- cat < {} | sha256sum'", file.display());
    let back =
        daemon.point(lxd_tests::client::Invocation::new(&lxd_tests::tool::require("sh"), &line));
    back.ok().says(&hash);
    daemon.lxc("exec c1 -- sh -c 'echo out; echo err >&2'").ok().prints("out\n").complains("err");
    daemon.lxc("exec c1 -- cat").stdin("").ok().prints("");
}

#[test]
fn exit_codes_are_those_of_the_command() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    daemon.lxc("exec c1 -- true").ok();
    daemon.lxc("exec c1 -- sh -c 'exit 42'").exits(42);
    daemon.lxc("exec c1 -- sh -c 'kill -9 $$'").exits(137);
    daemon.lxc("exec c1 -- nothing").exits(127).complains("not found");
    daemon.lxc("exec c1 -- /etc/not-a-program").exits(126);
    daemon.lxc("exec none -- true").fails().complains("not found");
}

#[test]
fn user_directory_and_environment_are_as_asked() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    daemon.lxc("exec c1 --user 1000 --group 1000 -- id -u").ok().prints("1000\n");
    daemon.lxc("exec c1 --user 1000 --group 1000 -- id -g").ok().prints("1000\n");
    daemon.lxc("exec c1 --cwd /etc -- pwd").ok().prints("/etc\n");
    daemon.lxc("exec c1 -- pwd").ok().prints("/root\n");
    let env = daemon.lxc("exec c1 --env A=1 --env 'B=two words' -- env").ok();
    for line in ["A=1", "B=two words", "HOME=/root", "USER=root", "LANG=C.UTF-8"] {
        assert!(env.stdout.lines().any(|it| it == line), "no {line}:\n{env}");
    }
    assert!(env.stdout.contains("PATH=/usr/local/sbin"), "{env}");
    assert!(!env.stdout.contains("LXD_DIR"), "the daemon's own environment leaks:\n{env}");
    // Root of the container is nobody on the host.
    let map = shell(&daemon, "c1", "cat /proc/self/uid_map");
    assert_ne!(map.stdout.split_whitespace().nth(1), Some("0"), "{map}");
}

#[test]
fn a_terminal_has_a_size_and_passes_keys() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    let mut session = Session::start(daemon.lxc("exec c1 -- sh"));
    session.types("stty size; tty=$(stty -a | wc -l); echo lines=$tty\n");
    session.sees("24 80");
    session.resizes(31, 101);
    session.types("while [ $(stty size | tr -d ' ') != 31101 ]; do :; done; stty size\n");
    session.sees("31 101");
    session.types("sleep 1000\n");
    // While it edits a line the shell takes the key for itself.
    wait::until("it to run", || shell(&daemon, "c1", "ps").stdout.contains("sleep 1000"));
    session.types("\x03");
    session.types("echo after-$((40+2))\n");
    session.sees("after-42");
    session.types("exit 7\n");
    let (code, screen) = session.end();
    assert_eq!(code, 7, "{screen}");
}

#[test]
fn a_signal_reaches_the_command_and_a_lost_client_ends_it() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    let line =
        "exec c1 -- sh -c 'trap \"exit 9\" TERM; touch /root/ready; while :; do sleep 0.05; done'";
    let running = daemon.lxc(line).spawn();
    let ready = || daemon.lxc("exec c1 -- ls /root/ready").run().code == 0;
    wait::until("the command to run", ready);
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code, 9);

    shell(&daemon, "c1", "rm /root/ready");
    let running = daemon.lxc("exec c1 -- sh -c 'touch /root/ready; exec sleep 98765'").spawn();
    wait::until("the command to run", ready);
    running.signal(Signal::KILL);
    running.wait();
    wait::until("an orphan to end", || !shell(&daemon, "c1", "ps").stdout.contains("98765"));
}

#[test]
fn twenty_at_once_and_the_end_of_the_container() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    let init = init_of(&daemon, "c1");
    thread::scope(|scope| {
        let daemon = &daemon;
        for number in 0..20_u64 {
            scope.spawn(move || {
                let bytes = noise(number, 200_000);
                let line = "exec c1 -- sh -c 'sha256sum; exit 3'";
                let done = daemon.lxc(line).stdin(&bytes).exits(3);
                assert!(done.stdout.contains(&fingerprint(&[&bytes])), "{done}");
            });
        }
    });
    assert_eq!(init_of(&daemon, "c1"), init);
    let running = daemon.lxc("exec c1 -- sh -c 'echo > /root/ready; exec sleep 1000'").spawn();
    wait::until("it to run", || daemon.lxc("exec c1 -- ls /root/ready").run().code == 0);
    daemon.lxc("stop -f c1").ok();
    assert_ne!(running.wait().code, 0, "its container is gone");
}
