//! The daemon on the network, as real `lxc` 5.0.2 uses it: remotes, trust, tokens, a moving port.

use lxd_tests::client::{Finished, Invocation, subdir};
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe, big};
use lxd_tests::tool;
use lxd_tests::wait;
use rustix::process::{Pid, Signal, kill_process};

/// A person at another machine: a client configuration of its own, and no daemon.
struct Guest<'a> {
    daemon: &'a Daemon,
    name: &'static str,
}

impl Guest<'_> {
    fn lxc(&self, line: &str) -> Invocation {
        let conf = subdir(&self.daemon.work(), self.name);
        let config = conf.join("config.yml");
        if !config.exists() {
            std::fs::write(config, "remotes: {}\n").unwrap();
        }
        let nowhere = self.daemon.work().join("no.socket");
        self.daemon.lxc(line).env("LXD_CONF", conf).env("LXD_SOCKET", nowhere)
    }

    fn file(&self, path: &str) -> String {
        std::fs::read_to_string(self.daemon.work().join(self.name).join(path)).unwrap()
    }
}

/// Opens the network; returns `IP:PORT`.
fn open(daemon: &Daemon) -> String {
    daemon.lxc("config set core.https_address 127.0.0.1:0").ok().silent();
    address(daemon)
}

fn address(daemon: &Daemon) -> String {
    let server = daemon.http().metadata("/1.0");
    server["environment"]["addresses"][0].as_str().expect("it listens").to_owned()
}

/// A public image `open` and a private one `hidden`; their fingerprints.
fn two_images(daemon: &Daemon) -> (String, String) {
    let upload = |name: &str, public: &str| {
        let image = Recipe::new(name).unified(Compression::Gz);
        let alias = format!("alias={name}");
        let end = daemon
            .http()
            .upload(&image, &[("X-LXD-public", public), ("X-LXD-aliases", alias.as_str())]);
        end["metadata"]["fingerprint"].as_str().expect("an image").to_owned()
    };
    (upload("open", "true"), upload("hidden", "false"))
}

/// Certificates by name, first twelve digits of the fingerprint.
fn trusted(shown: &Finished) -> Vec<(String, String)> {
    let fields = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        (fields[1].to_owned(), fields[3].to_owned())
    };
    shown.stdout.lines().map(fields).collect()
}

#[test]
fn a_public_remote_shows_and_gives_what_is_public() {
    let daemon = Daemon::start();
    let (open_image, hidden) = two_images(&daemon);
    let address = open(&daemon);
    let guest = Guest { daemon: &daemon, name: "public" };
    guest.lxc(&format!("remote add pub https://{address} --public --accept-certificate")).ok();
    let server = daemon.http().metadata("/1.0");
    assert_eq!(server["environment"]["certificate"], guest.file("servercerts/pub.crt"));
    guest.lxc("image list pub: -f csv -c F").ok().prints(&format!("{open_image}\n"));
    guest.lxc("image info pub:open").ok().says(&open_image);
    guest.lxc("image show pub:open").ok().says("public: true");
    let out = subdir(&daemon.work(), "out");
    guest.lxc(&format!("image export pub:open {}", out.display())).ok();
    let exported = std::fs::read(out.join(format!("{open_image}.tar.gz"))).unwrap();
    assert!(exported == Recipe::new("open").unified(Compression::Gz), "the bytes differ");
    let missing = guest.lxc("image info pub:nothing").fails().stderr;
    for name in ["hidden", &hidden, &hidden[..12]] {
        let refused = guest.lxc(&format!("image info pub:{name}")).fails();
        assert_eq!(refused.stderr, missing, "a private image is not like a missing one");
    }
    // Without a client certificate there is nothing else to do here.
    for line in ["image delete pub:open", "config trust list pub:", "image alias list pub:"] {
        guest.lxc(line).fails();
    }
}

#[test]
fn another_certificate_behind_a_pinned_remote_is_refused() {
    let (first, second) = (Daemon::start(), Daemon::start());
    let guest = Guest { daemon: &first, name: "pinning" };
    let address = open(&first);
    guest.lxc(&format!("remote add pub https://{address} --public --accept-certificate")).ok();
    let other = open(&second);
    guest.lxc(&format!("remote set-url pub https://{other}")).ok();
    guest.lxc("image list pub:").fails().complains("x509");
}

