//! Images that must be refused, with the reason, and leave nothing behind (row F5).

use lxd_tests::client::Client;
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::hostile::{Hostile, containers, entries, metadata};
use lxd_tests::fixtures::{Compression, Recipe, Tar, fingerprint};
use lxd_tests::wait;
use serde_json::json;

/// Uploads each; every one must fail for a reason that says what is wrong.
fn refuse_all(all: &[Hostile]) {
    let daemon = Daemon::start();
    let http = daemon.http();
    let mut wrong = Vec::new();
    for hostile in all {
        let done = match &hostile.rootfs {
            Some(rootfs) => http.upload_split(&hostile.first, rootfs),
            None => http.upload(&hostile.first, &[]),
        };
        let reason = done["err"].as_str().unwrap_or_default().to_lowercase();
        let told = hostile.reasons.is_empty()
            || hostile.reasons.iter().any(|word| reason.contains(&word.to_lowercase()));
        if done["status"] != "Failure" {
            wrong.push(format!("{}: accepted", hostile.name));
            let print = done["metadata"]["fingerprint"].as_str().unwrap();
            http.finish(&http.request("DELETE", &format!("/1.0/images/{print}")).send(b""));
        } else if reason.is_empty() || !told {
            wrong.push(format!("{}: refused with {reason:?}", hostile.name));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    nothing_left(&daemon);
    // And the daemon goes on.
    http.import(&Recipe::new("after").unified(Compression::Gz));
}

fn nothing_left(daemon: &Daemon) {
    assert_eq!(daemon.http().metadata("/1.0/images"), json!([]));
    wait::until("nothing to be left behind", || {
        daemon.bytes_in("blobs") + daemon.bytes_in("spool") == 0
    });
}

#[test]
fn wrong_metadata() {
    refuse_all(&metadata());
}

#[test]
fn wrong_entries() {
    refuse_all(&entries());
}

#[test]
fn wrong_containers() {
    refuse_all(&containers());
}

#[test]
fn both_clients_say_why() {
    let daemon = Daemon::start();
    for hostile in entries().into_iter().take(4).chain(containers().into_iter().take(1)) {
        daemon.file("hostile.tar", &hostile.first);
        for client in Client::both() {
            let done = daemon.client(client, "image import hostile.tar").fails();
            let told = done.stderr.to_lowercase();
            let known = hostile.reasons.iter().any(|word| told.contains(&word.to_lowercase()));
            assert!(known, "{}:\n{done}", hostile.name);
        }
    }
    nothing_left(&daemon);
}

/// A whole xz with a fault that only the deep check sees.
fn hostile_xz() -> Vec<u8> {
    let mut tar = Tar::new();
    tar.file("metadata.yaml", Recipe::new("xz").yaml().as_bytes());
    tar.dir("rootfs/");
    tar.file("rootfs/file", b"one");
    tar.file("rootfs/file", b"two");
    Compression::Xz.bytes(&tar.end())
}

#[test]
fn an_xz_is_checked_after_the_answer() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let bytes = hostile_xz();
    let done = http.upload(&bytes, &[]);
    if done["status"] == "Failure" {
        // A small one may be through before the answer.
        nothing_left(&daemon);
        return;
    }
    let path = format!("/1.0/images/{}", fingerprint(&[&bytes]));
    let verified = || http.metadata(&path)["verified"].as_str().map(str::to_owned);
    wait::until("the deep check to fail", || verified().is_some_and(|v| v.starts_with("no: ")));
    daemon.cli(&format!("image info {}", fingerprint(&[&bytes]))).ok().says("Verified: no");
    // The daemon remembers.
    let mut daemon = daemon;
    daemon.kill();
    daemon.launch();
    wait::until("the verdict after a restart", || {
        let verdict = daemon.http().metadata(&path)["verified"].clone();
        verdict.as_str().is_some_and(|v| v.starts_with("no: "))
    });
    // A sound one ends without the mark.
    let sound = daemon.http().import(&Recipe::new("sound").unified(Compression::Xz));
    wait::until("the deep check to pass", || {
        daemon.http().metadata(&format!("/1.0/images/{sound}")).get("verified").is_none()
    });
}

#[test]
fn cli_waits_for_the_deep_check_when_asked() {
    let daemon = Daemon::start();
    daemon.file("bad.tar.xz", &hostile_xz());
    daemon.file("good.tar.xz", &Recipe::new("good").unified(Compression::Xz));
    let done = daemon.cli("image import bad.tar.xz --verify").fails();
    assert!(done.stderr.contains("rootfs/file"), "the entry should be named:\n{done}");
    nothing_left(&daemon);
    daemon.cli("image import good.tar.xz --verify --alias good").ok();
    let info = daemon.cli("image info good").ok();
    assert!(!info.stdout.contains("pending"), "{info}");
}

#[test]
fn a_truncated_xz_is_refused_at_once() {
    let daemon = Daemon::start();
    let whole = Recipe::new("cut").unified(Compression::Xz);
    for length in [whole.len() - 1, whole.len() - 12, whole.len() / 2, 40, 6] {
        let done = daemon.http().upload(&whole[..length], &[]);
        assert_eq!(done["status"], "Failure", "cut to {length} of {}: {done}", whole.len());
    }
    let mut longer = whole.clone();
    longer.extend_from_slice(b"garbage after the end");
    let done = daemon.http().upload(&longer, &[]);
    assert_eq!(done["status"], "Failure", "garbage after the stream: {done}");
    nothing_left(&daemon);
}

#[test]
fn sound_archives_with_unusual_entries_are_taken() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let with = |name: &str, build: &dyn Fn(&mut Tar)| {
        let mut tar = Tar::new();
        tar.file("metadata.yaml", Recipe::new(name).yaml().as_bytes());
        tar.dir("rootfs/");
        build(&mut tar);
        let done = http.upload(&Compression::Gz.bytes(&tar.end()), &[]);
        assert_eq!(done["status"], "Success", "{name}: {done}");
    };
    with("links that leave by name only", &|tar| {
        tar.dir("rootfs/etc/");
        tar.link("rootfs/etc/mtab", "/proc/mounts");
        tar.link("rootfs/etc/up", "../../../../../usr");
    });
    with("devices", &|tar| {
        tar.dir("rootfs/dev/");
        tar.device("rootfs/dev/null");
    });
    with("names with dots", &|tar| {
        tar.file("rootfs/..data", b"x");
        tar.file("rootfs/a..b", b"x");
    });
    with("a directory told twice", &|tar| {
        tar.dir("rootfs/etc/");
        tar.dir("rootfs/etc/");
        tar.file("rootfs/etc/x", b"y");
    });
    let mut dotted = Tar::new();
    dotted.dir("./");
    dotted.file("./metadata.yaml", Recipe::new("dotted").yaml().as_bytes());
    dotted.dir("./rootfs/");
    dotted.file("./rootfs/x", b"y");
    http.import(&Compression::Zst.bytes(&dotted.end()));
    // Metadata at the very end.
    let mut last = Tar::new();
    last.dir("rootfs/");
    last.file("rootfs/x", &vec![7; 100_000]);
    last.file("metadata.yaml", Recipe::new("last").yaml().as_bytes());
    http.import(&Compression::Xz.bytes(&last.end()));
}
