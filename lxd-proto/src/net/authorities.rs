//! Who vouches for servers whose certificate is not pinned.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::fingerprint::Fingerprint;
use crate::net::identity::certificate_fingerprint;

/// A set of certificate authorities. Clones share what was read.
#[derive(Clone, Default)]
pub struct Authorities(Arc<OnceLock<Known>>);

/// The same as a store to verify with, and as a list.
pub(super) struct Known {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) listed: Arc<HashSet<Fingerprint>>,
}

impl Authorities {
    /// Those of the system, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`. Read at first use.
    pub fn system() -> Self {
        Self::default()
    }

    /// Those in `pem`; certificates that cannot be read are skipped.
    pub fn from_pem(pem: &str) -> Self {
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect();
        Self(Arc::new(OnceLock::from(Known::from(certificates))))
    }

    pub(super) fn known(&self) -> &Known {
        self.0.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "a certificate authority of the system cannot be read");
            }
            Known::from(found.certs)
        })
    }
}

impl From<Vec<CertificateDer<'static>>> for Known {
    fn from(certificates: Vec<CertificateDer<'static>>) -> Self {
        let listed = certificates.iter().map(|der| certificate_fingerprint(der)).collect();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates);
        Self { roots: Arc::new(roots), listed: Arc::new(listed) }
    }
}

/// Whether they are clones of each other.
impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Authorities {}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = self.0.get().map(|known| known.listed.len());
        f.debug_struct("Authorities").field("read", &read).finish()
    }
}
