//! Whose an image of a mirror is: who sees it, who has named it, and who may take it away.

use super::*;

/// A public mirror `m` that has run, of a server with one image.
async fn public_mirror() -> (Arc<Fake>, Made, Daemon) {
    let server = Fake::with(&[]);
    let image = unified("1");
    server.publish(&image, "12", "20260101", &["debian/12"]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.mirror(&server, MirrorConfig { public: true, ..keep(1) }).await;
    daemon.run().await;
    (server, image, daemon)
}

/// Another mirror of the same server.
async fn second(daemon: &Daemon, server: &Fake, config: MirrorConfig) -> Operation {
    let config = MirrorConfig { server: server.address(), protocol: "lxd".into(), ..config };
    let post = MirrorsPost { name: "other".into(), config };
    mirrors::create(daemon.app(), &root(), post).await.unwrap();
    daemon
        .ended(mirrors::run::begin(daemon.app(), "other", MirrorRunPost::default()).unwrap())
        .await
}

#[tokio::test]
async fn strangers_see_what_any_mirror_shows_them() {
    let (server, image, daemon) = public_mirror().await;
    let is_public = || daemon.get(&image.fingerprint()).unwrap().image.public;
    assert!(is_public());
    second(&daemon, &server, MirrorConfig { alias_prefix: "x/".into(), ..keep(1) }).await;
    assert!(is_public(), "a private mirror takes nothing away from a public one");
    // What is decided holds at once.
    let set = async |public: bool| {
        let config = serde_json::json!({ "public": public }).as_object().unwrap().clone();
        mirrors::patch(daemon.app(), &root(), "m", None, MirrorPatch { config }).await.unwrap();
    };
    set(false).await;
    assert!(!is_public());
    set(true).await;
    assert!(is_public());
}

#[tokio::test]
async fn what_a_person_decides_about_an_image_stands() {
    let (server, image, daemon) = public_mirror().await;
    let patch = serde_json::from_str(r#"{"public": false}"#).unwrap();
    let prefix = image.fingerprint().to_string().parse().unwrap();
    images::patch(daemon.app(), &root(), &prefix, None, patch).await.unwrap();
    daemon.run().await;
    assert!(!daemon.get(&image.fingerprint()).unwrap().image.public);

    // A name that a person has taken away and set anew is that person's.
    let (app, caller) = (daemon.app(), root());
    aliases::delete(app, &caller, "debian/12").await.unwrap();
    let post = serde_json::json!({"name": "debian/12", "target": image.fingerprint()});
    aliases::create(app, &caller, serde_json::from_value(post).unwrap()).await.unwrap();
    let newer = unified("2");
    server.publish(&newer, "12", "20260102", &["debian/12"]);
    let did = daemon.run().await;
    assert_eq!(did.conflicts.len(), 1);
    assert_eq!(daemon.target("debian/12"), image.fingerprint());
}

#[tokio::test]
async fn a_mirror_that_goes_with_its_images_leaves_no_names() {
    let server = Fake::with(&[]);
    let (shared, own) = (unified("1"), unified("2"));
    server.publish(&shared, "12", "20260101", &["debian/12"]);
    let daemon = Daemon::new(&[&server]).await;
    second(&daemon, &server, MirrorConfig { alias_prefix: "x/".into(), ..keep(1) }).await;
    server.publish(&own, "11", "20260101", &["debian/11"]);
    daemon.mirror(&server, keep(1)).await;
    daemon.run().await;
    let gone = mirrors::delete(daemon.app(), &root(), "m", true).unwrap();
    assert!(mirrors::run::begin(daemon.app(), "m", MirrorRunPost::default()).is_err());
    let gone = daemon.ended(gone).await.metadata.unwrap();
    assert_eq!(gone["removed"], 1);
    assert_eq!(gone["kept"], serde_json::json!([shared.fingerprint()]));
    assert!(daemon.has(&shared) && !daemon.has(&own));
    let names = daemon.get(&shared.fingerprint()).unwrap().image.aliases.clone();
    let names: Vec<_> = names.into_iter().map(|alias| alias.name).collect();
    assert_eq!(names, ["x/debian/12"]);
}

#[tokio::test]
async fn an_image_that_only_a_private_mirror_keeps_is_private() {
    let (server, image, daemon) = public_mirror().await;
    second(&daemon, &server, MirrorConfig { alias_prefix: "x/".into(), ..keep(1) }).await;
    assert!(daemon.get(&image.fingerprint()).unwrap().image.public);
    daemon.ended(mirrors::delete(daemon.app(), &root(), "m", true).unwrap()).await;
    assert!(!daemon.get(&image.fingerprint()).unwrap().image.public);
}

#[tokio::test]
async fn what_is_decided_during_a_run_holds_for_what_comes_after() {
    let server = Fake::with(&[]);
    let (one, two) = (unified("1"), split(&"2".repeat(300_000)));
    server.publish(&one, "11", "20260101", &["debian/11"]);
    server.publish(&two, "12", "20260101", &["debian/12"]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.mirror(&server, MirrorConfig { public: true, parallel: 2, ..keep(1) }).await;
    let gate = server.stop_after(100_000);
    let operation = mirrors::run::begin(daemon.app(), "m", MirrorRunPost::default()).unwrap();
    while !daemon.has(&one) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let config = serde_json::json!({ "public": false }).as_object().unwrap().clone();
    mirrors::patch(daemon.app(), &root(), "m", None, MirrorPatch { config }).await.unwrap();
    let mut seen = daemon.app().catalog.follow();
    let _ = seen.borrow_and_update();
    gate.notify_one();
    daemon.ended(operation).await;
    assert!(!daemon.get(&one.fingerprint()).unwrap().image.public);
    assert!(!daemon.get(&two.fingerprint()).unwrap().image.public);
    assert!(!seen.has_changed().unwrap(), "strangers have seen nothing of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mirrors_that_give_up_a_version_together_leave_it_to_nobody() {
    let server = Fake::with(&[]);
    let old: Vec<_> = (0..12).map(|number| unified(&format!("old {number}"))).collect();
    for (number, image) in old.iter().enumerate() {
        server.publish(image, &number.to_string(), "20260101", &[]);
    }
    let daemon = Daemon::new(&[&server]).await;
    daemon.mirror(&server, keep(1)).await;
    daemon.run().await;
    second(&daemon, &server, MirrorConfig { alias_prefix: "x/".into(), ..keep(1) }).await;
    for number in 0..old.len() {
        let newer = unified(&format!("new {number}"));
        server.publish(&newer, &number.to_string(), "20260102", &[]);
    }
    let begin = |name| mirrors::run::begin(daemon.app(), name, MirrorRunPost::default()).unwrap();
    let (one, other) = (begin("m"), begin("other"));
    daemon.ended(one).await;
    daemon.ended(other).await;
    let left = old.iter().filter(|image| daemon.has(image)).count();
    assert_eq!(left, 0);
}
