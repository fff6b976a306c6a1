//! The server's configuration.

use std::collections::BTreeMap;

use aws_lc_rs::{digest, pbkdf2, rand};
use lxd_proto::config::{self, ConfigError, Kind, Wanted};
use lxd_proto::event::action;
use lxd_proto::routes;
use serde_json::Value;

use super::images::{check_etag, hash};
use crate::app::{App, Caller};
use crate::db::Change;
use crate::error::{Error, Result};

/// Rounds of the password hash.
const ROUNDS: std::num::NonZeroU32 = match std::num::NonZeroU32::new(210_000) {
    Some(rounds) => rounds,
    None => std::num::NonZeroU32::MIN,
};

/// The configuration as it is shown: a set secret is `true`.
pub fn shown(app: &App) -> BTreeMap<String, Value> {
    let secret = |name: &str| config::lookup(name).is_some_and(|key| key.kind == Kind::Secret);
    app.catalog
        .config()
        .into_iter()
        .map(|(name, value)| {
            let value = if secret(&name) { Value::Bool(true) } else { Value::String(value) };
            (name, value)
        })
        .collect()
}

/// The entity tag of the configuration.
pub fn etag(app: &App) -> String {
    hash(&shown(app))
}

/// Sets values; with `replace`, what the request does not name goes back to its default.
pub async fn update(
    app: &App,
    caller: &Caller,
    given: Option<&str>,
    values: BTreeMap<String, Value>,
    replace: bool,
) -> Result<()> {
    let wanted = config::parse(&values)?;
    let _one_at_a_time = app.edits.lock().await;
    check_etag(given, &etag(app))?;
    let current = app.catalog.config();
    let mut changes = BTreeMap::new();
    if replace {
        for name in current.keys().filter(|name| !wanted.contains_key(*name)) {
            changes.insert(name.clone(), None);
        }
    }
    for (name, want) in wanted {
        let value = match want {
            Wanted::Unchanged => continue,
            Wanted::Unset => None,
            Wanted::Set(value) => Some(stored(&name, value).await?),
        };
        if value.as_ref() != current.get(&name) {
            changes.insert(name, value);
        }
    }
    if let Some(Some(address)) = changes.get(config::HTTPS_ADDRESS) {
        return Err(not_yet(address));
    }
    if changes.is_empty() {
        return Ok(());
    }
    app.db.commit(Change::Config(changes)).await?;
    let source = routes::API.url(&[]);
    app.events.lifecycle(action::CONFIG_UPDATED, source, &[], Some(&caller.requestor));
    Ok(())
}

/// This version listens on its unix socket only.
fn not_yet(address: &str) -> Error {
    Error::Config(ConfigError::Value {
        key: config::HTTPS_ADDRESS.into(),
        value: address.into(),
        reason: "not yet: this version serves its unix socket only".into(),
    })
}

/// The value as it is kept: secrets only as a hash.
async fn stored(name: &str, value: String) -> Result<String> {
    if config::lookup(name).is_none_or(|key| key.kind != Kind::Secret) {
        return Ok(value);
    }
    let hashed = tokio::task::spawn_blocking(move || hash_password(&value)).await;
    hashed.map_err(|error| Error::Internal(error.to_string()))?
}

fn hash_password(password: &str) -> Result<String> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|_| Error::Internal("no randomness for a password".into()))?;
    let mut hash = [0; digest::SHA256_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, password.as_bytes(), &mut hash);
    Ok(format!("pbkdf2-sha256${ROUNDS}${}${}", hex::encode(salt), hex::encode(hash)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_kept_as_it_is() {
        let (first, second) = (hash_password("secret").unwrap(), hash_password("secret").unwrap());
        assert!(!first.contains("secret"));
        assert_ne!(first, second, "each hash has its own salt");
    }
}
