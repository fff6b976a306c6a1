//! Many slow clients at once: those in a hurry don't notice.

use std::io::Write;
use std::time::{Duration, Instant};

use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe};
use lxd_tests::http::{Http, Upload};
use lxd_tests::wait;
use serde_json::json;

/// Look-ups in one measurement.
const WINDOW: usize = 400;
/// Measurements of each kind, whose median counts.
const WINDOWS: usize = 7;
/// How often a busy machine may spoil everything.
const TRIES: usize = 4;
const CROWD: usize = 200;

/// The time that 99 of 100 alias look-ups stay below.
fn p99(http: &Http) -> Duration {
    let mut times: Vec<Duration> = (0..WINDOW)
        .map(|_| {
            let start = Instant::now();
            http.get("/1.0/images/aliases/known").expect(200);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[WINDOW * 99 / 100]
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Connections that say nothing, and uploads that never end.
struct Crowd {
    _silent: Vec<std::os::unix::net::UnixStream>,
    slow: Vec<Upload>,
}

impl Crowd {
    fn gather(http: &Http) -> Self {
        let silent = (0..CROWD).map(|_| http.connect()).collect();
        let image = Recipe::new("slow").unified(Compression::Gz);
        let slow = (0..CROWD).map(|_| {
            let mut upload = http.request("POST", "/1.0/images").chunked();
            upload.chunk(&image[..40]).unwrap();
            upload
        });
        Self { _silent: silent, slow: slow.collect() }
    }

    /// A byte more from everyone.
    fn trickle(&mut self) {
        for upload in &mut self.slow {
            upload.write_all(b"x").unwrap();
        }
    }
}

/// The medians without and with a crowd, measured in turn: a slow moment hits both.
fn idle_and_loaded(daemon: &Daemon) -> (Duration, Duration) {
    let http = daemon.http();
    let (mut idle, mut loaded) = (Vec::new(), Vec::new());
    for _ in 0..WINDOWS {
        idle.push(p99(&http));
        let mut crowd = Crowd::gather(&http);
        crowd.trickle();
        loaded.push(p99(&http));
        crowd.trickle();
        drop(crowd);
        wait::until("the crowd to be forgotten", || daemon.files_in("spool").is_empty());
    }
    (median(idle), median(loaded))
}

#[test]
fn look_ups_beside_silent_connections_and_slow_uploads() {
    let daemon = Daemon::start_alone();
    let http = daemon.http();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let target = http.import(&Recipe::new("known").unified(Compression::Gz));
    http.json("POST", "/1.0/images/aliases", &json!({"name": "known", "target": target}))
        .expect(201);
    p99(&http);

    let tries: Vec<_> = (0..TRIES).map(|_| idle_and_loaded(&daemon)).collect();
    eprintln!("alias look-up p99, idle and loaded: {tries:?}");
    let unnoticed = tries.iter().any(|(idle, loaded)| *loaded <= *idle * 2);
    assert!(unnoticed, "alias look-up p99, idle and loaded: {tries:?}");
    assert_eq!(http.metadata("/1.0/images").as_array().map(Vec::len), Some(1));
}

#[test]
fn two_hundred_uploads_at_once() {
    let daemon = Daemon::start_alone();
    let http = daemon.http();
    http.import(&Recipe::new("warm").unified(Compression::Gz));
    daemon.forget_peak();
    std::thread::scope(|scope| {
        for number in 0..200 {
            let http = http.clone();
            scope.spawn(move || {
                http.import(&Recipe::new(&format!("n{number}")).unified(Compression::Gz))
            });
        }
    });
    assert_eq!(http.metadata("/1.0/images").as_array().map(Vec::len), Some(201));
    let peak = daemon.peak() >> 20;
    assert!(peak <= 64, "{peak} MiB resident");
}
