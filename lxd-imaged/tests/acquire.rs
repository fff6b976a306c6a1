//! Images from other servers, in process: a server made in code counts what it is asked.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod origin;

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

#[tokio::test]
async fn a_copy_is_the_origins_image_and_a_second_one_fetches_nothing() {
    let image = split("a");
    let server = Fake::with(&[("debian/12", &image)]);
    let daemon = Daemon::new(&[&server]).await;
    let wish = Wish {
        public: true,
        aliases: vec![("mine".try_into_name(), "described".into())],
        ..Wish::default()
    };
    let entry = daemon.copy(&server, "debian/12", wish.clone()).await.unwrap();
    let copied = &entry.image;
    assert_eq!(copied.fingerprint, image.fingerprint());
    assert_eq!(copied.size, image.size());
    assert_eq!(copied.properties["os"], "debian");
    assert!(copied.public && !copied.cached && !copied.auto_update);
    assert_eq!(copied.update_source.as_ref().unwrap().alias, "debian/12");
    assert_eq!(copied.aliases[0].description, "described");
    assert_eq!(daemon.target("mine"), image.fingerprint());
    assert_eq!(daemon.files("blobs").len(), 2);
    assert!(daemon.files("partial").is_empty());

    daemon.copy(&server, "debian/12", wish).await.unwrap();
    assert_eq!(server.downloads(), 1);
    let daemon = daemon.restarted().await;
    let after = daemon.get(&image.fingerprint()).unwrap();
    assert_eq!((&after.image, &after.origin), (&entry.image, &entry.origin));
}

#[tokio::test]
async fn what_has_to_be_signed_has_to_stay_so() {
    let (first, second) = (split("a"), split("b"));
    let server = Fake::with(&[("debian/12", &first)]);
    let daemon = Daemon::new(&[&server]).await;
    let signed = |keyring: &str| {
        let mut source = source(&server, "debian/12");
        source.remote.keyring = Some(keyring.to_owned());
        source
    };
    let keyring = |entry: &Arc<Entry>| entry.origin.as_ref().unwrap().keyring.clone();
    let copy = async |source: Source| {
        acquire::copy(daemon.app(), &source, &following(), &silent()).await.unwrap().0
    };
    assert_eq!(keyring(&copy(source(&server, "debian/12")).await), "");
    assert_eq!(keyring(&copy(signed("KEYS")).await), "KEYS");
    // A copy from a remote that asks for no signature takes nothing back.
    assert_eq!(keyring(&copy(source(&server, "debian/12")).await), "KEYS");
    // An instance by these keys is made from it without a question, one by other keys is not.
    let ensure = async |source: Source| {
        let before = server.questions();
        acquire::ensure(daemon.app(), &source, &silent()).await.unwrap();
        server.questions() - before
    };
    assert_eq!(ensure(signed("KEYS")).await, 0);
    assert_eq!(ensure(source(&server, "debian/12")).await, 0);
    assert_ne!(ensure(signed("OTHERS")).await, 0);

    let daemon = daemon.restarted().await;
    server.add("debian/12", &second);
    daemon.pass(7);
    assert_eq!(update::run_once(daemon.app()).await.updated, 1);
    let entry = daemon.get(&second.fingerprint()).unwrap();
    assert_eq!(keyring(&entry), "KEYS");
    assert_eq!(server.keyrings().last().unwrap().as_deref(), Some("KEYS"));
    let back = lineage::rollback(daemon.app(), &root(), &prefix(&second)).await.unwrap();
    assert_eq!(keyring(&back), "KEYS");
}

