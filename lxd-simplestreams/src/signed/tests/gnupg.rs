//! What GnuPG makes is read, and what we make GnuPG reads.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::*;

/// GnuPG with a directory of its own.
struct Gnupg {
    home: tempfile::TempDir,
}

impl Gnupg {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        // A short path: the agent's socket is in it.
        let home = tempfile::Builder::new().prefix("g").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).env("GNUPGHOME", self.home.path()).env("LC_ALL", "C");
        command
            .output()
            .unwrap_or_else(|error| panic!("{program} (apt install gnupg gpgv): {error}"))
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let quiet = ["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback"];
        let output = self.command("gpg", &[&quiet, arguments].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpg {arguments:?}: {text}");
        output.stdout
    }

    /// Makes a key; `more` are options before the command.
    fn key(&self, user: &str, algorithm: &str, usage: &str, expire: &str, more: &[&str]) -> String {
        let make = ["--passphrase", "", "--quick-gen-key", user, algorithm, usage, expire];
        self.gpg(&[more, &make].concat());
        self.fingerprint(user)
    }

    fn fingerprint(&self, user: &str) -> String {
        let listed = String::from_utf8(self.gpg(&["--with-colons", "--list-keys", user])).unwrap();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.trim_matches(':').rsplit(':').next().unwrap().to_owned()
    }

    fn keyring(&self, user: &str) -> Keyring {
        Keyring::from_bytes(&self.gpg(&["--export", user])).unwrap()
    }

    /// Signs a document; `more` are options before the command.
    fn sign(&self, user: &str, text: &[u8], more: &[&str]) -> Vec<u8> {
        let file = self.path("text");
        std::fs::write(&file, text).unwrap();
        let make = ["-u", user, "--output", "-", "--clearsign", file.to_str().unwrap()];
        self.gpg(&[more, &make].concat())
    }

    /// What gpgv says about a document.
    fn gpgv(&self, keyring: &[u8], document: &[u8]) -> Output {
        let (keys, file) = (self.path("keys.gpg"), self.path("document"));
        std::fs::write(&keys, keyring).unwrap();
        std::fs::write(&file, document).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        self.command("gpgv", &["--keyring", &text(&keys), "--output", "-", &text(&file)])
    }
}

impl Drop for Gnupg {
    fn drop(&mut self) {
        // The agent of this directory and no other.
        let _ = self.command("gpgconf", &["--kill", "all"]);
    }
}

#[test]
fn both_take_what_the_other_has_signed() {
    let gnupg = Gnupg::new();
    for (user, algorithm, usage) in
        [("ed@x", "ed25519", "sign"), ("rsa@x", "rsa2048", "sign"), ("sub@x", "ed25519", "cert")]
    {
        let fingerprint = gnupg.key(user, algorithm, usage, "never", &[]);
        if usage == "cert" {
            let add =
                ["--passphrase", "", "--quick-add-key", &fingerprint, "rsa2048", "sign", "1y"];
            gnupg.gpg(&add);
        }
        let keyring = gnupg.keyring(user);
        let by_gpg = gnupg.sign(user, JSON, &[]);
        let verified = keyring.verify(&by_gpg).unwrap();
        assert_eq!(verified.payload, JSON[..JSON.len() - 1], "{user}");
        assert_eq!(verified.key == fingerprint, usage == "sign", "{user}");
        assert_eq!(verified.until.is_some(), usage == "cert", "{user}");
        let armoured = gnupg.gpg(&["--armor", "--export", user]);
        assert_eq!(Keyring::from_bytes(&armoured).unwrap().verify(&by_gpg), Ok(verified));

        for more in [&[][..], &["--armor"]] {
            let secret = gnupg.gpg(&[more, &["--export-secret-keys", user]].concat());
            let signer = Signer::from_bytes(&secret).unwrap();
            let large: Vec<String> = (0..20_000).map(|number| format!("-{number}")).collect();
            let large = serde_json::to_vec(&large).unwrap();
            let odd = b"-----BEGIN PGP SIGNATURE-----\n- \xc3\xa4\n\nFrom x\n-";
            for text in [JSON, &large, odd] {
                let signed = signer.sign_json(text).unwrap();
                let ours = keyring.verify(&signed).unwrap();
                let said = gnupg.gpgv(&signer.public_key(), &signed);
                let stderr = String::from_utf8_lossy(&said.stderr);
                assert!(said.status.success() && stderr.contains("Good signature"), "{stderr}");
                let theirs = said.stdout.strip_suffix(b"\n").unwrap_or(&said.stdout);
                assert_eq!(theirs, ours.payload, "{user}");
                gnupg.gpg(&["--verify", gnupg.path("document").to_str().unwrap()]);
                if text == large {
                    assert_eq!(
                        serde_json::from_slice::<serde_json::Value>(&ours.payload).unwrap(),
                        serde_json::from_slice::<serde_json::Value>(&large).unwrap()
                    );
                }
            }
        }
    }
    // A secret subkey without its main key, as it is carried to a machine that publishes.
    let secret = gnupg.gpg(&["--export-secret-subkeys", "sub@x"]);
    let signer = Signer::from_bytes(&secret).unwrap();
    assert!(gnupg.keyring("sub@x").verify(&signer.sign(JSON).unwrap()).is_ok());
}

