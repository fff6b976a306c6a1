//! Commands in instances.

use std::time::Instant;

use lxd_imaged::lxc::Error;

use crate::machine::{Machine, command, end, shell};

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
