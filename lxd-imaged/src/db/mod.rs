//! The database: every SQL statement of the daemon, behind one writer.
//!
//! Reading happens once, at start ([`Db::load`]); requests are answered from the catalog.
//! Changes go through [`Db::commit`]: those that arrive together share one transaction, and
//! with it one flush to disk.

mod change;
mod load;

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyConnection, Connection, Executor};
use tokio::sync::{mpsc, oneshot};

pub use change::{AliasChange, Change, NewImage};
pub use load::{BlobRow, Snapshot};

use crate::error::{Error, Result};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Changes that may wait for the writer.
const QUEUE: usize = 1024;
/// Changes that one transaction takes at most.
const BATCH: usize = 256;

/// Receives each batch of changes right after it is on disk, in commit order.
pub trait Committed: Send + Sync + 'static {
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
}

/// Opens the SQLite database at `path`, creating it and its tables if need be.
pub async fn open(path: &Path) -> Result<Opened, OpenError> {
    sqlx::any::install_default_drivers();
    if !path.exists() {
        create(path).await?;
    }
    let connection = connect(path, &DURABLE).await?;
    Ok(Opened { connection })
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

/// Opens a database file and brings it to the current schema.
async fn connect(path: &Path, pragmas: &[&'static str]) -> Result<AnyConnection, OpenError> {
    let unusable = |source: sqlx::Error| OpenError::unusable(path, source);
    let encoded: Vec<String> = path
        .to_string_lossy()
        .split('/')
        .map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string())
        .collect();
    let url = format!("sqlite://{}?mode=rwc", encoded.join("/"));
    let mut connection = AnyConnection::connect(&url).await.map_err(unusable)?;
    for pragma in pragmas {
        connection.execute(*pragma).await.map_err(unusable)?;
    }
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

    /// Applies one change without the writer; for `fsck`.
    pub async fn apply(&mut self, change: &Change) -> Result<()> {
        let mut transaction = self.connection.begin().await?;
        change.apply(&mut transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Starts the writer. It ends when the last [`Db`] is gone; the handle then yields.
    pub fn start(self, observer: Arc<dyn Committed>) -> (Db, tokio::task::JoinHandle<()>) {
        let (queue, changes) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(write(self.connection, changes, observer));
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

async fn write(
    mut connection: AnyConnection,
    mut changes: mpsc::Receiver<Pending>,
    observer: Arc<dyn Committed>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while changes.recv_many(&mut batch, BATCH).await > 0 {
        let (done, replies) = match commit_batch(&mut connection, &mut batch).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(%error, changes = batch.len(), "a transaction failed");
                for pending in batch.drain(..) {
                    let _ = pending.reply.send(Err(broken(&error)));
                }
                continue;
            }
        };
        observer.committed(&done);
        for (reply, result) in replies {
            // Whoever asked may have gone; the change stands all the same.
            let _ = reply.send(result);
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "closing the database failed");
    }
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

    #[tokio::test]
    async fn a_change_that_does_not_fit_fails_alone_in_its_batch() {
        struct Nobody;
        impl Committed for Nobody {
            fn committed(&self, _: &[Change]) {}
        }
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
        let config = open(&path).await.unwrap().load().await.unwrap().config;
        assert_eq!(config.len(), 2, "{config:?}");
    }
}
