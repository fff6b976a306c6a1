//! Signed simplestreams, both ways: a tree that `gpg` has signed is taken by `lxd-cli` and by the
//! daemon, and whatever is not signed as it has to be by neither; what `lxd-cli streams sign`
//! signs is taken by `gpgv`, `sstream-query` and `sstream-mirror`.

use std::collections::BTreeMap;
use std::path::Path;

use lxd_tests::client::{Finished, Invocation, shown};
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe};
use lxd_tests::gnupg::Gnupg;
use lxd_tests::server::{Server, trusting};
use lxd_tests::streams::Tree;
use lxd_tests::tool;
use lxd_tests::wait;
use lxd_tests::web::{Authority, Web};
use serde_json::{Value, json};

const SIGNER: &str = "signer@example.org";
const INDEX: &str = "/streams/v1/index.sjson";
const CATALOG: &str = "/streams/v1/images.sjson";

/// Files by path.
type Files = BTreeMap<String, Vec<u8>>;

/// A signed tree, and what serves it.
struct Signed {
    authority: Authority,
    web: Web,
    gnupg: Gnupg,
    tree: Tree,
}

impl Signed {
    fn start() -> Self {
        let authority = Authority::new();
        let web = Web::start(&authority);
        let gnupg = Gnupg::new();
        gnupg.key(SIGNER, "rsa2048");
        Self { authority, web, gnupg, tree: Tree::default() }
    }

    /// A build of Debian; its fingerprint.
    fn build(&mut self, serial: &str) -> String {
        let recipe = Recipe::new(&format!("debian-{serial}"));
        let (metadata, root) = (recipe.metadata(Compression::Xz), recipe.root(Compression::Xz));
        self.tree.split("debian:12", serial, &metadata, ("root.tar.xz", &root))
    }

    /// The files of the tree, documents signed by this user in place of unsigned ones.
    fn files(&self, user: &str) -> Files {
        self.files_by(|text| self.gnupg.clearsign(user, text))
    }

    fn files_by(&self, sign: impl Fn(&[u8]) -> Vec<u8>) -> Files {
        let mut files = self.tree.files();
        for (plain, signed) in
            [("/streams/v1/index.json", INDEX), ("/streams/v1/images.json", CATALOG)]
        {
            let text = String::from_utf8(files.remove(plain).unwrap()).unwrap();
            let text = text.replace("images.json", "images.sjson");
            files.insert(signed.to_owned(), sign(text.as_bytes()));
        }
        files
    }

    /// Makes it the remote `s` of the clients of a server.
    fn add_to(&self, daemon: &Daemon) -> Finished {
        let keyring = shown(&self.gnupg.keyring(SIGNER)).to_owned();
        let line = format!("remote add s {} --keyring {keyring}", self.web.address());
        trusting(daemon, daemon.cli(&line)).run()
    }
}

/// What the daemon itself makes of a copy, without a client that looks first; the error.
fn pulled(server: &Server, source: &Value) -> Result<String, String> {
    let http = server.daemon.http();
    let answer = http.json("POST", "/1.0/images", &json!({ "source": source }));
    let operation = http.finish(&answer);
    match operation["err"].as_str() {
        None | Some("") => Ok(operation["metadata"]["fingerprint"].as_str().unwrap().to_owned()),
        Some(error) => Err(error.to_owned()),
    }
}

/// The daemon's error, once it asks again: answers are good for a moment.
fn refused(server: &Server, source: &Value) -> String {
    let mut error = None;
    wait::within(wait::PATIENCE, || match pulled(server, source) {
        Ok(fingerprint) => {
            server.cli(&format!("image delete {fingerprint}")).ok();
            false
        }
        Err(text) => {
            error = Some(text);
            true
        }
    });
    error.expect("the daemon takes it")
}

