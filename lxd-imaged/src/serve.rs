//! Starting and ending the daemon.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::acquire::Pulls;
use crate::acquire::origins::Origins;
use crate::app::App;
use crate::catalog::Catalog;
use crate::certificate::Identities;
use crate::clock::Clock;
use crate::directory::{Directory, Held};
use crate::disks::Disks;
use crate::lxc::Runtime;
use crate::network::Network;
use crate::ops::Operations;
use crate::ops::events::Events;
use crate::ops::log::LogEvents;
use crate::ops::sockets::Sockets;
use crate::service::guesses::Guesses;
use crate::service::instances::{self, Locks};
use crate::service::mirrors::{self, Runs};
use crate::service::signing::{self, StreamsKey};
use crate::service::{settings, verify};
use crate::store::blobs::Blobs;
use crate::store::checks::CheckPool;
use crate::store::partial::Partials;
use crate::store::spool::Spools;
use crate::streams::Streams;
use crate::trees::Trees;
use crate::{db, http, listen, sweep, tasks};

/// How long running operations may take to end when the daemon ends.
const GRACE: Duration = Duration::from_secs(30);
/// How long the database writer may take after that.
const LAST_COMMITS: Duration = Duration::from_secs(2);

/// How the daemon runs.
#[derive(Debug)]
pub struct Options {
    /// State directory.
    pub directory: Directory,
    /// Group of the socket.
    pub group: Option<String>,
    /// Where log lines go besides the log.
    pub log: LogEvents,
}

/// The daemon's parts over an open store, before anyone is listened to.
#[derive(Debug)]
pub struct Started {
    /// The parts.
    pub app: Arc<App>,
    writer: JoinHandle<()>,
    held: Held,
}

/// What the daemon finds outside of itself; tests bring their own.
#[derive(Debug)]
pub struct Outside {
    /// The time.
    pub clock: Clock,
    /// Other servers.
    pub origins: Origins,
}

impl Default for Outside {
    fn default() -> Self {
        Self { clock: Clock::system(), origins: Origins::default() }
    }
}

/// Opens the store in `directory`, which the result holds.
pub async fn start(directory: &Directory, shutdown: CancellationToken) -> anyhow::Result<Started> {
    start_in(directory, shutdown, Outside::default()).await
}

/// The same with another clock and other servers.
pub async fn start_in(
    directory: &Directory,
    shutdown: CancellationToken,
    outside: Outside,
) -> anyhow::Result<Started> {
    let started = start_held(directory, directory.hold()?, shutdown, outside).await?;
    // Nobody tidies here.
    started.app.locks.open();
    Ok(started)
}

async fn start_held(
    directory: &Directory,
    held: Held,
    shutdown: CancellationToken,
    outside: Outside,
) -> anyhow::Result<Started> {
    let identity = {
        let directory = directory.clone();
        tokio::task::spawn_blocking(move || Identities::load_or_create(&directory))
    };
    directory.empty_spool().context("cannot empty the spool directory")?;
    directory.refuse_lost_database()?;
    let mut opened = db::open(&directory.database()).await?;
    // Images and aliases follow while the first requests are answered.
    let catalog = Arc::new(Catalog::new(opened.settings().await?));
    let (db, writer) = opened.start(catalog.clone());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let checks = CheckPool::new(workers).context("cannot start the check workers")?;
    let events = Events::new();
    let spools = Spools::new(directory.spool(), checks.clone());
    let runtime = Runtime::detect(directory.root());
    let app = Arc::new(App {
        streams: Streams::new(catalog.clone(), outside.clock.clone()),
        catalog,
        db,
        blobs: Blobs::open(directory.blobs(), directory.unsettled())?,
        partials: Partials::new(directory.partial(), spools.clone()),
        pulls: Pulls::default(),
        origins: outside.origins,
        secrets: Arc::default(),
        clock: outside.clock,
        spools,
        checks,
        pending_checks: parking_lot::Mutex::default(),
        operations: Operations::new(events.clone()),
        events,
        sockets: Sockets::default(),
        trees: Trees::new(directory.trees()),
        disks: Disks::new(directory.clone(), runtime.clone()),
        runtime,
        locks: Locks::default(),
        restarting: parking_lot::Mutex::default(),
        starts: tokio::sync::RwLock::default(),
        unwatched: CancellationToken::new(),
        mirror_runs: Runs::default(),
        edits: tokio::sync::Mutex::default(),
        identity: Arc::new(identity.await??),
        network: Network::default(),
        streams_key: StreamsKey::default(),
        guesses: Guesses::default(),
        root: directory.root().to_owned(),
        shutdown,
    });
    Ok(Started { app, writer, held })
}

