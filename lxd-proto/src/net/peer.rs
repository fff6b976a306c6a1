//! A look at a server's certificate before anybody trusts it.

use rustls_pki_types::CertificateDer;
use url::Url;

use crate::certificate::x509::Facts;
use crate::fingerprint::Fingerprint;
use crate::net::Access;
use crate::net::dial::dial_trusting;
use crate::net::identity::certificate_fingerprint;
use crate::net::tls::Trust;
use crate::remote::{Error, Result};

/// The certificate that a server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// PEM, as it is pinned.
    pub pem: String,
    /// SHA-256 of its DER: what people compare.
    pub fingerprint: Fingerprint,
    /// What it says about itself, where that can be read.
    pub facts: Option<Facts>,
}

/// The certificate that the server at `url` shows. Nothing of it is verified but that the server
/// has its key, and we show no certificate of our own.
pub async fn peer_certificate(url: &str, access: &Access) -> Result<PeerCertificate> {
    let url = super::target::parse(url)?;
    look(&url, access, Trust::Anybody).await
}

/// The certificate of the server at `url`, after every check that a request would make: against
/// the authorities, or against the pinned `certificate` when it is not empty.
pub async fn checked_certificate(
    url: &str,
    access: &Access,
    certificate: &str,
) -> Result<PeerCertificate> {
    let url = super::target::parse(url)?;
    let trust =
        if certificate.is_empty() { Trust::Authorities } else { Trust::Pinned(certificate) };
    look(&url, access, trust).await
}

async fn look(url: &Url, access: &Access, trust: Trust<'_>) -> Result<PeerCertificate> {
    let connection = dial_trusting(url, access, trust).await?;
    let Some(leaf) = connection.chain.first() else {
        let reason = "no certificate came; only https:// servers have one".to_owned();
        return Err(Error::Handshake { endpoint: super::fault::origin(url), reason });
    };
    Ok(PeerCertificate {
        pem: pem(leaf),
        fingerprint: certificate_fingerprint(leaf),
        facts: Facts::read(leaf).ok(),
    })
}

fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        // Base64 is ASCII, so any cut is a boundary of characters.
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
