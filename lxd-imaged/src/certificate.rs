//! The server's certificate: made at first start, shown to clients on every listener.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use lxd_proto::fingerprint::Fingerprint;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, SanType,
};
use sha2::{Digest, Sha256};

use crate::directory::Directory;

/// How long a certificate is good for, as LXD's.
const LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// Host name where none can be found, as in LXD.
const UNNAMED: &str = "unspecified";

/// Who this server is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its certificate, PEM, as it lies on disk.
    pub certificate: String,
    /// SHA-256 of the certificate's DER.
    pub fingerprint: Fingerprint,
    /// Host name.
    pub name: String,
}

impl Identity {
    /// Reads the certificate, or makes one at first start.
    pub fn load_or_create(directory: &Directory) -> anyhow::Result<Self> {
        let name = host_name();
        let path = directory.certificate();
        if !path.exists() || !directory.key().exists() {
            create(directory, &name).context("cannot make a server certificate")?;
        }
        let certificate =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let der = der(&certificate)
            .with_context(|| format!("{} holds no PEM certificate", path.display()))?;
        let fingerprint = Fingerprint::from_bytes(Sha256::digest(&der).into());
        Ok(Self { certificate, fingerprint, name })
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

/// The DER of the first certificate in `pem`.
fn der(pem: &str) -> anyhow::Result<Vec<u8>> {
    use rustls_pki_types::pem::PemObject;
    let certificate = rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes())?;
    Ok(certificate.to_vec())
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
        let first = Identity::load_or_create(&directory).unwrap();
        let second = Identity::load_or_create(&directory).unwrap();
        assert_eq!(first.fingerprint, second.fingerprint);
        assert!(first.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        let mode = fs::metadata(directory.key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
