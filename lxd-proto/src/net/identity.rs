//! A certificate with its key: who we are towards servers.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::fingerprint::Fingerprint;

/// How long a certificate is good for, as LXD's.
const LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// The largest certificate or key file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A certificate chain with its key. Cheap to clone; the key is never shown in logs.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    certificate_pem: String,
    key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    fingerprint: Fingerprint,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// There is no certificate where one belongs.
    #[error("{0} holds no PEM certificate")]
    NoCertificate(String),
    /// There is no private key where one belongs.
    #[error("{0} holds no PEM private key")]
    NoKey(String),
    /// The key is not the certificate's.
    #[error("certificate and key do not belong together: {0}")]
    Mismatch(String),
    /// A new certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Generate(String),
}

impl Identity {
    /// From a certificate (and its chain) and its key, both PEM.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, IdentityError> {
        Self::parse(certificate, key, "the certificate", "the key")
    }

    /// From two PEM files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let (certificate_pem, key_pem) = (read(certificate)?, read(key)?);
        let names = (certificate.display().to_string(), key.display().to_string());
        Self::parse(&certificate_pem, &key_pem, &names.0, &names.1)
    }

    /// Makes a self-signed client certificate: ECDSA P-384, good for ten years, as LXD's.
    pub fn generate(common_name: &str) -> Result<Self, IdentityError> {
        make(common_name, ExtendedKeyUsagePurpose::ClientAuth, Vec::new())
    }

    /// Makes a self-signed server certificate with the names that LXD's have: `host` and the
    /// loopback addresses. Clients that pin it want a DNS name; where `host` cannot be one,
    /// `unnamed` takes its place.
    pub fn generate_server(host: &str, unnamed: &str) -> Result<Self, IdentityError> {
        let dns = host.try_into().or_else(|_| unnamed.try_into()).map_err(failed)?;
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let names = std::iter::once(SanType::DnsName(dns))
            .chain(loopback.map(SanType::IpAddress))
            .collect();
        make(&format!("root@{host}"), ExtendedKeyUsagePurpose::ServerAuth, names)
    }

    fn parse(
        certificate_pem: &str,
        key_pem: &str,
        certificate_name: &str,
        key_name: &str,
    ) -> Result<Self, IdentityError> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|_| IdentityError::NoCertificate(certificate_name.to_owned()))?;
        let Some(leaf) = chain.first() else {
            return Err(IdentityError::NoCertificate(certificate_name.to_owned()));
        };
        let fingerprint = certificate_fingerprint(leaf);
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| IdentityError::NoKey(key_name.to_owned()))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        rustls::sign::CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider)
            .map_err(|error| IdentityError::Mismatch(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            chain,
            key,
            fingerprint,
        })))
    }

    /// The certificate and its chain, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.0.certificate_pem
    }

    /// The private key, PEM: for the file it is kept in, and for nothing else.
    pub fn key_pem(&self) -> &str {
        &self.0.key_pem
    }

    /// SHA-256 of the certificate's DER: the name by which servers know us.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    /// The DER of the certificate and its chain, the certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.chain
    }

    /// The private key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.0.key.clone_key()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.0.fingerprint).finish_non_exhaustive()
    }
}

fn failed(error: rcgen::Error) -> IdentityError {
    IdentityError::Generate(error.to_string())
}

fn make(
    common_name: &str,
    usage: ExtendedKeyUsagePurpose,
    names: Vec<SanType>,
) -> Result<Identity, IdentityError> {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.not_before = now.into();
    params.not_after = (now + LIFETIME).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "linuxcontainers.org");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![usage];
    params.subject_alt_names = names;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Identity::from_pem(&certificate.pem(), &key.serialize_pem())
}

/// SHA-256 of a certificate.
pub(super) fn certificate_fingerprint(der: &[u8]) -> Fingerprint {
    Fingerprint::from_bytes(Sha256::digest(der).into())
}

fn read(path: &Path) -> Result<String, IdentityError> {
    use std::io::Read;
    let failed = |source| IdentityError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::x509::Facts;

    #[test]
    fn a_new_identity_is_a_client_for_ten_years() {
        let identity = Identity::generate("me@here").unwrap();
        let facts = Facts::read(&identity.chain()[0]).unwrap();
        assert_eq!(facts.common_name, "me@here");
        assert_eq!(facts.organization, "linuxcontainers.org");
        assert_eq!(facts.issuer, "me@here");
        let years = (facts.not_after.as_second() - facts.not_before.as_second()) / 86_400 / 365;
        assert_eq!(years, 10);
        assert_eq!(facts.rsa_bits, None);
        assert!(!format!("{identity:?}").contains("PRIVATE"));
        let again = Identity::from_pem(identity.certificate_pem(), identity.key_pem()).unwrap();
        assert_eq!(again.fingerprint(), identity.fingerprint());
    }

    #[test]
    fn a_foreign_key_is_noticed() {
        let (one, two) = (Identity::generate("1").unwrap(), Identity::generate("2").unwrap());
        let error = Identity::from_pem(one.certificate_pem(), two.key_pem()).unwrap_err();
        assert!(error.to_string().contains("belong together"), "{error}");
        let error = Identity::from_pem(one.key_pem(), one.certificate_pem()).unwrap_err();
        assert!(error.to_string().contains("no PEM certificate"), "{error}");
    }
}
