//! The server's configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lxd_proto::config::{self, ConfigError, Kind, Wanted};
use lxd_proto::event::action;
use lxd_proto::routes;
use serde_json::Value;

use super::images::{check_etag, hash};
use super::{password, signing};
use crate::app::{App, Caller};
use crate::db::Change;
use crate::error::{Error, Result};
use crate::network::Move;

/// Values to set, and keys (`None`) to put back to their default.
type Changes = BTreeMap<String, Option<String>>;

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
    app: &Arc<App>,
    caller: &Caller,
    given: Option<&str>,
    values: BTreeMap<String, Value>,
    replace: bool,
) -> Result<()> {
    let wanted = config::parse(&values)?;
    let _one_at_a_time = app.edits.lock().await;
    check_etag(given, &etag(app))?;
    let current = app.catalog.config();
    let mut changes = Changes::new();
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
    if changes.is_empty() {
        return Ok(());
    }
    if let Some(Some(path)) = changes.get(config::STREAMS_KEY) {
        check_key(path).await?;
    }
    let other_key = changes.contains_key(config::STREAMS_KEY);
    let moved = bind(app, &changes).await?;
    match (app.db.commit(Change::Config(changes)).await, moved) {
        (Ok(()), None) => {}
        (Ok(()), Some(moved)) => app.network.settle(moved),
        (Err(error), moved) => {
            if let Some(moved) = moved {
                app.network.undo(moved);
            }
            return Err(error);
        }
    }
    if other_key {
        let task = app.clone();
        let applied = tokio::task::spawn_blocking(move || signing::apply(&task)).await;
        applied.map_err(|error| Error::Internal(error.to_string()))?;
    }
    let source = routes::API.url(&[]);
    app.events.lifecycle(action::CONFIG_UPDATED, source, &[], Some(&caller.requestor));
    Ok(())
}

/// Opens the network listener that is configured, if any; goes on until it is open.
pub async fn listen(app: &App) {
    if let Some(address) = app.catalog.config().remove(config::HTTPS_ADDRESS) {
        app.network.open(&address).await;
    }
}

/// Binds what `core.https_address` becomes, before anything is stored.
async fn bind(app: &App, changes: &Changes) -> Result<Option<Move>> {
    let Some(wanted) = changes.get(config::HTTPS_ADDRESS) else { return Ok(None) };
    let address = wanted.as_deref().unwrap_or_default();
    match app.network.prepare(address).await {
        Ok(prepared) => Ok(Some(prepared)),
        Err(error) => Err(Error::Config(ConfigError::Value {
            key: config::HTTPS_ADDRESS.into(),
            value: address.into(),
            reason: format!("cannot listen there: {error}"),
        })),
    }
}

/// Refuses a key that could not sign.
async fn check_key(path: &str) -> Result<()> {
    let file = path.to_owned();
    let read = tokio::task::spawn_blocking(move || signing::read(Path::new(&file))).await;
    match read.map_err(|error| Error::Internal(error.to_string()))? {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Config(ConfigError::Value {
            key: config::STREAMS_KEY.into(),
            value: path.into(),
            reason: error.to_string(),
        })),
    }
}

/// The value as it is kept: secrets only as a hash.
async fn stored(name: &str, value: String) -> Result<String> {
    if config::lookup(name).is_none_or(|key| key.kind != Kind::Secret) {
        return Ok(value);
    }
    let hashed = tokio::task::spawn_blocking(move || password::hash(&value)).await;
    hashed.map_err(|error| Error::Internal(error.to_string()))?
}
