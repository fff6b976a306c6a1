//! Operations: work that outlives its request, with progress, cancellation and an end that
//! everyone hears of.

pub mod events;
mod known;
pub mod log;
pub mod sockets;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lxd_proto::operation::{KEPT_SECONDS, Operation, OperationClass};
use lxd_proto::routes;
use lxd_proto::status::OperationStatus;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::error::{Error, Result};
use events::Events;
use known::Known;

/// Tokens that may wait for their use at once. They do not expire.
const MAX_TOKENS: usize = 2_000;

/// No operation has this id (any more).
const OPERATION_NOT_FOUND: Error = Error::NotFound("Operation not found");

/// Result metadata of an operation.
pub type Metadata = Map<String, Value>;

/// What an operation shows from its start.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// What is being done, for people.
    pub description: &'static str,
    /// Paths of what it works on, by kind.
    pub resources: Option<BTreeMap<String, Vec<String>>>,
    /// Whether it can be cancelled.
    pub may_cancel: bool,
    /// What it tells from its start.
    pub metadata: Option<Metadata>,
}

impl About {
    /// Something that is being done about one image.
    pub fn image(description: &'static str, fingerprint: &impl ToString) -> Self {
        let path = routes::IMAGE.url(&[&fingerprint.to_string()]);
        let resources = Some([("images".to_owned(), vec![path])].into());
        Self { description, resources, ..Self::default() }
    }
}

/// Why an operation failed, with what it can say all the same.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: Error,
    /// Metadata of the failed operation.
    pub metadata: Option<Metadata>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let metadata = match &error {
            Error::ImageExists { fingerprint, size } | Error::ImageMade { fingerprint, size } => {
                Some(image_metadata(fingerprint, *size))
            }
            _ => None,
        };
        Self { error, metadata }
    }
}

impl From<crate::lxc::Error> for Failure {
    fn from(error: crate::lxc::Error) -> Self {
        Error::from(error).into()
    }
}

/// What a finished upload or pull reports: the size is a string, as in LXD.
pub fn image_metadata(fingerprint: &impl ToString, size: u64) -> Metadata {
    Metadata::from_iter([
        ("fingerprint".to_owned(), Value::from(fingerprint.to_string())),
        ("size".to_owned(), Value::from(size.to_string())),
    ])
}

struct Entry {
    state: watch::Sender<Operation>,
    cancel: CancellationToken,
}

/// Every operation of the daemon.
pub struct Operations {
    entries: Mutex<Known<Arc<Entry>>>,
    events: Arc<Events>,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Operations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operations")
            .field("known", &self.entries.lock().values().len())
            .finish_non_exhaustive()
    }
}

/// What a running operation works with.
#[derive(Clone)]
pub struct Context {
    operations: Arc<Operations>,
    entry: Arc<Entry>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    /// Resolves when someone asked the operation to stop.
    pub fn cancelled(&self) -> CancellationToken {
        self.entry.cancel.clone()
    }

    /// Its id.
    pub fn id(&self) -> String {
        self.entry.state.borrow().id.clone()
    }

    /// Says whether the operation can be cancelled from now on.
    pub fn may_cancel(&self, may_cancel: bool) {
        self.operations.update(&self.entry, |operation| operation.may_cancel = may_cancel);
    }

    /// Shows progress under `key` with the numbers behind it.
    pub fn transfer(&self, key: &str, text: String, numbers: Value) {
        self.operations.update(&self.entry, |operation| {
            let metadata = operation.metadata.get_or_insert_default();
            metadata.insert(key.to_owned(), text.into());
            metadata.insert("progress".to_owned(), numbers);
        });
    }

    /// Shows progress under `key`, which must end in `_progress`; LXD's client needs a string.
    pub fn progress(&self, key: &str, text: String) {
        self.operations.update(&self.entry, |operation| {
            operation.metadata.get_or_insert_default().insert(key.to_owned(), text.into());
        });
    }
}

impl Operations {
    /// None yet.
    pub fn new(events: Arc<Events>) -> Arc<Self> {
        Arc::new(Self { entries: Mutex::default(), events, tasks: TaskTracker::new() })
    }

    /// Starts `work` and returns the operation as its reply shows it: running.
    pub fn spawn<F, W>(self: &Arc<Self>, about: About, work: W) -> Result<Operation>
    where
        F: Future<Output = Result<Option<Metadata>, Failure>> + Send + 'static,
        W: FnOnce(Context) -> F,
    {
        self.spawn_as(OperationClass::Task, about, work)
    }

