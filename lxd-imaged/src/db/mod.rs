//! The database: every SQL statement of the daemon, behind one writer.
//!
//! Reading happens once, after the start, before the first change; requests are answered from the
//! catalog.
//! Changes go through [`Db::commit`]: those that arrive together share one transaction, and
//! with it one flush to disk.

mod change;
mod instance;
mod load;
mod mirror;
mod origin;
mod trust;
mod withdrawn;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyConnection, Connection, Executor};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use change::{AliasChange, Change, NewImage};
pub use instance::{Definition, Disk, InstanceChange, InstanceRecord, SnapshotRecord};
pub use load::{BlobRow, Settings, Snapshot};
pub use mirror::{Member, Membership, MirrorChange, MirrorRecord};
pub use origin::{Origin, Replacement};
pub use trust::TrustChange;
pub use withdrawn::{Withdrawal, WithdrawnFile};

use crate::error::{Error, Result};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Changes that may wait for the writer.
const QUEUE: usize = 1024;
/// Changes that one transaction takes at most.
const BATCH: usize = 256;

/// Knows what the database holds: everything once, then each batch of changes right after it is
/// on disk, in commit order.
pub trait Observer: Send + Sync + 'static {
    /// Called before any change, and again when it is not certain what a failed transaction has
    /// left behind. After an error there are no changes.
    fn loaded(&self, snapshot: Result<Snapshot>);
    /// Called with every change of a batch that took effect.
    fn committed(&self, changes: &[Change]);
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A later version of the daemon has written it.
    #[error(
        "the database {path} was written by a newer lxd-imaged (schema {found}, this one knows {known}); upgrade lxd-imaged"
    )]
    Newer {
        /// Its file.
        path: String,
        /// Its schema version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// It cannot be opened or brought to the current schema.
    #[error("cannot open the database {path}: {source}")]
    Unusable {
        /// Its file.
        path: String,
        /// Why.
        source: sqlx::Error,
    },
}

/// An error of the database engine.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Failure(sqlx::Error);

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(Failure(error))
    }
}

/// The writer's end of the database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    queue: mpsc::Sender<Pending>,
}

#[derive(Debug)]
struct Pending {
    change: Change,
    reply: oneshot::Sender<Result<()>>,
}

/// An open database whose writer does not run yet.
#[derive(Debug)]
pub struct Opened {
    connection: AnyConnection,
    path: PathBuf,
}

/// Opens the SQLite database at `path`, creating it and its tables if need be.
pub async fn open(path: &Path) -> Result<Opened, OpenError> {
    sqlx::any::install_default_drivers();
    if !path.exists() {
        create(path).await?;
    }
    let connection = connect(path, &DURABLE).await?;
    Ok(Opened { connection, path: path.to_owned() })
}

/// How SQLite works here: a write-ahead log, flushed at each commit.
const DURABLE: [&str; 4] = [
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA busy_timeout = 5000",
];

/// While nobody depends on the file yet.
const HASTY: [&str; 2] = ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = OFF"];

