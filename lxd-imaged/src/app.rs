//! The daemon's parts, built once and shared.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use lxd_proto::event::Requestor;
use lxd_proto::fingerprint::Fingerprint;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Viewer};
use crate::certificate::Identity;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::ops::Operations;
use crate::ops::events::Events;
use crate::store::blobs::Blobs;
use crate::store::checks::{Check, CheckPool};
use crate::store::spool::Spools;

/// The running daemon.
#[derive(Debug)]
pub struct App {
    /// Images, aliases, configuration.
    pub catalog: Arc<Catalog>,
    /// Where changes are made durable.
    pub db: Db,
    /// Finished files.
    pub blobs: Arc<Blobs>,
    /// Arriving files.
    pub spools: Spools,
    /// Checks of files.
    pub checks: Arc<CheckPool>,
    /// Deep checks that go on after their image was accepted.
    pub pending_checks: Mutex<HashMap<Fingerprint, Arc<Check>>>,
    /// Operations.
    pub operations: Arc<Operations>,
    /// Listeners.
    pub events: Arc<Events>,
    /// Held while an object is read, changed and written back.
    pub edits: tokio::sync::Mutex<()>,
    /// Certificate and names of this server.
    pub identity: Identity,
    /// The state directory, for display.
    pub root: PathBuf,
    /// Cancelled when the daemon is to end.
    pub shutdown: CancellationToken,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What exists for them.
    pub viewer: Viewer,
    /// How events name them.
    pub requestor: Requestor,
}

impl Caller {
    /// Refuses strangers.
    pub fn must_be_trusted(&self) -> Result<()> {
        if self.is_trusted() { Ok(()) } else { Err(Error::Forbidden) }
    }

    /// Whether they may change things.
    pub fn is_trusted(&self) -> bool {
        self.viewer == Viewer::Trusted
    }
}
