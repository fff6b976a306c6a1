//! Newer versions: taken, refused, rolled back from, and old ones that go.

use super::*;

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
async fn strangers_see_no_version_of_what_is_private_and_none_that_was_given_up() {
    let (first, second) = (unified("1"), unified("2"));
    let server = Fake::with(&[("debian", &first)]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.copy(&server, "debian", Wish { public: true, ..following() }).await.unwrap();
    daemon.alias("a", &first.fingerprint()).await;
    server.add("debian", &second);
    daemon.pass(7);
    assert_eq!(update::run_once(daemon.app()).await.updated, 1);
    let published = || -> Vec<Fingerprint> {
        let (_, entries) = daemon.app().catalog.published();
        entries.iter().map(|entry| entry.image.fingerprint).collect()
    };
    assert_eq!(published().len(), 2);
    let set = async |image: &Made, public: bool| {
        let patch = ImagePatch { public: Some(public), ..ImagePatch::default() };
        images::patch(daemon.app(), &root(), &prefix(image), None, patch).await.unwrap();
    };
    set(&second, false).await;
    assert_eq!(published(), []);
    set(&second, true).await;
    assert_eq!(published().len(), 2);

    lineage::rollback(daemon.app(), &root(), &prefix(&second)).await.unwrap();
    assert_eq!(published(), [first.fingerprint()], "what was given up is not offered as newest");
    set(&first, false).await;
    assert_eq!(published(), []);
    set(&first, true).await;
    assert_eq!(published(), [first.fingerprint()]);
    let again = lineage::rollback(daemon.app(), &root(), &prefix(&second)).await.unwrap();
    assert!(again.image.fingerprint == second.fingerprint() && again.image.public);
    assert_eq!(published().len(), 2);
}
