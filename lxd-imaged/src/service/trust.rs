//! Trusted clients: who a connection is, and how clients get in, are edited and leave.

use std::sync::Arc;

use lxd_proto::certificate::{
    CLIENT, Certificate, CertificatePatch, CertificatePut, CertificatesPost, JoinToken,
};
use lxd_proto::event::{Requestor, action};
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::operation::Operation;
use lxd_proto::{config, project, routes};

use super::images::{check_etag, hash};
use super::{join, password};
use crate::app::{App, Caller, Client};
use crate::catalog::Viewer;
use crate::db::{Change, TrustChange};
use crate::error::{CERTIFICATE_NOT_FOUND, Error, Result};
use crate::trust::Shown;

/// A certificate that only reads metrics; it is kept, and sees no image.
const METRICS: &str = "metrics";
/// Certificates that are trusted at most.
const MAX_CERTIFICATES: usize = 10_000;
/// Characters of a name.
const MAX_NAME: usize = 256;
/// Bits of an RSA key that LXD insists on.
const MIN_RSA_BITS: usize = 2048;

/// Who a client on the network is right now: trust can be withdrawn while it is connected.
pub fn caller(app: &App, client: &Client) -> Caller {
    let certificate = client.certificate.as_ref();
    let username = certificate.map(|shown| shown.fingerprint.to_string()).unwrap_or_default();
    Caller {
        viewer: app.catalog.trust.viewer(certificate),
        requestor: Requestor {
            username,
            protocol: "tls".into(),
            address: client.address.to_string(),
        },
    }
}

/// The certificates that the caller may know of: all, or their own.
pub fn list(app: &App, caller: &Caller) -> Vec<Arc<Certificate>> {
    let mut all = app.catalog.trust.all();
    all.retain(|certificate| is_visible(caller, certificate));
    all
}

/// The one certificate that begins with `prefix`, among those the caller may know of.
pub fn get(app: &App, caller: &Caller, prefix: &Prefix) -> Result<Arc<Certificate>> {
    app.catalog.trust.find(prefix, |certificate| is_visible(caller, certificate))
}

fn is_visible(caller: &Caller, certificate: &Certificate) -> bool {
    match caller.viewer {
        Viewer::Trusted => true,
        Viewer::Restricted | Viewer::Outsider => {
            certificate.fingerprint.to_string() == caller.requestor.username
        }
        Viewer::Stranger => false,
    }
}

/// The entity tag of a certificate.
pub fn etag(certificate: &Certificate) -> String {
    hash(certificate)
}

/// What a `POST /1.0/certificates` has led to.
#[derive(Debug)]
pub enum Added {
    /// This certificate is trusted now.
    Certificate(Fingerprint),
    /// This operation stands for a join token.
    Token(Box<Operation>),
}

/// Adds a certificate: the one in the request when the caller is trusted, else the caller's own
/// when it knows the password or a token. Or makes a token.
pub async fn add(
    app: &Arc<App>,
    caller: &Caller,
    client: Option<&Client>,
    mut post: CertificatesPost,
) -> Result<Added> {
    if post.token {
        caller.must_be_trusted()?;
        return join::issue(app, post).map(|operation| Added::Token(Box::new(operation)));
    }
    if caller.must_be_known().is_ok() && post.certificate.is_empty() {
        return Err(Error::BadRequest("Client is already trusted".into()));
    }
    let shown = if caller.is_trusted() {
        Shown::from_text(&post.certificate)?
    } else {
        // A stranger can only bring in the certificate whose key it has.
        let shown = let_in(app, client, &mut post).await.inspect_err(|error| {
            let from = &caller.requestor.address;
            tracing::warn!(from, %error, "a client was not let in");
        })?;
        post.certificate.clear();
        shown
    };
    let certificate = new_certificate(app, client, &shown, post)?;
    let fingerprint = certificate.fingerprint;
    app.db.commit(Change::Trust(TrustChange::Add(Box::new(certificate)))).await?;
    tracing::info!(certificate = %fingerprint, by = caller.requestor.username, "a client is trusted");
    tell(app, caller, action::CERTIFICATE_CREATED, &fingerprint);
    Ok(Added::Certificate(fingerprint))
}

/// Checks the password or token of a stranger; returns the certificate it came with.
async fn let_in(
    app: &Arc<App>,
    client: Option<&Client>,
    post: &mut CertificatesPost,
) -> Result<Shown> {
    let client = client.ok_or(Error::Forbidden)?;
    let proof = [&mut post.trust_token, &mut post.password].map(std::mem::take);
    let proof = proof.into_iter().find(|proof| !proof.is_empty()).unwrap_or_default();
    if proof.is_empty() {
        return Err(Error::Forbidden);
    }
    app.guesses.attempt(client.address.ip())?;
    // Before a token is spent on a certificate that cannot be taken.
    let certificate = client.certificate.as_ref().map(|shown| sound(shown).map(|()| shown));
    match JoinToken::decode(&proof) {
        Ok(token) => {
            if let Some(Err(error)) = certificate {
                return Err(error);
            }
            let known = client.certificate.is_some();
            let granted = join::claim(app, &token, known)?;
            post.name = granted.name;
            post.kind = granted.kind;
            post.restricted = granted.restricted;
            post.projects = granted.projects;
        }
        Err(_) => check_password(app, proof).await?,
    }
    app.guesses.right(client.address.ip());
    match certificate {
        Some(Ok(shown)) => Ok(shown.clone()),
        Some(Err(error)) => Err(error),
        None => Err(no_certificate()),
    }
}

/// A client has to show a certificate to be added.
pub(super) fn no_certificate() -> Error {
    Error::BadRequest("No client certificate provided".into())
}

