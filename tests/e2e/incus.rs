//! The real Incus 6.0: its client over our socket and over HTTPS, its daemon as our client.
//!
//! The client is looked for as `LXD_TEST_INCUS`, in PATH, and in `target/incus/usr/bin`; a client
//! that drives a running daemon is named by `LXD_TEST_INCUSD`. Without them these tests say so
//! and pass: Debian 12 has no such package.

use std::path::PathBuf;

use lxd_tests::client::{Invocation, shown};
use lxd_tests::fixtures::{Compression, Recipe, fingerprint};
use lxd_tests::server::Server;
use lxd_tests::tool;

/// The client, or a line that says why there is no test.
fn incus() -> Option<PathBuf> {
    let found = tool::incus();
    if found.is_none() {
        eprintln!(
            "skipped: no incus client; apt-get install incus-client (Debian 13), or unpack it with dpkg -x into {}",
            tool::target_dir().join("incus").display()
        );
    }
    found
}

/// The client on a machine with this daemon.
struct Incus<'a> {
    program: PathBuf,
    server: &'a Server,
}

impl Incus<'_> {
    fn run(&self, line: &str) -> Invocation {
        let home = self.server.daemon.work().join("incus");
        std::fs::create_dir_all(&home).unwrap();
        self.server
            .daemon
            .point(Invocation::new(&self.program, line))
            .env("INCUS_SOCKET", self.server.daemon.socket())
            .env("INCUS_CONF", home)
    }
}

#[test]
fn the_client_drives_our_daemon_over_the_socket() {
    let Some(program) = incus() else { return };
    let server = Server::ours();
    let incus = Incus { program, server: &server };
    every_command(&incus, "local:");
}

#[test]
fn the_client_drives_our_daemon_over_https() {
    let Some(program) = incus() else { return };
    let server = Server::ours();
    let incus = Incus { program, server: &server };
    let added = server.lxc("config trust add --name incus").ok();
    let token = added.line().lines().last().unwrap().trim().to_owned();
    incus.run(&format!("remote add far {token}")).ok();
    every_command(&incus, "far:");
    incus.run("config set far: images.remote_cache_expiry 5").ok();
    incus.run("config get far: images.remote_cache_expiry").ok().prints("5\n");
    incus.run("info far:").ok().says("api_version");
}

/// Lists, imports, exports, copies, edits and deletes.
fn every_command(incus: &Incus<'_>, remote: &str) {
    let daemon = &incus.server.daemon;
    let unified = Recipe::new("unified").property("os", "tiny").unified(Compression::Gz);
    let file = daemon.file("unified.tar.gz", &unified);
    let line = format!("image import {} {remote} --alias uni --public", shown(&file));
    incus.run(&line).ok().says(&fingerprint(&[&unified]));
    let recipe = Recipe::new("split");
    let (metadata, root) = (recipe.metadata(Compression::Xz), recipe.root_squashfs(&daemon.work()));
    let files = [("m.tar.xz", &metadata), ("r.squashfs", &root)].map(|(n, b)| daemon.file(n, b));
    let line = format!(
        "image import {} {} {remote} --alias spl key=value",
        shown(&files[0]),
        shown(&files[1])
    );
    incus.run(&line).ok();

    incus.run(&format!("image list {remote} -f csv -c lf")).ok().says("uni").says("spl");
    incus.run(&format!("image list {remote} os=tiny -f json")).ok().says("uni").says_not("split");
    incus.run(&format!("image info {remote}uni")).ok().says("Public: yes");
    incus.run(&format!("image show {remote}spl")).ok().says("key: value");
    incus.run(&format!("image set-property {remote}uni note hello")).ok();
    incus.run(&format!("image get-property {remote}uni note")).ok().prints("hello\n");
    incus.run(&format!("image unset-property {remote}uni note")).ok();
    let edited = incus.run(&format!("image show {remote}uni")).ok().stdout;
    let edited = edited.replace("public: true", "public: false");
    incus.run(&format!("image edit {remote}uni")).stdin(edited).ok();
    incus.run(&format!("image info {remote}uni")).ok().says("Public: no");

    incus.run(&format!("image alias create {remote}other {}", fingerprint(&[&unified]))).ok();
    incus.run(&format!("image alias rename {remote}other another")).ok();
    incus.run(&format!("image alias list {remote} -f csv")).ok().says("another");
    incus.run(&format!("image alias delete {remote}another")).ok();

    incus.run(&format!("image export {remote}uni out-uni")).ok();
    let out = std::fs::read(daemon.work().join("out-uni.tar.gz")).unwrap();
    assert_eq!(out, unified);
    incus.run(&format!("image export {remote}spl out-spl")).ok();
    assert_eq!(std::fs::read(daemon.work().join("out-spl.root")).unwrap(), root);

    incus.run(&format!("image delete {remote}uni {remote}spl")).ok();
    incus.run(&format!("image list {remote} -f csv")).ok().prints("");
}

#[test]
fn the_client_copies_between_two_of_ours() {
    let Some(program) = incus() else { return };
    let (a, b) = (Server::ours(), Server::ours());
    let incus = Incus { program, server: &a };
    for (name, server) in [("a", &a), ("b", &b)] {
        let token = server.lxc("config trust add --name incus").ok();
        let token = token.line().lines().last().unwrap().trim().to_owned();
        incus.run(&format!("remote add {name} {token}")).ok();
    }
    let public = a.import("public", "--public");
    let private = a.import("private", "");
    for mode in ["pull", "push", "relay"] {
        for (name, fingerprint) in [("public", &public), ("private", &private)] {
            // A public image is relayed by its fingerprint only: this client asks for the file
            // under whatever it was given.
            let image = if mode == "relay" { fingerprint } else { name };
            incus.run(&format!("image copy a:{image} b: --mode {mode} --alias {name}-{mode}")).ok();
            assert_eq!(b.target(&format!("{name}-{mode}")), *fingerprint);
            incus.run(&format!("image delete b:{name}-{mode}")).ok();
        }
    }
    incus.run("image copy a:public b: --alias kept --auto-update").ok();
    incus.run("image refresh b:kept").ok();
}

#[test]
fn its_daemon_copies_our_public_images() {
    let Some(client) = std::env::var_os("LXD_TEST_INCUSD").map(PathBuf::from) else {
        eprintln!("skipped: LXD_TEST_INCUSD names no client of a running incusd");
        return;
    };
    let ours = Server::ours();
    let unified = ours.import("uni", "--public");
    let recipe = Recipe::new("spl");
    let (metadata, root) =
        (recipe.metadata(Compression::Xz), recipe.root_squashfs(&ours.daemon.work()));
    let split = ours.import_split_bytes("spl", (&metadata, &root), "--public");
    ours.import("private", "");
    let run = |line: &str| Invocation::new(&client, line);
    let name = format!("ours-{}", ours.port);
    let line = format!("remote add {name} {} --public --accept-certificate", ours.address());
    run(&line).ok();
    for (alias, fingerprint) in [("uni", &unified), ("spl", &split)] {
        run(&format!("image copy {name}:{alias} local: --alias {name}-{alias}")).ok();
        run(&format!("image info local:{name}-{alias}")).ok().says(fingerprint);
        run(&format!("image delete local:{name}-{alias}")).ok();
    }
    run(&format!("image copy {name}:private local:")).fails();
    run(&format!("remote remove {name}")).ok();
}
