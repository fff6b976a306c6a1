//! Trust on the wire: certificates of clients, how they get in, and join tokens.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::time;
use crate::wire::null_default;

pub mod x509;

/// The only kind of certificate that can be added for a person.
pub const CLIENT: &str = "client";
/// The longest join token that is read, in bytes.
const MAX_TOKEN: usize = 16 << 10;

/// A trusted client. Keys in the order LXD emits them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// What a person calls it.
    #[serde(default)]
    pub name: String,
    /// `client` or `metrics`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// It may only read, and only in `projects`.
    #[serde(default)]
    pub restricted: bool,
    /// Where a restricted client may read.
    #[serde(default, deserialize_with = "null_default")]
    pub projects: Vec<String>,
    /// PEM.
    #[serde(default)]
    pub certificate: String,
    /// SHA-256 of the certificate's DER.
    pub fingerprint: Fingerprint,
}

/// Body of `PUT /1.0/certificates/FINGERPRINT`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificatePut {
    /// What a person calls it.
    pub name: String,
    /// `client` or `metrics`.
    #[serde(rename = "type")]
    pub kind: String,
    /// It may only read, and only in `projects`.
    pub restricted: bool,
    /// Where a restricted client may read.
    #[serde(deserialize_with = "null_default")]
    pub projects: Vec<String>,
    /// PEM; another certificate under the same name.
    pub certificate: String,
}

impl From<&Certificate> for CertificatePut {
    fn from(certificate: &Certificate) -> Self {
        Self {
            name: certificate.name.clone(),
            kind: certificate.kind.clone(),
            restricted: certificate.restricted,
            projects: certificate.projects.clone(),
            certificate: certificate.certificate.clone(),
        }
    }
}

/// Body of `PATCH /1.0/certificates/FINGERPRINT`: what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificatePatch {
    /// What a person calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `client` or `metrics`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// It may only read, and only in `projects`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restricted: Option<bool>,
    /// Where a restricted client may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projects: Option<Vec<String>>,
    /// PEM; another certificate under the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// Body of `POST /1.0/certificates`: adds a certificate, or asks for a join token.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificatesPost {
    /// What a person calls it.
    pub name: String,
    /// `client` or `metrics`.
    #[serde(rename = "type")]
    pub kind: String,
    /// It may only read, and only in `projects`.
    pub restricted: bool,
    /// Where a restricted client may read.
    #[serde(deserialize_with = "null_default")]
    pub projects: Vec<String>,
    /// Base64 of the DER, without armour; empty means the certificate of the connection.
    pub certificate: String,
    /// The trust password, or a join token in its base64 form.
    pub password: String,
    /// A join token is wanted.
    pub token: bool,
    /// A join token in its base64 form, as Incus sends it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust_token: String,
}

impl fmt::Debug for CertificatesPost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificatesPost")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("restricted", &self.restricted)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// Metadata of the operation that stands for an unused join token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMetadata {
    /// What proves the token.
    pub secret: String,
    /// Of the server's certificate.
    pub fingerprint: String,
    /// `HOST:PORT` where the server listens.
    #[serde(default, deserialize_with = "null_default")]
    pub addresses: Vec<String>,
    /// What was asked for.
    pub request: CertificatesPost,
    /// Absent when it never expires.
    #[serde(rename = "expiresAt", default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl fmt::Debug for TokenMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenMetadata")
            .field("request", &self.request)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl TokenMetadata {
    /// The token that a person carries to the client.
    pub fn token(&self) -> JoinToken {
        JoinToken {
            client_name: self.request.name.clone(),
            fingerprint: self.fingerprint.clone(),
            addresses: self.addresses.clone(),
            secret: self.secret.clone(),
            expires_at: self.expires_at.unwrap_or_else(time::zero),
        }
    }
}

/// What a new client needs to find a server, to know it, and to be let in once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// The name the client gets.
    #[serde(default)]
    pub client_name: String,
    /// Of the server's certificate.
    #[serde(default)]
    pub fingerprint: String,
    /// `HOST:PORT` where the server listens.
    #[serde(default, deserialize_with = "null_default")]
    pub addresses: Vec<String>,
    /// What proves the token.
    #[serde(default)]
    pub secret: String,
    /// Go's zero time when it never expires.
    #[serde(default = "time::zero")]
    pub expires_at: Timestamp,
}

/// The text is no join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token: {0}")]
pub struct NotAToken(&'static str);

impl JoinToken {
    /// The base64 form that people copy.
    pub fn encode(&self) -> String {
        STANDARD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads the base64 form.
    pub fn decode(text: &str) -> Result<Self, NotAToken> {
        let text = text.trim();
        if text.len() > MAX_TOKEN {
            return Err(NotAToken("it is too long"));
        }
        let bytes = STANDARD
            .decode(text)
            .or_else(|_| STANDARD_NO_PAD.decode(text))
            .map_err(|_| NotAToken("it is not base64"))?;
        let token: Self =
            serde_json::from_slice(&bytes).map_err(|_| NotAToken("it holds no token"))?;
        let missing = [
            (token.client_name.is_empty(), "it names no client"),
            (token.addresses.is_empty(), "it names no address"),
            (token.secret.is_empty(), "it holds no secret"),
            (token.fingerprint.is_empty(), "it holds no fingerprint"),
        ];
        match missing.into_iter().find(|(lacks, _)| *lacks) {
            Some((_, why)) => Err(NotAToken(why)),
            None => Ok(token),
        }
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("client_name", &self.client_name)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_journey_and_shows_no_secret() {
        let token = JoinToken {
            client_name: "newcli".into(),
            fingerprint: "ab".into(),
            addresses: vec!["127.0.0.1:8443".into()],
            secret: "hush".into(),
            expires_at: time::zero(),
        };
        assert_eq!(JoinToken::decode(&format!(" {}\n", token.encode())).unwrap(), token);
        assert!(!format!("{token:?}").contains("hush"));
        let json = STANDARD.decode(token.encode()).unwrap();
        let json = String::from_utf8(json).unwrap();
        assert!(json.contains(r#""expires_at":"0001-01-01T00:00:00Z""#), "{json}");
        for wrong in ["", "a password", "e30=", &"A".repeat(MAX_TOKEN + 1)] {
            assert!(JoinToken::decode(wrong).is_err(), "{wrong}");
        }
    }
}
