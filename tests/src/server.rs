//! Daemons on the network: ours or a real LXD behind a port, one the remote of another.

use serde_json::{Value, json};

use crate::client::{Invocation, shown};
use crate::daemon::{Daemon, Kind};
use crate::fixtures::{Compression, Recipe, big, fingerprint};
use crate::wait::Turn;
use crate::web::Authority;
use crate::wire::free_port;

/// The trust password of every server here.
pub const PASSWORD: &str = "pw";

/// A daemon that listens on 127.0.0.1.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub daemon: Daemon,
    /// Where it listens.
    pub port: u16,
}

impl Server {
    /// `lxd-imaged`.
    pub fn ours() -> Self {
        Self::open(Daemon::start())
    }

    /// `lxd-imaged` that trusts `authority`, as do its clients; `environment` is set for it.
    pub fn ours_with(authority: &Authority, environment: &[(&str, &str)]) -> Self {
        Self::open(Self::trusting(authority, environment))
    }

    /// A running `lxd-imaged` without a port that trusts `authority`, as do its clients.
    pub fn trusting(authority: &Authority, environment: &[(&str, &str)]) -> Daemon {
        let mut daemon = Daemon::prepare(Kind::Ours, Turn::shared());
        let file = daemon.file("authority.crt", authority.pem().as_bytes());
        daemon.set_env("SSL_CERT_FILE", shown(&file));
        for (key, value) in environment {
            daemon.set_env(key, value);
        }
        daemon.launch();
        daemon
    }

    /// `lxd-imaged` with a certificate for which `authority` vouches; it trusts that one, too.
    pub fn vouched(authority: &Authority) -> Self {
        let mut daemon = Daemon::prepare(Kind::Ours, Turn::shared());
        let (certificate, key) = authority.vouch();
        for (name, bytes) in [("server.crt", certificate), ("server.key", key)] {
            std::fs::write(daemon.dir().join(name), bytes).expect("write a certificate");
        }
        let file = daemon.file("authority.crt", authority.pem().as_bytes());
        daemon.set_env("SSL_CERT_FILE", shown(&file));
        daemon.launch();
        Self::open(daemon)
    }

    /// A real LXD.
    pub fn lxd() -> Self {
        Self::open(crate::peer::start())
    }

    /// Opens the port of a running daemon.
    pub fn open(daemon: Daemon) -> Self {
        let port = free_port();
        let server = Self { daemon, port };
        server.lxc(&format!("config set core.https_address 127.0.0.1:{port}")).ok();
        server.lxc(&format!("config set core.trust_password {PASSWORD}")).ok();
        server
    }

    /// A run of `lxc` that trusts what the daemon trusts.
    pub fn lxc(&self, line: &str) -> Invocation {
        trusting(&self.daemon, self.daemon.lxc(line))
    }

    /// A run of `lxd-cli` that trusts what the daemon trusts.
    pub fn cli(&self, line: &str) -> Invocation {
        trusting(&self.daemon, self.daemon.cli(line))
    }

    /// `https://127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Makes `other` the remote `name` of this daemon's clients, trusted.
    pub fn add(&self, name: &str, other: &Self) {
        let address = other.address();
        let line =
            format!("remote add {name} {address} --accept-certificate --password {PASSWORD}");
        self.lxc(&line).ok();
    }

    /// Makes `other` the public remote `name` of this daemon's clients.
    pub fn add_public(&self, name: &str, other: &Self) {
        let line = format!("remote add {name} {} --accept-certificate --public", other.address());
        self.lxc(&line).ok();
    }

    /// Imports a tiny unified image under the alias `name`; its fingerprint.
    pub fn import(&self, name: &str, more: &str) -> String {
        let bytes = Recipe::new(name).property("os", "tiny").unified(Compression::Gz);
        self.import_bytes(name, &bytes, more)
    }

    /// Imports a unified image under the alias `name`; its fingerprint.
    pub fn import_bytes(&self, name: &str, bytes: &[u8], more: &str) -> String {
        let file = self.daemon.file(&format!("{name}.tar"), bytes);
        self.lxc(&format!("image import {} --alias {name} {more}", shown(&file))).ok();
        std::fs::remove_file(file).unwrap();
        fingerprint(&[bytes])
    }

