//! Starting and ending the daemon.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::catalog::Catalog;
use crate::certificate::Identity;
use crate::directory::Directory;
use crate::ops::Operations;
use crate::ops::events::Events;
use crate::service::verify;
use crate::store::blobs::Blobs;
use crate::store::checks::CheckPool;
use crate::store::spool::Spools;
use crate::{db, http, listen, sweep};

/// How long running operations may take to end when the daemon ends.
const GRACE: Duration = Duration::from_secs(30);

/// How the daemon runs.
#[derive(Debug)]
pub struct Options {
    /// State directory.
    pub directory: Directory,
    /// Group of the socket.
    pub group: Option<String>,
}

/// Serves until a signal or a request ends it.
pub async fn serve(options: Options) -> anyhow::Result<()> {
    let Options { directory, group } = options;
    let held = directory.hold()?;
    raise_file_limit();
    let shutdown = CancellationToken::new();
    end_on_signals(&shutdown)?;
    let identity = {
        let directory = directory.clone();
        tokio::task::spawn_blocking(move || Identity::load_or_create(&directory))
    };
    directory.empty_spool().context("cannot empty the spool directory")?;
    // Clients may connect from here on; they are answered when the store is loaded.
    let listener = listen::unix::bind(&directory.socket(), group.as_deref())?;
    let mut opened = db::open(&directory.database()).await?;
    let catalog = Arc::new(Catalog::default());
    catalog.fill(opened.load().await?);
    let (db, writer) = opened.start(catalog.clone());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let checks = CheckPool::new(workers).context("cannot start the check workers")?;
    let events = Events::new();
    let app = Arc::new(App {
        catalog,
        db,
        blobs: Blobs::open(directory.blobs())?,
        spools: Spools::new(directory.spool(), checks.clone()),
        checks,
        pending_checks: parking_lot::Mutex::default(),
        operations: Operations::new(events.clone()),
        events,
        edits: tokio::sync::Mutex::default(),
        identity: identity.await??,
        root: directory.root().to_owned(),
        shutdown: shutdown.clone(),
    });
    tracing::info!(directory = %directory.root().display(), images = app.catalog.len(), "ready");
    let tidy = tokio::spawn({
        let app = app.clone();
        async move {
            verify::resume(&app).await;
            sweep::run_once(&app).await
        }
    });
    listen::unix::serve(listener, http::router(app.clone()), shutdown).await;
    tracing::info!("ending");
    tidy.abort();
    // Deep checks start again at the next start.
    for check in app.pending_checks.lock().values() {
        check.abandon();
    }
    app.operations.drain(GRACE).await;
    let root = directory.socket();
    drop(app);
    // The writer ends when nobody can send it anything; background checks may still hold on.
    let _ = tokio::time::timeout(Duration::from_secs(2), writer).await;
    let _ = std::fs::remove_file(root);
    drop(held);
    Ok(())
}

/// The first signal ends the daemon cleanly; LXD takes SIGPWR for that too.
fn end_on_signals(shutdown: &CancellationToken) -> anyhow::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::from_raw(libc::SIGPWR)] {
        let mut signals = signal(kind).context("cannot listen for signals")?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            signals.recv().await;
            shutdown.cancel();
        });
    }
    Ok(())
}

/// Every connection and every transfer needs file descriptors: takes as many as are allowed.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}
