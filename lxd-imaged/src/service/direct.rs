//! One public image by its alias, for who asks with nothing but a URL.

use std::sync::Arc;

use lxd_proto::arch::Architecture;

use crate::app::App;
use crate::catalog::{Entry, Viewer};
use crate::error::{Error, Result};

/// There is no such alias of a public image.
const NO_IMAGE: Error = Error::NotFound("there is no public image of this name");
/// There is one, but the caller cannot run it.
const OTHER_ARCHITECTURE: Error =
    Error::NotFound("the public image of this name is for another architecture");
/// It cannot be handed out as one file.
const SPLIT: Error = Error::NotFound(
    "this image has two files, so it cannot be fetched by a single URL; add this server as a \
     remote instead: lxc remote add NAME https://HOST:PORT --protocol=simplestreams",
);

/// The public image of an alias, as far as it runs on one of the caller's architectures; `None`
/// stands for any. Where it does not, `ALIAS/ARCHITECTURE` may, in the caller's order.
///
/// # Errors
/// [`Error::NotFound`] says what is missing. A private image is like none.
pub fn find(app: &App, alias: &str, architectures: Option<&[Architecture]>) -> Result<Arc<Entry>> {
    let image = |name: &str| {
        let alias = app.catalog.alias(Viewer::Stranger, name).ok()?;
        let entry = app.catalog.get(&alias.target)?;
        // It may have been made private in between.
        Viewer::Stranger.sees(&entry.image).then_some(entry)
    };
    let named = image(alias);
    let runs = |entry: &Arc<Entry>| {
        architectures.is_none_or(|all| all.contains(&entry.image.architecture))
    };
    if let Some(entry) = named.clone().filter(runs) {
        return unified(entry);
    }
    for architecture in architectures.unwrap_or_default() {
        let names = std::iter::once(architecture.as_str()).chain(architecture.aliases().to_vec());
        let found = names
            .filter_map(|name| image(&format!("{alias}/{name}")))
            .find(|entry| entry.image.architecture == *architecture);
        if let Some(entry) = found {
            return unified(entry);
        }
    }
    Err(if named.is_some() { OTHER_ARCHITECTURE } else { NO_IMAGE })
}

fn unified(entry: Arc<Entry>) -> Result<Arc<Entry>> {
    if entry.rootfs.is_none() { Ok(entry) } else { Err(SPLIT) }
}