#[test]
fn keys_and_signatures_whose_time_is_over_do_not_count() {
    let gnupg = Gnupg::new();
    let past = ["--faked-system-time", "20200101T000000"];
    gnupg.key("old@x", "rsa2048", "sign", "1y", &past);
    let signed = gnupg.sign("old@x", JSON, &past);
    let keyring = gnupg.keyring("old@x");
    let refused = keyring.verify(&signed).unwrap_err();
    assert!(matches!(refused, Refused::Key { reason: Unusable::Expired(_), .. }), "{refused}");
    let then: Timestamp = "2020-06-01T00:00:00Z".parse().unwrap();
    let verified = keyring.verify_at(&signed, then).unwrap();
    assert_eq!(verified.until.unwrap().to_string(), "2020-12-31T00:00:00Z");
    let secret = gnupg.gpg(&["--export-secret-keys", "old@x"]);
    let error = Signer::from_bytes(&secret).unwrap_err();
    assert!(error.to_string().contains("expired on 2020-12-31"), "{error}");
    let signer = Signer::from_bytes_at(&secret, then).unwrap();
    assert!(signer.sign(JSON).is_err());
    // A longer life counts.
    let fingerprint = gnupg.fingerprint("old@x");
    gnupg.gpg(&["--quick-set-expire", &fingerprint, "0"]);
    assert_eq!(gnupg.keyring("old@x").verify(&signed).unwrap().until, None);

    gnupg.key("new@x", "ed25519", "sign", "never", &past);
    let short = gnupg.sign("new@x", JSON, &[&past[..], &["--default-sig-expire", "1d"]].concat());
    let refused = gnupg.keyring("new@x").verify(&short).unwrap_err();
    assert!(
        matches!(&refused, Refused::Expired { at, .. } if at.to_string() == "2020-01-02T00:00:00Z")
    );
}

#[test]
fn revoked_keys_do_not_count() {
    let gnupg = Gnupg::new();
    let fingerprint = gnupg.key("main@x", "ed25519", "sign", "never", &[]);
    let signed = gnupg.sign("main@x", JSON, &[]);
    let secret = gnupg.gpg(&["--export-secret-keys", "main@x"]);
    gnupg.keyring("main@x").verify(&signed).unwrap();
    // GnuPG makes the certificate with the key, and a colon in it against accidents.
    let stored = gnupg.path("openpgp-revocs.d").join(format!("{fingerprint}.rev"));
    let certificate = std::fs::read_to_string(stored).unwrap().replacen(":-----", "-----", 1);
    let file = gnupg.path("revocation");
    std::fs::write(&file, certificate).unwrap();
    gnupg.gpg(&["--import", file.to_str().unwrap()]);
    let refused = gnupg.keyring("main@x").verify(&signed).unwrap_err();
    assert_eq!(refused, Refused::Key { key: fingerprint, reason: Unusable::Revoked });
    let revoked = gnupg.gpg(&["--export-secret-keys", "main@x"]);
    let error = Signer::from_bytes(&revoked).unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
    Signer::from_bytes(&secret).unwrap();
}

