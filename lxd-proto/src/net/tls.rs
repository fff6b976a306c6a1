//! TLS towards servers: the settings of a connection.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::net::Access;
use crate::net::identity::certificate_fingerprint;
use crate::net::verifier::{Expected, Verifier};

/// Whose certificate is good.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trust<'a> {
    /// Exactly this one, PEM. Names and dates do not matter: a person has looked at it.
    Pinned(&'a str),
    /// One that an authority vouches for.
    Authorities,
    /// Any: to look at it, never to send anything.
    Anybody,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The settings for a connection to such a server.
///
/// # Errors
/// The reason as text when the pinned certificate or our identity cannot be used.
pub(super) fn config(access: &Access, trust: Trust<'_>) -> Result<ClientConfig, String> {
    let provider = provider();
    let expected = match trust {
        Trust::Pinned(pem) => {
            let pinned = CertificateDer::from_pem_slice(pem.as_bytes())
                .map_err(|_| "the pinned certificate of the server is no PEM".to_owned())?;
            Expected::Exactly(certificate_fingerprint(&pinned))
        }
        Trust::Anybody => Expected::Any,
        Trust::Authorities => {
            let known = access.authorities.known();
            if known.roots.is_empty() {
                // Told when somebody needs one: plain http:// does not.
                Expected::NoneAtAll
            } else {
                let roots = known.roots.clone();
                let authorities =
                    WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                        .build()
                        .map_err(|error| error.to_string())?;
                Expected::Vouched { authorities, listed: known.listed.clone() }
            }
        }
    };
    let verifier = Arc::new(Verifier { expected, provider: provider.clone() });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &access.identity {
        Some(identity) if !matches!(trust, Trust::Anybody) => builder
            .with_client_auth_cert(identity.chain().to_vec(), identity.key())
            .map_err(|error| format!("our own certificate cannot be used: {error}"))?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
