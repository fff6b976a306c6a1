//! Images from other servers, in process: a server made in code counts what it is asked.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod copies;
mod launches;
mod mirrors;
mod origin;
mod versions;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lxd_imaged::acquire::origins::Origins;
use lxd_imaged::acquire::{self, Follow, Source, Transferred, Wish, follow};
use lxd_imaged::app::{App, Caller};
use lxd_imaged::catalog::{Entry, Viewer};
use lxd_imaged::clock::Clock;
use lxd_imaged::db::Change;
use lxd_imaged::directory::Directory;
use lxd_imaged::error::Error;
use lxd_imaged::serve::{Outside, Started, start_in};
use lxd_imaged::service::{aliases, images, lineage, secrets};
use lxd_imaged::tasks::{expiry, update};
use lxd_proto::alias::AliasesPost;
use lxd_proto::event::Requestor;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::image::ImagePatch;
use lxd_proto::remote::RemoteSpec;
use origin::{Fake, Made, split, unified};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// A daemon whose clock and servers are the test's.
struct Daemon {
    started: Started,
    temp: tempfile::TempDir,
    /// Hours since the start of the test.
    hours: Arc<AtomicI64>,
    servers: Vec<Arc<Fake>>,
}

impl Daemon {
    async fn new(servers: &[&Arc<Fake>]) -> Self {
        let servers = servers.iter().map(|server| (*server).clone()).collect();
        Self::at(tempfile::tempdir().unwrap(), Arc::default(), servers).await
    }

    async fn at(temp: tempfile::TempDir, hours: Arc<AtomicI64>, servers: Vec<Arc<Fake>>) -> Self {
        let (begin, passed) = (Timestamp::now(), hours.clone());
        let clock =
            Clock::of(move || begin + SignedDuration::from_hours(passed.load(Ordering::Relaxed)));
        let known = servers.clone();
        let origins = Origins::new(Arc::new(move |spec, _| {
            let server = known.iter().find(|server| server.address() == spec.address);
            Ok(server.unwrap().connected(&spec))
        }));
        let directory = Directory::new(temp.path());
        let outside = Outside { clock, origins };
        let started = start_in(&directory, CancellationToken::new(), outside).await.unwrap();
        started.app.catalog.loaded().await.unwrap();
        Self { started, temp, hours, servers }
    }

    async fn restarted(self) -> Self {
        self.started.end().await;
        Self::at(self.temp, self.hours, self.servers).await
    }

    fn app(&self) -> &Arc<App> {
        &self.started.app
    }

    fn pass(&self, hours: i64) {
        self.hours.fetch_add(hours, Ordering::Relaxed);
    }

    async fn copy(&self, server: &Fake, reference: &str, wish: Wish) -> Result<Arc<Entry>, Error> {
        let source = source(server, reference);
        let copied = acquire::copy(self.app(), &source, &wish, &silent()).await;
        copied.map(|(entry, _)| entry)
    }

    async fn ensure(&self, server: &Fake, reference: &str) -> Result<Arc<Entry>, Error> {
        acquire::ensure(self.app(), &source(server, reference), &silent()).await
    }

    fn get(&self, fingerprint: &Fingerprint) -> Option<Arc<Entry>> {
        self.app().catalog.get(fingerprint)
    }

    async fn alias(&self, name: &str, target: &Fingerprint) {
        let post = AliasesPost {
            name: name.into(),
            target: target.to_string(),
            description: String::new(),
            ..AliasesPost::default()
        };
        aliases::create(self.app(), &root(), post).await.unwrap();
    }

    fn target(&self, alias: &str) -> Fingerprint {
        self.app().catalog.alias(Viewer::Trusted, alias).unwrap().target
    }

    async fn configure(&self, key: &str, value: &str) {
        let values = [(key.to_owned(), Some(value.to_owned()))].into();
        self.app().db.commit(Change::Config(values)).await.unwrap();
    }

    /// Names of files in a directory of the store.
    fn files(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.temp.path().join(directory)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn source(server: &Fake, reference: &str) -> Source {
    let remote = RemoteSpec { address: server.address(), ..RemoteSpec::default() };
    let reference = reference.into();
    Source { remote, reference, secret: None, kind: None, architecture: None, fresh: false }
}

fn silent() -> Follow {
    Follow::silently(CancellationToken::new())
}

fn root() -> Caller {
    let requestor =
        Requestor { username: "root".into(), protocol: "unix".into(), address: "@".into() };
    Caller { viewer: Viewer::Trusted, requestor }
}

fn following() -> Wish {
    Wish { auto_update: true, ..Wish::default() }
}

fn prefix(image: &Made) -> Prefix {
    image.fingerprint().into()
}

/// Names in a test are right.
trait TryIntoName {
    fn try_into_name(self) -> lxd_proto::alias::AliasName;
}

impl TryIntoName for &str {
    fn try_into_name(self) -> lxd_proto::alias::AliasName {
        self.to_owned().try_into().unwrap()
    }
}
