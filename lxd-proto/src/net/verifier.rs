//! Which certificate of a server is good: a pinned one, or one that an authority vouches for.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::x509::Facts;
use crate::fingerprint::Fingerprint;
use crate::net::identity::certificate_fingerprint;

/// The server shows another certificate than the pinned one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's certificate is {shown}, not the trusted {pinned}")]
pub(super) struct OtherCertificate {
    pub(super) pinned: Fingerprint,
    pub(super) shown: Fingerprint,
}

/// No authority is known, so nobody can vouch for anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no certificate authority is known on this machine that could vouch for its certificate; \
     install the package ca-certificates"
)]
struct NoAuthorities;

/// Which certificate of a server is good.
#[derive(Debug)]
pub(super) enum Expected {
    /// This one, whatever its names and dates.
    Exactly(Fingerprint),
    /// Any.
    Any,
    /// None: there is no authority to ask.
    NoneAtAll,
    /// One that an authority vouches for, and one that is itself listed among the authorities: a
    /// self-signed certificate in `SSL_CERT_FILE` works as it does elsewhere.
    Vouched {
        /// Asks the authorities.
        authorities: Arc<WebPkiServerVerifier>,
        /// The authorities' own certificates.
        listed: Arc<HashSet<Fingerprint>>,
    },
}

/// Takes what is expected. That the server holds the key is checked in any case.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) expected: Expected,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = certificate_fingerprint(end_entity);
        match &self.expected {
            Expected::Exactly(pinned) if *pinned != shown => {
                return Err(refused(OtherCertificate { pinned: *pinned, shown }));
            }
            Expected::NoneAtAll => return Err(refused(NoAuthorities)),
            Expected::Exactly(_) | Expected::Any => {}
            Expected::Vouched { authorities, listed } => {
                let vouched = authorities.verify_server_cert(
                    end_entity,
                    intermediates,
                    server_name,
                    ocsp_response,
                    now,
                );
                if vouched.is_ok() || !listed.contains(&shown) {
                    return vouched;
                }
                check_dates(end_entity, now)?;
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn refused(reason: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
}

fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let facts = Facts::read(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).ok().and_then(|now| Timestamp::from_second(now).ok());
    let now = now.unwrap_or(Timestamp::MAX);
    if now < facts.not_before {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if now > facts.not_after {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
}