#[tokio::test]
async fn fifty_at_once_are_one_download_and_all_see_its_progress() {
    let image = unified(&"x".repeat(3 << 20));
    let server = Fake::with(&[("big", &image)]);
    let gate = server.stop_after(1 << 20);
    let daemon = Daemon::new(&[&server]).await;
    let told = Arc::new(Mutex::new(vec![0u64; 50]));
    let mut copies = Vec::new();
    for index in 0..50 {
        let (app, source) = (daemon.app().clone(), source(&server, "big"));
        let told = told.clone();
        let tell = Arc::new(move |now: Transferred| told.lock()[index] = now.done);
        let follow = Follow { cancel: CancellationToken::new(), tell };
        copies.push(tokio::spawn(async move {
            acquire::copy(&app, &source, &Wish::default(), &follow).await
        }));
    }
    while told.lock().contains(&0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gate.notify_one();
    let mut new = 0;
    for copy in copies {
        new += usize::from(copy.await.unwrap().unwrap().1);
    }
    assert_eq!((server.downloads(), new), (1, 1));
}

#[tokio::test]
async fn a_cut_pull_goes_on_where_it_was_even_after_a_restart() {
    for image in [unified(&"u".repeat(1 << 20)), split(&"s".repeat(1 << 20))] {
        let server = Fake::with(&[("a", &image)]);
        let mut daemon = Daemon::new(&[&server]).await;
        for cut in [300_000, 300_000] {
            server.cut_after(cut);
            let error = daemon.copy(&server, "a", Wish::default()).await.unwrap_err();
            assert!(error.to_string().contains("broke"), "{error}");
            assert!(daemon.files("blobs").is_empty());
            daemon = daemon.restarted().await;
        }
        daemon.copy(&server, "a", Wish::default()).await.unwrap();
        assert_eq!(server.bytes_sent(), image.size(), "every byte was sent once");
        assert!(daemon.files("partial").is_empty());
    }
}

#[tokio::test]
async fn a_partial_file_that_a_crash_has_broken_is_fetched_again() {
    let image = unified(&"u".repeat(1 << 20));
    let server = Fake::with(&[("a", &image)]);
    let daemon = Daemon::new(&[&server]).await;
    server.cut_after(600_000);
    daemon.copy(&server, "a", Wish::default()).await.unwrap_err();
    let name = daemon.files("partial").remove(0);
    let path = daemon.temp.path().join("partial").join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[500_000..].fill(0);
    std::fs::write(&path, bytes).unwrap();
    daemon.copy(&server, "a", Wish::default()).await.unwrap();
    assert_eq!(server.downloads(), 3);
    assert!(daemon.get(&image.fingerprint()).is_some());
}

#[tokio::test]
async fn what_is_not_the_image_is_refused_and_leaves_nothing() {
    let (image, other) = (unified("a"), unified("b"));
    type Lie<'a> = Box<dyn Fn(&Fake) + 'a>;
    let liars: [(&str, Lie<'_>); 5] = [
        ("other bytes", Box::new(|server| server.send_instead(&unified("b")))),
        ("less than announced", Box::new(|server| server.announce(image.size() + 1))),
        ("more than announced", Box::new(|server| server.announce(image.size() - 1))),
        ("split for unified", Box::new(|server| server.send_instead(&split("a")))),
        ("another image's object", Box::new(|server| server.describe_instead(&other))),
    ];
    for (lie, tell) in liars {
        let server = Fake::with(&[("a", &image)]);
        tell(&server);
        let daemon = Daemon::new(&[&server]).await;
        let result = daemon.copy(&server, "a", Wish::default()).await;
        assert!(result.is_err(), "{lie}: {result:?}");
        assert!(daemon.app().catalog.is_empty(), "{lie}");
        for directory in ["blobs", "partial", "spool"] {
            assert!(daemon.files(directory).is_empty(), "{lie}: {directory}");
        }
    }
}

#[tokio::test]
async fn an_image_that_is_no_image_is_refused() {
    let image = Made::of_bytes(b"neither tar nor squashfs".to_vec());
    let server = Fake::with(&[("a", &image)]);
    let daemon = Daemon::new(&[&server]).await;
    let error = daemon.copy(&server, "a", Wish::default()).await.unwrap_err();
    assert!(error.to_string().contains("https://images.example"), "it names who sent it: {error}");
    assert!(daemon.files("partial").is_empty() && daemon.files("blobs").is_empty());
}

#[tokio::test]
async fn a_size_over_the_limit_is_refused_before_a_byte_is_asked_for() {
    let image = unified("a");
    let server = Fake::with(&[("a", &image)]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.configure("images.max_size", "100").await;
    let error = daemon.copy(&server, "a", Wish::default()).await.unwrap_err();
    assert!(error.to_string().contains("images.max_size"), "{error}");
    assert_eq!(server.downloads(), 0);
}

#[tokio::test]
async fn only_the_last_callers_cancel_ends_a_download_and_the_next_one_goes_on() {
    let image = unified(&"x".repeat(2 << 20));
    let server = Fake::with(&[("a", &image)]);
    let _never = server.stop_after(1 << 20);
    let daemon = Daemon::new(&[&server]).await;
    let begin = |cancel: CancellationToken| {
        let (app, source) = (daemon.app().clone(), source(&server, "a"));
        let told = Arc::new(tokio::sync::Notify::new());
        let tell = told.clone();
        let follow = Follow { cancel, tell: Arc::new(move |_| tell.notify_one()) };
        let copy = async move { acquire::copy(&app, &source, &Wish::default(), &follow).await };
        (tokio::spawn(copy), told)
    };
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let (first_copy, first_told) = begin(first.clone());
    let (second_copy, second_told) = begin(second.clone());
    first_told.notified().await;
    second_told.notified().await;
    first.cancel();
    assert!(matches!(first_copy.await.unwrap(), Err(Error::Cancelled)));
    assert!(daemon.app().pulls.is_running(&image.fingerprint()));
    second.cancel();
    assert!(matches!(second_copy.await.unwrap(), Err(Error::Cancelled)));
    server.go_on();
    daemon.copy(&server, "a", Wish::default()).await.unwrap();
    assert!(server.bytes_sent() <= image.size() + (1 << 20), "{}", server.bytes_sent());
    assert!(!daemon.app().pulls.is_running(&image.fingerprint()));
}

#[tokio::test]
async fn who_joins_another_origins_download_shares_neither_its_failure_nor_its_description() {
    let image = unified(&"x".repeat(2 << 20));
    let bad = Fake::at("https://bad.example", &[("a", &image)]);
    let good = Fake::at("https://good.example", &[("a", &image)]);
    bad.property("note", "from the bad one");
    good.property("note", "from the good one");
    let gate = bad.stop_after(1 << 20);
    bad.cut_after(1_500_000);
    let daemon = Daemon::new(&[&bad, &good]).await;
    let begin = |server: &Fake| {
        let (app, source) = (daemon.app().clone(), source(server, "a"));
        let told = Arc::new(tokio::sync::Notify::new());
        let tell = told.clone();
        let cancel = CancellationToken::new();
        let follow = Follow { cancel, tell: Arc::new(move |_| tell.notify_one()) };
        let copy = async move { acquire::copy(&app, &source, &following(), &follow).await };
        (tokio::spawn(copy), told)
    };
    let (first, told) = begin(&bad);
    told.notified().await;
    let (second, told) = begin(&good);
    told.notified().await;
    assert_eq!(good.downloads(), 0, "one download serves both");
    gate.notify_one();
    assert!(first.await.unwrap().unwrap_err().to_string().contains("bad.example"));
    let (entry, _) = second.await.unwrap().unwrap();
    assert_eq!(entry.image.properties["note"], "from the good one");
    assert_eq!(entry.image.update_source.as_ref().unwrap().server, "https://good.example");
    assert_eq!(entry.origin.as_ref().unwrap().properties["note"], "from the good one");
    assert_eq!(bad.bytes_sent() + good.bytes_sent(), image.size(), "what was there was kept");
    assert!(!daemon.app().pulls.is_running(&image.fingerprint()));
}

#[tokio::test]
async fn a_launch_asks_only_what_it_must() {
    let (first, second) = (unified("1"), unified("2"));
    let server = Fake::with(&[("debian", &first)]);
    let daemon = Daemon::new(&[&server]).await;
    let entry = daemon.ensure(&server, "debian").await.unwrap();
    assert!(entry.image.cached && entry.image.auto_update && !entry.image.public);
    let asked = server.questions();
    // Kept current: no question at all, even when the alias has moved.
    server.add("debian", &second);
    assert_eq!(
        daemon.ensure(&server, "debian").await.unwrap().image,
        daemon.get(&first.fingerprint()).unwrap().image
    );
    daemon.ensure(&server, &first.fingerprint().to_string()).await.unwrap();
    assert_eq!(server.questions(), asked);
    // Not kept current: one question, and the alias is followed.
    daemon.configure("images.auto_update_interval", "0").await;
    let entry = daemon.ensure(&server, "debian").await.unwrap();
    assert_eq!(entry.image.fingerprint, second.fingerprint());
    let asked = server.questions();
    daemon.ensure(&server, "debian").await.unwrap();
    assert_eq!((server.questions(), server.downloads()), (asked + 1, 2));
}

#[tokio::test]
async fn a_short_fingerprint_is_found_and_an_ambiguous_one_names_its_candidates() {
    let images: Vec<Made> = (0..40).map(|salt| unified(&salt.to_string())).collect();
    let named: Vec<(String, &Made)> =
        images.iter().enumerate().map(|(n, image)| (n.to_string(), image)).collect();
    let named: Vec<(&str, &Made)> = named.iter().map(|(n, image)| (n.as_str(), *image)).collect();
    let server = Fake::with(&named);
    let daemon = Daemon::new(&[&server]).await;
    let full = images[0].fingerprint().to_string();
    let entry = daemon.ensure(&server, &full[..20]).await.unwrap();
    assert_eq!(entry.image.fingerprint, images[0].fingerprint());
    assert!(!entry.image.auto_update && entry.image.update_source.is_none());
    // Among forty images two begin with the same digit.
    let digit = "0123456789abcdef"
        .chars()
        .find(|digit| {
            let begins = |image: &&Made| image.fingerprint().to_string().starts_with(*digit);
            images.iter().filter(begins).count() > 1 && !digit.is_ascii_digit()
        })
        .unwrap();
    let error = daemon.ensure(&server, &digit.to_string()).await.unwrap_err();
    let Error::Origin { source, .. } = &error else { panic!("{error}") };
    let lxd_proto::remote::Error::Ambiguous { candidates, .. } = &**source else {
        panic!("{error}")
    };
    assert!(candidates.len() > 1);
}

#[tokio::test]
async fn a_person_who_copies_a_cached_image_keeps_it() {
    let image = unified("1");
    let server = Fake::with(&[("debian", &image)]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.ensure(&server, "debian").await.unwrap();
    let entry = daemon.copy(&server, "debian", Wish::default()).await.unwrap();
    assert!(!entry.image.cached && !entry.image.auto_update);
    daemon.pass(24 * 400);
    assert_eq!(expiry::run_once(daemon.app()).await.unwrap().images, 0);
    assert_eq!(server.downloads(), 1);
}

#[tokio::test]
async fn a_new_version_takes_the_aliases_and_keeps_what_a_person_decided() {
    let (first, second, third) = (unified("1"), split("2"), unified("3"));
    let server = Fake::with(&[("debian", &first)]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.copy(&server, "debian", following()).await.unwrap();
    daemon.alias("a", &first.fingerprint()).await;
    daemon.alias("b", &first.fingerprint()).await;
    let patch = ImagePatch {
        public: Some(true),
        properties: Some([("note".to_owned(), "mine".to_owned())].into()),
        ..ImagePatch::default()
    };
    images::patch(daemon.app(), &root(), &prefix(&first), None, patch).await.unwrap();

    assert!(!follow::refresh(daemon.app(), &first.fingerprint(), &silent()).await.unwrap());
    server.add("debian", &second);
    assert!(follow::refresh(daemon.app(), &first.fingerprint(), &silent()).await.unwrap());
    let now = daemon.get(&second.fingerprint()).unwrap();
    assert!(now.image.public && now.image.auto_update && now.is_current());
    assert_eq!(now.image.properties["note"], "mine");
    assert_eq!(now.image.properties["salt"], "2");
    assert_eq!(
        (daemon.target("a"), daemon.target("b")),
        (second.fingerprint(), second.fingerprint())
    );
    assert_eq!(now.image.aliases.len(), 2);
    let old = daemon.get(&first.fingerprint()).unwrap();
    assert!(old.image.aliases.is_empty() && !old.is_current());
    let listed = daemon.app().catalog.images(Viewer::Trusted, None);
    assert_eq!(listed.len(), 1);
    assert!(now.image.refresh.as_ref().unwrap().error.is_empty());

    // What is recorded is what is shown.
    let daemon = daemon.restarted().await;
    let loaded = daemon.get(&second.fingerprint()).unwrap();
    assert_eq!((&loaded.json, &loaded.origin), (&now.json, &now.origin));

    // One replaced version is kept.
    server.add("debian", &third);
    assert!(follow::refresh(daemon.app(), &second.fingerprint(), &silent()).await.unwrap());
    let history = lineage::history(daemon.app(), &root(), &prefix(&third)).unwrap();
    let versions: Vec<_> = history.iter().map(|version| version.image.fingerprint).collect();
    assert_eq!(versions, [third.fingerprint(), second.fingerprint()]);
    assert!(history[0].replaced_at.is_none() && history[1].replaced_at.is_some());
    assert_eq!(daemon.target("a"), third.fingerprint());
}

#[tokio::test]
async fn what_a_person_made_private_stays_so_whoever_refreshes_an_older_version() {
    let (first, second) = (unified("1"), unified("2"));
    let server = Fake::with(&[("debian", &first)]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.copy(&server, "debian", Wish { public: true, ..following() }).await.unwrap();
    server.add("debian", &second);
    assert!(follow::refresh(daemon.app(), &first.fingerprint(), &silent()).await.unwrap());
    let hide =
        ImagePatch { public: Some(false), auto_update: Some(false), ..ImagePatch::default() };
    images::patch(daemon.app(), &root(), &prefix(&second), None, hide).await.unwrap();

    let error = follow::refresh(daemon.app(), &first.fingerprint(), &silent()).await.unwrap_err();
    assert!(error.to_string().contains(&second.fingerprint().to_string()), "{error}");
    let now = daemon.get(&second.fingerprint()).unwrap();
    assert!(!now.image.public && !now.image.auto_update, "{}", now.json);
    assert!(daemon.get(&first.fingerprint()).unwrap().image.refresh.is_none());

    // Nor does the way back show what is hidden now.
    let back = lineage::rollback(daemon.app(), &root(), &prefix(&second)).await.unwrap();
    assert!(back.image.fingerprint == first.fingerprint() && !back.image.public, "{}", back.json);
}

#[tokio::test]
async fn a_private_image_stays_private_when_it_turns_out_to_be_a_new_version() {
    let (first, second) = (unified("1"), unified("2"));
    let server = Fake::with(&[("debian", &first), ("other", &second)]);
    let daemon = Daemon::new(&[&server]).await;
    let names = |name: &str| vec![(name.try_into_name(), String::new())];
    let shown = Wish { public: true, aliases: names("shown"), ..following() };
    daemon.copy(&server, "debian", shown).await.unwrap();
    let own = Wish { aliases: names("staging"), ..Wish::default() };
    daemon.copy(&server, "other", own).await.unwrap();
    server.add("debian", &second);
    assert!(follow::refresh(daemon.app(), &first.fingerprint(), &silent()).await.unwrap());
    assert!(!daemon.get(&second.fingerprint()).unwrap().image.public);
    assert!(daemon.app().catalog.alias(Viewer::Stranger, "staging").is_err());
    assert_eq!(daemon.target("shown"), second.fingerprint());
}

#[tokio::test]
async fn two_refreshes_at_once_are_one_and_change_nothing_after_it() {
    let (first, second) = (unified("1"), unified("2"));
    let server = Fake::with(&[("debian", &first)]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.copy(&server, "debian", following()).await.unwrap();
    server.add("debian", &second);
    let (fingerprint, follow) = (first.fingerprint(), silent());
    let refresh = || follow::refresh(daemon.app(), &fingerprint, &follow);
    let (one, other) = tokio::join!(refresh(), refresh());
    assert!(one.unwrap() && other.unwrap());
    let history = lineage::history(daemon.app(), &root(), &prefix(&second)).unwrap();
    let replaced: Vec<_> = history.iter().map(|version| version.replaced_at.is_some()).collect();
    assert_eq!(replaced, [false, true]);
}

#[tokio::test]
async fn after_a_rollback_only_a_third_version_is_taken() {
    let (first, second, third) = (unified("1"), unified("2"), unified("3"));
    let server = Fake::with(&[("debian", &first)]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.copy(&server, "debian", following()).await.unwrap();
    daemon.alias("a", &first.fingerprint()).await;
    let error = lineage::rollback(daemon.app(), &root(), &prefix(&first)).await.unwrap_err();
    assert!(error.to_string().contains("no earlier version"), "{error}");
    server.add("debian", &second);
    daemon.pass(7);
    assert_eq!(update::run_once(daemon.app()).await.updated, 1);
    assert_eq!(daemon.target("a"), second.fingerprint());

    let now = lineage::rollback(daemon.app(), &root(), &prefix(&second)).await.unwrap();
    assert_eq!(
        (now.image.fingerprint, daemon.target("a")),
        (first.fingerprint(), first.fingerprint())
    );
    let daemon = daemon.restarted().await;
    daemon.pass(7);
    let checked = update::run_once(daemon.app()).await;
    assert_eq!((checked.current, checked.updated), (1, 0));
    server.add("debian", &third);
    daemon.pass(7);
    assert_eq!(update::run_once(daemon.app()).await.updated, 1);
    assert_eq!(daemon.target("a"), third.fingerprint());
}

#[tokio::test]
async fn a_failed_refresh_changes_nothing_and_says_why() {
    let (first, second) = (unified("1"), unified("2"));
    let server = Fake::with(&[("debian", &first)]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.copy(&server, "debian", following()).await.unwrap();
    daemon.alias("a", &first.fingerprint()).await;
    server.add("debian", &second);
    server.cut_after(10);
    follow::refresh(daemon.app(), &first.fingerprint(), &silent()).await.unwrap_err();
    assert_eq!(daemon.target("a"), first.fingerprint());
    assert!(daemon.get(&second.fingerprint()).is_none());
    let entry = daemon.get(&first.fingerprint()).unwrap();
    let refresh = entry.image.refresh.as_ref().unwrap();
    assert!(refresh.error.contains("broke"), "{refresh:?}");
    assert!(refresh.next_check_at > refresh.checked_at);
    assert!(entry.json.contains("\"refresh\":{\"checked_at\""), "{}", entry.json);

    let uploaded = unified("by hand");
    let other = Fake::with(&[("x", &uploaded)]);
    drop(other);
    let error = follow::refresh(daemon.app(), &uploaded.fingerprint(), &silent()).await;
    assert!(error.is_err());
}

#[tokio::test]
async fn a_hundred_current_images_are_checked_with_one_question_an_alias_when_they_are_due() {
    let images: Vec<Made> = (0..100).map(|salt| unified(&salt.to_string())).collect();
    let server = Fake::with(&[]);
    let down = Fake::at("https://down.example", &[]);
    for (index, image) in images.iter().enumerate() {
        server.add(&index.to_string(), image);
    }
    down.add("lost", &unified("lost"));
    let daemon = Daemon::new(&[&server, &down]).await;
    for index in 0..images.len() {
        daemon.copy(&server, &index.to_string(), following()).await.unwrap();
    }
    daemon.copy(&down, "lost", following()).await.unwrap();
    down.go_down();
    assert_eq!(update::run_once(daemon.app()).await, follow::Checked::default(), "not due yet");
    let asked = server.questions();
    daemon.pass(7);
    let checked = update::run_once(daemon.app()).await;
    assert_eq!((checked.current, checked.updated, checked.failed), (100, 0, 1));
    assert_eq!(server.questions(), asked + 100);
    assert_eq!(server.connections(), 1, "one client for all");
    assert_eq!(update::run_once(daemon.app()).await, follow::Checked::default());
    // The one that failed is asked again sooner.
    daemon.pass(2);
    assert_eq!(update::run_once(daemon.app()).await.failed, 1);
}

#[tokio::test]
async fn unused_cached_images_and_old_versions_expire() {
    let (first, second, kept) = (unified("1"), unified("2"), unified("kept"));
    let server = Fake::with(&[("debian", &first), ("kept", &kept)]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.ensure(&server, "debian").await.unwrap();
    daemon.copy(&server, "kept", Wish::default()).await.unwrap();
    daemon.pass(24 * 9);
    assert_eq!(expiry::run_once(daemon.app()).await.unwrap().images, 0);
    daemon.ensure(&server, "debian").await.unwrap();
    server.add("debian", &second);
    assert_eq!(update::run_once(daemon.app()).await.updated, 1);
    daemon.pass(24 * 9);
    assert_eq!(expiry::run_once(daemon.app()).await.unwrap().images, 0);
    daemon.pass(24 * 2);
    // The current one that nobody has used, and with it the replaced version.
    assert!(expiry::run_once(daemon.app()).await.unwrap().images > 0);
    assert!(daemon.get(&first.fingerprint()).is_none());
    assert!(daemon.get(&second.fingerprint()).is_none());
    assert!(daemon.get(&kept.fingerprint()).is_some());
    daemon.configure("images.remote_cache_expiry", "0").await;
    daemon.ensure(&server, "debian").await.unwrap();
    daemon.pass(24 * 400);
    assert_eq!(expiry::run_once(daemon.app()).await.unwrap().images, 0);
}

#[tokio::test]
async fn a_secret_opens_its_image_for_a_moment_and_no_other() {
    let (image, other) = (unified("1"), unified("2"));
    let server = Fake::with(&[("a", &image), ("b", &other)]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.copy(&server, "a", Wish::default()).await.unwrap();
    daemon.copy(&server, "b", Wish::default()).await.unwrap();
    let operation = secrets::create(daemon.app(), &root(), &prefix(&image)).unwrap();
    let secret = operation.metadata.as_ref().unwrap()["secret"].as_str().unwrap().to_owned();
    let shown = daemon.app().operations.get(&operation.id).unwrap();
    assert!(!serde_json::to_string(&shown).unwrap().contains(&secret), "only the reply shows it");
    let open = |image: &Made, secret: &str| secrets::open(daemon.app(), &prefix(image), secret);
    assert!(open(&other, &secret).is_none() && open(&image, "wrong").is_none());
    let (entry, info) = open(&image, &secret).unwrap();
    drop(info);
    assert_eq!(entry.image.fingerprint, image.fingerprint());
    let (_, export) = open(&image, &secret).unwrap();
    daemon.pass(1);
    assert!(open(&image, &secret).is_some(), "the transfer still runs");
    drop(export);
    daemon.pass(1);
    assert!(open(&image, &secret).is_none());

    let operation = secrets::create(daemon.app(), &root(), &prefix(&image)).unwrap();
    let secret = operation.metadata.as_ref().unwrap()["secret"].as_str().unwrap().to_owned();
    daemon.app().operations.cancel(&operation.id).unwrap();
    assert!(open(&image, &secret).is_none(), "a person has cancelled it");

    let secret = || {
        let operation = secrets::create(daemon.app(), &root(), &prefix(&image)).unwrap();
        operation.metadata.as_ref().unwrap()["secret"].as_str().unwrap().to_owned()
    };
    let old = secret();
    daemon.pass(2);
    assert!(open(&image, &old).is_none(), "nobody used it for an hour");

    let unread = secret();
    let transfer = open(&image, &unread).unwrap();
    daemon.pass(25);
    assert!(open(&image, &unread).is_none(), "no transfer is left unread to keep it alive");
    drop(transfer);

    let former = secret();
    images::remove(daemon.app(), &root(), &image.fingerprint()).await.unwrap();
    daemon.copy(&server, "a", Wish::default()).await.unwrap();
    assert!(open(&image, &former).is_none(), "its image has gone");
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
