//! Aliases: list, look up, create, point elsewhere, rename, delete.

use lxd_proto::alias::{AliasEntry, AliasName, AliasPut, AliasesPost};
use lxd_proto::event::action;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::routes;

use super::images::{check_etag, hash};
use crate::app::{App, Caller};
use crate::db::{AliasChange, Change};
use crate::error::{ALIAS_NOT_FOUND, Error, IMAGE_NOT_FOUND, Result};

/// The entity tag of an alias.
pub fn etag(alias: &AliasEntry) -> String {
    hash(alias)
}

/// Bytes that the description of an alias may have.
const DESCRIPTION_LIMIT: usize = 16 << 10;

fn check_description(description: &str) -> Result<()> {
    if description.len() > DESCRIPTION_LIMIT {
        return Err(Error::BadRequest(format!(
            "the description has {} bytes, at most {DESCRIPTION_LIMIT} are kept",
            description.len()
        )));
    }
    Ok(())
}

/// Creates an alias; returns its name.
pub async fn create(app: &App, caller: &Caller, post: AliasesPost) -> Result<AliasName> {
    if post.name.is_empty() || post.target.is_empty() {
        return Err(Error::BadRequest("name and target are required".into()));
    }
    let name = parse_name(post.name)?;
    check_description(&post.description)?;
    // Whoever gives up an image looks whether somebody has named it, and must not be overtaken.
    let _one_at_a_time = app.edits.lock().await;
    let target = target(app, caller, &post.target)?;
    let change = AliasChange::Create { name: name.clone(), target, description: post.description };
    app.db.commit(Change::Alias(change)).await?;
    tell(app, caller, action::ALIAS_CREATED, &name, &[("target", &target.to_string())]);
    Ok(name)
}

/// Points an alias at an image and describes it; `keep` leaves what the request does not name.
pub async fn update(
    app: &App,
    caller: &Caller,
    name: &str,
    given: Option<&str>,
    put: AliasPut,
    keep: bool,
) -> Result<()> {
    let _one_at_a_time = app.edits.lock().await;
    let alias = app.catalog.alias(caller.viewer, name)?;
    check_etag(given, &etag(&alias))?;
    let target = match put.target.as_deref() {
        Some("") | None if keep => alias.target,
        Some("") | None => return Err(Error::BadRequest("The target field is required".into())),
        Some(text) => target(app, caller, text)?,
    };
    let description =
        put.description.unwrap_or(if keep { alias.description } else { String::new() });
    check_description(&description)?;
    let name = parse_name(alias.name)?;
    let change = AliasChange::Update { name: name.clone(), target, description };
    app.db.commit(Change::Alias(change)).await?;
    tell(app, caller, action::ALIAS_UPDATED, &name, &[("target", &target.to_string())]);
    Ok(())
}

/// Renames an alias; returns the new name.
pub async fn rename(app: &App, caller: &Caller, name: &str, to: String) -> Result<AliasName> {
    if to.is_empty() {
        return Err(Error::BadRequest("The name field is required".into()));
    }
    let from = existing(app, caller, name)?;
    let to = parse_name(to)?;
    let change = AliasChange::Rename { from: from.clone(), to: to.clone() };
    app.db.commit(Change::Alias(change)).await?;
    tell(app, caller, action::ALIAS_RENAMED, &to, &[("old_name", from.as_str())]);
    Ok(to)
}

/// Deletes an alias.
pub async fn delete(app: &App, caller: &Caller, name: &str) -> Result<()> {
    let name = existing(app, caller, name)?;
    app.db.commit(Change::Alias(AliasChange::Delete { name: name.clone() })).await?;
    tell(app, caller, action::ALIAS_DELETED, &name, &[]);
    Ok(())
}

fn existing(app: &App, caller: &Caller, name: &str) -> Result<AliasName> {
    let alias = app.catalog.alias(caller.viewer, name)?;
    alias.name.try_into().map_err(|_| ALIAS_NOT_FOUND)
}

fn parse_name(name: String) -> Result<AliasName> {
    name.try_into().map_err(|error| Error::BadRequest(format!("invalid alias: {error}")))
}

/// The image a request means by a fingerprint or the beginning of one.
fn target(app: &App, caller: &Caller, text: &str) -> Result<Fingerprint> {
    let prefix: Prefix = text.parse().map_err(|_| IMAGE_NOT_FOUND)?;
    Ok(app.catalog.image(caller.viewer, &prefix)?.image.fingerprint)
}

/// Sends a lifecycle event about an alias.
pub fn tell(app: &App, caller: &Caller, action: &str, name: &AliasName, context: &[(&str, &str)]) {
    let source = routes::ALIAS.url(&[name.as_str()]);
    app.events.lifecycle(action, source, context, Some(&caller.requestor));
}
