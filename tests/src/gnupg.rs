//! GnuPG with a directory of its own: keys, signatures, and what `gpgv` says.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::tool;

/// GnuPG with a directory of its own; its agent ends when it is dropped.
#[derive(Debug)]
pub struct Gnupg {
    home: TempDir,
}

impl Default for Gnupg {
    fn default() -> Self {
        Self::new()
    }
}

impl Gnupg {
    /// Without any key.
    pub fn new() -> Self {
        // Private, as GnuPG wants it; and short, since the agent's socket is in it.
        Self { home: tempfile::Builder::new().prefix("gpg-").tempdir().unwrap() }
    }

    /// Makes a key for signing without a passphrase, as of the beginning of 2025.
    pub fn key(&self, user: &str, algorithm: &str) {
        let make = ["--passphrase", "", "--quick-gen-key", user, algorithm, "sign", "never"];
        self.gpg(&[&["--faked-system-time", "20250101T000000"], &make[..]].concat());
    }

    /// A keyring with the public key of this user, as `gpgv` reads it.
    pub fn keyring(&self, user: &str) -> PathBuf {
        self.export("--export", user, "gpg")
    }

    /// A file with the secret key of this user, which nobody else can read.
    pub fn secret(&self, user: &str) -> PathBuf {
        let file = self.export("--export-secret-keys", user, "key");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    fn export(&self, how: &str, user: &str, extension: &str) -> PathBuf {
        let file = self.home.path().join(format!("{user}.{extension}"));
        std::fs::write(&file, self.gpg(&[how, user])).unwrap();
        file
    }

    /// Signs a text as `gpg --clearsign` does.
    pub fn clearsign(&self, user: &str, text: &[u8]) -> Vec<u8> {
        self.clearsign_with(user, text, &[])
    }

    /// The same as of a time such as `20260101T000000`.
    pub fn clearsign_on(&self, user: &str, text: &[u8], time: &str) -> Vec<u8> {
        self.clearsign_with(user, text, &["--faked-system-time", time])
    }

    fn clearsign_with(&self, user: &str, text: &[u8], more: &[&str]) -> Vec<u8> {
        let file = self.home.path().join("text");
        std::fs::write(&file, text).unwrap();
        let sign = ["-u", user, "--output", "-", "--clearsign", file.to_str().unwrap()];
        self.gpg(&[more, &sign].concat())
    }

    /// Whether `gpgv` accepts a document, and what it says.
    pub fn gpgv(keyring: &Path, document: &Path) -> Output {
        let mut command = Command::new(tool::require("gpgv"));
        command.arg("--keyring").arg(keyring).arg(document).env("LC_ALL", "C");
        command.output().unwrap()
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let quiet = ["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback"];
        let output = self.run("gpg", &[&quiet, arguments].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpg {arguments:?}: {stderr}");
        output.stdout
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(tool::require(program));
        command.args(arguments).env("GNUPGHOME", self.home.path()).env("LC_ALL", "C");
        command.output().unwrap()
    }
}

impl Drop for Gnupg {
    fn drop(&mut self) {
        // The agent of this directory and no other.
        let mut command = Command::new("gpgconf");
        let _ = command.args(["--kill", "all"]).env("GNUPGHOME", self.home.path()).output();
    }
}
