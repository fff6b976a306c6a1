//! The daemon's parts, built once and shared.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use lxd_proto::event::Requestor;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::instance::InstanceName;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::acquire::Pulls;
use crate::acquire::origins::Origins;
use crate::catalog::{Catalog, Viewer};
use crate::certificate::Identities;
use crate::clock::Clock;
use crate::db::Db;
use crate::disks::Disks;
use crate::error::{Error, Result};
use crate::lxc::Runtime;
use crate::network::Network;
use crate::ops::Operations;
use crate::ops::events::Events;
use crate::ops::sockets::Sockets;
use crate::service::guesses::Guesses;
use crate::service::instances::Locks;
use crate::service::mirrors::Runs;
use crate::service::secrets::Secrets;
use crate::service::signing::StreamsKey;
use crate::store::blobs::Blobs;
use crate::store::checks::{Check, CheckPool};
use crate::store::partial::Partials;
use crate::store::spool::Spools;
use crate::streams::Streams;
use crate::trees::Trees;
use crate::trust::Shown;

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
    /// Files that come from other servers, whole or not yet.
    pub partials: Partials,
    /// Downloads from other servers.
    pub pulls: Pulls,
    /// Other servers.
    pub origins: Origins,
    /// One-time secrets.
    pub secrets: Arc<Secrets>,
    /// What scheduled work goes by.
    pub clock: Clock,
    /// The public images as a simplestreams server.
    pub streams: Arc<Streams>,
    /// Checks of files.
    pub checks: Arc<CheckPool>,
    /// Deep checks that go on after their image was accepted.
    pub pending_checks: Mutex<HashMap<Fingerprint, Arc<Check>>>,
    /// Operations.
    pub operations: Arc<Operations>,
    /// Listeners.
    pub events: Arc<Events>,
    /// Websockets that operations wait for.
    pub sockets: Sockets,
    /// Unpacked images.
    pub trees: Trees,
    /// Root file systems of instances.
    pub disks: Disks,
    /// What runs instances.
    pub runtime: Runtime,
    /// Held while an instance is changed.
    pub locks: Locks,
    /// Instances that are ended to be started again.
    pub restarting: Mutex<HashSet<InstanceName>>,
    /// Shared by starts of instances: who ends all of them waits for those that are under way.
    pub starts: tokio::sync::RwLock<()>,
    /// Cancelled when instances are ended because the daemon ends: they are to start again.
    pub unwatched: CancellationToken,
    /// Runs of mirrors.
    pub mirror_runs: Runs,
    /// Held while an object is read, changed and written back.
    pub edits: tokio::sync::Mutex<()>,
    /// Certificate and names of this server.
    pub identity: Arc<Identities>,
    /// Where it listens on the network.
    pub network: Network,
    /// What signs the published catalogs.
    pub streams_key: StreamsKey,
    /// Who has tried to get in, and failed.
    pub guesses: Guesses,
    /// The state directory, for display.
    pub root: PathBuf,
    /// Cancelled when the daemon is to end.
    pub shutdown: CancellationToken,
}

/// What a client on the network has shown.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where it is.
    pub address: SocketAddr,
    /// Its certificate, if it has one.
    pub certificate: Option<Shown>,
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
    /// Refuses whoever may not change things.
    pub fn must_be_trusted(&self) -> Result<()> {
        if self.is_trusted() { Ok(()) } else { Err(Error::Forbidden) }
    }

    /// Refuses strangers; clients that may only read are known.
    pub fn must_be_known(&self) -> Result<()> {
        if self.viewer == Viewer::Stranger { Err(Error::Forbidden) } else { Ok(()) }
    }

    /// Whether they may change things.
    pub fn is_trusted(&self) -> bool {
        self.viewer == Viewer::Trusted
    }
}
