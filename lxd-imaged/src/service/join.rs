//! Join tokens: each lets one client in, once. As in LXD they are operations, shown in its list,
//! cancelled by deleting them, and gone when the daemon ends.

use std::sync::Arc;

use aws_lc_rs::{constant_time, rand};
use jiff::Timestamp;
use lxd_proto::certificate::{CLIENT, CertificatesPost, JoinToken, TokenMetadata};
use lxd_proto::config;
use lxd_proto::operation::{Operation, OperationClass, description};
use lxd_proto::status::OperationStatus;
use serde_json::Value;

use super::trust;
use crate::app::App;
use crate::error::{Error, Result};
use crate::ops::About;

/// Makes a token for what `post` asks for.
pub fn issue(app: &Arc<App>, mut post: CertificatesPost) -> Result<Operation> {
    let refuse = |why: &str| Err(Error::BadRequest(why.into()));
    if !post.certificate.is_empty() {
        return refuse("Can't use certificate if token is requested");
    }
    if post.kind != CLIENT {
        return refuse("Tokens can only be issued for client certificates");
    }
    if post.name.is_empty() {
        return refuse("A token needs the name of the client it is for");
    }
    trust::check(&post.name, &post.kind, &post.projects)?;
    let addresses = app.network.addresses();
    if addresses.is_empty() {
        return refuse("Can't issue token when server isn't listening on network");
    }
    post.password.clear();
    post.trust_token.clear();
    let lasts = app.catalog.config().remove(config::TOKEN_EXPIRY).unwrap_or_default();
    let metadata = TokenMetadata {
        secret: secret()?,
        fingerprint: app.identity.get().fingerprint().to_string(),
        addresses,
        request: post,
        expires_at: config::expiry(&lasts, Timestamp::now()),
    };
    let Ok(Value::Object(metadata)) = serde_json::to_value(&metadata) else {
        return Err(Error::Internal("a token cannot be written".into()));
    };
    discard_expired(app);
    app.operations.token(About {
        description: description::CERTIFICATE_TOKEN,
        metadata: Some(metadata),
        ..About::default()
    })
}

/// 256 random bits, as text.
fn secret() -> Result<String> {
    let mut secret = [0; 32];
    rand::fill(&mut secret).map_err(|_| Error::Internal("no randomness for a token".into()))?;
    Ok(hex::encode(secret))
}

/// Every token that waits for its use.
fn waiting(app: &App) -> impl Iterator<Item = (String, TokenMetadata)> {
    app.operations.all().into_iter().filter_map(|operation| {
        let waits = operation.class == OperationClass::Token
            && operation.description == description::CERTIFICATE_TOKEN
            && operation.status == OperationStatus::Running;
        let metadata = Value::Object(operation.metadata.filter(|_| waits)?);
        Some((operation.id, serde_json::from_value(metadata).ok()?))
    })
}

fn is_expired(token: &TokenMetadata) -> bool {
    token.expires_at.is_some_and(|end| end <= Timestamp::now())
}

fn discard_expired(app: &App) {
    for (id, _) in waiting(app).filter(|(_, token)| is_expired(token)) {
        // Used or cancelled in the meantime: gone either way.
        let _ = app.operations.cancel(&id);
    }
}

/// Uses a token up; returns what it stands for. Without a certificate to let in
/// (`has_certificate`), a right token is told so, and not spent.
pub(super) fn claim(
    app: &App,
    given: &JoinToken,
    has_certificate: bool,
) -> Result<CertificatesPost> {
    let mut found = None;
    // All of them: how long it takes tells nothing.
    for (id, token) in waiting(app) {
        let same = constant_time::verify_slices_are_equal(
            token.secret.as_bytes(),
            given.secret.as_bytes(),
        );
        if same.is_ok() && token.request.name == given.client_name {
            found = Some((id, token));
        }
    }
    let unknown = Error::Refused("No matching certificate add operation found");
    let Some((id, token)) = found else { return Err(unknown) };
    if !has_certificate {
        return Err(trust::no_certificate());
    }
    // Of two clients with one token, one cancels it.
    app.operations.cancel(&id).map_err(|_| unknown)?;
    if is_expired(&token) { Err(Error::Refused("Token has expired")) } else { Ok(token.request) }
}
