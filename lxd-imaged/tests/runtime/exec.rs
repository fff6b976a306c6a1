//! Commands in instances.

use std::time::Instant;

use lxd_imaged::lxc::{Error, Io, Terminal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::machine::{LONG, Machine, command, end, shell};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_its_surroundings() {
    let machine = Machine::new();
    let name = machine.started("c1").await;
    let mut env = command(&["env"]);
    env.environment.push(("ODD".to_owned(), " a=b 'c\" ".to_owned()));
    let outcome = machine.run(&name, env, b"").await;
    assert_eq!(outcome.stdout, "ODD= a=b 'c\" \nPATH=/bin:/sbin\n");

    let mut who = shell("id -u; id -g; id -G; pwd; echo to-stdout >/dev/stdout; exit 7");
    (who.uid, who.gid, who.directory) = (1000, 1001, "/tmp".to_owned());
    let outcome = machine.run(&name, who, b"").await;
    assert_eq!(outcome.stdout, "1000\n1001\n1001\n/tmp\nto-stdout\n", "{}", outcome.stderr);
    assert_eq!(outcome.status, 7);

    let outcome = machine.run(&name, shell("cat >&2"), b"through").await;
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", "through"));
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_command_ends_is_told() {
    let machine = Machine::new();
    let name = machine.started("c1").await;
    let missing = machine.runtime.exec(&name, command(&["nothing"])).await.unwrap_err();
    assert!(matches!(missing, Error::CommandNotFound(_)), "{missing}");
    assert_eq!(missing.exit_status(), Some(127));
    let text = machine.runtime.exec(&name, command(&["/etc/inittab"])).await.unwrap_err();
    assert_eq!(text.exit_status(), Some(126), "{text}");

    assert_eq!(machine.run(&name, shell("kill -TERM $$"), b"").await.status, 128 + 15);
    let sleeper = machine.runtime.exec(&name, command(&["sleep", "1000"])).await.unwrap();
    let begin = Instant::now();
    sleeper.process.signal(2).unwrap();
    assert_eq!(end(&sleeper.process).await, 130);
    eprintln!("ended in {:?}", begin.elapsed());
    let sleeper = machine.runtime.exec(&name, command(&["sleep", "1000"])).await.unwrap();
    sleeper.process.kill().unwrap();
    assert_eq!(end(&sleeper.process).await, 137);
}

/// A terminal's output, read until it contains `expected`.
async fn until(terminal: &mut Terminal, output: &mut String, expected: &str) {
    let wait = async {
        while !output.contains(expected) {
            let mut part = [0; 4096];
            let read = terminal.read(&mut part).await.unwrap();
            assert_ne!(read, 0, "no {expected:?} in {output:?}");
            output.push_str(&String::from_utf8_lossy(&part[..read]));
        }
    };
    let outcome = tokio::time::timeout(LONG, wait).await;
    assert!(outcome.is_ok(), "no {expected:?} in time, only {output:?}");
    output.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size_and_controls_its_jobs() {
    let machine = Machine::new();
    let name = machine.started("c1").await;
    let mut command = command(&["sh"]);
    command.terminal = Some((90, 40));
    command.environment.push(("PS1".to_owned(), "ready> ".to_owned()));
    let running = machine.runtime.exec(&name, command).await.unwrap();
    let Io::Terminal(mut terminal) = running.io else { panic!("asked for a terminal") };
    let mut output = String::new();
    until(&mut terminal, &mut output, "ready> ").await;
    terminal.write_all(b"stty size; tty\n").await.unwrap();
    until(&mut terminal, &mut output, "40 90\r\n/dev/pts/").await;
    running.process.resize(100, 30).unwrap();
    terminal.write_all(b"trap 'stty size' WINCH; stty size\n").await.unwrap();
    until(&mut terminal, &mut output, "30 100").await;
    // Ctrl-C ends the command in front, and not the shell.
    let front = b"sh -c 'echo be\"gun\"; exec sleep 1000'\n";
    terminal.write_all(front).await.unwrap();
    until(&mut terminal, &mut output, "begun\r\n").await;
    terminal.write_all(b"\x03").await.unwrap();
    until(&mut terminal, &mut output, "ready> ").await;
    terminal.write_all(b"echo still\"here\"\n").await.unwrap();
    until(&mut terminal, &mut output, "stillhere").await;
    // What stays in the background does not keep the terminal from ending.
    terminal.write_all(b"trap '' HUP; sleep 1000 & \n").await.unwrap();
    terminal.write_all(b"echo la\"st\"; exit 5\n").await.unwrap();
    let rest = tokio::time::timeout(LONG, terminal.read_to_string(&mut output)).await;
    rest.unwrap().unwrap();
    assert!(output.contains("last\r\n"), "{output:?}");
    assert_eq!(end(&running.process).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_passes_unharmed() {
    const PIECES: usize = 4096;
    let machine = Machine::new();
    let name = machine.started("c1").await;
    let running = machine.runtime.exec(&name, command(&["cat"])).await.unwrap();
    let Io::Pipes { mut stdin, mut stdout, stderr: _stderr } = running.io else {
        panic!("asked for pipes")
    };
    let begin = Instant::now();
    // Every piece differs, so a lost or doubled one shows.
    let piece = |number: usize| {
        let mut piece = vec![u8::try_from(number % 251).unwrap(); 256 << 10];
        piece[..8].copy_from_slice(&number.to_le_bytes());
        piece
    };
    let feed = tokio::spawn(async move {
        for number in 0..PIECES {
            stdin.write_all(&piece(number)).await.unwrap();
        }
    });
    let mut received = vec![0; 256 << 10];
    for number in 0..PIECES {
        stdout.read_exact(&mut received).await.unwrap();
        assert!(received == piece(number), "piece {number} differs");
    }
    assert_eq!(stdout.read(&mut received).await.unwrap(), 0);
    feed.await.unwrap();
    assert_eq!(end(&running.process).await, 0);
    eprintln!("1 GiB both ways in {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_commands_at_once() {
    let machine = Machine::new();
    let name = machine.started("c1").await;
    let begin = Instant::now();
    machine.shell(&name, "true").await;
    eprintln!("one command took {:?}", begin.elapsed());
    let begin = Instant::now();
    let inputs: Vec<String> = (0..20).map(|n| format!("line {n}\n").repeat(50_000)).collect();
    let commands =
        inputs.iter().map(|input| machine.run(&name, command(&["cat"]), input.as_bytes()));
    let outcomes = futures_util::future::join_all(commands).await;
    for (input, outcome) in inputs.iter().zip(outcomes) {
        assert_eq!(outcome.status, 0);
        assert!(outcome.stdout == *input, "output of one command is not its input");
    }
    eprintln!("twenty took {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_as_confined_as_its_instance() {
    let machine = Machine::new();
    let name = machine.started("c1").await;
    let facts = "grep -h 'CapBnd\\|Seccomp:' /proc/self/status; cat /proc/self/cgroup";
    let inner = machine.shell(&name, &facts.replace("self", "1")).await;
    let ours = machine.shell(&name, facts).await;
    assert_eq!(ours, inner, "a command's surroundings, and the first process's");
    assert!(ours.contains("Seccomp:\t2"), "{ours}");
    // Nothing that this test's own starter left open gets in; the fourth is the directory.
    let leak = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let descriptors = machine.run(&name, command(&["ls", "/proc/self/fd"]), b"").await;
    assert_eq!(descriptors.stdout, "0\n1\n2\n3\n");
    let spaces = "cd /proc/self/ns; for n in cgroup ipc mnt net pid user uts; do \
                  [ $(readlink $n) = $(readlink /proc/1/ns/$n) ] || echo $n; done";
    assert_eq!(machine.shell(&name, spaces).await, "");
}