/// Makes a new database aside, without a flush for every step, and puts it in place whole.
async fn create(path: &Path) -> Result<(), OpenError> {
    let unusable = |source: sqlx::Error| OpenError::unusable(path, source);
    let partial = path.with_extension("new");
    // Only the file: SQLite drops a log that lies beside an empty database.
    if let Err(error) = fs::remove_file(&partial)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(unusable(error.into()));
    }
    let connection = connect(&partial, &HASTY).await?;
    connection.close().await.map_err(unusable)?;
    let put_in_place = || {
        File::open(&partial)?.sync_all()?;
        fs::rename(&partial, path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    put_in_place().map_err(|error: io::Error| unusable(error.into()))
}

/// Opens a database file.
async fn attach(path: &Path, pragmas: &[&'static str]) -> Result<AnyConnection, sqlx::Error> {
    let encoded: Vec<String> = path
        .to_string_lossy()
        .split('/')
        .map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string())
        .collect();
    let url = format!("sqlite://{}?mode=rwc", encoded.join("/"));
    let mut connection = AnyConnection::connect(&url).await?;
    for pragma in pragmas {
        connection.execute(*pragma).await?;
    }
    Ok(connection)
}

/// Opens a database file and brings it to the current schema.
async fn connect(path: &Path, pragmas: &[&'static str]) -> Result<AnyConnection, OpenError> {
    let unusable = |source: sqlx::Error| OpenError::unusable(path, source);
    let mut connection = attach(path, pragmas).await.map_err(unusable)?;
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    match MIGRATIONS.run(&mut connection).await {
        Ok(()) => Ok(connection),
        Err(MigrateError::VersionMissing(found)) => {
            Err(OpenError::Newer { path: path.display().to_string(), found, known })
        }
        Err(MigrateError::Execute(source)) => Err(unusable(source)),
        Err(other) => Err(unusable(sqlx::Error::Migrate(Box::new(other)))),
    }
}

impl OpenError {
    fn unusable(path: &Path, source: sqlx::Error) -> Self {
        Self::Unusable { path: path.display().to_string(), source }
    }
}

impl Opened {
    /// Reads everything.
    pub async fn load(&mut self) -> Result<Snapshot> {
        Ok(load::snapshot(&mut self.connection).await?)
    }

    /// Reads what is configured and who is trusted, alone.
    pub async fn settings(&mut self) -> Result<Settings> {
        Ok(load::settings(&mut self.connection).await?)
    }

    /// Applies one change without the writer; for `fsck`.
    pub async fn apply(&mut self, change: &Change) -> Result<()> {
        let mut transaction = self.connection.begin().await?;
        change.apply(&mut transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Starts the writer, which first tells `observer` everything. It ends when the last [`Db`]
    /// is gone, or at once when the database cannot be read; changes then fail.
    pub fn start(self, observer: Arc<dyn Observer>) -> (Db, JoinHandle<()>) {
        let (queue, changes) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(async move {
            let mut opened = self;
            let snapshot = opened.load().await;
            let readable = snapshot.is_ok();
            observer.loaded(snapshot);
            if readable {
                Writer { path: opened.path, connection: Some(opened.connection), observer }
                    .run(changes)
                    .await;
            }
        });
        (Db { queue }, writer)
    }
}

impl Db {
    /// Makes `change` durable; when this returns, it is on disk and in the catalog.
    pub async fn commit(&self, change: Change) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Pending { change, reply }).await.map_err(|_| Error::ShuttingDown)?;
        answer.await.map_err(|_| Error::ShuttingDown)?
    }
}

struct Writer {
    path: PathBuf,
    /// `None` after a failed transaction: what the engine and its driver think of it may differ,
    /// and then later commits would be none.
    connection: Option<AnyConnection>,
    observer: Arc<dyn Observer>,
}

impl Writer {
    async fn run(mut self, mut changes: mpsc::Receiver<Pending>) {
        let mut batch = Vec::with_capacity(BATCH);
        while changes.recv_many(&mut batch, BATCH).await > 0 {
            if self.connection.is_none() {
                self.start_over().await;
            }
            match self.commit(&mut batch).await {
                Ok((done, replies)) => {
                    self.observer.committed(&done);
                    for (reply, result) in replies {
                        // Whoever asked may have gone; the change stands all the same.
                        let _ = reply.send(result);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, changes = batch.len(), "a transaction failed");
                    self.start_over().await;
                    for pending in batch.drain(..) {
                        let _ = pending.reply.send(Err(broken(&error)));
                    }
                }
            }
        }
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "closing the database failed");
        }
    }

    async fn commit(
        &mut self,
        batch: &mut Vec<Pending>,
    ) -> Result<(Vec<Change>, Replies), sqlx::Error> {
        match &mut self.connection {
            Some(connection) => commit_batch(connection, batch).await,
            None => Err(sqlx::Error::PoolClosed),
        }
    }

    /// A new connection, and what the database really holds.
    async fn start_over(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = connection.close_hard().await;
        }
        match reopen(self.path.clone()).await {
            Ok((connection, snapshot)) => {
                self.observer.loaded(Ok(snapshot));
                self.connection = Some(connection);
            }
            Err(error) => tracing::error!(%error, "cannot open the database again"),
        }
    }
}