    /// Imports a split image under the alias `name`; its fingerprint.
    pub fn import_split_bytes(
        &self,
        name: &str,
        (metadata, root): (&[u8], &[u8]),
        more: &str,
    ) -> String {
        let files = [("meta", metadata), ("root", root)]
            .map(|(part, bytes)| self.daemon.file(&format!("{name}.{part}"), bytes));
        let [metadata_file, root_file] = files.each_ref().map(|file| shown(file));
        let line = format!("image import {metadata_file} {root_file} --alias {name} {more}");
        self.lxc(&line).ok();
        for file in &files {
            std::fs::remove_file(file).unwrap();
        }
        fingerprint(&[metadata, root])
    }

    /// Imports a public image of this size under the alias `name`; its fingerprint.
    ///
    /// Its root does not compress.
    pub fn import_large(&self, name: &str, mib: usize, split: bool) -> String {
        if split {
            let metadata = Recipe::new(name).metadata(Compression::Xz);
            let root = big::root(Vec::new(), mib, Compression::Plain).unwrap();
            self.import_split_bytes(name, (&metadata, &root), "--public")
        } else {
            let bytes = big::unified(Vec::new(), name, mib, Compression::Plain).unwrap();
            self.import_bytes(name, &bytes, "--public")
        }
    }

    /// The image's object.
    pub fn image(&self, fingerprint: &str) -> Value {
        self.daemon.http().metadata(&format!("/1.0/images/{fingerprint}"))
    }

    /// Whether it is here.
    pub fn has(&self, fingerprint: &str) -> bool {
        self.daemon.http().get(&format!("/1.0/images/{fingerprint}")).status == 200
    }

    /// Its size in bytes.
    pub fn size(&self, fingerprint: &str) -> u64 {
        self.image(fingerprint)["size"].as_u64().unwrap()
    }

    /// What an alias points to.
    pub fn target(&self, alias: &str) -> String {
        let alias = self.daemon.http().metadata(&format!("/1.0/images/aliases/{alias}"));
        alias["target"].as_str().unwrap().to_owned()
    }

    /// The server's certificate, as PEM.
    pub fn certificate(&self) -> String {
        std::fs::read_to_string(self.daemon.dir().join("server.crt")).unwrap()
    }

    /// What a client sends that wants `reference` of this server, reached at `port`.
    pub fn offer(&self, port: u16, reference: &str) -> Value {
        json!({"source": {
            "type": "image", "mode": "pull", "protocol": "lxd", "fingerprint": reference,
            "server": format!("https://127.0.0.1:{port}"), "certificate": self.certificate(),
        }})
    }

    /// Has the daemon do what a `POST /1.0/images` says; the operation's end.
    pub fn pull(&self, request: &Value) -> Value {
        pull(&self.daemon, request)
    }

    /// Nothing of a failed copy is here: no image, no file, no half file.
    pub fn holds_nothing(&self) {
        holds_nothing(&self.daemon);
    }
}

/// Has the daemon do what a `POST /1.0/images` says; the operation's end.
pub fn pull(daemon: &Daemon, request: &Value) -> Value {
    let http = daemon.http();
    http.finish(&http.json("POST", "/1.0/images", request))
}

/// What a client sends that wants `reference` of the simplestreams server at `port`.
pub fn streams_offer(port: u16, reference: &str) -> Value {
    json!({"source": {
        "type": "image", "mode": "pull", "protocol": "simplestreams", "alias": reference,
        "server": format!("https://127.0.0.1:{port}"),
    }})
}

/// Nothing of a failed copy is here: no image, no file, no half file.
pub fn holds_nothing(daemon: &Daemon) {
    assert_eq!(daemon.http().metadata("/1.0/images?all-versions=1"), json!([]));
    assert_eq!(daemon.bytes_in("blobs"), 0, "{:?}", daemon.files_in("blobs"));
    assert_eq!(daemon.files_in("partial"), [""; 0]);
}

/// Lets a client trust what the daemon was told to trust.
pub fn trusting(daemon: &Daemon, invocation: Invocation) -> Invocation {
    let authority = daemon.work().join("authority.crt");
    if authority.is_file() { invocation.env("SSL_CERT_FILE", authority) } else { invocation }
}
