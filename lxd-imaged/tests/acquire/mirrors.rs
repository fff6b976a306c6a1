//! Mirrors: what runs bring, keep, move and remove, and what they leave alone.

mod ownership;

use lxd_imaged::service::mirrors;
use lxd_imaged::tasks::mirror;
use lxd_proto::image::Image;
use lxd_proto::mirror::{
    Mirror, MirrorAction, MirrorConfig, MirrorPatch, MirrorReport, MirrorRunPost, MirrorsPost,
    RunOutcome,
};
use lxd_proto::operation::Operation;

use super::*;

const PRODUCT: &str = "debian:12:x86_64:default:container";

impl Daemon {
    async fn mirror(&self, server: &Fake, config: MirrorConfig) {
        let config = MirrorConfig { server: server.address(), protocol: "lxd".into(), ..config };
        let post = MirrorsPost { name: "m".into(), config };
        mirrors::create(self.app(), &root(), post).await.unwrap();
    }

    async fn ended(&self, operation: Operation) -> Operation {
        self.app().operations.wait(&operation.id, None).await.unwrap()
    }

    async fn run_as(&self, post: MirrorRunPost) -> Operation {
        self.ended(mirrors::run::begin(self.app(), "m", post).unwrap()).await
    }

    async fn run(&self) -> MirrorReport {
        report(&self.run_as(MirrorRunPost::default()).await)
    }

    async fn dry_run(&self) -> MirrorReport {
        report(&self.run_as(MirrorRunPost { dry_run: true }).await)
    }

    fn known(&self) -> Mirror {
        mirrors::get(self.app(), "m").unwrap()
    }

    fn outcome(&self) -> RunOutcome {
        self.known().state.last_run.unwrap().outcome
    }

    fn has(&self, image: &Made) -> bool {
        self.get(&image.fingerprint()).is_some()
    }
}

fn report(operation: &Operation) -> MirrorReport {
    let metadata = operation.metadata.clone().unwrap_or_else(|| panic!("{operation:?}"));
    serde_json::from_value(metadata["report"].clone()).unwrap()
}

fn actions(report: &MirrorReport) -> Vec<(&str, MirrorAction)> {
    report.items.iter().map(|item| (&*item.serial, item.action)).collect()
}

fn keep(keep: u32) -> MirrorConfig {
    MirrorConfig { keep, ..MirrorConfig::default() }
}

#[tokio::test]
async fn the_newest_versions_come_as_their_server_describes_them() {
    let server = Fake::with(&[]);
    let (one, two, three, other) = (unified("1"), split("2"), split("3"), split("x"));
    server.publish(&one, "12", "20260101", &[]);
    server.publish(&two, "12", "20260102", &[]);
    server.publish(&three, "12", "20260103", &["debian/12", "debian"]);
    server.publish(&other, "11", "20260103", &["debian/11"]);
    let daemon = Daemon::new(&[&server]).await;
    let config: MirrorConfig = serde_json::from_str(
        r#"{"release": ["12"], "keep": 2, "public": true, "alias_prefix": "up/"}"#,
    )
    .unwrap();
    daemon.mirror(&server, config).await;
    let would = daemon.dry_run().await;
    assert_eq!((would.dry_run, daemon.app().catalog.len()), (true, 0));
    assert_eq!((server.questions(), server.downloads()), (1, 0));
    let did = daemon.run().await;
    assert_eq!(server.questions(), 2, "the server is asked once in a run");
    assert_eq!((&did.items, did.counts), (&would.items, would.counts));
    assert_eq!(
        actions(&did),
        [("20260103", MirrorAction::Download), ("20260102", MirrorAction::Download)]
    );
    assert_eq!((did.counts.upstream, did.counts.products), (4, 1));
    assert_eq!(did.counts.bytes, two.size() + three.size());

    assert!(!daemon.has(&one) && !daemon.has(&other));
    let entry = daemon.get(&three.fingerprint()).unwrap();
    let image: &Image = &entry.image;
    assert!(image.public && !image.cached && !image.auto_update);
    assert_eq!(image.properties["serial"], "20260103");
    assert_eq!(image.created_at.to_string(), "2016-03-15T11:10:00Z");
    assert_eq!(daemon.target("up/debian/12"), three.fingerprint());
    assert_eq!(daemon.target("up/debian"), three.fingerprint());
    let state = daemon.known().state;
    assert_eq!((state.images, state.products), (2, 1));
    assert_eq!(daemon.outcome(), RunOutcome::Success);

    let daemon = daemon.restarted().await;
    assert_eq!(daemon.known().state, state);
    let again = daemon.run().await;
    assert_eq!((again.counts.present, again.counts.downloaded), (2, 0));
    assert_eq!(server.downloads(), 2);
}