    /// The same for work that talks over websockets, which [`sockets::Sockets`] brings.
    pub fn spawn_websocket<F, W>(self: &Arc<Self>, about: About, work: W) -> Result<Operation>
    where
        F: Future<Output = Result<Option<Metadata>, Failure>> + Send + 'static,
        W: FnOnce(Context) -> F,
    {
        self.spawn_as(OperationClass::Websocket, about, work)
    }

    fn spawn_as<F, W>(
        self: &Arc<Self>,
        class: OperationClass,
        about: About,
        work: W,
    ) -> Result<Operation>
    where
        F: Future<Output = Result<Option<Metadata>, Failure>> + Send + 'static,
        W: FnOnce(Context) -> F,
    {
        let (id, entry) = self.begin(about, class)?;
        let running = entry.state.borrow().clone();
        let work = work(Context { operations: self.clone(), entry: entry.clone() });
        let operations = self.clone();
        self.tasks.spawn(async move {
            let outcome = work.await;
            operations.finish(&entry, outcome);
            operations.forget_later(id);
        });
        Ok(running)
    }

    /// Starts an operation that does nothing but stand for a secret until it is cancelled, be it
    /// by its use or by a person.
    pub fn token(self: &Arc<Self>, about: About) -> Result<Operation> {
        let waiting = |entry: &&Arc<Entry>| {
            let operation = entry.state.borrow();
            operation.class == OperationClass::Token && !operation.status.is_final()
        };
        if self.entries.lock().values().filter(waiting).count() >= MAX_TOKENS {
            return Err(Error::TooMany("unused tokens"));
        }
        let about = About { may_cancel: true, ..about };
        let (_, entry) = self.begin(about, OperationClass::Token)?;
        let running = entry.state.borrow().clone();
        Ok(running)
    }

    /// Registers an operation and sets it running.
    fn begin(&self, about: About, class: OperationClass) -> Result<(String, Arc<Entry>)> {
        let now = Timestamp::now();
        let operation = Operation {
            id: Uuid::new_v4().to_string(),
            class,
            description: about.description.to_owned(),
            created_at: now,
            updated_at: now,
            status: OperationStatus::Pending,
            status_code: OperationStatus::Pending.code(),
            resources: about.resources,
            metadata: about.metadata,
            may_cancel: about.may_cancel,
            err: String::new(),
            location: "none".into(),
        };
        let id = operation.id.clone();
        let entry = Arc::new(Entry {
            state: watch::Sender::new(operation.clone()),
            cancel: CancellationToken::new(),
        });
        self.entries.lock().insert(id.clone(), entry.clone())?;
        self.events.operation(&operation);
        self.set_status(&entry, OperationStatus::Running);
        Ok((id, entry))
    }

