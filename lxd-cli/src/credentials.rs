//! The client's own certificate, and the certificates of servers that a person has accepted.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lxd_proto::net::Identity;

use crate::config::{Config, lock, replace};
use crate::failure::{Failure, Outcome};
use crate::output::note;

/// The directory of accepted certificates.
const PINS: &str = "servercerts";

/// Where the certificates are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Credentials<'a> {
    config: &'a Config,
}

impl<'a> Credentials<'a> {
    pub(crate) fn new(config: &'a Config) -> Self {
        Self { config }
    }

    /// The client's certificate with its key.
    pub(crate) fn identity_paths(self) -> (PathBuf, PathBuf) {
        (self.config.dir.join("client.crt"), self.config.dir.join("client.key"))
    }

    /// Who this client is; `None` while it has no certificate.
    pub(crate) fn identity(self) -> Outcome<Option<Identity>> {
        let (certificate, key) = self.identity_paths();
        if !certificate.exists() && !key.exists() {
            return Ok(None);
        }
        Identity::load(&certificate, &key).map(Some).map_err(|error| {
            Failure::new(error.to_string()).hint(format!(
                "Repair {} and its key, or remove both: a new pair is made when it is needed.",
                certificate.display()
            ))
        })
    }

    /// Who this client is; a certificate is made where there is none.
    pub(crate) fn identity_or_new(self) -> Outcome<Identity> {
        if let Some(identity) = self.identity()? {
            return Ok(identity);
        }
        let dir = &self.config.dir;
        let cannot = |what: &Path| {
            let what = what.display().to_string();
            move |error| Failure::new(format!("cannot write {what}: {error}"))
        };
        let _lock = lock(dir).map_err(cannot(dir))?;
        // Another client may have been faster.
        if let Some(identity) = self.identity()? {
            return Ok(identity);
        }
        note("Generating a client certificate.");
        let identity =
            Identity::generate(&whoami()).map_err(|error| Failure::new(error.to_string()))?;
        let (certificate, key) = self.identity_paths();
        // The key first: a certificate without its key would be in the way for good.
        replace(&key, identity.key_pem().as_bytes(), 0o600).map_err(cannot(&key))?;
        let pem = identity.certificate_pem().as_bytes();
        if let Err(error) = replace(&certificate, pem, 0o644) {
            // What cannot be removed cannot be helped either.
            let _ = fs::remove_file(&key);
            return Err(cannot(&certificate)(error));
        }
        Ok(identity)
    }

    /// The accepted certificate of a remote, PEM; empty where there is none.
    pub(crate) fn pinned(self, remote: &str) -> Outcome<String> {
        let global = self.config.remotes.get(remote).is_some_and(|entry| entry.global);
        for path in [self.pin_path(remote), self.global_pin_path(remote)]
            .into_iter()
            .take(if global { 2 } else { 1 })
        {
            match fs::read_to_string(&path) {
                Ok(pem) => return Ok(pem),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Failure::new(format!("cannot read {}: {error}", path.display())));
                }
            }
        }
        Ok(String::new())
    }

    /// Accepts a certificate for a remote from now on.
    pub(crate) fn pin(self, remote: &str, pem: &str) -> Outcome {
        let path = self.pin_path(remote);
        let cannot =
            |error: io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
        let _lock = lock(&self.config.dir.join(PINS)).map_err(cannot)?;
        replace(&path, pem.as_bytes(), 0o644).map_err(cannot)
    }

    /// Forgets the accepted certificate of a remote.
    pub(crate) fn unpin(self, remote: &str) -> Outcome {
        let path = self.pin_path(remote);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::new(format!("cannot remove {}: {error}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// The accepted certificate goes with its remote.
    pub(crate) fn rename_pin(self, old: &str, new: &str) -> Outcome {
        let (old, new) = (self.pin_path(old), self.pin_path(new));
        match fs::rename(&old, &new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::new(format!("cannot rename {}: {error}", old.display())))
            }
            _ => Ok(()),
        }
    }

    fn pin_path(self, remote: &str) -> PathBuf {
        self.config.dir.join(PINS).join(file_name(remote))
    }

    fn global_pin_path(self, remote: &str) -> PathBuf {
        self.config.global_dir.join(PINS).join(file_name(remote))
    }
}

/// `NAME.crt`. Names that would lead elsewhere cannot be added, but a file of lxc's may hold any.
fn file_name(remote: &str) -> String {
    format!("{}.crt", remote.replace(['/', '\0'], "_"))
}

/// `user@host`, as lxc names its certificates.
fn whoami() -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| env::var(name).ok());
    let user = user.filter(|name| !name.is_empty()).unwrap_or_else(|| {
        if rustix::process::geteuid().is_root() { "root" } else { "user" }.to_owned()
    });
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{host}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(dir: &tempfile::TempDir) -> Config {
        Config { dir: dir.path().join("conf"), ..Config::default() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_identity_is_made_once_and_its_key_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&dir);
        let credentials = Credentials::new(&config);
        assert!(credentials.identity().unwrap().is_none());
        let made = credentials.identity_or_new().unwrap();
        let again = credentials.identity_or_new().unwrap();
        assert_eq!(made.fingerprint(), again.fingerprint());
        let (certificate, key) = credentials.identity_paths();
        assert_eq!((mode(&certificate), mode(&key), mode(&config.dir)), (0o644, 0o600, 0o750));
    }

    #[test]
    fn half_an_identity_is_an_error_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&dir);
        let credentials = Credentials::new(&config);
        credentials.identity_or_new().unwrap();
        fs::remove_file(credentials.identity_paths().1).unwrap();
        let failure = credentials.identity_or_new().unwrap_err();
        assert!(failure.hints[0].contains("remove both"), "{failure:?}");
    }

    #[test]
    fn pins_follow_their_remote_and_stay_in_their_directory() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&dir);
        let credentials = Credentials::new(&config);
        assert_eq!(credentials.pinned("s2").unwrap(), "");
        credentials.pin("s2", "PEM").unwrap();
        credentials.rename_pin("s2", "s3").unwrap();
        assert_eq!(credentials.pinned("s2").unwrap(), "");
        assert_eq!(credentials.pinned("s3").unwrap(), "PEM");
        credentials.unpin("s3").unwrap();
        credentials.unpin("s3").unwrap();
        assert_eq!(credentials.pinned("s3").unwrap(), "");
        assert_eq!(file_name("../../x"), ".._.._x.crt");
    }
}