#[test]
fn weak_hashes_and_weak_keys_do_not_count() {
    let gnupg = Gnupg::new();
    gnupg.key("rsa@x", "rsa2048", "sign", "never", &[]);
    let keyring = gnupg.keyring("rsa@x");
    for hash in ["SHA1", "RIPEMD160", "SHA224"] {
        let signed = gnupg.sign("rsa@x", JSON, &["--digest-algo", hash]);
        assert_eq!(keyring.verify(&signed), Err(Refused::WeakHash(hash.to_owned())));
    }
    for hash in ["SHA256", "SHA384", "SHA512"] {
        keyring.verify(&gnupg.sign("rsa@x", JSON, &["--digest-algo", hash])).unwrap();
    }
    // The key's own signature may be old: a person has named the key as the right one.
    gnupg.key("sha1@x", "rsa2048", "sign", "never", &["--cert-digest-algo", "SHA1"]);
    gnupg.keyring("sha1@x").verify(&gnupg.sign("sha1@x", JSON, &[])).unwrap();
    gnupg.key("short@x", "rsa1024", "sign", "never", &[]);
    let refused = gnupg.keyring("short@x").verify(&gnupg.sign("short@x", JSON, &[])).unwrap_err();
    assert!(matches!(refused, Refused::Key { reason: Unusable::Weak, .. }), "{refused}");
}

#[test]
fn one_good_signature_of_several_is_enough() {
    let gnupg = Gnupg::new();
    gnupg.key("one@x", "ed25519", "sign", "never", &[]);
    gnupg.key("two@x", "rsa2048", "sign", "never", &[]);
    let signed = gnupg.sign("one@x", JSON, &["-u", "two@x", "--digest-algo", "SHA512"]);
    for user in ["one@x", "two@x"] {
        let verified = gnupg.keyring(user).verify(&signed).unwrap();
        assert_eq!(verified.key, gnupg.fingerprint(user));
    }
    let both = Keyring::from_bytes(&gnupg.gpg(&["--export"])).unwrap();
    assert_eq!(both.fingerprints().len(), 2);
    // No signature of a text.
    let file = gnupg.path("text");
    let detached =
        gnupg.gpg(&["-u", "one@x", "--armor", "--detach-sign", "-o", "-", file.to_str().unwrap()]);
    let detached = String::from_utf8(detached).unwrap();
    let framed = [Text::frame(b"{}", "SHA512"), detached.into_bytes()].concat();
    assert!(matches!(both.verify(&framed), Err(Refused::Form(_))));
}

#[test]
fn what_gnupg_keeps_for_itself_is_named() {
    let gnupg = Gnupg::new();
    gnupg.key("one@x", "ed25519", "sign", "never", &[]);
    let keybox = std::fs::read(gnupg.path("pubring.kbx")).unwrap();
    assert_eq!(Keyring::from_bytes(&keybox).unwrap_err(), KeyError::Keybox);
    let make =
        ["--passphrase", "secret", "--quick-gen-key", "locked@x", "ed25519", "sign", "never"];
    gnupg.gpg(&make);
    let export = ["--passphrase", "secret", "--export-secret-keys", "locked@x"];
    let error = Signer::from_bytes(&gnupg.gpg(&export)).unwrap_err();
    assert_eq!(error, KeyError::Passphrase(gnupg.fingerprint("locked@x")));
    gnupg.key("certifies@x", "ed25519", "cert", "never", &[]);
    let export = gnupg.gpg(&["--export-secret-keys", "certifies@x"]);
    let error = Signer::from_bytes(&export).unwrap_err();
    assert!(error.to_string().contains("not meant for signing"), "{error}");
}