#[test]
fn a_token_lets_one_client_in() {
    let daemon = Daemon::start();
    let (_, hidden) = two_images(&daemon);
    let refused = daemon.lxc("config trust add --name early").fails();
    assert!(refused.stderr.contains("isn't listening on network"), "{refused}");
    open(&daemon);
    let added = daemon.lxc("config trust add --name laptop").ok();
    let token = added.stdout.lines().last().expect("a token").trim().to_owned();
    daemon.lxc("config trust list-tokens -f csv").ok().says("laptop").says(&token);

    let laptop = Guest { daemon: &daemon, name: "laptop" };
    laptop.lxc(&format!("remote add home {token}")).ok();
    laptop.lxc("image list home: -f csv -c F").ok().says(&hidden);
    daemon.lxc("config trust list-tokens -f csv").ok().says_not("laptop");
    let list = trusted(&daemon.lxc("config trust list -f csv").ok());
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].0, "laptop");
    let thief = Guest { daemon: &daemon, name: "thief" };
    thief.lxc(&format!("remote add home {token}")).fails();

    // Over the network as over the socket: another one, and taken back.
    let added = laptop.lxc("config trust add --name phone").env("LXC_REMOTE", "home").ok();
    let token = added.stdout.lines().last().expect("a token").trim().to_owned();
    laptop.lxc("config trust revoke-token home:phone").ok();
    let phone = Guest { daemon: &daemon, name: "phone" };
    phone.lxc(&format!("remote add home {token}")).fails();
    assert!(!daemon.log().contains(&token), "a token in the log");
}

#[test]
fn a_password_lets_clients_in_and_trust_is_withdrawn() {
    let daemon = Daemon::start();
    let (_, hidden) = two_images(&daemon);
    let address = open(&daemon);
    let guest = Guest { daemon: &daemon, name: "desk" };
    let add = format!("remote add pw https://{address} --accept-certificate --password");
    guest.lxc(&format!("{add} sesame")).fails().complains("not authorized");
    daemon.lxc("config set core.trust_password sesame").ok();
    guest.lxc(&format!("{add} wrong")).fails().complains("not authorized");
    guest.lxc(&format!("{add} sesame")).ok();
    guest.lxc("image list pw: -f csv -c F").ok().says(&hidden);
    guest.lxc(&format!("image alias create pw:more {hidden}")).ok();
    guest.lxc("config set pw: user.note remote").ok();

    for remote in ["", "pw:"] {
        let lxc = |line: &str| match remote {
            "" => daemon.lxc(line),
            _ => guest.lxc(line),
        };
        let list = trusted(&lxc(&format!("config trust list {remote} -f csv")).ok());
        let fingerprint = &list[0].1;
        let shown = lxc(&format!("config trust show {remote}{fingerprint}")).ok();
        let name = format!("name: renamed by {remote:?}");
        let edited: Vec<&str> = shown
            .stdout
            .lines()
            .map(|line| if line.starts_with("name:") { name.as_str() } else { line })
            .collect();
        lxc(&format!("config trust edit {remote}{fingerprint}")).stdin(edited.join("\n")).ok();
        let list = lxc(&format!("config trust list {remote} -f csv")).ok();
        list.says("renamed by");
    }
    let list = trusted(&daemon.lxc("config trust list -f csv").ok());
    daemon.lxc(&format!("config trust remove {}", list[0].1)).ok();
    guest.lxc("config trust list pw:").fails().complains("not authorized");
    guest.lxc("image list pw: -f csv -c l").ok().prints("open\n");
    // The certificate itself, by a file.
    let certificate = daemon.work().join("desk/client.crt");
    daemon.lxc(&format!("config trust add {} --name desk", certificate.display())).ok();
    guest.lxc("image list pw: -f csv -c F").ok().says(&hidden);
    assert!(!daemon.log().contains("sesame"), "a password in the log");
}

#[test]
fn a_restricted_client_reads_and_changes_nothing() {
    let daemon = Daemon::start();
    let (_, hidden) = two_images(&daemon);
    open(&daemon);
    let added = daemon.lxc("config trust add --name reader --restricted --projects default").ok();
    let token = added.stdout.lines().last().expect("a token").trim().to_owned();
    let reader = Guest { daemon: &daemon, name: "reader" };
    reader.lxc(&format!("remote add ro {token}")).ok();
    reader.lxc("image list ro: -f csv -c F").ok().says(&hidden);
    let out = subdir(&daemon.work(), "read");
    reader.lxc(&format!("image export ro:hidden {}", out.display())).ok();
    for line in [
        "image delete ro:hidden",
        "image alias create ro:x hidden",
        "image set-property ro:hidden k v",
        "config set ro: user.x 1",
    ] {
        reader.lxc(line).fails().complains("not authorized");
    }
}

