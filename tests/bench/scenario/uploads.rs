//! Many small images come in at once, each on a connection of its own.

use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use super::{Bench, MIB, medium, number};
use crate::payload::{self, Tarball};
use crate::report::{Metric, Target};
use crate::server::Server;
use crate::turns::{Figures, Pair};

/// `--uploads` images of 1 MiB, then of a few KiB.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let count = bench.options.uploads();
    for dir in bench.options.dirs().to_vec() {
        let medium = medium(&dir)?;
        for (size, shown) in [(1 << 20, "1 MiB"), (0, "4 KiB")] {
            let name = format!("{count} uploads of {shown} at once, {medium}");
            let mut pair = Pair::start(&bench.options, &dir);
            let outcome = pair.take_turns(bench.options.rounds(), |server, _| {
                let images = (0..count).map(|_| image(size)).collect::<Result<Vec<_>>>()?;
                all_at_once(server, &images)
            });
            let rate = Metric::higher("rate", "uploads per second", "");
            let peak = Metric::lower("peak", "peak RSS", "MiB");
            let cpu = Metric::lower("cpu", "CPU per upload", "ms");
            bench.report.row(&name, rate, Target::Times(5.0), &outcome);
            bench.report.row(&name, peak, Target::AtMost(64.0), &outcome);
            bench.report.row(&name, cpu, Target::Context, &outcome);
        }
    }
    Ok(())
}

fn image(size: usize) -> Result<Vec<u8>> {
    if size == 0 {
        return payload::tiny("tiny");
    }
    let mut image =
        Tarball::unified("small")?.with_serial("rootfs/serial")?.filled("rootfs", size)?;
    image.renew()?;
    Ok(image.bytes().to_vec())
}

fn all_at_once(server: &Server, images: &[Vec<u8>]) -> Result<Figures> {
    server.sync()?;
    let counters = server.counters()?;
    let cpu = counters.settled_cpu_seconds()?;
    counters.forget_peak()?;
    let barrier = Barrier::new(images.len() + 1);
    let (seconds, fingerprints) = std::thread::scope(|scope| {
        let uploads: Vec<_> = images
            .iter()
            .map(|image| {
                scope.spawn(|| {
                    barrier.wait();
                    let mut connection = server.connect_small()?;
                    connection.upload("application/octet-stream", &[image], None)
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        let done: Vec<_> = uploads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        (start.elapsed().as_secs_f64(), done)
    });
    let peak = counters.peak()?;
    let cpu = counters.settled_cpu_seconds()? - cpu;
    let mut connection = server.connect()?;
    let mut failed = Vec::new();
    for upload in fingerprints {
        match upload.map_err(|_| anyhow!("an upload panicked"))? {
            Ok(upload) => connection.delete(&upload.fingerprint)?,
            Err(error) => failed.push(error),
        }
    }
    let failures = failed.len();
    if let Some(first) = failed.into_iter().next() {
        return Err(first)
            .with_context(|| format!("{failures} of {} uploads failed", images.len()));
    }
    let count = number(images.len());
    Ok(Figures::from([("rate", count / seconds), ("peak", peak / MIB), ("cpu", cpu / count * 1e3)]))
}