#[test]
fn a_tree_that_gpg_has_signed_is_taken_and_followed() {
    let mut signed = Signed::start();
    let first = signed.build("20260101_0000");
    signed.web.publish(signed.files(SIGNER));
    let server = Server::ours_with(&signed.authority, &[]);
    let added = signed.add_to(&server.daemon);
    assert_eq!(added.code, 0, "{added}");
    server.cli("image list s: -f csv -c f").ok().says(&first[..12]);
    server.cli("image info s:debian").ok().says(&first);
    server.cli("remote list").ok().says("none (signed)");
    let listed = server.cli("remote list -f json").ok();
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed["s"]["Keyring"][0].as_str().unwrap().len(), 40, "{listed}");

    server.cli("image copy s:debian local: --alias mine --auto-update").ok().says("(pull)");
    assert_eq!(server.target("mine"), first);
    let second = signed.build("20260102_0000");
    let new = signed.files(SIGNER);
    // What is unsigned brings no newer version.
    signed.web.publish(signed.tree.files());
    let refresh = || server.cli("image refresh mine").run();
    // Answers are good for a moment.
    assert!(wait::within(wait::PATIENCE, || refresh().stderr.contains("is refused")));
    assert_eq!(server.target("mine"), first);
    signed.web.publish(new);
    server.cli("image refresh mine").ok();
    assert_eq!(server.target("mine"), second);

    // lxc writes the file anew, without what it does not know, and it knows no keyrings.
    trusting(&server.daemon, server.daemon.lxc("remote rename s t")).ok();
    signed.web.publish(signed.tree.files());
    server.cli("image list t:").fails().complains("is refused");
    server.cli("remote rename t u").ok();
    server.cli("image list u:").fails().complains("is refused");
    server.cli("remote remove u").ok();
    server.cli(&format!("remote add u {} --protocol simplestreams", signed.web.address())).ok();
    server.cli("image list u: -f csv -c f").ok().says(&second[..12]);
}

#[test]
fn what_is_not_signed_as_it_has_to_be_is_refused_by_client_and_daemon() {
    let mut signed = Signed::start();
    signed.gnupg.key("other@example.org", "ed25519");
    signed.build("20260101_0000");
    let old = signed.files_by(|text| signed.gnupg.clearsign_on(SIGNER, text, "20260101T000000"));
    signed.build("20260102_0000");
    let good = signed.files(SIGNER);
    let unsigned = signed.tree.files();
    let by_other = signed.files("other@example.org");
    let mut tampered = good.clone();
    let catalog = String::from_utf8(tampered[CATALOG].clone()).unwrap();
    let changed = catalog.replace("20260102_0000", "20260103_0000");
    assert_ne!(changed, catalog);
    tampered.insert(CATALOG.to_owned(), changed.into_bytes());
    let mut bare = good.clone();
    bare.insert(CATALOG.to_owned(), unsigned["/streams/v1/images.json"].clone());
    let mut mixed = good.clone();
    mixed.insert(CATALOG.to_owned(), old[CATALOG].clone());

    signed.web.publish(good.clone());
    let server = Server::ours_with(&signed.authority, &[]);
    let added = signed.add_to(&server.daemon);
    assert_eq!(added.code, 0, "{added}");
    let keyring = signed.gnupg.keyring(SIGNER);
    let text =
        std::fs::read_to_string(server.daemon.work().parent().unwrap().join("conf/keyrings/s.pgp"));
    let source = json!({
        "type": "image", "mode": "pull", "protocol": "simplestreams",
        "server": signed.web.address(), "alias": "debian", "keyring": text.unwrap(),
    });
    let fingerprint = pulled(&server, &source).unwrap();
    server.cli("image list s:").ok();
    for (what, files, reason) in [
        ("unsigned", unsigned.clone(), "its images are not signed"),
        ("by another", by_other, "which is not in the keyring"),
        ("tampered", tampered, "the text has been changed"),
        ("an unsigned catalog", bare, "it is not signed"),
        ("replayed", old, "a newer one of"),
        ("mixed", mixed, "a newer one of"),
    ] {
        signed.web.publish(files);
        server.cli(&format!("image delete {fingerprint}")).run();
        for line in [
            "image list s:",
            "image copy s:debian local:",
            "image info s:nothing",
            "launch s:debian c1",
        ] {
            let failed = server.cli(line).fails().complains("is refused");
            assert!(failed.stderr.contains(&signed.web.address()), "{what}: {failed}");
        }
        let error = refused(&server, &source);
        assert!(error.contains("is refused") && error.contains(reason), "{what}: {error}");
        assert!(error.contains(&signed.web.address()), "{what}: {error}");
    }
    assert_eq!(server.daemon.http().metadata("/1.0/images"), json!([]));

    // Nor does an unsigned tree become a remote that has to be signed.
    signed.web.publish(unsigned);
    let line = |name: &str, keyring: &Path| {
        format!("remote add {name} {} --keyring {}", signed.web.address(), shown(keyring))
    };
    server.cli(&line("n", &keyring)).fails().complains("not signed");
    server.cli(&line("n", Path::new("/dev/null"))).fails();
    server.cli(&format!("{} --protocol lxd", line("n", &keyring))).exits(2);
    server.cli("image list n:").fails().complains("doesn't exist");
    signed.web.publish(good);
    server.cli("image copy s:debian local:").ok();
    let lxd = json!({
        "type": "image", "mode": "pull", "protocol": "lxd", "server": signed.web.address(),
        "alias": "debian", "keyring": source["keyring"],
    });
    let refused = server.daemon.http().json("POST", "/1.0/images", &json!({ "source": lxd }));
    refused.refuses(400, "what an LXD server says is not signed");
}

