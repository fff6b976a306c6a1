//! Public images go out over HTTPS: large ones beside nginx, small ones beside LXD.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::{Bench, MIB, number};
use crate::client::{Connection, STEP};
use crate::nginx::Nginx;
use crate::payload::Tarball;
use crate::report::{Metric, Target};
use crate::server::{Server, Side};
use crate::turns::{Figures, Outcome, Pair, median, medians};

/// A large public image: 1, 8 and 64 clients at once. The peer is nginx with the same file, the
/// same certificate and the same clients.
pub(super) fn large(bench: &mut Bench) -> Result<()> {
    let size = bench.options.size() / 4;
    let image = Tarball::unified("served")?.with_serial("rootfs/serial")?.filled("rootfs", size)?;
    let server = Server::start(Side::Ours, bench.options.first_dir())?;
    let (port, path) = publish(&server, image.bytes())?;
    let nginx = Nginx::start(&server, &[("image", image.bytes())]);
    for clients in [1, 8, 64] {
        let rounds = bench.options.rounds();
        let (mut ours, mut theirs) = (Ok(Vec::new()), Ok(Vec::new()));
        // So much in all, and everybody at least once.
        let each = (8 / clients).max(1);
        let length = image.bytes().len();
        for round in 0..2 * rounds {
            if (round + round / 2) % 2 == 0 {
                collect(&mut ours, || {
                    let counters = server.counters()?;
                    counters.forget_peak()?;
                    let cpu = counters.cpu_seconds()?;
                    let rate = rate(port, &path, clients, each, length)?;
                    let cpu = counters.cpu_seconds()? - cpu;
                    let bytes = number(clients * each * length);
                    let peak = counters.peak()? / MIB;
                    Ok(Figures::from([("rate", rate), ("cpu", cpu / bytes * 1e9), ("peak", peak)]))
                });
            } else {
                collect(&mut theirs, || {
                    let nginx = nginx.as_ref().map_err(|error| anyhow!("{error:#}"))?;
                    let rate = rate(nginx.port, "/image", clients, each, length)?;
                    Ok(Figures::from([("rate", rate)]))
                });
            }
        }
        let outcome =
            Outcome { ours: ours.map(|all| medians(&all)), lxd: theirs.map(|all| medians(&all)) };
        let name = format!("HTTPS export, {clients} clients, beside nginx");
        let report = &mut bench.report;
        report.row(&name, Metric::higher("rate", "rate", "MB/s"), Target::Times(0.9), &outcome);
        let own = Outcome { lxd: Err(anyhow!(crate::turns::NOT_ASKED)), ..outcome };
        report.row(&name, Metric::lower("cpu", "CPU per GB", "s"), Target::Context, &own);
        report.row(&name, Metric::lower("peak", "peak RSS", "MiB"), Target::AtMost(60.0), &own);
    }
    Ok(())
}

pub(super) fn collect(all: &mut Result<Vec<Figures>>, measure: impl FnOnce() -> Result<Figures>) {
    let Ok(list) = all else { return };
    match measure() {
        Ok(figures) => list.push(figures),
        Err(error) => *all = Err(error),
    }
}

/// Uploads a public image and opens the port; the port, and the path of the export.
fn publish(server: &Server, image: &[u8]) -> Result<(u16, String)> {
    let upload = server.connect()?.upload("application/octet-stream", &[image], None)?;
    let path = format!("/1.0/images/{}", upload.fingerprint);
    server.connect()?.call("PATCH", &path, r#"{"public":true}"#)?;
    server.sync()?;
    Ok((server.open_port()?, format!("{path}/export")))
}

/// MB/s of `clients` that each download `each` times on one connection.
pub(super) fn rate(
    port: u16,
    path: &str,
    clients: usize,
    each: usize,
    length: usize,
) -> Result<f64> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut connection = Connection::https(port, STEP)?;
                    for _ in 0..each {
                        let bytes = connection.download(path)?;
                        ensure!(bytes == length, "{bytes} bytes came, not {length}");
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?)
    })?;
    Ok(number(clients * each * length) / start.elapsed().as_secs_f64() / 1e6)
}

/// A public image of 10 KiB: 64 clients, each on its own connection.
pub(super) fn small(bench: &mut Bench) -> Result<()> {
    const CLIENTS: usize = 64;
    let image = Tarball::unified("small")?.with_serial("rootfs/serial")?;
    let image = image.filled("rootfs", 7 << 10)?;
    let span = Duration::from_millis(if bench.options.short { 700 } else { 4000 });
    let mut pair = Pair::start(&bench.options, bench.options.first_dir());
    let outcome = pair.take_turns(bench.options.rounds(), |server, round| {
        if round == 0 {
            publish(server, image.bytes())?;
        }
        let images = server.connect()?.call("GET", "/1.0/images", "")?;
        let path = images["metadata"][0].as_str().context("the image is gone")?;
        let about = server.connect()?.call("GET", "/1.0", "")?;
        let address = about["metadata"]["config"]["core.https_address"].as_str();
        let port = address.and_then(|address| address.rsplit(':').next()?.parse().ok());
        let port = port.context("no port is open")?;
        many(port, &format!("{path}/export"), CLIENTS, span)
    });
    let name = format!("{} KiB over HTTPS, {CLIENTS} clients", image.bytes().len() >> 10);
    let report = &mut bench.report;
    let rate = Metric::higher("rate", "downloads per second", "");
    report.row(&name, rate, Target::Times(10.0), &outcome);
    report.row(&name, Metric::lower("p99", "p99", "ms"), Target::AtMost(20.0), &outcome);
    report.row(&name, Metric::lower("p50", "p50", "ms"), Target::Context, &outcome);
    Ok(())
}

fn many(port: u16, path: &str, clients: usize, span: Duration) -> Result<Figures> {
    let start = Instant::now();
    let mut times = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| -> Result<Vec<f64>> {
                    let mut connection = Connection::https(port, 32 << 10)?;
                    let mut times = Vec::new();
                    while start.elapsed() < span {
                        let begin = Instant::now();
                        connection.download(path)?;
                        times.push(begin.elapsed().as_secs_f64() * 1e3);
                    }
                    Ok(times)
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        Ok::<_, anyhow::Error>(all)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or(f64::NAN);
    let rate = number(times.len()) / seconds;
    Ok(Figures::from([("rate", rate), ("p99", p99), ("p50", median(times))]))
}
