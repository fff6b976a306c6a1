//! Remotes, trust and copies with `lxd-cli`, and real `lxc` reading and writing the same files
//! (rows P2, P3, C1-C6).

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lxd_tests::client::{Client, Invocation, shown};
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe, fingerprint};
use lxd_tests::terminal::Session;
use lxd_tests::wire::free_port;
use serde_json::json;

/// A daemon that listens on the network.
struct Server {
    daemon: Daemon,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let daemon = Daemon::start();
        let port = free_port();
        daemon.cli(&format!("config set core.https_address 127.0.0.1:{port}")).ok();
        Self { daemon, port }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn token(&self, name: &str) -> String {
        self.daemon.cli(&format!("config trust add -q --name {name}")).ok().line().to_owned()
    }

    fn certificate(&self) -> String {
        let about = self.daemon.cli("info --format json").ok().json();
        about["environment"]["certificate_fingerprint"].as_str().unwrap().to_owned()
    }

    fn import(&self, name: &str, flags: &str) -> String {
        let bytes = Recipe::new(name).property("os", "tiny").unified(Compression::Gz);
        let file = self.daemon.file(&format!("{name}.tar.gz"), &bytes);
        let line = format!("image import {} --alias {name} {flags}", shown(&file));
        self.daemon.cli(&line).ok();
        fingerprint(&[&bytes])
    }

    fn import_split(&self, name: &str) -> String {
        let recipe = Recipe::new(name).property("os", "tiny");
        let (metadata, root) = (recipe.metadata(Compression::Xz), recipe.root(Compression::Gz));
        let files = [("m", &metadata), ("r", &root)]
            .map(|(part, bytes)| self.daemon.file(&format!("{name}.{part}"), bytes));
        let line = format!("image import {} {} --alias {name}", shown(&files[0]), shown(&files[1]));
        self.daemon.cli(&line).ok();
        fingerprint(&[&metadata, &root])
    }
}

/// A client with a directory of its own, on the machine of `daemon`.
struct Person<'a> {
    daemon: &'a Daemon,
    conf: PathBuf,
}

impl<'a> Person<'a> {
    fn new(daemon: &'a Daemon, name: &str) -> Self {
        Self { daemon, conf: daemon.work().join(name) }
    }

    fn run(&self, client: Client, line: &str) -> Invocation {
        self.daemon.client(client, line).env("LXD_CONF", self.conf.clone())
    }

    fn cli(&self, line: &str) -> Invocation {
        self.run(Client::Cli, line)
    }

    fn lxc(&self, line: &str) -> Invocation {
        self.run(Client::Lxc, line)
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.conf.join(name)).unwrap_or_default()
    }

    fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.conf.join(name)).unwrap().permissions().mode() & 0o777
    }
}