#[tokio::test]
async fn names_move_when_the_new_version_is_whole_and_then_the_old_one_goes() {
    let server = Fake::with(&[]);
    let (one, two) = (split("1"), split(&"2".repeat(300_000)));
    server.publish(&one, "12", "20260101", &["debian/12"]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.mirror(&server, keep(1)).await;
    daemon.run().await;
    server.publish(&two, "12", "20260102", &["debian/12"]);
    let gate = server.stop_after(100_000);
    let operation = mirrors::run::begin(daemon.app(), "m", MirrorRunPost::default()).unwrap();
    while server.bytes_sent() < one.size() + 100_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!daemon.has(&two) && daemon.target("debian/12") == one.fingerprint());
    let second = mirrors::run::begin(daemon.app(), "m", MirrorRunPost::default());
    assert!(matches!(second, Err(Error::MirrorRuns(_))));
    gate.notify_one();
    let did = report(&daemon.ended(operation).await);
    assert_eq!(
        actions(&did),
        [("20260102", MirrorAction::Download), ("20260101", MirrorAction::Remove)]
    );
    assert_eq!(daemon.target("debian/12"), two.fingerprint());
    assert!(!daemon.has(&one));
    assert_eq!(daemon.files("blobs").len(), 2);
}

#[tokio::test]
async fn what_somebody_else_needs_is_not_removed() {
    let server = Fake::with(&[]);
    let versions: Vec<_> = (1..=5).map(|n| split(&n.to_string())).collect();
    let day = |n: usize| format!("2026010{}", n + 1);
    for (n, image) in versions[..4].iter().enumerate() {
        server.publish(image, "12", &day(n), &[]);
    }
    let daemon = Daemon::new(&[&server]).await;
    // The first was here before, the second is cached only.
    let prefix = |image: &Made| image.fingerprint().to_string();
    daemon.copy(&server, &prefix(&versions[0]), Wish::default()).await.unwrap();
    daemon.ensure(&server, &prefix(&versions[1])).await.unwrap();
    daemon.mirror(&server, MirrorConfig { public: true, ..keep(4) }).await;
    daemon.run().await;
    assert!(!daemon.get(&versions[0].fingerprint()).unwrap().image.public, "it is a person's");
    let cached = daemon.get(&versions[1].fingerprint()).unwrap();
    assert!(cached.image.public && !cached.image.cached);
    // A person names the third, and copies the fourth.
    daemon.alias("mine", &versions[2].fingerprint()).await;
    daemon.copy(&server, &prefix(&versions[3]), Wish::default()).await.unwrap();

    server.publish(&versions[4], "12", &day(4), &["debian/12"]);
    let patch = serde_json::from_str(r#"{"config": {"keep": 1}}"#).unwrap();
    mirrors::patch(daemon.app(), &root(), "m", None, patch).await.unwrap();
    let would = daemon.dry_run().await;
    let did = daemon.run().await;
    assert_eq!(did.items, would.items);
    use MirrorAction::{Download, Keep, Remove};
    let expected = [
        (&*day(4), Download),
        (&*day(3), Keep),
        (&*day(2), Keep),
        (&*day(1), Remove),
        (&*day(0), Keep),
    ];
    assert_eq!(actions(&did), expected);
    let reasons: Vec<_> = did.items.iter().map(|item| &*item.reason).collect();
    assert!(reasons[1].contains("a person has put it in"), "{reasons:?}");
    assert!(reasons[2].contains("\"mine\""), "{reasons:?}");
    assert!(!daemon.has(&versions[1]));
}

#[tokio::test]
async fn a_corrupt_version_is_lost_alone_and_tried_again() {
    let server = Fake::with(&[]);
    let (old, new, fine) = (split("1"), split("2"), split("3"));
    server.publish(&old, "12", "20260101", &["debian/12"]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.mirror(&server, keep(1)).await;
    daemon.run().await;
    server.publish(&new, "12", "20260102", &["debian/12"]);
    server.publish(&fine, "11", "20260102", &["debian/11"]);
    server.corrupt(&new, Some(&split("y")));
    let did = daemon.run().await;
    assert_eq!((did.counts.failed, did.counts.downloaded, did.counts.kept), (1, 1, 1));
    let fault = did.items.iter().find(|item| item.action == MirrorAction::Fail).unwrap();
    assert_eq!((&*fault.product, &*fault.serial), (PRODUCT, "20260102"));
    assert!(fault.reason.contains("fingerprint"), "{}", fault.reason);
    assert_eq!(daemon.outcome(), RunOutcome::Partial);
    assert_eq!(daemon.known().state.last_run.unwrap().errors.len(), 1);
    assert!(daemon.has(&old) && daemon.has(&fine) && !daemon.has(&new));
    assert_eq!(daemon.target("debian/12"), old.fingerprint());
    assert!(daemon.files("partial").is_empty());

    server.corrupt(&new, None);
    daemon.run().await;
    assert_eq!(daemon.target("debian/12"), new.fingerprint());
    assert!(!daemon.has(&old) && daemon.outcome() == RunOutcome::Success);
}

#[tokio::test]
async fn a_server_that_is_of_no_use_changes_nothing() {
    let server = Fake::with(&[]);
    let image = split("1");
    server.publish(&image, "12", "20260101", &["debian/12"]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.mirror(&server, keep(1)).await;
    daemon.run().await;
    server.go_down();
    let failed = daemon.run_as(MirrorRunPost::default()).await;
    assert!(failed.err.contains("Unable to connect"), "{}", failed.err);
    assert_eq!(daemon.outcome(), RunOutcome::Failed);
    assert_eq!(daemon.target("debian/12"), image.fingerprint());

    // It comes back with nothing at all.
    server.come_up();
    server.withdraw(&image);
    let did = daemon.run().await;
    assert_eq!(actions(&did), [("20260101", MirrorAction::Keep)]);
    assert_eq!(daemon.target("debian/12"), image.fingerprint());
}

#[tokio::test]
async fn a_product_that_the_server_drops_keeps_its_newest_version() {
    let server = Fake::with(&[]);
    let (old, new) = (split("1"), split("2"));
    server.publish(&old, "12", "20260101", &[]);
    server.publish(&new, "12", "20260102", &["debian/12"]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.mirror(&server, keep(2)).await;
    daemon.run().await;
    server.withdraw(&old);
    server.withdraw(&new);
    let patch = serde_json::from_str(r#"{"config": {"keep": 1}}"#).unwrap();
    mirrors::patch(daemon.app(), &root(), "m", None, patch).await.unwrap();
    let did = daemon.run().await;
    assert_eq!(
        actions(&did),
        [("20260102", MirrorAction::Keep), ("20260101", MirrorAction::Remove)]
    );
    assert_eq!(daemon.target("debian/12"), new.fingerprint());
}

#[tokio::test]
async fn names_that_somebody_else_has_are_not_taken() {
    let server = Fake::with(&[]);
    let (old, new, mine) = (split("1"), split("2"), split("z"));
    server.publish(&old, "12", "20260101", &["a", "b"]);
    server.add("z", &mine);
    let daemon = Daemon::new(&[&server]).await;
    daemon.copy(&server, "z", Wish::default()).await.unwrap();
    daemon.alias("a", &mine.fingerprint()).await;
    daemon
        .mirror(
            &server,
            MirrorConfig {
                os: vec!["debian".into()].into_iter().collect(),
                release: vec!["12".into()].into_iter().collect(),
                ..keep(1)
            },
        )
        .await;
    let did = daemon.run().await;
    assert_eq!(did.conflicts.len(), 1, "{:?}", did.conflicts);
    assert_eq!(did.conflicts[0].alias.as_str(), "a");
    assert_eq!((daemon.target("a"), daemon.target("b")), (mine.fingerprint(), old.fingerprint()));

    // A person points the mirror's alias elsewhere: it is theirs from then on.
    let put = serde_json::from_str(&format!(r#"{{"target": "{}"}}"#, mine.fingerprint())).unwrap();
    aliases::update(daemon.app(), &root(), "b", None, put, false).await.unwrap();
    server.publish(&new, "12", "20260102", &["a", "b", "c"]);
    let did = daemon.run().await;
    assert_eq!(did.conflicts.len(), 2);
    assert_eq!(daemon.target("b"), mine.fingerprint());
    assert_eq!(daemon.target("c"), new.fingerprint());
    // What the server does not call so any more is not called so here either.
    server.publish(&new, "12", "20260102", &["d"]);
    daemon.run().await;
    assert!(daemon.app().catalog.alias(Viewer::Trusted, "c").is_err());
    assert_eq!(daemon.target("d"), new.fingerprint());
}

#[tokio::test]
async fn a_run_that_is_cut_off_goes_on_where_it_was() {
    let server = Fake::with(&[]);
    let images: Vec<_> = (0..6).map(|n| split(&format!("{n}{}", "x".repeat(400_000)))).collect();
    for (n, image) in images.iter().enumerate() {
        server.publish(image, &n.to_string(), "20260101", &[&format!("debian/{n}")]);
    }
    let total: u64 = images.iter().map(Made::size).sum();
    let mut daemon = Daemon::new(&[&server]).await;
    daemon.mirror(&server, MirrorConfig { parallel: 1, ..keep(1) }).await;
    for round in 1..=5u64 {
        server.stop_after(300_000);
        let sent = server.bytes_sent();
        mirrors::run::begin(daemon.app(), "m", MirrorRunPost::default()).unwrap();
        while server.bytes_sent() < sent + 300_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        daemon.app().shutdown.cancel();
        daemon = daemon.restarted().await;
        mirror::recover(daemon.app()).await;
        assert_eq!(daemon.outcome(), RunOutcome::Interrupted, "round {round}");
        server.go_on();
    }
    let did = daemon.run().await;
    assert_eq!(did.counts.failed + did.counts.skipped, 0, "{:?}", did.items);
    assert_eq!(daemon.known().state.images, 6);
    assert_eq!(daemon.app().catalog.len(), 6);
    // What a kill may lose is what lay in a buffer.
    assert!(server.bytes_sent() <= total + 5 * (512 << 10), "{} of {total}", server.bytes_sent());
    assert!(daemon.files("partial").is_empty());
}

#[tokio::test]
async fn mirrors_run_when_they_are_due_and_their_images_stay() {
    let server = Fake::with(&[]);
    let (old, new) = (split("1"), split("2"));
    server.publish(&old, "12", "20260101", &["debian/12"]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.mirror(&server, MirrorConfig { schedule: "@daily".into(), ..keep(1) }).await;
    assert_eq!(mirror::run_once(daemon.app()), 0);
    daemon.pass(24);
    assert_eq!(mirror::run_once(daemon.app()), 1);
    assert_eq!(mirror::run_once(daemon.app()), 0, "it runs, or has just run");
    while !daemon.known().state.operation.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(daemon.has(&old));
    server.publish(&new, "12", "20260102", &["debian/12"]);
    server.add("debian/12", &new);
    daemon.pass(12);
    update::run_once(daemon.app()).await;
    assert!(!daemon.has(&new), "only the mirror follows its server");
    daemon.pass(24 * 365);
    expiry::run_once(daemon.app()).await.unwrap();
    assert!(daemon.has(&old));
    let patch = serde_json::from_str(r#"{"config": {"enabled": false}}"#).unwrap();
    mirrors::patch(daemon.app(), &root(), "m", None, patch).await.unwrap();
    assert_eq!(mirror::run_once(daemon.app()), 0);
}

#[tokio::test]
async fn downloads_are_bounded_and_images_go_with_the_mirror_only_if_asked() {
    let server = Fake::with(&[]);
    let images: Vec<_> = (0..12).map(|n| split(&format!("{n}"))).collect();
    for (n, image) in images.iter().enumerate() {
        server.publish(image, &n.to_string(), "20260101", &[]);
    }
    let daemon = Daemon::new(&[&server]).await;
    daemon.mirror(&server, MirrorConfig { parallel: 3, ..keep(1) }).await;
    daemon.run().await;
    assert!(server.most_at_once() <= 3, "{}", server.most_at_once());
    daemon.alias("mine", &images[0].fingerprint()).await;
    let gone = mirrors::delete(daemon.app(), &root(), "m", true).unwrap();
    let gone = daemon.ended(gone).await;
    assert_eq!(gone.metadata.unwrap()["removed"], 11);
    assert_eq!(daemon.app().catalog.len(), 1);
    assert!(mirrors::get(daemon.app(), "m").is_err());

    daemon.mirror(&server, keep(1)).await;
    daemon.run().await;
    daemon.ended(mirrors::delete(daemon.app(), &root(), "m", false).unwrap()).await;
    assert_eq!(daemon.app().catalog.len(), 12);
}

#[tokio::test]
async fn declared_mirrors_are_what_their_file_says() {
    let server = Fake::with(&[]);
    let daemon = Daemon::new(&[&server]).await;
    let file = daemon.temp.path().join("mirrors.yaml");
    let declare = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        mirrors::declared::load(daemon.app()).await;
    };
    declare("m:\n  server: https://a.example\n  os: [debian]\n  keep: 2\nb:\n  keep: none\n").await;
    let mirror = daemon.known();
    assert!(mirror.declared && mirror.config.keep == 2);
    assert_eq!(mirrors::list(daemon.app()).len(), 1, "one of them is wrong");
    let patch: MirrorPatch = serde_json::from_str(r#"{"config": {"keep": 1}}"#).unwrap();
    let refused = mirrors::patch(daemon.app(), &root(), "m", None, patch.clone()).await;
    assert!(refused.unwrap_err().to_string().contains("mirrors.yaml"));
    assert!(mirrors::delete(daemon.app(), &root(), "m", false).is_err());
    // A slip does not undo what was declared.
    declare("m:\n  sever: https://a.example\n").await;
    assert!(daemon.known().declared && daemon.known().config.keep == 2);
    declare("m: [").await;
    assert!(daemon.known().declared);
    declare("m:\n  server: https://b.example\n").await;
    assert_eq!(daemon.known().config.server, "https://b.example");
    declare("").await;
    assert!(!daemon.known().declared);
    mirrors::patch(daemon.app(), &root(), "m", None, patch).await.unwrap();
}

#[tokio::test]
async fn no_more_bytes_a_second_come_than_are_allowed() {
    let server = Fake::with(&[]);
    for n in 0..4 {
        let image = split(&format!("{n}{}", "x".repeat(256 << 10)));
        server.publish(&image, &n.to_string(), "20260101", &[]);
    }
    let daemon = Daemon::new(&[&server]).await;
    daemon.mirror(&server, MirrorConfig { parallel: 4, bandwidth: 2 << 20, ..keep(1) }).await;
    let began = std::time::Instant::now();
    assert_eq!(daemon.run().await.counts.downloaded, 4);
    // 1 MiB at 2 MiB a second, of which it may be 0.2 s ahead.
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
}

#[tokio::test]
async fn two_mirrors_may_keep_one_image() {
    let server = Fake::with(&[]);
    let (old, new) = (split("1"), split("2"));
    server.publish(&old, "12", "20260101", &["debian/12"]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.mirror(&server, keep(1)).await;
    daemon.run().await;
    let config = MirrorConfig { server: server.address(), protocol: "lxd".into(), ..keep(2) };
    let post = MirrorsPost { name: "other".into(), config };
    mirrors::create(daemon.app(), &root(), post).await.unwrap();
    let other = async || {
        let run = mirrors::run::begin(daemon.app(), "other", MirrorRunPost::default()).unwrap();
        report(&daemon.ended(run).await)
    };
    let did = other().await;
    assert_eq!((did.counts.present, did.counts.downloaded, did.conflicts.len()), (1, 0, 1));
    server.publish(&new, "12", "20260102", &["debian/12"]);
    let did = daemon.run().await;
    assert_eq!(did.counts.removed, 1);
    assert!(daemon.has(&old), "the other one keeps it");
    let known = mirrors::get(daemon.app(), "other").unwrap();
    assert_eq!((known.state.images, daemon.known().state.images), (1, 1));
    other().await;
    assert!(daemon.has(&old) && daemon.has(&new));
}

#[tokio::test]
async fn a_public_image_that_a_person_deletes_is_the_mirrors_no_more() {
    let server = Fake::with(&[]);
    let (old, new) = (unified("1"), unified("2"));
    server.publish(&old, "12", "20260101", &["debian/12"]);
    let daemon = Daemon::new(&[&server]).await;
    // Its files are served for a while: it is deleted in another way than a private one.
    daemon.configure("core.https_address", "127.0.0.1:1").await;
    daemon.mirror(&server, MirrorConfig { public: true, ..keep(1) }).await;
    daemon.run().await;
    assert_eq!(daemon.known().state.images, 1);
    images::remove(daemon.app(), &root(), &old.fingerprint()).await.unwrap();
    assert_eq!((daemon.has(&old), daemon.known().state.images), (false, 0));
    assert!(daemon.app().catalog.mirrors.kept(&old.fingerprint()).is_none());
    server.publish(&new, "12", "20260102", &["debian/12"]);
    daemon.run().await;
    assert_eq!((daemon.target("debian/12"), daemon.known().state.images), (new.fingerprint(), 1));
}
