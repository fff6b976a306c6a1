//! The server's certificate: made at first start, shown to clients on every listener.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::net;
use parking_lot::RwLock;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::directory::Directory;
use crate::trust;

/// Host name where none can be found, as in LXD.
const UNNAMED: &str = "unspecified";

/// Who this server is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its certificate, PEM: what clients compare and pin.
    pub certificate: String,
    /// Host name.
    pub name: String,
    /// Certificate and key: the server is the same towards clients and towards other servers.
    pub pair: net::Identity,
    keys: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads certificate and key, and refuses a pair that does not belong together.
    fn load(directory: &Directory) -> anyhow::Result<Self> {
        let (certificate, key) = (directory.certificate(), directory.key());
        let what = || format!("cannot use {} with {}", certificate.display(), key.display());
        let pair = net::Identity::load(&certificate, &key).with_context(what)?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let keys = CertifiedKey::from_der(pair.chain().to_vec(), pair.key(), &provider)
            .with_context(what)?;
        let leaf = pair.chain().first().with_context(what)?;
        Ok(Self { certificate: trust::pem(leaf), name: host_name(), keys: Arc::new(keys), pair })
    }

    /// SHA-256 of the certificate's DER.
    pub fn fingerprint(&self) -> Fingerprint {
        self.pair.fingerprint()
    }
}

/// The identity in use; it can change while the daemon runs.
#[derive(Debug)]
pub struct Identities {
    current: RwLock<Arc<Identity>>,
    directory: Directory,
}

impl Identities {
    /// Reads the certificate, or makes one at first start.
    pub fn load_or_create(directory: &Directory) -> anyhow::Result<Self> {
        if !directory.certificate().exists() || !directory.key().exists() {
            create(directory, &host_name()).context("cannot make a server certificate")?;
        }
        let identity = Identity::load(directory)?;
        Ok(Self { current: RwLock::new(Arc::new(identity)), directory: directory.clone() })
    }

    /// The identity now.
    pub fn get(&self) -> Arc<Identity> {
        self.current.read().clone()
    }

    /// Reads the files again; where they are no sound pair the old identity stays.
    pub fn reload(&self) -> anyhow::Result<()> {
        let identity = Identity::load(&self.directory)?;
        *self.current.write() = Arc::new(identity);
        Ok(())
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get().keys.clone())
    }
}

fn create(directory: &Directory, host: &str) -> anyhow::Result<()> {
    let made = net::Identity::generate_server(host, UNNAMED)?;
    // The key first: a certificate without its key would be taken for complete.
    write_new(&directory.key(), 0o600, made.key_pem())?;
    write_new(&directory.certificate(), 0o644, made.certificate_pem())
}

fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let partial = path.with_extension("new");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&partial)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { UNNAMED.to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_private() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::new(temp.path());
        let first = Identities::load_or_create(&directory).unwrap().get();
        let second = Identities::load_or_create(&directory).unwrap().get();
        assert_eq!(first.certificate, fs::read_to_string(directory.certificate()).unwrap());
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert!(first.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        let mode = fs::metadata(directory.key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_new_pair_is_taken_and_a_broken_one_is_not() {
        let (temp, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (directory, other) = (Directory::new(temp.path()), Directory::new(other.path()));
        let identities = Identities::load_or_create(&directory).unwrap();
        let first = identities.get().fingerprint();
        let second = Identities::load_or_create(&other).unwrap().get().fingerprint();
        fs::copy(other.certificate(), directory.certificate()).unwrap();
        let error = identities.reload().unwrap_err();
        assert!(format!("{error:#}").contains("do not belong together"), "{error:#}");
        assert_eq!(identities.get().fingerprint(), first);
        fs::copy(other.key(), directory.key()).unwrap();
        identities.reload().unwrap();
        assert_eq!(identities.get().fingerprint(), second);
        fs::write(directory.certificate(), "nonsense").unwrap();
        assert!(identities.reload().is_err());
        assert_eq!(identities.get().fingerprint(), second);
    }
}
