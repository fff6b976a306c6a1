//! Starting and stopping: whose directory, which socket, what is left behind.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use lxd_tests::client::{Invocation, system};
use lxd_tests::daemon::{Daemon, Kind};
use lxd_tests::fixtures::{Compression, Recipe, big};
use lxd_tests::tool;
use lxd_tests::wait::{self, Turn};
use serde_json::json;

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_a_first_start_makes() {
    let mut daemon = Daemon::start();
    daemon.http().import(&Recipe::new("m").unified(Compression::Gz));
    let dir = daemon.dir();
    assert_eq!(mode(&daemon.socket()), 0o660);
    assert_eq!(mode(&dir.join("server.key")), 0o600);
    assert_eq!(mode(&dir.join("server.crt")), 0o644);
    for private in ["blobs", "spool"] {
        assert_eq!(mode(&dir.join(private)), 0o700, "{private}");
    }
    for blob in daemon.files_in("blobs") {
        assert_eq!(mode(&dir.join("blobs").join(blob)), 0o600);
    }
    assert_eq!(mode(&dir.join("images.db")) & 0o077, 0);
    let certificate = std::fs::read(dir.join("server.crt")).unwrap();
    assert!(daemon.stop().success());
    assert!(!daemon.socket().exists(), "the socket stays behind");
    daemon.launch();
    assert_eq!(std::fs::read(dir.join("server.crt")).unwrap(), certificate, "another certificate");
}

#[test]
fn the_socket_group() {
    let mut daemon = Daemon::prepare(Kind::Ours, Turn::shared());
    if !tool::is_root() {
        eprintln!("SKIPPED: giving a socket to another group needs root");
        return;
    }
    daemon.add_argument("--group");
    daemon.add_argument("nogroup");
    daemon.launch();
    assert_eq!(std::fs::metadata(daemon.socket()).unwrap().gid(), 65534);
    assert_eq!(mode(&daemon.socket()), 0o660);
    let done = daemon.imaged("--group no-such-group").run();
    assert_ne!(done.code, 0);
    assert!(done.stderr.contains("no-such-group") || done.stderr.contains("held"), "{done}");
}

#[test]
fn a_directory_of_a_real_lxd() {
    let daemon = Daemon::prepare(Kind::Ours, Turn::shared());
    std::fs::create_dir_all(daemon.dir().join("database")).unwrap();
    std::fs::write(daemon.dir().join("database/local.db"), "SQLite format 3").unwrap();
    let done = daemon.imaged("").fails();
    assert!(done.stderr.contains("LXD"), "{done}");
    assert!(!daemon.dir().join("images.db").exists(), "it wrote into a stranger's directory");
    assert!(!daemon.dir().join("blobs").exists(), "it wrote into a stranger's directory");
}

#[test]
fn a_directory_that_is_held() {
    let mut daemon = Daemon::start();
    let done = daemon.imaged("").fails();
    let dir = daemon.dir();
    assert!(done.stderr.contains(lxd_tests::client::shown(&dir)), "which directory?\n{done}");
    // The first goes on, on its socket.
    daemon.http().get("/1.0").expect(200);
    daemon.kill();
    // A dead daemon's lock and socket hold nobody up.
    assert!(daemon.socket().exists());
    daemon.launch();
    daemon.http().get("/1.0").expect(200);
}

#[test]
fn a_newer_schema() {
    let mut daemon = Daemon::start();
    daemon.http().import(&Recipe::new("m").unified(Compression::Gz));
    assert!(daemon.stop().success());
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        cols = [c[1] for c in db.execute('pragma table_info(_sqlx_migrations)')]\n\
        row = list(db.execute('select * from _sqlx_migrations order by version desc limit 1').fetchone())\n\
        row[cols.index('version')] += 1000\n\
        db.execute('insert into _sqlx_migrations values (' + ','.join('?' * len(row)) + ')', row)\n\
        db.commit()\n";
    daemon.file("newer.py", script.as_bytes());
    let db = daemon.dir().join("images.db");
    daemon.point(system("python3", &format!("newer.py {}", db.display()))).ok();
    let done = daemon.imaged("").fails();
    assert!(done.stderr.contains("newer"), "{done}");
    assert_eq!(daemon.files_in("blobs").len(), 1, "it touched what it does not understand");
}

#[test]
fn waitready_and_shutdown() {
    let mut daemon = Daemon::prepare(Kind::Ours, Turn::shared());
    let start = Instant::now();
    daemon.imaged("waitready --timeout 1").fails();
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(900) && waited < Duration::from_secs(10), "{waited:?}");
    daemon.launch();
    daemon.imaged("waitready --timeout 10").ok();
    daemon.imaged("shutdown").ok();
    assert!(daemon.wait_end().success());
    daemon.imaged("shutdown").fails();
}

