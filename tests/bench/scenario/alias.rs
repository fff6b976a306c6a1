//! Looking up an alias: alone, on fresh connections, with 32 clients, while others list.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::large::ALIASES;
use super::{Bench, list, number};
use crate::client::Connection;
use crate::report::{Metric, Target};
use crate::server::Server;
use crate::turns::{Figures, median};

const CLIENTS: usize = 32;

/// How long each part of a round lasts.
fn span(short: bool) -> Duration {
    Duration::from_millis(if short { 500 } else { 3000 })
}

/// On the store of `--images`.
pub(super) fn run(bench: &mut Bench) {
    let (images, rounds, span) =
        (bench.options.images(), bench.options.rounds(), span(bench.options.short));
    let outcome = bench.large(images).take_turns(rounds, |server, _| measure(server, span));
    let name = format!("alias look-up, {images} images");
    let calm = outcome.of_ours("kept").unwrap_or(f64::NAN);
    let report = &mut bench.report;
    let row = |figure, title| Metric::lower(figure, title, "ms");
    report.row(&name, row("kept", "p50, one connection"), Target::AtMost(0.1), &outcome);
    report.row(&name, row("kept99", "p99, one connection"), Target::Context, &outcome);
    report.row(&name, row("fresh", "p50, a connection each"), Target::AtMost(0.1), &outcome);
    let many = Metric::higher("many", "32 clients, per second", "");
    report.row(&name, many, Target::Times(10.0), &outcome);
    let cpu = Metric::lower("cpu", "32 clients, CPU per look-up", "µs");
    report.row(&name, cpu, Target::Context, &outcome);
    report.row(
        &name,
        row("listed", "p50 while one client lists"),
        Target::AtMost(2.0 * calm),
        &outcome,
    );
}

fn measure(server: &mut Server, span: Duration) -> Result<Figures> {
    let mut kept = kept(server, span / 3)?;
    let fresh = fresh(server, span / 3)?;
    let counters = server.counters()?;
    let cpu = counters.cpu_seconds()?;
    let (count, seconds) = many(server, span / 2)?;
    let cpu = counters.cpu_seconds()? - cpu;
    let listed = while_listing(server, span)?;
    kept.sort_by(f64::total_cmp);
    let p99 = kept.get(kept.len() * 99 / 100).copied().unwrap_or(f64::NAN);
    Ok(Figures::from([
        ("kept", median(kept)),
        ("kept99", p99),
        ("fresh", median(fresh)),
        ("many", number(count) / seconds),
        ("cpu", cpu / number(count) * 1e6),
        ("listed", median(listed)),
    ]))
}

/// Looks one up; the time in ms.
fn look_up(connection: &mut Connection, number: usize) -> Result<f64> {
    let path = format!("/1.0/images/aliases/alias-{}", number % ALIASES);
    let start = Instant::now();
    let (status, _) = connection.get(&path)?;
    let time = start.elapsed().as_secs_f64() * 1e3;
    ensure!(status == 200, "GET {path}: status {status}");
    Ok(time)
}

/// One connection, one request after the other.
fn kept(server: &Server, span: Duration) -> Result<Vec<f64>> {
    let mut connection = server.connect_small()?;
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < span || times.is_empty() {
        times.push(look_up(&mut connection, times.len())?);
    }
    Ok(times)
}

/// A connection for each request, as `lxc` does it.
fn fresh(server: &Server, span: Duration) -> Result<Vec<f64>> {
    let begin = Instant::now();
    let mut times = Vec::new();
    while begin.elapsed() < span || times.is_empty() {
        let start = Instant::now();
        let mut connection = Connection::with_room(&server.socket(), 4 << 10)?;
        look_up(&mut connection, times.len())?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// How many all clients together looked up, and in how many seconds.
fn many(server: &Server, span: Duration) -> Result<(usize, f64)> {
    let start = Instant::now();
    let counts: Result<Vec<usize>> = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| kept(server, span).map(|t| t.len()))).collect();
        clients.into_iter().map(|c| c.join().map_err(|_| anyhow!("a client panicked"))?).collect()
    });
    Ok((counts?.iter().sum(), start.elapsed().as_secs_f64()))
}

/// One client, while another fetches the whole list again and again.
fn while_listing(server: &Server, span: Duration) -> Result<Vec<f64>> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let lister = scope.spawn(|| -> Result<()> {
            let mut connection = server.connect()?;
            while !stop.load(Ordering::Relaxed) {
                if connection.get_what_comes(list::PATH).is_err() {
                    // A real LXD cuts long lists short and hangs up.
                    connection = server.connect()?;
                }
            }
            Ok(())
        });
        let times = kept(server, span);
        stop.store(true, Ordering::Relaxed);
        lister.join().map_err(|_| anyhow!("the listing client panicked"))??;
        times
    })
}
