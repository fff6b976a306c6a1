//! The server's certificate: made at first start, shown to clients on every listener.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use lxd_proto::fingerprint::Fingerprint;
use parking_lot::RwLock;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, SanType,
};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::directory::Directory;
use crate::trust;

/// How long a certificate is good for, as LXD's.
const LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// Host name where none can be found, as in LXD.
const UNNAMED: &str = "unspecified";

/// Who this server is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its certificate, PEM: what clients compare and pin.
    pub certificate: String,
    /// SHA-256 of the certificate's DER.
    pub fingerprint: Fingerprint,
    /// Host name.
    pub name: String,
    keys: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads certificate and key, and refuses a pair that does not belong together.
    fn load(directory: &Directory) -> anyhow::Result<Self> {
        let path = directory.certificate();
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let chain = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("{} is no PEM", path.display()))?;
        let leaf = chain
            .first()
            .with_context(|| format!("{} holds no PEM certificate", path.display()))?
            .clone();
        let key = PrivateKeyDer::from_pem_file(directory.key())
            .with_context(|| format!("cannot read {}", directory.key().display()))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let keys = CertifiedKey::from_der(chain, key, &provider).with_context(|| {
            format!("{} and {} are no pair", path.display(), directory.key().display())
        })?;
        Ok(Self {
            certificate: trust::pem(&leaf),
            fingerprint: Fingerprint::from_bytes(Sha256::digest(&leaf).into()),
            name: host_name(),
            keys: Arc::new(keys),
        })
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

/// ECDSA P-384, self-signed, with the names LXD puts in: clients that pin it want a DNS name.
fn create(directory: &Directory, name: &str) -> anyhow::Result<()> {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.not_before = now.into();
    params.not_after = (now + LIFETIME).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "linuxcontainers.org");
    params.distinguished_name.push(DnType::CommonName, format!("root@{name}"));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let dns = SanType::DnsName(name.try_into().or_else(|_| UNNAMED.try_into())?);
    let loopback = ["127.0.0.1", "::1"].map(str::parse);
    params.subject_alt_names = vec![dns];
    for address in loopback {
        params.subject_alt_names.push(SanType::IpAddress(address?));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
    let certificate = params.self_signed(&key)?;
    // The key first: a certificate without its key would be taken for complete.
    write_new(&directory.key(), 0o600, &key.serialize_pem())?;
    write_new(&directory.certificate(), 0o644, &certificate.pem())
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
        assert_eq!(first.fingerprint, second.fingerprint);
        assert!(first.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        let mode = fs::metadata(directory.key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_new_pair_is_taken_and_a_broken_one_is_not() {
        let (temp, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (directory, other) = (Directory::new(temp.path()), Directory::new(other.path()));
        let identities = Identities::load_or_create(&directory).unwrap();
        let first = identities.get().fingerprint;
        let second = Identities::load_or_create(&other).unwrap().get().fingerprint;
        fs::copy(other.certificate(), directory.certificate()).unwrap();
        let error = identities.reload().unwrap_err();
        assert!(error.to_string().contains("are no pair"), "{error:#}");
        assert_eq!(identities.get().fingerprint, first);
        fs::copy(other.key(), directory.key()).unwrap();
        identities.reload().unwrap();
        assert_eq!(identities.get().fingerprint, second);
        fs::write(directory.certificate(), "nonsense").unwrap();
        assert!(identities.reload().is_err());
        assert_eq!(identities.get().fingerprint, second);
    }
}
