//! kill -9 at random instants: what was acknowledged is there, what is there is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread::Scope;
use std::time::Duration;

use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe, Tar, fingerprint, noise};
use lxd_tests::http::{Http, multipart, multipart_type};
use lxd_tests::wait;
use serde_json::{Value, json};

/// What clients were told, and what they had asked for when the power went.
#[derive(Debug, Default)]
struct Told {
    /// Acknowledged imports that nobody asked to delete.
    present: BTreeSet<String>,
    /// Acknowledged deletions.
    gone: BTreeSet<String>,
    /// The last acknowledged value of property `n`, and values asked for since.
    edits: BTreeMap<String, (Option<u64>, Vec<u64>)>,
}

/// A request that may find the daemon dead.
fn attempt<T>(what: impl FnOnce() -> T + std::panic::UnwindSafe) -> Option<T> {
    // The HTTP harness fails tests by panicking; here a dead daemon is what we wait for.
    std::panic::catch_unwind(what).ok()
}

/// The operation's end, if the daemon lives to tell it.
fn finish(http: &Http, accepted: &lxd_tests::http::Response) -> Option<Value> {
    (accepted.status == 202).then(|| http.finish(accepted))
}

fn image(seed: u64) -> Vec<u8> {
    let mut tar = Tar::new();
    tar.file("metadata.yaml", Recipe::new(&format!("crash-{seed}")).yaml().as_bytes());
    tar.dir("rootfs/");
    tar.file("rootfs/noise", &noise(seed, 200_000 + usize::try_from(seed % 7).unwrap() * 300_000));
    if seed.is_multiple_of(3) { Compression::Zst.bytes(&tar.end()) } else { tar.end() }
}

/// Imports images until the daemon is gone.
fn import(http: &Http, told: &Mutex<Told>, seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let done = attempt(|| {
            if seed % 2 == 0 {
                let bytes = image(seed);
                let accepted = http.request("POST", "/1.0/images").send(&bytes);
                return (fingerprint(&[&bytes]), finish(http, &accepted));
            }
            let recipe = Recipe::new(&format!("split-{seed}"));
            let (metadata, rootfs) = (recipe.metadata(Compression::Gz), noise_root(seed));
            let request =
                http.request("POST", "/1.0/images").header("Content-Type", &multipart_type());
            let accepted =
                request.send(&multipart(&[("metadata", &metadata), ("rootfs", &rootfs)]));
            (fingerprint(&[&metadata, &rootfs]), finish(http, &accepted))
        });
        let Some((print, Some(done))) = done else { return };
        if done["status"] == "Success" {
            told.lock().unwrap().present.insert(print);
        }
    }
}

fn noise_root(seed: u64) -> Vec<u8> {
    let mut tar = Tar::new();
    tar.dir("./");
    tar.file("./noise", &noise(seed, 700_000));
    tar.end()
}

/// Edits what is there until the daemon is gone.
fn edit(http: &Http, told: &Mutex<Told>, mut number: u64) {
    loop {
        let Some(print) = pick(told, number) else {
            std::thread::yield_now();
            if attempt(|| http.get("/")).is_none() {
                return;
            }
            continue;
        };
        number += 1;
        told.lock().unwrap().edits.entry(print.clone()).or_default().1.push(number);
        let body = json!({"properties": {"n": number.to_string()}});
        let path = format!("/1.0/images/{print}");
        let Some(answer) = attempt(|| http.json("PATCH", &path, &body)) else { return };
        if answer.status == 200 {
            told.lock().unwrap().edits.insert(print, (Some(number), Vec::new()));
        }
    }
}

/// Exports what is there until the daemon is gone; a whole answer has the right hash.
fn export(http: &Http, told: &Mutex<Told>) {
    for number in 0.. {
        let Some(print) = pick(told, number * 31) else {
            if attempt(|| http.get("/")).is_none() {
                return;
            }
            continue;
        };
        let Some(()) = attempt(|| check_export(http, &print)) else { return };
    }
}

fn check_export(http: &Http, print: &str) {
    let answer = http.get(&format!("/1.0/images/{print}/export"));
    if answer.status == 404 {
        return;
    }
    let parts: Vec<Vec<u8>> = match answer.header("content-type") {
        Some(kind) if kind.starts_with("multipart") => {
            answer.parts().into_iter().map(|(_, _, bytes)| bytes).collect()
        }
        _ => vec![answer.body],
    };
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    assert_eq!(fingerprint(&parts), print, "an export under a wrong name");
}

