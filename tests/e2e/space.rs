//! A disk that runs full: that import fails and says so, everything else goes on.

use std::io::Write;

use lxd_tests::client::Client;
use lxd_tests::daemon::{Daemon, Kind};
use lxd_tests::fixtures::{Compression, Recipe, big};
use lxd_tests::wait::{self, Turn};
use lxd_tests::{http::Http, tool};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;

/// A mounted tmpfs; gone when dropped.
struct Small(std::path::PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn an_import_into_a_full_store() {
    if !tool::is_root() {
        eprintln!("SKIPPED: mounting a small tmpfs needs root");
        return;
    }
    let mut daemon = Daemon::prepare(Kind::Ours, Turn::shared());
    let options = Some(c"size=64m,mode=711");
    mount("lxdt", daemon.dir(), "tmpfs", MountFlags::empty(), options).expect("mount a tmpfs");
    // Dropped before the daemon, whose home can only go when nothing is mounted in it.
    let _small = Small(daemon.dir());
    daemon.launch();
    let http = daemon.http();
    let kept = http.import(&Recipe::new("before").unified(Compression::Gz));

    let large = big::unified(Vec::new(), "large", 100, Compression::Plain).unwrap();
    daemon.file("large.tar", &large);
    for client in Client::both() {
        let done = daemon.client(client, "image import large.tar").fails();
        assert!(done.stderr.to_lowercase().contains("space"), "{done}");
        whole_again(&daemon, &http, &kept);
    }
    // With a known length, and with none.
    let known = http.request("POST", "/1.0/images").send(&large);
    let refused = match known.status {
        202 => http.finish(&known)["err"].as_str().unwrap().to_owned(),
        _ => known.json()["error"].as_str().unwrap().to_owned(),
    };
    assert!(refused.to_lowercase().contains("space"), "{refused}");
    let mut upload = http.request("POST", "/1.0/images").chunked();
    let _ = large.chunks(1 << 20).try_for_each(|chunk| upload.chunk(chunk));
    let unknown = upload.end();
    let refused = match unknown.status {
        202 => http.finish(&unknown)["err"].as_str().unwrap().to_owned(),
        _ => unknown.json()["error"].as_str().unwrap().to_owned(),
    };
    assert!(refused.to_lowercase().contains("space"), "{refused}");
    whole_again(&daemon, &http, &kept);

    let next = http.import(&Recipe::new("next").unified(Compression::Xz));
    http.get(&format!("/1.0/images/{next}/export")).expect(200);
    // Most of the room can really be used.
    let fits = big::unified(Vec::new(), "fits", 40, Compression::Plain).unwrap();
    http.import(&fits);
    assert!(daemon.stop().success());
    daemon.imaged("fsck").exits(0);
}

#[test]
fn what_is_acknowledged_after_a_full_disk_survives() {
    if !tool::is_root() {
        eprintln!("SKIPPED: mounting a small tmpfs needs root");
        return;
    }
    let mut daemon = Daemon::prepare(Kind::Ours, Turn::shared());
    let options = Some(c"size=16m,mode=711");
    mount("lxdt", daemon.dir(), "tmpfs", MountFlags::empty(), options).expect("mount a tmpfs");
    let _small = Small(daemon.dir());
    daemon.launch();
    let http = daemon.http();
    let edited = http.import(&Recipe::new("edited").unified(Compression::Gz));
    let path = format!("/1.0/images/{edited}");
    let filler = daemon.dir().join("filler");
    let _ = std::fs::write(&filler, vec![0; 32 << 20]);
    let mut filling = std::fs::File::options().append(true).open(&filler).unwrap();
    while filling.write_all(&[0; 4096]).is_ok() {}

    for round in 0..3 {
        let body = json!({"properties": {"a": "x".repeat(200_000), "round": round.to_string()}});
        http.json("PUT", &path, &body).refuses(507, "");
    }
    drop(filling);
    std::fs::remove_file(&filler).unwrap();
    let after = http.import(&Recipe::new("after").unified(Compression::Gz));
    http.json("PUT", &path, &json!({"properties": {"a": "small"}})).expect(200);
    daemon.kill();
    daemon.launch();
    let http = daemon.http();
    http.get(&format!("/1.0/images/{after}/export")).expect(200);
    assert_eq!(http.metadata(&path)["properties"]["a"], "small");
}

/// Nothing of the failed import stays, and the daemon serves.
fn whole_again(daemon: &Daemon, http: &Http, kept: &str) {
    assert_eq!(http.metadata("/1.0/images"), json!([format!("/1.0/images/{kept}")]));
    let size = http.metadata(&format!("/1.0/images/{kept}"))["size"].as_u64().unwrap();
    wait::until("the room to be given back", || {
        daemon.files_in("spool").is_empty() && daemon.bytes_in("blobs") == size
    });
    assert!(http.get(&format!("/1.0/images/{kept}/export")).status == 200);
}
