//! The key that signs what this server publishes as a simplestreams tree: a file of the server's,
//! named by `images.streams_key`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lxd_proto::config;
use lxd_simplestreams::signed::{KeyError, MAX_KEYS, Signer};
use parking_lot::Mutex;

use crate::app::App;
use crate::error::Error;
use crate::streams;

/// Permissions that a file with a secret key must not have: others may neither read nor write it.
const TOO_OPEN: u32 = 0o027;

/// Why the key cannot be used. The text follows the path of its file.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Read(Arc<io::Error>),
    /// It is a directory, a device, or the like.
    #[error("it is no regular file")]
    Kind,
    /// Whoever can read it could sign in the name of this server.
    #[error("others can read or change it (mode {0:04o}); chmod 600")]
    Open(u32),
    /// There is no key in it that can sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The key as it was read last.
#[derive(Debug, Default)]
pub struct StreamsKey {
    read: Mutex<Option<Loaded>>,
    /// What signs the published catalogs.
    applied: Mutex<Option<Arc<Signer>>>,
}

#[derive(Debug)]
struct Loaded {
    path: PathBuf,
    stamp: Option<Stamp>,
    signer: Result<Arc<Signer>, KeyFileError>,
}

/// Tells one content of a file from another: where it lies, its size, and its last changes.
type Stamp = (u64, u64, i64, i64, i64, i64);

/// What signs the published catalogs now: the key that is configured, read again when its file
/// has changed; `None` when none is configured. Reads files.
///
/// # Errors
/// When a key is configured and cannot be used. Then nothing may be published as signed.
fn signer(app: &App) -> Result<Option<Arc<Signer>>, KeyFileError> {
    let Some(path) = app.catalog.config().remove(config::STREAMS_KEY) else {
        *app.streams_key.read.lock() = None;
        return Ok(None);
    };
    let path = PathBuf::from(path);
    let stamp = stamp(&path);
    let mut loaded = app.streams_key.read.lock();
    if let Some(loaded) = loaded.as_ref()
        && loaded.path == path
        && loaded.stamp == stamp
        && stamp.is_some()
    {
        return loaded.signer.clone().map(Some);
    }
    let signer = read(&path).map(Arc::new);
    match &signer {
        Ok(signer) => tracing::info!(key = signer.fingerprint(), "published catalogs are signed"),
        Err(error) => tracing::error!(
            path = %path.display(), %error,
            "the key in images.streams_key cannot be used; catalogs are not signed"
        ),
    }
    *loaded = Some(Loaded { path, stamp, signer: signer.clone() });
    signer.map(Some)
}

/// Lets the published catalogs be signed by what is configured now, or by nothing. Reads files.
pub fn apply(app: &App) {
    // What cannot be used has been told in the log.
    let signer = signer(app).ok().flatten();
    let mut applied = app.streams_key.applied.lock();
    // A key that could sign when it was read may have expired since.
    let signer = signer.filter(|signer| match signer.sign(b"") {
        Ok(_) => true,
        Err(error) => {
            if applied.is_some() {
                tracing::error!(%error, "catalogs are not signed any more");
            }
            false
        }
    });
    let same = match (&*applied, &signer) {
        (None, None) => true,
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        _ => false,
    };
    if same {
        return;
    }
    app.streams.set_signer(signer.clone().map(|signer| -> streams::Signer {
        Arc::new(move |document: &[u8]| {
            signer.sign_json(document).map_err(|error| {
                tracing::debug!(%error, "cannot sign a catalog");
                Error::CannotSign
            })
        })
    }));
    *applied = signer;
}

/// Reads a key. Blocks.
///
/// # Errors
/// When it could not sign, or others could with it.
pub fn read(path: &Path) -> Result<Signer, KeyFileError> {
    let failed = |error: io::Error| KeyFileError::Read(Arc::new(error));
    // Opening a pipe would wait for its other end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(KeyFileError::Kind);
    }
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(KeyFileError::Kind);
    }
    if about.mode() & TOO_OPEN != 0 {
        return Err(KeyFileError::Open(about.mode() & 0o7777));
    }
    let mut bytes = Vec::new();
    file.take(MAX_KEYS as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Signer::from_bytes(&bytes)?)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let about = fs::metadata(path).ok()?;
    let (changed, modified) = (about.ctime(), about.mtime());
    Some((about.ino(), about.size(), changed, about.ctime_nsec(), modified, about.mtime_nsec()))
}