/// Deletes every third image until the daemon is gone.
fn delete(http: &Http, told: &Mutex<Told>) {
    for number in 0.. {
        let victim = {
            let mut told = told.lock().unwrap();
            let victim = if told.present.len() > 6 { told.present.first().cloned() } else { None };
            // From here on it may be there or not.
            victim.inspect(|victim| {
                told.present.remove(victim);
                told.edits.remove(victim);
            })
        };
        let Some(victim) = victim else {
            if number % 50 == 0 && attempt(|| http.get("/")).is_none() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let path = format!("/1.0/images/{victim}");
        let done = attempt(|| finish(http, &http.request("DELETE", &path).send(b"")));
        match done {
            Some(Some(done)) if done["status"] == "Success" => {
                told.lock().unwrap().gone.insert(victim);
            }
            Some(_) => {}
            None => return,
        }
    }
}

fn pick(told: &Mutex<Told>, number: u64) -> Option<String> {
    let told = told.lock().unwrap();
    let count = told.present.len();
    told.present.iter().nth(usize::try_from(number).unwrap() % count.max(1)).cloned()
}

/// After the restart: everything acknowledged is there, everything there is whole.
fn inspect(daemon: &Daemon, told: &mut Told) {
    let http = daemon.http();
    let images = http.metadata("/1.0/images?recursion=1");
    let mut listed = BTreeMap::new();
    for image in images.as_array().unwrap() {
        listed.insert(image["fingerprint"].as_str().unwrap().to_owned(), image.clone());
    }
    for print in &told.present {
        assert!(listed.contains_key(print), "{print} was acknowledged and is lost");
    }
    for print in &told.gone {
        assert!(!listed.contains_key(print), "{print} was deleted and is back");
    }
    for (print, (acknowledged, asked)) in &told.edits {
        if !told.present.contains(print) {
            // Edited while it was being deleted.
            continue;
        }
        let value = listed[print]["properties"]["n"].as_str().map(|n| n.parse::<u64>().unwrap());
        let allowed = value == *acknowledged || value.is_some_and(|n| asked.contains(&n));
        assert!(allowed, "{print}: n is {value:?}, acknowledged {acknowledged:?}, asked {asked:?}");
    }
    for print in listed.keys() {
        check_export(&http, print);
    }
    // What went through just before the end counts from now on.
    let edits = listed.iter().map(|(print, image)| {
        let value = image["properties"]["n"].as_str().map(|n| n.parse().unwrap());
        (print.clone(), (value, Vec::new()))
    });
    told.edits = edits.collect();
    told.present = listed.keys().cloned().collect();
    let sizes: u64 = listed.values().map(|image| image["size"].as_u64().unwrap()).sum();
    wait::until("stray bytes to be swept", || {
        daemon.files_in("spool").is_empty() && daemon.bytes_in("blobs") == sizes
    });
}

fn spawn<'scope>(scope: &'scope Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) {
    let builder = std::thread::Builder::new().name("crash".to_owned());
    builder.spawn_scoped(scope, work).unwrap();
}

#[test]
fn killed_at_random_instants() {
    let rounds = if std::env::var_os("LXD_TEST_LONG").is_some() { 40 } else { 8 };
    let mut daemon = Daemon::start();
    let mut told = Told::default();
    let seed = u64::from(std::process::id());
    eprintln!("{rounds} kills, seed {seed}");
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Threads that met a dead daemon are not news.
        if std::thread::current().name() != Some("crash") {
            hook(info);
        }
    }));
    for round in 0..rounds {
        let http = daemon.http();
        let shared = Mutex::new(std::mem::take(&mut told));
        std::thread::scope(|scope| {
            let (http, shared) = (&http, &shared);
            for worker in 0..3 {
                let first = (seed + round * 3000 + worker * 1000) * 10;
                spawn(scope, move || import(http, shared, first..));
            }
            spawn(scope, move || edit(http, shared, round * 1_000_000));
            spawn(scope, || export(http, shared));
            spawn(scope, || delete(http, shared));
            let pause = noise(seed + round, 2);
            std::thread::sleep(Duration::from_millis(20 + u64::from(pause[0]) * 3));
            daemon.kill();
        });
        told = shared.into_inner().unwrap();
        daemon.launch();
        inspect(&daemon, &mut told);
        if round % 4 == 3 {
            assert!(daemon.stop().success());
            daemon.imaged("fsck").exits(0);
            daemon.launch();
        }
    }
    assert!(told.present.len() > 3, "the rounds did hardly anything");
}

#[test]
fn fsck_reports_and_mends() {
    let mut daemon = Daemon::start();
    let http = daemon.http();
    let whole = http.import(&Recipe::new("whole").unified(Compression::Gz));
    let corrupt = http.import(&Recipe::new("corrupt").unified(Compression::Gz));
    let missing = http.import(&Recipe::new("missing").unified(Compression::Gz));
    daemon.imaged("fsck").fails().complains("held");
    assert!(daemon.stop().success());
    daemon.imaged("fsck").exits(0);

    let blobs = daemon.dir().join("blobs");
    std::fs::write(blobs.join("0".repeat(64)), "orphan").unwrap();
    std::fs::remove_file(blobs.join(&missing)).unwrap();
    let mut bytes = std::fs::read(blobs.join(&corrupt)).unwrap();
    bytes[100] ^= 1;
    std::fs::write(blobs.join(&corrupt), bytes).unwrap();
    // What has no business here must neither stop nor hold the check.
    for directory in ["blobs", "spool"] {
        std::fs::create_dir(daemon.dir().join(directory).join("f".repeat(64))).unwrap();
    }

    let report = daemon.imaged("fsck").exits(1);
    for fault in [&missing, &corrupt, &"0".repeat(64)] {
        assert!(report.stdout.contains(&fault[..12]), "{fault} is not reported:\n{report}");
    }
    let json = daemon.imaged("fsck --format json").exits(1).json();
    assert!(json.to_string().contains(&missing), "{json}");
    daemon.imaged("fsck --repair").run();
    daemon.imaged("fsck").exits(0);
    assert!(daemon.files_in("lost+found").contains(&"0".repeat(64)), "nothing is thrown away");
    daemon.launch();
    let left = daemon.http().metadata("/1.0/images");
    assert_eq!(left, json!([format!("/1.0/images/{whole}")]));
    assert_eq!(daemon.files_in("blobs"), [whole]);
}

#[test]
fn a_missing_blob_is_told_not_hidden() {
    let daemon = Daemon::start();
    let fingerprint = daemon.http().import(&Recipe::new("lost").unified(Compression::Gz));
    std::fs::remove_file(daemon.dir().join("blobs").join(&fingerprint)).unwrap();
    let answer = daemon.http().get(&format!("/1.0/images/{fingerprint}/export"));
    assert!(answer.status >= 500, "an export of nothing:\n{answer}");
    // The rest works.
    daemon.http().import(&Recipe::new("next").unified(Compression::Gz));
}
