//! One-time secrets: they let a stranger fetch one private image, push one image, or wait for
//! the operation of such a push.
//!
//! Only hashes of them are kept, and only the reply that creates one shows it. A secret to fetch
//! is used up by its first use; for a moment longer it goes on to work, because a copy asks for
//! the image, then for its files, and once more when the connection breaks.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::rand;
use jiff::{SignedDuration, Timestamp};
use lxd_proto::event::action;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::operation::{Operation, description};
use lxd_proto::routes;
use lxd_proto::status::OperationStatus;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::images;
use crate::acquire::Wish;
use crate::app::{App, Caller};
use crate::catalog::Entry;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::ops::{About, Operations};

/// How long a secret works after its first use, and after a transfer that it opened has ended.
const GRACE: SignedDuration = SignedDuration::from_secs(5);

/// How long a secret to fetch waits for its first use.
const UNUSED: SignedDuration = SignedDuration::from_hours(1);
/// How long after its creation the transfers of a secret may lead to others.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// SHA-256 of a secret.
type Hash = [u8; 32];

/// Every secret that may still be used.
#[derive(Debug, Default)]
pub struct Secrets {
    grants: Mutex<HashMap<Hash, Grant>>,
    /// Of pushed images' operations, by operation.
    waits: Mutex<HashMap<String, Hash>>,
}

#[derive(Debug)]
struct Grant {
    /// `None` for a push of whatever the other server has under an alias.
    fingerprint: Option<Fingerprint>,
    operation: String,
    created: Timestamp,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    /// Not used yet.
    Fetch,
    /// Used; works for a moment after that, and as long as there are transfers.
    Fetching { transfers: usize, since: Timestamp },
    /// To receive an image that becomes as wished.
    Push(Box<Wish>),
}

/// A transfer that a secret has opened; the secret works as long as it lives.
#[derive(Debug)]
pub struct Transfer {
    secrets: Arc<Secrets>,
    clock: Clock,
    hash: Hash,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(Grant { purpose: Purpose::Fetching { transfers, since }, .. }) =
            self.secrets.grants.lock().get_mut(&self.hash)
        {
            *transfers -= 1;
            *since = self.clock.now();
        }
    }
}

/// A secret with which a stranger may fetch the image, as a token operation.
pub fn create(app: &App, caller: &Caller, prefix: &Prefix) -> Result<Operation> {
    let fingerprint = images::get(app, caller, prefix)?.image.fingerprint;
    let name = fingerprint.to_string();
    let operation = app.secrets.grant(app, &name, Some(fingerprint), Purpose::Fetch)?;
    images::tell(app, caller, action::IMAGE_SECRET_CREATED, &fingerprint, &[]);
    Ok(operation)
}

/// A secret with which a stranger may push one image, as a token operation. It is the image with
/// this fingerprint; or, where only an alias of the other server is known, any one.
pub fn expect_push(app: &App, reference: &str, wish: Wish) -> Result<Operation> {
    let fingerprint = reference.parse().ok();
    app.secrets.grant(app, reference, fingerprint, Purpose::Push(Box::new(wish)))
}

/// The image that `secret` opens, if it begins with `prefix`. The first use uses the secret up.
pub fn open(app: &App, prefix: &Prefix, secret: &str) -> Option<(Arc<Entry>, Transfer)> {
    let hash = hash(secret);
    let (entry, first_use) = {
        let mut grants = app.secrets.grants.lock();
        let grant = grants.get_mut(&hash)?;
        let fingerprint = grant.fingerprint.filter(|fingerprint| prefix.matches(fingerprint))?;
        let now = app.clock.now();
        if !grant.is_of_use(&app.operations, now) {
            return None;
        }
        let first_use = match &mut grant.purpose {
            Purpose::Push(_) => return None,
            Purpose::Fetch => {
                grant.purpose = Purpose::Fetching { transfers: 1, since: now };
                Some(grant.operation.clone())
            }
            Purpose::Fetching { transfers, .. } => {
                *transfers += 1;
                None
            }
        };
        (app.catalog.get(&fingerprint), first_use)
    };
    let transfer = Transfer { secrets: app.secrets.clone(), clock: app.clock.clone(), hash };
    if let Some(operation) = first_use {
        used_up(app, &operation);
    }
    Some((entry?, transfer))
}