    /// Forgets a finished operation when nobody needs it any more.
    fn forget_later(self: &Arc<Self>, id: String) {
        self.entries.lock().end(&id);
        let operations = self.clone();
        // Not tracked: waiting for the end of work must not wait for this.
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(KEPT_SECONDS)).await;
            operations.entries.lock().forget(&id);
        });
    }

    fn finish(&self, entry: &Entry, outcome: Result<Option<Metadata>, Failure>) {
        self.update(entry, |operation| {
            let status = match outcome {
                Ok(metadata) => {
                    operation.metadata = metadata;
                    OperationStatus::Success
                }
                Err(Failure { error, metadata }) => {
                    let what = &operation.description;
                    tracing::debug!(operation = %operation.id, what, %error, "an operation failed");
                    operation.metadata = metadata;
                    operation.err = error.to_string();
                    if error.is_cancelled() {
                        OperationStatus::Cancelled
                    } else {
                        OperationStatus::Failure
                    }
                }
            };
            operation.may_cancel = false;
            operation.status = status;
            operation.status_code = status.code();
        });
    }

    fn set_status(&self, entry: &Entry, status: OperationStatus) {
        self.update(entry, |operation| {
            operation.status = status;
            operation.status_code = status.code();
        });
    }

    /// The one place an operation changes: watchers and listeners hear of it in order, because
    /// the event is queued while the value is locked.
    fn update(&self, entry: &Entry, change: impl FnOnce(&mut Operation)) {
        entry.state.send_modify(|operation| {
            if operation.status.is_final() {
                return;
            }
            change(operation);
            operation.updated_at = Timestamp::now();
            self.events.operation(operation);
        });
    }

    fn entry(&self, id: &str) -> Result<Arc<Entry>> {
        self.entries.lock().get(id).cloned().ok_or(OPERATION_NOT_FOUND)
    }

    /// The operation with this id.
    pub fn get(&self, id: &str) -> Result<Operation> {
        Ok(self.entry(id)?.state.borrow().clone())
    }

    /// All operations, oldest first.
    pub fn all(&self) -> Vec<Operation> {
        let mut all: Vec<Operation> =
            self.entries.lock().values().map(|entry| entry.state.borrow().clone()).collect();
        all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        all
    }

    /// Waits until the operation has ended, or `timeout` has passed; returns how it stands.
    pub async fn wait(&self, id: &str, timeout: Option<Duration>) -> Result<Operation> {
        let mut state = self.entry(id)?.state.subscribe();
        let end = state.wait_for(|operation| operation.status.is_final());
        match timeout {
            None => drop(end.await),
            Some(timeout) => drop(tokio::time::timeout(timeout, end).await),
        }
        let operation = state.borrow().clone();
        Ok(operation)
    }

    /// Asks the operation to stop.
    pub fn cancel(self: &Arc<Self>, id: &str) -> Result<()> {
        let entry = self.entry(id)?;
        // Looked at and changed under one lock: a token is used once, by whoever cancels it.
        let mut refused = None;
        entry.state.send_if_modified(|operation| {
            if operation.status != OperationStatus::Running {
                refused = Some("Only running operations can be cancelled");
            } else if !operation.may_cancel {
                refused = Some("This operation can't be cancelled");
            } else {
                operation.status = OperationStatus::Cancelling;
                operation.status_code = operation.status.code();
                operation.updated_at = Timestamp::now();
                self.events.operation(operation);
            }
            refused.is_none()
        });
        if let Some(why) = refused {
            return Err(Error::BadRequest(why.into()));
        }
        entry.cancel.cancel();
        let class = entry.state.borrow().class;
        if class == OperationClass::Token {
            // Nothing runs that could notice.
            self.set_status(&entry, OperationStatus::Cancelled);
            self.forget_later(id.to_owned());
        }
        Ok(())
    }

    /// Waits until all work has ended, at most `grace`; what is left then is cancelled.
    pub async fn drain(&self, grace: Duration) {
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            let entries: Vec<_> = self.entries.lock().values().cloned().collect();
            tracing::warn!(operations = entries.len(), "cancelling what still runs");
            for entry in entries {
                entry.cancel.cancel();
            }
            let _ = tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await;
        }
    }
}

/// The path of an operation.
pub fn path(operation: &Operation) -> String {
    routes::OPERATION.url(&[&operation.id])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_operation_tells_its_end_once_and_in_order() {
        let events = Events::new();
        let mut listener = events.listen(&[lxd_proto::event::EventType::Operation]);
        let operations = Operations::new(events);
        let about = About { description: "Deleting image", ..About::default() };
        let started = operations
            .spawn(about, async |context: Context| {
                context.progress("download_progress", "1%".into());
                Ok(Some(image_metadata(&"ab", 7)))
            })
            .unwrap();
        assert_eq!(started.status, OperationStatus::Running);
        let done = operations.wait(&started.id, None).await.unwrap();
        assert_eq!(done.status, OperationStatus::Success);
        assert_eq!(done.metadata.unwrap()["size"], "7");
        let mut seen = Vec::new();
        while seen.last() != Some(&200) {
            let event: Value = serde_json::from_str(&listener.next().await.unwrap()).unwrap();
            seen.push(event["metadata"]["status_code"].as_u64().unwrap());
        }
        assert_eq!(seen, [105, 103, 103, 200]);
        let refused = operations.cancel(&started.id).unwrap_err();
        assert_eq!(refused.to_string(), "Only running operations can be cancelled");
    }

    #[tokio::test]
    async fn a_cancelled_operation_says_so() {
        let operations = Operations::new(Events::new());
        let about = About { may_cancel: true, ..About::default() };
        let started = operations
            .spawn(about, async |context: Context| {
                context.cancelled().cancelled().await;
                Err(Error::Cancelled.into())
            })
            .unwrap();
        operations.cancel(&started.id).unwrap();
        let done = operations.wait(&started.id, None).await.unwrap();
        assert_eq!(done.status, OperationStatus::Cancelled);
    }
}