async fn check_password(app: &App, given: String) -> Result<()> {
    let stored = app.catalog.config().remove(config::TRUST_PASSWORD).ok_or(Error::Forbidden)?;
    let _turn = app.guesses.turn().await?;
    let compared = tokio::task::spawn_blocking(move || password::matches(&stored, &given)).await;
    match compared {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Forbidden),
        Err(error) => Err(Error::Internal(error.to_string())),
    }
}

/// Refuses certificates that LXD refuses.
fn sound(shown: &Shown) -> Result<()> {
    let now = jiff::Timestamp::now();
    let refuse = |why: &str| Err(Error::BadRequest(why.into()));
    match shown.facts.rsa_bits {
        _ if now < shown.facts.not_before => refuse("The provided certificate isn't valid yet"),
        _ if now > shown.facts.not_after => refuse("The provided certificate is expired"),
        Some(bits) if bits < MIN_RSA_BITS => refuse("RSA key is too weak (minimum of 2048bit)"),
        _ => Ok(()),
    }
}

fn new_certificate(
    app: &App,
    client: Option<&Client>,
    shown: &Shown,
    post: CertificatesPost,
) -> Result<Certificate> {
    sound(shown)?;
    check(&post.name, &post.kind, &post.projects)?;
    if app.catalog.trust.get(&shown.fingerprint).is_some() {
        return Err(Error::CertificateExists);
    }
    if app.catalog.trust.len() >= MAX_CERTIFICATES {
        return Err(Error::TooMany("trusted certificates"));
    }
    let name = [Some(post.name), Some(shown.facts.common_name.clone())]
        .into_iter()
        .flatten()
        .find(|name| !name.is_empty())
        .or_else(|| client.map(|client| client.address.ip().to_string()))
        .unwrap_or_default();
    Ok(Certificate {
        name: name.chars().take(MAX_NAME).collect(),
        kind: post.kind,
        restricted: post.restricted,
        projects: post.projects,
        certificate: shown.pem(),
        fingerprint: shown.fingerprint,
    })
}

/// Refuses names, kinds and projects that make no sense.
pub(super) fn check(name: &str, kind: &str, projects: &[String]) -> Result<()> {
    if kind != CLIENT && kind != METRICS {
        return Err(Error::BadRequest("Invalid certificate type".into()));
    }
    if name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(Error::BadRequest(format!(
            "Invalid certificate name: at most {MAX_NAME} characters, none of them a control"
        )));
    }
    match projects.iter().find(|name| *name != project::DEFAULT) {
        None => Ok(()),
        Some(unknown) => Err(Error::BadRequest(format!(
            "Project \"{unknown}\" doesn't exist; this server has the project \"default\" only"
        ))),
    }
}

/// Replaces what is known of a trusted client.
pub async fn put(
    app: &App,
    caller: &Caller,
    prefix: &Prefix,
    given: Option<&str>,
    put: CertificatePut,
) -> Result<()> {
    edit(app, caller, prefix, given, |_| Ok(put)).await
}

/// Changes what the request names, leaves the rest.
pub async fn patch(
    app: &App,
    caller: &Caller,
    prefix: &Prefix,
    given: Option<&str>,
    patch: CertificatePatch,
) -> Result<()> {
    edit(app, caller, prefix, given, |old| {
        let mut put = CertificatePut::from(old);
        put.name = patch.name.unwrap_or(put.name);
        put.kind = patch.kind.unwrap_or(put.kind);
        put.restricted = patch.restricted.unwrap_or(put.restricted);
        put.projects = patch.projects.unwrap_or(put.projects);
        put.certificate = patch.certificate.unwrap_or(put.certificate);
        Ok(put)
    })
    .await
}

async fn edit(
    app: &App,
    caller: &Caller,
    prefix: &Prefix,
    given: Option<&str>,
    change: impl FnOnce(&Certificate) -> Result<CertificatePut>,
) -> Result<()> {
    let _one_at_a_time = app.edits.lock().await;
    let old = get(app, caller, prefix)?;
    check_etag(given, &etag(&old))?;
    let put = change(&old)?;
    check(&put.name, &put.kind, &put.projects)?;
    let mut new = Certificate {
        name: put.name,
        kind: put.kind,
        restricted: put.restricted,
        projects: put.projects,
        ..(*old).clone()
    };
    if !put.certificate.trim().is_empty() {
        let shown = Shown::from_text(&put.certificate)?;
        if shown.fingerprint != old.fingerprint {
            sound(&shown)?;
        }
        new.certificate = shown.pem();
        new.fingerprint = shown.fingerprint;
    }
    let fingerprint = new.fingerprint;
    let change = TrustChange::Replace(old.fingerprint, Box::new(new));
    app.db.commit(Change::Trust(change)).await?;
    tell(app, caller, action::CERTIFICATE_UPDATED, &fingerprint);
    Ok(())
}

/// Withdraws trust: at once, also from connections that are open.
pub async fn remove(app: &App, caller: &Caller, prefix: &Prefix) -> Result<()> {
    let fingerprint = get(app, caller, prefix)?.fingerprint;
    app.db.commit(Change::Trust(TrustChange::Remove(fingerprint))).await?;
    tracing::info!(certificate = %fingerprint, by = caller.requestor.username, "a client is no longer trusted");
    tell(app, caller, action::CERTIFICATE_DELETED, &fingerprint);
    Ok(())
}

fn tell(app: &App, caller: &Caller, action: &str, fingerprint: &Fingerprint) {
    let source = routes::CERTIFICATE.url(&[&fingerprint.to_string()]);
    app.events.lifecycle(action, source, &[], Some(&caller.requestor));
}

/// The beginning of a fingerprint in a path; anything else names no certificate.
pub fn prefix(text: &str) -> Result<Prefix> {
    text.parse().map_err(|_| CERTIFICATE_NOT_FOUND)
}
