//! Copies: downloads that join, go on and are refused, and who may have what.

use super::*;

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