async fn reopen(path: PathBuf) -> Result<(AnyConnection, Snapshot), sqlx::Error> {
    let mut connection = attach(&path, &DURABLE).await?;
    let snapshot = load::snapshot(&mut connection).await?;
    Ok((connection, snapshot))
}

type Replies = Vec<(oneshot::Sender<Result<()>>, Result<()>)>;

/// One transaction for the whole batch. A change that does not fit (a name taken, a thing
/// gone) fails alone; an error of the database fails all.
async fn commit_batch(
    connection: &mut AnyConnection,
    batch: &mut Vec<Pending>,
) -> Result<(Vec<Change>, Replies), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let mut results = Vec::with_capacity(batch.len());
    for pending in batch.iter() {
        match pending.change.apply(&mut transaction).await {
            Err(Error::Db(Failure(error))) => return Err(error),
            result => results.push(result),
        }
    }
    transaction.commit().await?;
    let mut done = Vec::with_capacity(batch.len());
    let mut replies = Vec::with_capacity(batch.len());
    for (pending, result) in batch.drain(..).zip(results) {
        if result.is_ok() {
            done.push(pending.change);
        }
        replies.push((pending.reply, result));
    }
    Ok((done, replies))
}

/// The error of a whole batch, for each of its members.
fn broken(error: &sqlx::Error) -> Error {
    let text = error.to_string();
    let full =
        error.as_database_error().is_some_and(|database| database.message().contains("full"));
    if full {
        Error::NoSpace("the database cannot grow".into())
    } else {
        Error::Internal(format!("the image database failed: {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Observer for Nobody {
        fn loaded(&self, _: Result<Snapshot>) {}
        fn committed(&self, _: &[Change]) {}
    }

    #[tokio::test]
    async fn what_is_acknowledged_after_a_full_disk_is_on_the_disk() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("images.db");
        let mut opened = open(&path).await.unwrap();
        opened.connection.execute("PRAGMA max_page_count = 1").await.unwrap();
        let (db, writer) = opened.start(Arc::new(Nobody));
        let set =
            |name: &str, size| Change::Config([(name.to_owned(), Some("x".repeat(size)))].into());
        let error = db.commit(set("user.large", 1 << 20)).await.unwrap_err();
        assert!(matches!(error, Error::NoSpace(_)), "{error}");
        let _ = db.commit(set("user.large", 1 << 20)).await;
        db.commit(set("user.small", 1)).await.unwrap();
        drop(db);
        writer.await.unwrap();
        let config = open(&path).await.unwrap().settings().await.unwrap().config;
        assert!(config.contains_key("user.small"), "it was acknowledged and is gone");
    }

    #[tokio::test]
    async fn a_change_that_does_not_fit_fails_alone_in_its_batch() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("images.db");
        let (db, writer) = open(&path).await.unwrap().start(Arc::new(Nobody));
        let set = |name: &str| Change::Config([(name.to_owned(), Some("1".to_owned()))].into());
        let gone = AliasChange::Delete { name: "nothing".parse().unwrap() };
        let (first, failed, second) = tokio::join!(
            db.commit(set("user.a")),
            db.commit(Change::Alias(gone)),
            db.commit(set("user.b")),
        );
        first.unwrap();
        second.unwrap();
        assert_eq!(failed.unwrap_err().to_string(), "Image alias not found");
        drop(db);
        writer.await.unwrap();
        let config = open(&path).await.unwrap().settings().await.unwrap().config;
        assert_eq!(config.len(), 2, "{config:?}");
    }
}