#[test]
fn sigterm_with_work_under_way() {
    let mut daemon = Daemon::start();
    let http = daemon.http();
    let kept = http.import(&Recipe::new("kept").unified(Compression::Gz));
    let mut upload = http.request("POST", "/1.0/images").chunked();
    let image = big::unified(Vec::new(), "cut", 3, Compression::Plain).unwrap();
    upload.chunk(&image[..2 << 20]).unwrap();
    wait::until("the upload to be under way", || daemon.bytes_in("spool") > 0);
    let mut events = lxd_tests::events::Events::listen(&http, "");
    let start = Instant::now();
    assert!(daemon.stop().success(), "{}", daemon.log());
    assert!(start.elapsed() < Duration::from_secs(20), "it took {:?}", start.elapsed());
    events.rest(Duration::from_secs(1));
    drop(upload);
    daemon.imaged("fsck").exits(0);
    daemon.launch();
    assert_eq!(http.metadata("/1.0/images"), json!([format!("/1.0/images/{kept}")]));
    assert!(daemon.files_in("spool").is_empty());
}

#[test]
fn as_an_ordinary_user() {
    let mut daemon = Daemon::prepare(Kind::Ours, Turn::shared());
    if !tool::is_root() {
        // Every test of this run shows it.
        return;
    }
    let base = daemon.dir().parent().unwrap().to_owned();
    let program = base.join("lxd-imaged");
    tool::copy_for_all(&tool::ours("lxd-imaged"), &program);
    std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(daemon.dir(), Some(65534), Some(65534)).unwrap();
    let line = format!("--reuid=65534 --regid=65534 --clear-groups {}", program.display());
    let running = daemon.point(Invocation::new(&tool::require("setpriv"), &line)).spawn();
    let connects = || std::os::unix::net::UnixStream::connect(daemon.socket()).is_ok();
    let up = wait::within(Duration::from_secs(20), connects);
    if !up {
        running.signal(rustix::process::Signal::KILL);
        panic!("it does not start: {}", running.wait());
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    assert!(status.contains("Uid:\t65534\t65534"), "{status}");
    let image = Recipe::new("user").unified(Compression::Zst);
    daemon.file("user.tar.zst", &image);
    daemon.lxc("image import user.tar.zst --alias user").ok();
    daemon.lxc("image export user").ok();
    daemon.lxc("image delete user").ok();
    running.signal(rustix::process::Signal::TERM);
    let done = running.wait();
    assert_eq!(done.code, 0, "{done}");
    daemon.launch();
}

#[test]
fn help_helps() {
    let daemon = Daemon::prepare(Kind::Ours, Turn::shared());
    let help = daemon.imaged("--help").ok();
    for word in
        ["LXD_DIR", "unix.socket", "waitready", "shutdown", "fsck", "--group", "LXD_IMAGED_LOG"]
    {
        assert!(help.stdout.contains(word), "no word about {word}:\n{help}");
    }
    for command in ["waitready", "shutdown", "fsck"] {
        daemon.imaged(&format!("{command} --help")).ok();
    }
    daemon.imaged("--version").ok().says(".");
    daemon.imaged("--no-such-flag").exits(2).complains("--no-such-flag");
}

#[test]
fn structured_logs() {
    let mut daemon = Daemon::prepare(Kind::Ours, Turn::shared());
    daemon.add_argument("--log-format");
    daemon.add_argument("json");
    daemon.set_env("LXD_IMAGED_LOG", "debug");
    daemon.launch();
    daemon.http().import(&Recipe::new("log").unified(Compression::Gz));
    let log = daemon.log();
    assert!(log.lines().count() > 0, "nothing was logged");
    for line in log.lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok_and(|entry| entry.is_object()), "not a JSON object: {line}");
    }
}

#[test]
fn a_restart_keeps_everything() {
    let mut daemon = Daemon::start();
    let http = daemon.http();
    for number in 0..5 {
        let image = Recipe::new(&format!("r{number}")).unified(Compression::Gz);
        let print = http.import(&image);
        let alias = json!({"name": format!("a/{number}"), "target": print, "description": "d"});
        http.json("POST", "/1.0/images/aliases", &alias).expect(201);
        let edit =
            json!({"public": number % 2 == 0, "auto_update": true, "properties": {"ünï": "<&>"}});
        http.json("PATCH", &format!("/1.0/images/{print}"), &edit).expect(200);
    }
    let before = http.metadata("/1.0/images?recursion=1");
    assert!(daemon.stop().success());
    daemon.launch();
    assert_eq!(http.metadata("/1.0/images?recursion=1"), before);
}