#[test]
fn the_port_moves_under_a_running_client_and_is_open_after_a_restart() {
    let mut daemon = Daemon::start();
    let image = big::unified(Vec::new(), "big", 64, Compression::Zst).unwrap();
    let end =
        daemon.http().upload(&image, &[("X-LXD-public", "1"), ("X-LXD-aliases", "alias=big")]);
    assert_eq!(end["status_code"], 200, "{end}");
    let first = open(&daemon);
    let guest = Guest { daemon: &daemon, name: "moving" };
    guest.lxc(&format!("remote add pub https://{first} --public --accept-certificate")).ok();
    let out = subdir(&daemon.work(), "moved");
    let running = guest.lxc(&format!("image export pub:big {}", out.display())).spawn();
    // `lxc` asks several questions first, each on a connection of its own.
    wait::until("the download has begun", || {
        let mut files = std::fs::read_dir(&out).unwrap().flatten();
        files.any(|file| file.metadata().is_ok_and(|file| file.len() > 0))
    });
    daemon.lxc("config set core.https_address=127.0.0.1:0 user.note=same").ok();
    assert_eq!(address(&daemon), first, "the same value moves nothing");
    daemon.lxc("config set core.https_address localhost:0").ok();
    let second = address(&daemon);
    assert_ne!(first, second);
    let done = running.wait();
    assert_eq!(done.code, 0, "{done}");
    guest.lxc("image list pub:").fails().complains("refused");
    guest.lxc(&format!("remote set-url pub https://{second}")).ok();
    guest.lxc("image list pub: -f csv -c l").ok().prints("big\n");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap();
    daemon
        .lxc(&format!("config set core.https_address {busy}"))
        .fails()
        .complains("Address already in use");
    assert_eq!(address(&daemon), second);
    daemon.lxc("config get core.https_address").ok().prints("localhost:0\n");
    guest.lxc("image list pub: -f csv -c l").ok().prints("big\n");

    // The port it has, by its number: the old listener is in the way of the new one.
    daemon.lxc(&format!("config set core.https_address {second}")).ok();
    daemon.stop();
    daemon.launch();
    wait::until("the port is open again", || std::net::TcpStream::connect(&second).is_ok());
    let guest = Guest { daemon: &daemon, name: "moving" };
    guest.lxc("image list pub: -f csv -c l").ok().prints("big\n");
    daemon.lxc("config unset core.https_address").ok();
    assert!(std::net::TcpStream::connect(&second).is_err());
}

#[test]
fn an_operators_own_certificate_is_taken_on_sighup() {
    let (daemon, other) = (Daemon::start(), Daemon::start());
    open(&daemon);
    let fingerprint = |daemon: &Daemon| {
        let server = daemon.http().metadata("/1.0");
        server["environment"]["certificate_fingerprint"].as_str().unwrap().to_owned()
    };
    let (old, new) = (fingerprint(&daemon), fingerprint(&other));
    let hang_up = || {
        let pid = Pid::from_raw(daemon.pid()).expect("a process id is positive");
        kill_process(pid, Signal::HUP).expect("signal a child of ours");
    };
    std::fs::copy(other.dir().join("server.key"), daemon.dir().join("server.key")).unwrap();
    hang_up();
    wait::until("the broken pair is told", || daemon.log().contains("do not belong together"));
    assert_eq!(fingerprint(&daemon), old);
    std::fs::copy(other.dir().join("server.crt"), daemon.dir().join("server.crt")).unwrap();
    hang_up();
    wait::until("the new pair is taken", || fingerprint(&daemon) == new);
    let guest = Guest { daemon: &daemon, name: "renewed" };
    let address = address(&daemon);
    guest.lxc(&format!("remote add pub https://{address} --public --accept-certificate")).ok();
    let server = other.http().metadata("/1.0");
    assert_eq!(server["environment"]["certificate"], guest.file("servercerts/pub.crt"));
}

#[test]
fn the_port_speaks_to_other_clients_too() {
    let daemon = Daemon::start();
    let (open_image, _) = two_images(&daemon);
    let address = open(&daemon);
    let curl = Invocation::new(
        &tool::require("curl"),
        &format!(
            "-sk https://{address}/1.0/images/{open_image}/export -r 0-9 -o - -w %{{http_code}}"
        ),
    );
    let done = curl.ok();
    assert!(done.stdout.ends_with("206"), "{done}");
    let plain = Invocation::new(
        &tool::require("curl"),
        &format!("-s http://{address}/1.0 -w %{{http_code}}"),
    );
    plain.ok().says("Client sent an HTTP request to an HTTPS server.").says("400");
}