/// Ends every secret that opens an image which has gone: it does not open the next one.
pub fn forget(app: &App, fingerprint: &Fingerprint) {
    let opens = |grant: &Grant| {
        grant.fingerprint == Some(*fingerprint) && !matches!(grant.purpose, Purpose::Push(_))
    };
    let ended: Vec<_> = app.secrets.grants.lock().extract_if(|_, grant| opens(grant)).collect();
    for (_, grant) in ended {
        used_up(app, &grant.operation);
    }
}

/// What was asked for when the push of this image was announced; each secret works once.
pub fn claim_push(app: &App, fingerprint: &Fingerprint, secret: &str) -> Option<Wish> {
    let hash = hash(secret);
    let grant = {
        let mut grants = app.secrets.grants.lock();
        let grant = grants.get(&hash)?;
        let fits = matches!(grant.purpose, Purpose::Push(_))
            && grant.fingerprint.is_none_or(|expected| expected == *fingerprint)
            && waits_for_use(&app.operations, &grant.operation);
        fits.then(|| grants.remove(&hash)).flatten()?
    };
    used_up(app, &grant.operation);
    match grant.purpose {
        Purpose::Push(wish) => Some(*wish),
        Purpose::Fetch | Purpose::Fetching { .. } => None,
    }
}

/// Lets whoever has the reply `operation` wait for its end: a secret is added to that reply.
pub fn let_wait(app: &App, operation: &mut Operation) -> Result<()> {
    let (secret, hash) = generate()?;
    let mut waits = app.secrets.waits.lock();
    waits.retain(|id, _| app.operations.get(id).is_ok());
    waits.insert(operation.id.clone(), hash);
    operation.metadata.get_or_insert_default().insert("secret".into(), secret.into());
    Ok(())
}

/// Whether `secret` lets a stranger wait for the operation.
pub fn opens_wait(app: &App, operation: &str, secret: &str) -> bool {
    app.secrets.waits.lock().get(operation).is_some_and(|expected| *expected == hash(secret))
}

impl Secrets {
    fn grant(
        &self,
        app: &App,
        name: &str,
        fingerprint: Option<Fingerprint>,
        purpose: Purpose,
    ) -> Result<Operation> {
        let (secret, hash) = generate()?;
        let about = About::image(description::IMAGE_TOKEN, &name);
        let mut operation = app.operations.token(about)?;
        let mut grants = self.grants.lock();
        let now = app.clock.now();
        grants.retain(|_, grant| grant.is_of_use(&app.operations, now));
        let grant = Grant { fingerprint, operation: operation.id.clone(), created: now, purpose };
        grants.insert(hash, grant);
        // In this reply only: lists and events are read by others too.
        operation.metadata.get_or_insert_default().insert("secret".into(), secret.into());
        Ok(operation)
    }
}

impl Grant {
    fn is_of_use(&self, operations: &Operations, now: Timestamp) -> bool {
        match &self.purpose {
            Purpose::Fetching { transfers, since } => {
                is_within(LONGEST, self.created, now)
                    && (*transfers > 0 || is_within(GRACE, *since, now))
            }
            Purpose::Fetch => {
                is_within(UNUSED, self.created, now) && waits_for_use(operations, &self.operation)
            }
            Purpose::Push(_) => waits_for_use(operations, &self.operation),
        }
    }
}

/// Whether so little time has passed. A clock that was set back makes it none.
fn is_within(span: SignedDuration, since: Timestamp, now: Timestamp) -> bool {
    since <= now && now.duration_since(since) <= span
}

/// Whether nobody has used or cancelled the token.
fn waits_for_use(operations: &Operations, id: &str) -> bool {
    operations.get(id).is_ok_and(|operation| operation.status == OperationStatus::Running)
}

fn used_up(app: &App, operation: &str) {
    if app.operations.cancel(operation).is_ok() {
        let source = routes::OPERATION.url(&[operation]);
        app.events.lifecycle(action::OPERATION_CANCELLED, source, &[], None);
    }
}

/// 32 random bytes in hex, and their hash.
fn generate() -> Result<(String, Hash)> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| Error::Internal("no randomness for a secret".into()))?;
    let secret = hex::encode(bytes);
    let hash = hash(&secret);
    Ok((secret, hash))
}

/// Secrets are found by their hash: how long that takes tells nothing about them.
fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}