#[test]
fn a_token_makes_a_remote_that_lxc_uses_too() {
    let server = Server::start();
    let image = server.import("one", "");
    let person = Person::new(&server.daemon, "p");
    let token = server.token("laptop");
    person.cli(&format!("remote add b {token}")).ok().says("now trusted by server: b");
    assert_eq!(person.mode("client.key"), 0o600);
    assert!(person.file("servercerts/b.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(person.file("config.yml").contains("  images:\n    addr: https://"));
    // The judge reads what we wrote: remotes, certificate, key and pinned certificate.
    person.lxc("image list b: -c F -f csv").ok().says(&image);
    person.lxc("remote list -f csv").ok().says(&format!("b,https://{},lxd,tls", server.address()));
    let trusted = person.cli("config trust list b: -f csv").ok();
    assert!(trusted.stdout.starts_with("client,laptop,"), "{trusted}");
    let by_lxc = person.lxc("config trust list b: -f csv").ok();
    assert_eq!(trusted.stdout, by_lxc.stdout);
    // Used up.
    Person::new(&server.daemon, "q")
        .cli(&format!("remote add b {token}"))
        .fails()
        .complains("No matching certificate add operation found");
    person.cli("remote add b 127.0.0.1").fails().complains("Remote b exists as <https://127.0.0.1");
}

#[test]
fn what_lxc_wrote_is_read_and_kept() {
    let server = Server::start();
    server.import("one", "");
    let person = Person::new(&server.daemon, "p");
    let token = server.token("laptop");
    person.lxc(&format!("remote add theirs {token}")).ok();
    person.cli("image list theirs: -c l -f csv").ok().prints("one\n");
    let before = person.file("config.yml");
    let extended = before.replace("  theirs:\n", "  theirs:\n    colour: blue\n");
    std::fs::write(person.conf.join("config.yml"), extended).unwrap();
    person.cli("remote rename theirs ours").ok();
    person.cli("remote switch ours").ok();
    person.cli("remote get-default").ok().prints("ours\n");
    assert!(person.file("config.yml").contains("colour: blue"), "an unknown key is lost");
    assert!(person.file("servercerts/theirs.crt").is_empty());
    person.lxc("image list -c l -f csv").ok().prints("one\n");
    person.cli("remote remove ours").fails().complains("default remote");
    person.cli("remote switch local").ok();
    person.cli("remote remove ours").ok();
    assert!(person.file("servercerts/ours.crt").is_empty());
    person.lxc("remote get-default").ok().prints("local\n");
    person.cli("remote remove local").fails().complains("static");
    person.cli("remote remove nope").fails().complains("doesn't exist");
}

#[test]
fn a_certificate_is_accepted_once_and_pinned() {
    let server = Server::start();
    let person = Person::new(&server.daemon, "p");
    server.daemon.cli("config set core.trust_password secret").ok();
    let (address, print) = (server.address(), server.certificate());
    person.cli(&format!("remote add b {address}")).stdin("n\n").fails().complains("NACKed");
    person.cli(&format!("remote add b {address}")).fails().complains("--fingerprint");
    let wrong = "ab".repeat(32);
    person.cli(&format!("remote add b {address} --fingerprint {wrong}")).fails().complains(&print);
    let add = format!("remote add b {address}");
    person.cli(&add).stdin("what?\ny\nwrong\n").fails().complains("not authorized");
    // Nothing stays behind of a remote that was not added.
    assert_eq!(person.file("config.yml") + &person.file("servercerts/b.crt"), "");
    // Both answers from one pipe.
    person.cli(&add).stdin(format!("{print}\nsecret\n")).ok().says(&print);
    person.cli("image list b:").ok();
    // The server is set up anew: another certificate at the same address.
    let other = Server::start();
    let moved = person.cli(&format!("remote set-url b {}", other.address())).ok();
    let moved = moved.complains("Warning: b: the address is saved").complains("remote trust b`");
    // Who reads the first line is not sent another way than who reads the second.
    assert!(!moved.stderr.contains("add it again"), "{moved}");
    let refused = person.cli("image list b:").fails().complains("`lxd-cli remote trust b` accepts");
    assert!(!refused.stderr.contains("REMOTE"), "{refused}");
    person.cli("doctor b:").fails().says("FAIL  certificate").says("remote trust b");
    person.cli("remote trust b --accept-certificate").ok();
    let checks = person.cli("doctor b: --format json").exits(1).json();
    let failed: Vec<_> =
        checks.as_array().unwrap().iter().filter(|check| check["status"] == "fail").collect();
    assert_eq!(failed.len(), 1, "{checks}");
    assert_eq!(failed[0]["check"], "trust");
}

#[test]
fn a_password_is_typed_unseen() {
    let server = Server::start();
    server.daemon.cli("config set core.trust_password hush-hush").ok();
    let person = Person::new(&server.daemon, "p");
    let line = format!("remote add b {} --accept-certificate", server.address());
    let mut session = Session::start(person.cli(&line));
    session.sees("password (or token) for b:");
    session.types("hush-hush\n");
    let (code, screen) = session.end();
    assert_eq!(code, 0, "{screen}");
    assert!(!screen.contains("hush-hush"), "the password was shown: {screen}");
}

#[test]
fn a_public_remote_needs_no_login() {
    let server = Server::start();
    let public = server.import("pub", "--public");
    server.import("priv", "");
    let person = Person::new(&server.daemon, "p");
    let line = format!("remote add team {} --public --accept-certificate", server.address());
    person.cli(&line).ok();
    assert!(person.file("client.key").is_empty(), "a stranger needs no certificate");
    for client in Client::both() {
        person.run(client, "image list team: -c F -f csv").ok().prints(&format!("{public}\n"));
        person.run(client, "image info team:pub").ok().says(&public);
        person.run(client, "image info team:priv").fails();
    }
    // LXD does not list aliases for strangers; they are with the images.
    person.cli("image alias list team: -f csv").ok().says("pub,").says_not("priv");
    person.cli("image delete team:pub").fails().complains("can only be read");
    person.cli("image export team:pub out").ok();
    person.cli("doctor team:").ok().says("ok    trust");
}

#[test]
fn trust_is_given_edited_and_taken() {
    let server = Server::start();
    let daemon = &server.daemon;
    let person = Person::new(daemon, "p");
    person.cli(&format!("remote add b {}", server.token("laptop"))).ok();
    let print =
        person.cli("config trust list b: -f csv").ok().line().split(',').nth(3).unwrap().to_owned();
    daemon.cli(&format!("config trust show {print}")).ok().says("name: laptop");
    daemon
        .cli(&format!("config trust edit {print}"))
        .stdin("name: desk\nrestricted: true\nprojects: [default]\n")
        .ok();
    daemon.lxc("config trust list -f csv").ok().says("client,desk,");
    person.cli("image alias create b:x abc").fails();
    daemon.cli(&format!("config trust edit {print}")).stdin("nmae: x\n").fails();
    daemon.cli("config trust remove desk").ok();
    daemon.cli("config trust list -f csv").ok().silent();
    person.cli("config trust list b:").fails();
    person.cli("doctor b:").fails().says("FAIL  trust");
    // A certificate from a file, by either client.
    let file = person.conf.join("client.crt");
    daemon.cli(&format!("config trust add {}", shown(&file))).ok();
    daemon.lxc("config trust list -f csv").ok().says("client,client.crt,");
    daemon
        .cli(&format!("config trust add {}", shown(&file)))
        .fails()
        .complains("already in trust store");
    daemon.cli("config trust add nosuch.crt").fails().complains("no such file");
    daemon.cli("config trust remove beef").fails().complains("not found");
    // Tokens that nobody has used.
    daemon
        .cli("config trust add")
        .stdin("asked\n")
        .ok()
        .says("Client asked certificate add token:");
    let token = server.token("other");
    let listed = daemon.cli("config trust list-tokens -f csv").ok();
    assert_eq!(listed.stdout, daemon.lxc("config trust list-tokens -f csv").ok().stdout);
    assert!(listed.stdout.contains(&token) && listed.stdout.contains("asked,"), "{listed}");
    daemon.cli("config trust revoke-token other").ok().says("token for other deleted");
    daemon.cli("config trust revoke-token other").fails().complains("No certificate add token");
    Person::new(daemon, "q").cli(&format!("remote add b {token}")).fails();
}

#[test]
fn images_are_copied_in_every_mode() {
    let (source, target) = (Server::start(), Server::start());
    let public = source.import("pub", "--public");
    let private = source.import("priv", "");
    let split = source.import_split("split");
    let cli = |line: &str| target.daemon.cli(line);
    cli(&format!("remote add b {}", source.token("me"))).ok();
    for mode in ["auto", "pull", "push", "relay"] {
        for (name, print) in [("pub", &public), ("priv", &private), ("split", &split)] {
            let line = format!(
                "image copy b:{name} local: --mode {mode} --copy-aliases --alias 'a {name}'"
            );
            let done = cli(&line).ok().says(print);
            assert_eq!(done.stdout.lines().count(), 1, "{done}");
            let image = cli(&format!("image info 'a {name}' --format json")).ok().json();
            assert_eq!(image["fingerprint"], json!(print));
            assert_eq!(image["properties"]["os"], "tiny");
            assert_eq!(image["public"], json!(false), "{mode}: a copy is private");
            cli(&line).ok().says("already present");
            // Byte for byte.
            cli(&format!("image verify {name}")).ok();
            cli(&format!("image delete {name}")).ok();
        }
    }
    let done = cli("image copy b:pub local: --public --format json").ok().json();
    assert_eq!((&done["status"], &done["mode"]), (&json!("copied"), &json!("pull")));
    let image = cli(&format!("image info {public} --format json")).ok().json();
    assert_eq!(image["public"], true);
    cli("image copy b:pub b:").exits(2).complains("must be different");
    cli("image copy b:pub x").exits(2).complains("Can't provide a name");
    cli("image copy b:nope local:").fails().complains("not found");
    cli("image copy b:priv local: --mode push --auto-update").exits(2).complains("pull mode");
    cli("image copy b:priv local: --alias pub").ok();
    cli("image copy b:split local: --alias pub").fails().complains("already exists");
    cli("image copy b:split local: --alias pub --reuse").ok().says("alias pub:");
}

#[test]
fn auto_mode_takes_the_way_that_is_there() {
    // The source listens nowhere: it can only push, or be read by this client.
    let (source, target) = (Daemon::start(), Server::start());
    let bytes = Recipe::new("x").unified(Compression::Gz);
    source.file("x.tar.gz", &bytes);
    source.cli("image import x.tar.gz --alias x").ok();
    source.cli(&format!("remote add b {}", target.token("me"))).ok();
    let done = source.cli("image copy local:x b: --copy-aliases").ok();
    assert!(done.stderr.contains("Copying by push"), "{done}");
    target.daemon.cli("image delete x").ok();
    source.cli("image copy local:x b: --mode pull").fails().complains("isn't listening");
    // The target listens nowhere either.
    let socket = shown(&source.socket()).to_owned();
    target.daemon.cli(&format!("remote add s unix://{socket}")).ok();
    target.daemon.cli("config unset core.https_address").ok();
    let done = target.daemon.cli("image copy s:x local: --copy-aliases").ok();
    assert!(done.stderr.contains("Copying by relay"), "{done}");
    target.daemon.cli("image info x").ok().says(&fingerprint(&[&bytes]));
}

#[test]
fn a_whole_server_moves_in() {
    let (source, target) = (Server::start(), Server::start());
    source.import("one", "--public");
    source.import_split("two");
    let three = source.import("three", "--alias third");
    let cli = |line: &str| target.daemon.cli(line);
    cli(&format!("remote add old {}", source.token("me"))).ok();
    // One is there already, another name is taken.
    cli("image copy old:one local:").ok();
    let one = cli("image list -c F -f csv").ok();
    cli(&format!("image alias create third {}", one.line())).ok();
    let done = cli("image copy --all old: local:").exits(1);
    assert!(done.stdout.contains("3 images: 1 copied, 1 already present, 1 failed"), "{done}");
    assert!(done.stderr.contains("\"third\" already exists"), "{done}");
    let done = cli("image copy --all old: local: --reuse").ok();
    assert!(done.stdout.contains("3 images: 1 copied, 2 already present, 0 failed"), "{done}");
    cli("image info third").ok().says(&three);
    cli("image list -c lp -f csv").ok().says("one,yes").says("two,no");
    let summary = cli("image copy --all old: local: -f json").ok().json();
    assert_eq!(summary["present"], 3);
    cli("image copy --all nope: local:").fails().complains("doesn't exist");
}

#[test]
fn a_copy_follows_its_source_and_goes_back() {
    let (source, target) = (Server::start(), Server::start());
    let first = source.import("v1", "--public");
    let second = source.import("v2", "--public");
    source.daemon.cli("image alias create app v1").ok();
    let cli = |line: &str| target.daemon.cli(line);
    cli(&format!("remote add b {} --public --accept-certificate", source.address())).ok();
    cli("image copy b:app local: --alias app --auto-update").ok().says(&first);
    let done = cli(&format!("image copy b:{second} local: --auto-update")).ok();
    assert!(done.stderr.contains("named by its fingerprint"), "{done}");
    cli(&format!("image refresh {second}")).fails().complains("source not found");
    cli(&format!("image delete {second}")).ok();
    cli("image refresh app").ok().says("already up to date");
    cli("image refresh app -q").ok().prints(&format!("{first}\n"));
    source.daemon.cli("image alias set app v2").ok();
    let both = format!("{} -> {}", &first[..12], &second[..12]);
    cli("image refresh app").ok().says("refreshed successfully").says(&both);
    let done = cli("image refresh app -f json").ok().json();
    let same = json!({"image": "app", "refreshed": false, "fingerprint": second, "was": second});
    assert_eq!(done, json!([same]));
    cli("image info app").ok().says(&second).says("Last check: ").says("Next check: ");
    let versions = cli("image history app -f json").ok().json();
    assert_eq!(versions[0]["fingerprint"], json!(second));
    assert_eq!(versions[1]["fingerprint"], json!(first));
    cli("image list -c F -f csv").ok().prints(&format!("{second}\n"));
    cli("image rollback app").ok().says("rolled back");
    cli("image info app").ok().says(&first);
    cli(&format!("image rollback {second}")).ok();
    cli("image info app").ok().says(&second);
    // The source goes away: nothing changes, and it is told why.
    let mut source = source;
    assert!(source.daemon.stop().success());
    cli("image refresh app").fails();
    cli("image info app").ok().says(&second).says("Last error: ");
}

#[test]
fn doctor_names_the_step_that_fails() {
    let mut daemon = Daemon::start();
    daemon.cli("doctor").ok().says("ok    socket").says("ok    trust");
    let port = free_port();
    daemon.cli(&format!("remote add gone https://127.0.0.1:{port} --no-check")).ok();
    daemon.cli("doctor gone:").fails().says("FAIL  route").says("Nobody listens").says("skip  tls");
    daemon.cli("remote add nowhere https://no-such-host.invalid --no-check").ok();
    daemon.cli("doctor nowhere:").fails().says("FAIL  name resolution");
    daemon.cli(&format!("doctor 127.0.0.1:{port}")).fails().says("FAIL  route");
    // What LXD's configuration could mend is not the trouble of a web server.
    let streams = format!("remote add web https://127.0.0.1:{port} --no-check");
    daemon.cli(&format!("{streams} --protocol simplestreams")).ok();
    daemon.cli("doctor web:").fails().says("Nobody listens").says_not("core.https_address");
    daemon.cli("doctor nope:").fails().complains("doesn't exist");
    // An address has no certificate to accept before it has a name.
    let other = Server::start();
    let strange = daemon.cli(&format!("doctor {}", other.address())).fails();
    strange.says("FAIL  certificate").says("remote add NAME").says_not("remote trust");
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        use std::io::Write;
        for stream in plain.incoming().take(2) {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    daemon.cli(&format!("doctor 127.0.0.1:{port}")).fails().says("FAIL  tls");
    server.join().unwrap();
    assert!(daemon.stop().success());
    daemon.cli("doctor").fails().says("FAIL  socket").says("Start the daemon");
}

#[test]
fn a_new_address_is_saved_and_asked() {
    let server = Server::start();
    let person = Person::new(&server.daemon, "p");
    person.cli(&format!("remote add b {}", server.token("me"))).ok();
    let gone = format!("127.0.0.1:{}", free_port());
    let done = person.cli(&format!("remote set-url b {gone}")).ok();
    done.complains("Warning: b: the address is saved, but cannot reach").complains("doctor b:");
    assert!(person.file("config.yml").contains(&format!("addr: https://{gone}\n")));
    let done = person.cli(&format!("remote set-url b {gone} -f json")).ok().json();
    assert!(done["warning"].as_str().unwrap().contains("cannot reach"), "{done}");
    let unasked = person.cli(&format!("remote set-url b {gone} --no-check")).ok();
    assert_eq!(unasked.stderr, "");
    let good = person.cli(&format!("remote set-url b {}", server.address())).ok();
    assert_eq!(good.stderr, "");
    person.cli("remote set-url b 'not an address'").exits(2).complains("is no address");
    assert!(person.file("config.yml").contains(&server.address()));
}

#[test]
fn a_stranger_is_told_that_only_a_part_is_seen() {
    let server = Server::start();
    let public = server.import("pub", "--public");
    server.import("priv", "");
    let person = Person::new(&server.daemon, "p");
    person.cli(&format!("remote add b {}", server.token("me"))).ok();
    let friend = person.cli("image list b: -c F -f csv").ok();
    assert_eq!((friend.stdout.lines().count(), friend.stderr.as_str()), (2, ""));
    server.daemon.cli("config trust remove me").ok();
    let told_once = |line: &str, why: &str| {
        let done = person.cli(line).run();
        let warnings = done.stderr.matches("only public images are seen").count();
        assert!(done.stderr.contains(why) && warnings == 1, "{done}");
        done
    };
    let untrusted = "Warning: b: the server does not trust this client";
    let listed = told_once("image list b: -c F -f csv", untrusted);
    assert_eq!(listed.stdout, format!("{public}\n"));
    told_once("image alias list b:", untrusted);
    told_once("image info b:priv", untrusted);
    told_once("image copy b:pub local:", untrusted);
    for file in ["client.crt", "client.key"] {
        std::fs::remove_file(person.conf.join(file)).unwrap();
    }
    let nameless = "Warning: b: this client has no certificate";
    let listed = told_once("image list b: -c F -f csv", nameless);
    assert_eq!(listed.stdout, format!("{public}\n"));
    told_once("image info b:pub", nameless);
}

#[test]
fn what_speaks_no_tls_has_no_certificate_to_trust() {
    let daemon = Daemon::start();
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for mut stream in plain.incoming().flatten() {
            // All that comes is read, so that the close is no reset.
            let mut hello = [0; 4096];
            let _ = stream.read(&mut hello);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    for kind in ["--public", "--protocol simplestreams", ""] {
        let done = daemon.cli(&format!("remote add h 127.0.0.1:{port} {kind}")).fails();
        let done = done.complains("does not speak TLS");
        assert!(!done.stderr.contains("remote trust"), "{done}");
    }
}

#[test]
fn an_odd_entry_hides_no_other_remote() {
    let daemon = Daemon::start();
    let person = Person::new(&daemon, "p");
    person.cli("remote add good https://127.0.0.1:9 --no-check").ok();
    let text = person.file("config.yml").replace("  good:\n", "  odd: null\n  good:\n");
    std::fs::write(person.conf.join("config.yml"), text).unwrap();
    let listed = person.cli("remote list -f csv").ok().says("good,https://127.0.0.1:9");
    listed.complains("Warning: The remote \"odd\" cannot be used: its entry is empty");
    let fine = person.cli("image list").ok();
    assert_eq!(fine.stderr, "");
    for line in ["image list odd:", "remote switch odd", "remote add odd h --no-check"] {
        person.cli(line).fails().complains("The remote \"odd\" cannot be used");
    }
    person.cli("remote add more https://127.0.0.1:9 --no-check").ok();
    assert!(person.file("config.yml").contains("  odd: null\n"));
    person.cli("remote remove odd").ok();
    assert!(!person.file("config.yml").contains("odd"));
    // A default that is not there is told as one.
    let text = person.file("config.yml").replace("default-remote: local", "default-remote: nope");
    std::fs::write(person.conf.join("config.yml"), text).unwrap();
    let done = person.cli("image list").fails().complains("The default remote \"nope\"");
    done.complains("remote switch local");
    person.cli("remote switch local").ok();
    person.cli("image list").ok();
}

#[test]
fn two_clients_at_once_lose_no_remote() {
    let daemon = Daemon::start();
    let person = Person::new(&daemon, "p");
    let running: Vec<_> = (0..12)
        .map(|n| person.cli(&format!("remote add r{n} https://127.0.0.1:{n}1 --no-check")).spawn())
        .collect();
    for one in running {
        assert_eq!(one.wait().code, 0);
    }
    let remotes = person.cli("remote list -f json").ok().json();
    for n in 0..12 {
        assert!(remotes[format!("r{n}")].is_object(), "r{n} is lost: {remotes}");
    }
}
