//! Trust: certificates of clients, and tokens that let new ones in.

use reqwest::Method;

use crate::certificate::{
    Certificate, CertificatePatch, CertificatePut, CertificatesPost, JoinToken, TokenMetadata,
};
use crate::client::LxdClient;
use crate::client::server::Tagged;
use crate::client::transport::Request;
use crate::operation::{Operation, OperationClass};
use crate::remote::{Error, Result};
use crate::routes;
use crate::status::OperationStatus;

/// A join token that waits for its use.
#[derive(Debug, Clone)]
pub struct WaitingToken {
    /// The operation that stands for it; cancelling it revokes the token.
    pub operation: Operation,
    /// What it says.
    pub metadata: TokenMetadata,
}

impl LxdClient {
    /// All trusted certificates.
    pub async fn list_certificates(&self) -> Result<Vec<Certificate>> {
        let request = Request::list(routes::CERTIFICATES.url(&[]));
        let certificates: Option<Vec<Certificate>> = self.transport.ask(request).await?.parse()?;
        Ok(certificates.unwrap_or_default())
    }

    /// The certificate whose fingerprint begins with `id`.
    pub async fn get_certificate(&self, id: &str) -> Result<Tagged<Certificate>> {
        let reply = self.transport.ask(Request::get(routes::CERTIFICATE.url(&[id]))).await?;
        Ok(Tagged { value: reply.parse()?, etag: reply.etag })
    }

    /// Adds a certificate; without one in `body`, the one this connection shows, by the trust
    /// password or a join token in `body`.
    pub async fn add_certificate(&self, body: &CertificatesPost) -> Result<()> {
        let request = Request::new(Method::POST, routes::CERTIFICATES.url(&[]));
        let mut body = body.clone();
        if body.trust_token.is_empty() && JoinToken::decode(&body.password).is_ok() {
            // LXD takes a token as the password, Incus only under its own name.
            body.trust_token = body.password.trim().to_owned();
        }
        self.transport.tell(request, &body).await?;
        Ok(())
    }

    /// Makes a join token for a client of the name in `body`.
    pub async fn create_token(&self, body: &CertificatesPost) -> Result<WaitingToken> {
        let request = Request::new(Method::POST, routes::CERTIFICATES.url(&[]));
        let body = CertificatesPost { token: true, ..body.clone() };
        let operation = self.transport.tell(request, &body).await?.operation()?;
        waiting(operation).ok_or_else(|| Error::Decode {
            what: "the answer to a request for a join token".to_owned(),
            reason: "it holds no token".to_owned(),
        })
    }

    /// The join tokens that wait for their use.
    pub async fn list_tokens(&self) -> Result<Vec<WaitingToken>> {
        Ok(self.list_operations().await?.into_iter().filter_map(waiting).collect())
    }

    /// Replaces what may be edited of a certificate.
    ///
    /// # Errors
    /// One with [`Error::is_changed_meanwhile`] when `etag` is not current any more.
    pub async fn put_certificate(
        &self,
        id: &str,
        body: &CertificatePut,
        etag: Option<&str>,
    ) -> Result<()> {
        let request = Request::new(Method::PUT, routes::CERTIFICATE.url(&[id])).if_match(etag);
        self.transport.tell(request, body).await?;
        Ok(())
    }

    /// Changes some fields of a certificate.
    pub async fn patch_certificate(
        &self,
        id: &str,
        body: &CertificatePatch,
        etag: Option<&str>,
    ) -> Result<()> {
        let request = Request::new(Method::PATCH, routes::CERTIFICATE.url(&[id])).if_match(etag);
        self.transport.tell(request, body).await?;
        Ok(())
    }

    /// Trusts a certificate no longer.
    pub async fn delete_certificate(&self, id: &str) -> Result<()> {
        self.transport.ask(Request::new(Method::DELETE, routes::CERTIFICATE.url(&[id]))).await?;
        Ok(())
    }
}

/// The join token that an operation stands for, if it does.
fn waiting(operation: Operation) -> Option<WaitingToken> {
    let open =
        operation.class == OperationClass::Token && operation.status == OperationStatus::Running;
    let metadata = operation.metadata.clone().filter(|_| open)?;
    let metadata = serde_json::from_value(metadata.into()).ok()?;
    Some(WaitingToken { operation, metadata })
}