#[test]
fn a_real_lxd_which_cannot_check_gets_it_through_the_client() {
    let mut signed = Signed::start();
    let fingerprint = signed.build("20260101_0000");
    signed.web.publish(signed.files(SIGNER));
    let daemon = lxd_tests::peer::start();
    daemon.file("authority.crt", signed.authority.pem().as_bytes());
    let added = signed.add_to(&daemon);
    assert_eq!(added.code, 0, "{added}");
    let run = |line: &str| trusting(&daemon, daemon.cli(line));
    run("image copy s:debian local: --mode pull").fails().complains("cannot check signatures");
    run("image copy s:debian local: --auto-update").fails().complains("cannot check signatures");
    run("image copy s:debian local: --alias mine").ok().says(&fingerprint).says("(relay)");
    run("image delete mine").ok();
    run("init s:debian c1").ok().complains("comes through this client");
    run("image info mine").fails();
    run("image list -f csv -c f").ok().says(&fingerprint[..12]);
    run("image delete").exits(2);
    run("delete c1").ok();
    signed.web.publish(signed.tree.files());
    run(&format!("image delete {fingerprint}")).ok();
    run("image copy s:debian local:").fails().complains("is refused");
    run("init s:debian c2").fails().complains("is refused");
    run("image list -f csv -c f").ok().says_not(&fingerprint[..12]);
}

