//! Who is trusted over the network: certificates in memory, and what each of them may see.
//!
//! Only the database's writer changes it, after each commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use lxd_proto::certificate::x509::Facts;
use lxd_proto::certificate::{CLIENT, Certificate};
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::project;
use parking_lot::RwLock;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::catalog::Viewer;
use crate::db::TrustChange;
use crate::error::{CERTIFICATE_NOT_FOUND, Error, Result};

/// A certificate that a client has shown, and proven to be its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// DER.
    pub der: Vec<u8>,
    /// SHA-256 of it.
    pub fingerprint: Fingerprint,
    /// What it says.
    pub facts: Facts,
}

impl Shown {
    /// Reads a certificate from its DER.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        let facts = Facts::read(der)
            .map_err(|error| Error::BadRequest(format!("Invalid certificate: {error}")))?;
        let fingerprint = Fingerprint::from_bytes(Sha256::digest(der).into());
        Ok(Self { der: der.to_vec(), fingerprint, facts })
    }

    /// Reads a certificate as requests carry it: base64 of the DER, or PEM.
    pub fn from_text(text: &str) -> Result<Self> {
        let der = if text.contains("-----BEGIN") {
            let der = CertificateDer::from_pem_slice(text.as_bytes());
            der.map(|der| der.to_vec()).map_err(|error| error.to_string())
        } else {
            let text: String = text.split_whitespace().collect();
            STANDARD.decode(text).map_err(|error| error.to_string())
        };
        let der = der.map_err(|why| Error::BadRequest(format!("Invalid certificate: {why}")))?;
        Self::from_der(&der)
    }

    /// As PEM, spelled the way Go does it.
    pub fn pem(&self) -> String {
        pem(&self.der)
    }

    fn is_current(&self) -> bool {
        let now = Timestamp::now();
        self.facts.not_before <= now && now <= self.facts.not_after
    }
}

/// A certificate as PEM: lines of 64 characters, a newline at the end.
pub fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// The trusted certificates.
#[derive(Debug)]
pub struct TrustStore {
    certificates: RwLock<BTreeMap<Fingerprint, Arc<Certificate>>>,
    changed: watch::Sender<()>,
}

impl Default for TrustStore {
    fn default() -> Self {
        Self { certificates: RwLock::default(), changed: watch::Sender::new(()) }
    }
}

impl TrustStore {
    /// Takes over what the database held at start.
    pub fn fill(&self, certificates: Vec<Certificate>) {
        let certificates = certificates.into_iter().map(|it| (it.fingerprint, Arc::new(it)));
        self.certificates.write().extend(certificates);
    }

    /// A change that is on disk.
    pub fn apply(&self, change: &TrustChange) {
        let mut certificates = self.certificates.write();
        match change {
            TrustChange::Add(new) => {
                certificates.insert(new.fingerprint, Arc::new((**new).clone()));
            }
            TrustChange::Replace(old, new) => {
                certificates.remove(old);
                certificates.insert(new.fingerprint, Arc::new((**new).clone()));
            }
            TrustChange::Remove(fingerprint) => {
                certificates.remove(fingerprint);
            }
        }
        drop(certificates);
        self.changed.send_replace(());
    }

    /// Tells of every change from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// All certificates, by fingerprint.
    pub fn all(&self) -> Vec<Arc<Certificate>> {
        self.certificates.read().values().cloned().collect()
    }

    /// The certificate with this fingerprint.
    pub fn get(&self, fingerprint: &Fingerprint) -> Option<Arc<Certificate>> {
        self.certificates.read().get(fingerprint).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.certificates.read().len()
    }

    /// Whether nobody is trusted over the network.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one certificate that begins with `prefix`, among those that are `visible`.
    pub fn find(
        &self,
        prefix: &Prefix,
        visible: impl Fn(&Certificate) -> bool,
    ) -> Result<Arc<Certificate>> {
        let certificates = self.certificates.read();
        let range = certificates.range(prefix.lowest()..=prefix.highest());
        let mut found = range.map(|(_, it)| it).filter(|certificate| visible(certificate));
        match (found.next(), found.next()) {
            (None, _) => Err(CERTIFICATE_NOT_FOUND),
            (Some(certificate), None) => Ok(certificate.clone()),
            (Some(_), Some(_)) => Err(Error::AmbiguousCertificate),
        }
    }

    /// What exists for a client that has shown `certificate`.
    pub fn viewer(&self, certificate: Option<&Shown>) -> Viewer {
        let Some(shown) = certificate.filter(|shown| shown.is_current()) else {
            return Viewer::Stranger;
        };
        match self.get(&shown.fingerprint) {
            Some(known) if known.kind == CLIENT => {
                let here = known.projects.iter().any(|name| name == project::DEFAULT);
                match (known.restricted, here) {
                    (false, _) => Viewer::Trusted,
                    (true, true) => Viewer::Restricted,
                    (true, false) => Viewer::Outsider,
                }
            }
            _ => Viewer::Stranger,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        rcgen::CertificateParams::default().self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn pem_and_der_and_base64_are_one_certificate() {
        let der = certificate();
        let shown = Shown::from_der(&der).unwrap();
        assert_eq!(Shown::from_text(&shown.pem()).unwrap(), shown);
        assert_eq!(Shown::from_text(&STANDARD.encode(&der)).unwrap(), shown);
        assert!(shown.pem().lines().all(|line| line.len() <= 64));
        for wrong in ["", "nonsense!", "AAAA", "-----BEGIN CERTIFICATE-----\n"] {
            assert!(Shown::from_text(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_certificate_sees_what_it_is_trusted_with() {
        let shown = Shown::from_der(&certificate()).unwrap();
        let store = TrustStore::default();
        assert_eq!(store.viewer(Some(&shown)), Viewer::Stranger);
        let mut known = Certificate {
            name: "n".into(),
            kind: CLIENT.into(),
            restricted: false,
            projects: Vec::new(),
            certificate: shown.pem(),
            fingerprint: shown.fingerprint,
        };
        let as_now = |known: &Certificate| {
            store.apply(&TrustChange::Replace(known.fingerprint, Box::new(known.clone())));
            store.viewer(Some(&shown))
        };
        assert_eq!(as_now(&known), Viewer::Trusted);
        known.restricted = true;
        assert_eq!(as_now(&known), Viewer::Outsider);
        known.projects = vec!["default".into()];
        assert_eq!(as_now(&known), Viewer::Restricted);
        known.kind = "metrics".into();
        assert_eq!(as_now(&known), Viewer::Stranger);
        known.kind = CLIENT.into();
        as_now(&known);
        let mut expired = shown.clone();
        expired.facts.not_after = Timestamp::now() - jiff::SignedDuration::from_secs(1);
        assert_eq!(store.viewer(Some(&expired)), Viewer::Stranger);
        assert_eq!(store.viewer(None), Viewer::Stranger);
        store.apply(&TrustChange::Remove(shown.fingerprint));
        assert_eq!(store.viewer(Some(&shown)), Viewer::Stranger);
    }
}