impl Started {
    /// Lets running operations end, then the database, then the directory.
    pub async fn end(self) {
        let Self { app, writer, held } = self;
        // Deep checks start again at the next start.
        for check in app.pending_checks.lock().values() {
            check.abandon();
        }
        app.operations.drain(GRACE).await;
        drop(app);
        // The writer ends when nobody can send it anything any more.
        let _ = tokio::time::timeout(LAST_COMMITS, writer).await;
        drop(held);
    }
}

/// Serves until a signal or a request ends it.
pub async fn serve(options: Options) -> anyhow::Result<()> {
    let Options { directory, group, log } = options;
    let held = directory.hold()?;
    raise_file_limit();
    let shutdown = CancellationToken::new();
    end_on_signals(&shutdown)?;
    // Clients may connect from here on; they are answered in a moment.
    let listener = listen::unix::bind(&directory.socket(), group.as_deref())?;
    let started = start_held(&directory, held, shutdown.clone(), Outside::default()).await?;
    let app = started.app.clone();
    log.attach(app.events.clone());
    let signing = app.clone();
    tokio::task::spawn_blocking(move || signing::apply(&signing));
    // On a worker of the runtime, which then begins each connection by itself.
    let router = http::router(app.clone());
    let serving = tokio::spawn(listen::unix::serve(listener, router.clone(), shutdown.clone()));
    let network = tokio::spawn(listen::tls::serve(app.clone(), router, shutdown.clone()));
    let opening = tokio::spawn({
        let app = app.clone();
        async move { settings::listen(&app).await }
    });
    let renewing =
        tokio::spawn(renew_on_hangup(app.identity.clone(), signal(SignalKind::hangup())?));
    let rendering = tokio::spawn(app.streams.clone().keep_ready());
    let loaded = app.catalog.loaded().await;
    if loaded.is_ok() {
        tracing::info!(directory = %directory.root().display(), images = app.catalog.len(), "ready");
    } else {
        shutdown.cancel();
    }
    let tidy = tokio::spawn(async move {
        if let Err(error) = instances::sweep(&app).await {
            tracing::error!(%error, "cannot look for files that no instance uses");
        }
        instances::recover(&app).await;
        verify::resume(&app).await;
        if let Err(error) = sweep::run_once(&app).await {
            tracing::error!(%error, "cannot look for files that no image uses");
        }
        tasks::mirror::recover(&app).await;
        mirrors::declared::load(&app).await;
        if let Err(error) = mirrors::settle(&app).await {
            tracing::error!(%error, "cannot show what mirrors show now");
        }
        tasks::run(app).await;
    });
    let served = serving.await;
    tracing::info!("ending");
    tidy.abort();
    opening.abort();
    renewing.abort();
    rendering.abort();
    let network = network.await;
    // While the directory is still held: a daemon that takes it over binds a socket of its own.
    let _ = std::fs::remove_file(directory.socket());
    started.end().await;
    loaded.context("cannot read the image database")?;
    network.context("the network listener died")?.context("cannot serve the network")?;
    served.context("the listener died")
}

/// The first signal ends the daemon cleanly (LXD takes SIGPWR for that too), a second one of its
/// kind at once.
fn end_on_signals(shutdown: &CancellationToken) -> anyhow::Result<()> {
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::quit(),
        SignalKind::from_raw(libc::SIGPWR),
    ] {
        let mut signals = signal(kind).context("cannot listen for signals")?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            signals.recv().await;
            shutdown.cancel();
            signals.recv().await;
            // Nothing acknowledged is lost by it.
            tracing::warn!("ending at once");
            std::process::exit(1);
        });
    }
    Ok(())
}

/// An operator who has put another certificate in place says so with SIGHUP.
async fn renew_on_hangup(identities: Arc<Identities>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        let read = identities.clone();
        let outcome = tokio::task::spawn_blocking(move || read.reload()).await;
        match outcome {
            Ok(Ok(())) => {
                let fingerprint = identities.get().fingerprint();
                tracing::info!(%fingerprint, "the server certificate was read again");
            }
            Ok(Err(error)) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the server certificate stays as it was");
            }
            Err(error) => tracing::error!(%error, "reading the server certificate failed"),
        }
    }
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