#[test]
fn what_we_sign_gpgv_and_the_simplestreams_tools_take() {
    let mut signed = Signed::start();
    signed.gnupg.key("ours@example.org", "ed25519");
    signed.build("20260101_0000");
    signed.build("20260102_0000");
    let daemon = Server::trusting(&signed.authority, &[]);
    let root = daemon.work().join("tree");
    for (path, bytes) in signed.tree.files() {
        daemon.file(&format!("tree{path}"), &bytes);
    }
    // With "requests" beside them the tools look for authorities elsewhere.
    let authority = daemon.work().join("authority.crt");
    let run = |invocation: Invocation| {
        trusting(&daemon, daemon.point(invocation)).env("REQUESTS_CA_BUNDLE", &authority)
    };
    for user in [SIGNER, "ours@example.org"] {
        let (key, keyring) = (signed.gnupg.secret(user), signed.gnupg.keyring(user));
        let line = format!("streams sign {} --key {}", shown(&root), shown(&key));
        trusting(&daemon, daemon.cli(&line)).ok().says("2 documents are signed by");
        for document in [INDEX, CATALOG] {
            let said = Gnupg::gpgv(&keyring, &root.join(&document[1..]));
            let stderr = String::from_utf8_lossy(&said.stderr);
            assert!(said.status.success() && stderr.contains("Good signature"), "{stderr}");
        }
        let mut files = signed.tree.files();
        for document in [INDEX, CATALOG] {
            files.insert(document.to_owned(), std::fs::read(root.join(&document[1..])).unwrap());
        }
        signed.web.publish(files.clone());
        let address = signed.web.address();
        let query = format!("--keyring={} {address}/streams/v1/index.sjson", shown(&keyring));
        let query = || run(Invocation::new(&tool::sstream("sstream-query"), &query));
        query().ok().says("20260101_0000").says("20260102_0000");
        let mirror = daemon.work().join(format!("mirror-{user}"));
        let line = format!(
            "--keyring={} --path streams/v1/index.sjson {address}/ {}",
            shown(&keyring),
            shown(&mirror)
        );
        run(Invocation::new(&tool::sstream("sstream-mirror"), &line)).ok();
        for (path, bytes) in files.iter().filter(|(path, _)| !path.ends_with("json")) {
            assert_eq!(std::fs::read(mirror.join(&path[1..])).unwrap(), *bytes, "{path}");
        }
        assert_eq!(std::fs::read(mirror.join(&INDEX[1..])).unwrap(), files[INDEX]);
        // The tools do look at the signature.
        files.get_mut(CATALOG).unwrap().splice(60..60, *b" ");
        let text = String::from_utf8(files[CATALOG].clone()).unwrap();
        files.insert(CATALOG.to_owned(), text.replace("20260102", "20260103").into_bytes());
        signed.web.publish(files);
        assert_ne!(query().run().code, 0);
    }
    let key = shown(&signed.gnupg.keyring(SIGNER)).to_owned();
    let line = format!("streams sign {} --key {key}", shown(&root));
    daemon.cli(&line).fails().complains("it holds a public key only");
    let key = signed.gnupg.secret(SIGNER);
    daemon.cli(&format!("streams sign {} --key {}", shown(&daemon.work()), shown(&key))).fails();
    // A tree that is signed by another or not at all is signed with the change itself.
    let build = |more: &str| daemon.cli(&format!("streams build {}{more}", shown(&root)));
    let refused = build(&format!(" --sign-key {}", shown(&signed.gnupg.keyring(SIGNER)))).fails();
    refused.complains("it holds a public key only");
    build("").ok().complains("the signed documents are older than the tree");
    build(&format!(" --sign-key {}", shown(&key))).ok();
    for document in [INDEX, CATALOG] {
        let said = Gnupg::gpgv(&signed.gnupg.keyring(SIGNER), &root.join(&document[1..]));
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
    let verify = |user: &str| {
        let keyring = signed.gnupg.keyring(user);
        let line = format!("streams verify {} --keyring {}", shown(&root), shown(&keyring));
        daemon.cli(&line)
    };
    verify(SIGNER).ok();
    verify("ours@example.org").fails().says("which is not in the keyring");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let open = build(&format!(" --sign-key {}", shown(&key))).fails();
    open.complains("others can read or change it (mode 0644)");
    let key = signed.gnupg.secret(SIGNER);
    let bytes = || std::fs::read(root.join(&INDEX[1..])).unwrap();
    let before = bytes();
    build(&format!(" --sign-key {}", shown(&key))).ok().says("Nothing has changed");
    assert_eq!(bytes(), before);
}

#[test]
fn the_servers_key_is_a_file_that_nobody_else_reads() {
    use std::os::unix::fs::PermissionsExt;
    let gnupg = Gnupg::new();
    gnupg.key(SIGNER, "ed25519");
    let daemon = Daemon::start();
    let key = gnupg.secret(SIGNER);
    let line = format!("config set images.streams_key {}", shown(&key));
    let mode = |mode| std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    daemon.cli(&line).fails().complains("others can read or change it (mode 0644)");
    mode(0o600);
    let public = gnupg.keyring(SIGNER);
    let wrong = format!("config set images.streams_key {}", shown(&public));
    std::fs::set_permissions(&public, PermissionsExt::from_mode(0o600)).unwrap();
    daemon.cli(&wrong).fails().complains("it holds a public key only");
    daemon.cli("config set images.streams_key relative").fails().complains("absolute path");
    daemon.cli("config set images.streams_key /nowhere/at/all").fails();
    daemon.cli("config get images.streams_key").ok().prints("\n");
    daemon.cli(&line).ok();
    daemon.cli("config get images.streams_key").ok().says(shown(&key));
    daemon.cli("config unset images.streams_key").ok();
}

#[test]
fn a_mirror_of_a_signed_tree_takes_what_is_signed_only() {
    let mut signed = Signed::start();
    let first = signed.build("20260101_0000");
    signed.web.publish(signed.files(SIGNER));
    let server = Server::ours_with(&signed.authority, &[]);
    let keyring = shown(&signed.gnupg.keyring(SIGNER)).to_owned();
    let line = format!("mirror create m {} --keyring {keyring}", signed.web.address());
    server.cli(&line).ok();
    server.cli("mirror run m").ok();
    assert_eq!(server.target("debian"), first);
    let second = signed.build("20260102_0000");
    // Unsigned, it brings nothing.
    signed.web.publish(signed.tree.files());
    let run = || server.cli("mirror run m").run();
    assert!(wait::within(wait::PATIENCE, || run().stderr.contains("is refused")));
    assert_eq!(server.target("debian"), first);
    signed.web.publish(signed.files(SIGNER));
    assert!(wait::within(wait::PATIENCE, || run().code == 0 && server.has(&second)));
    assert_eq!(server.target("debian"), second);
}
