//! The documents of a tree on disk: each is written aside and renamed, the index last.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::disk;
use super::error::{Result, TreeError};
use crate::document::{Catalog, Index, MAX_DOCUMENT};
use crate::publish::{CATALOG, INDEX, Products, Signed};

/// Publishes `products`. What says the same as before is left as it is; whether anything was not.
pub(super) fn write(root: &Path, products: &Products, now: Timestamp) -> Result<bool> {
    let path = root.join(CATALOG);
    let before = read(&path)?;
    let updated = before.as_deref().and_then(|bytes| Catalog::parse(bytes).ok()?.updated.into());
    let catalog = same_or_new(before, updated, now, |time| products.catalog(time));
    let mut changed = publish(&path, &catalog)?;
    let path = root.join(INDEX);
    let before = read(&path)?;
    let updated = before.as_deref().and_then(|bytes| Index::parse(bytes).ok()?.updated.into());
    // An index is as new as what it names.
    let before = before.filter(|_| !changed);
    let index = same_or_new(before, updated, now, |time| products.index(time, Signed::No));
    changed |= publish(&path, &index)?;
    Ok(changed)
}

/// The document as it is, when only its date would be another.
fn same_or_new(
    before: Option<Vec<u8>>,
    updated: Option<String>,
    now: Timestamp,
    render: impl Fn(Timestamp) -> Vec<u8>,
) -> Vec<u8> {
    let time = updated.and_then(|text| rfc2822::parse(&text).ok()).map(|time| time.timestamp());
    match (before, time) {
        (Some(before), Some(time)) if render(time) == before => before,
        _ => render(now),
    }
}

/// A document and its twin.
fn publish(path: &Path, bytes: &[u8]) -> Result<bool> {
    let mut changed = disk::replace(path, bytes)?;
    let twin = twin(path);
    if unpacked(&twin).ok().flatten().as_deref() != Some(bytes) {
        let mut packer = GzEncoder::new(Vec::new(), flate2::Compression::best());
        let packed = packer.write_all(bytes).and_then(|()| packer.finish());
        changed |= disk::replace(&twin, &packed.map_err(TreeError::io("compress", path))?)?;
    }
    Ok(changed)
}

/// Where the compressed twin of a document is.
pub(super) fn twin(path: &Path) -> PathBuf {
    let mut twin = path.as_os_str().to_owned();
    twin.push(".gz");
    twin.into()
}

/// What a compressed twin holds; `None` where there is none.
pub(super) fn unpacked(twin: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match disk::open(twin) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    MultiGzDecoder::new(file).take(MAX_DOCUMENT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// A document; `None` where there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match disk::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TreeError::io("read", path)(error)),
    }
}
