//! Mirrors that stand in a file of the state directory, read at start: a name, and below it what
//! differs from the defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use lxd_proto::mirror::{MirrorConfig, MirrorName};
use serde_json::Value;

use crate::app::App;
use crate::db::{Change, MirrorChange};
use crate::directory::Directory;
use crate::error::{Error, Result};

/// The file's name.
pub const FILE: &str = "mirrors.yaml";
/// The largest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Makes the recorded mirrors what the file says. What is wrong with it is logged and changes
/// nothing: a slip in one mirror stops neither the others nor the daemon. A mirror that the file
/// does not name any more stays, and can be edited again.
pub async fn load(app: &App) {
    let path = Directory::new(&app.root).mirrors();
    let entries = match read(&path) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::error!(%error, "the declared mirrors stay as they were");
            return;
        }
    };
    let mut declared = BTreeSet::new();
    for (name, value) in entries {
        match declare(app, &name, value).await {
            Ok(name) => drop(declared.insert(name)),
            Err((named, error)) => {
                tracing::error!(mirror = name.escape_debug().to_string(), %error, "a declared mirror cannot be used");
                declared.extend(named);
            }
        }
    }
    let mut gone = app.catalog.mirrors.all();
    gone.retain(|record| record.declared && !declared.contains(&record.name));
    for record in gone {
        let (name, config) = (record.name.clone(), Box::new(record.config.clone()));
        let change = MirrorChange::Update { name, config, declared: false };
        if let Err(error) = app.db.commit(Change::Mirror(change)).await {
            tracing::error!(%error, "cannot record a mirror that is not declared any more");
        }
    }
}

/// Reads the file; one that does not exist declares nothing.
fn read(path: &Path) -> Result<BTreeMap<String, Value>> {
    let what = || format!("cannot read {}", path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(Error::io(what(), error)),
    };
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| Error::io(what(), error))?;
    if text.len() as u64 > MAX_FILE {
        return Err(Error::BadRequest(format!(
            "{} has more than {MAX_FILE} bytes",
            path.display()
        )));
    }
    let entries: Option<BTreeMap<String, Value>> = serde_saphyr::from_str(&text)
        .map_err(|error| Error::BadRequest(format!("{}: {error}", path.display())))?;
    Ok(entries.unwrap_or_default())
}

/// Records one; an error comes with the name, if that is one.
async fn declare(
    app: &App,
    name: &str,
    value: Value,
) -> Result<MirrorName, (Option<MirrorName>, Error)> {
    let refused = |error: String| Error::BadRequest(error);
    let name: MirrorName = name.parse().map_err(|error| (None, refused(format!("{error}"))))?;
    let failed = |error| (Some(name.clone()), error);
    let value = if value.is_null() { Value::Object(serde_json::Map::new()) } else { value };
    let config: MirrorConfig =
        serde_json::from_value(value).map_err(|error| failed(refused(error.to_string())))?;
    super::check(&config).map_err(failed)?;
    let known =
        app.catalog.mirrors.get(&name).map(|record| record.declared && record.config == config);
    let done = match known {
        Ok(true) => Ok(()),
        Ok(false) => {
            let config = Box::new(config);
            let change = MirrorChange::Update { name: name.clone(), config, declared: true };
            app.db.commit(Change::Mirror(change)).await
        }
        Err(_) => super::add(app, name.clone(), config, true).await,
    };
    done.map_err(failed)?;
    Ok(name)
}
