//! One large image comes in: how fast, at what cost, and how long after its last byte.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use super::{Bench, MIB, medium, number};
use crate::client::STEP;
use crate::payload::{self, Tarball};
use crate::report::{Metric, Target};
use crate::server::Server;
use crate::turns::{Figures, Outcome, Pair};

const RATE: Metric = Metric::higher("rate", "first byte to Success", "MB/s");
const DURABLE: Metric = Metric::higher("durable", "… to all of it on the disk (syncfs)", "MB/s");
const CPU: Metric = Metric::lower("cpu", "CPU per GB", "s");
const TAIL: Metric = Metric::lower("tail", "last byte to Success", "ms");
const WRITTEN: Metric = Metric::lower("written", "bytes written per byte of image", "");
const PEAK: Metric = Metric::lower("peak", "peak RSS", "MiB");

/// What is uploaded.
pub(super) struct Body<'a> {
    pub(super) kind: &'a str,
    pub(super) parts: &'a [&'a [u8]],
    /// Bytes per second, when the upload is slowed down.
    pub(super) pace: Option<f64>,
}

/// A unified image of `--size`.
pub(super) fn unified(bench: &mut Bench) -> Result<()> {
    let size = bench.options.size();
    let mut image =
        Tarball::unified("large")?.with_serial("rootfs/serial")?.filled("rootfs", size)?;
    for dir in bench.options.dirs().to_vec() {
        let name = format!("import unified, {}", medium(&dir)?);
        let raw = raw_rate(&dir, image.bytes())?;
        bench.report.note(format!(
            "{name}: writing the same bytes to a file there and fsync: {raw:.0} MB/s"
        ));
        let mut pair = Pair::start(&bench.options, &dir);
        let outcome = pair.take_turns(bench.options.rounds(), |server, _| {
            image.renew()?;
            let kind = "application/octet-stream";
            measure(server, &Body { kind, parts: &[image.bytes()], pace: None })
        });
        let report = &mut bench.report;
        report.row(&name, RATE, Target::Times(3.0), &outcome);
        report.row(&name, DURABLE, Target::Context, &outcome);
        report.row(&name, CPU, Target::AtMost(1.1), &outcome);
        report.row(&name, TAIL, Target::AtMost(50.0), &outcome);
        report.row(&name, WRITTEN, Target::AtMost(1.02), &outcome);
        report.row(&name, PEAK, Target::Context, &outcome);
    }
    Ok(())
}

/// A split image whose rootfs has `--size`.
pub(super) fn split(bench: &mut Bench) -> Result<()> {
    let size = bench.options.size();
    let mut root = Tarball::root()?.with_serial("./serial")?.filled(".", size)?;
    let metadata = payload::split_metadata()?;
    let kind = payload::multipart_type();
    let [before, between, after] = payload::multipart();
    for dir in bench.options.dirs().to_vec() {
        let name = format!("import split, {}", medium(&dir)?);
        let mut pair = Pair::start(&bench.options, &dir);
        let outcome = pair.take_turns(bench.options.rounds(), |server, _| {
            root.renew()?;
            let parts =
                [before.as_bytes(), &metadata, between.as_bytes(), root.bytes(), after.as_bytes()];
            measure(server, &Body { kind: &kind, parts: &parts, pace: None })
        });
        let report = &mut bench.report;
        report.row(&name, RATE, Target::Times(4.0), &outcome);
        report.row(&name, DURABLE, Target::Context, &outcome);
        report.row(&name, WRITTEN, Target::AtMost(1.02), &outcome);
        report.row(&name, CPU, Target::Context, &outcome);
        report.row(&name, TAIL, Target::Context, &outcome);
        report.row(&name, PEAK, Target::Context, &outcome);
    }
    Ok(())
}

/// One import and the deletion of what it made.
pub(super) fn measure(server: &Server, body: &Body<'_>) -> Result<Figures> {
    let bytes = number(body.parts.iter().map(|part| part.len()).sum());
    server.sync()?;
    let counters = server.counters()?;
    counters.forget_peak()?;
    let cpu = counters.settled_cpu_seconds()?;
    let written = counters.written()?;
    let mut connection = server.connect()?;
    let upload = connection.upload(body.kind, body.parts, body.pace)?;
    let success = Instant::now();
    server.sync()?;
    let synced = success.elapsed().as_secs_f64();
    let peak = counters.peak()?;
    let cpu = counters.settled_cpu_seconds()? - cpu;
    let after = counters.written()?;
    // Nothing reaches a disk from a tmpfs: there, what was handed to system calls counts.
    let disk = after.disk - written.disk;
    let stored = if disk > 0.0 { disk } else { after.calls - written.calls };
    connection.delete(&upload.fingerprint)?;
    Ok(Figures::from([
        ("rate", bytes / upload.total / 1e6),
        ("durable", bytes / (upload.total + synced) / 1e6),
        ("total", upload.total),
        ("tail", upload.tail * 1e3),
        ("cpu", cpu / bytes * 1e9),
        ("cpu-total", cpu),
        ("written", stored / bytes),
        ("peak", peak / MIB),
    ]))
}

/// How fast `dir` takes bytes when nothing else is done with them, fsync included, in MB/s.
fn raw_rate(dir: &Path, bytes: &[u8]) -> Result<f64> {
    let path = dir.join(format!("raw-{}", std::process::id()));
    let write = || -> Result<f64> {
        let mut file = File::create(&path)?;
        file.sync_all()?;
        let start = Instant::now();
        for step in bytes.chunks(STEP) {
            file.write_all(step)?;
        }
        file.sync_all()?;
        Ok(number(bytes.len()) / start.elapsed().as_secs_f64() / 1e6)
    };
    let rate = write().with_context(|| format!("cannot write {}", path.display()));
    std::fs::remove_file(&path)?;
    rate
}

/// Time rows that every kind of import has.
pub(super) fn time_rows(
    bench: &mut Bench,
    name: &str,
    total: Target,
    tail: Target,
    outcome: &Outcome,
) {
    let report = &mut bench.report;
    report.row(name, Metric::lower("total", "first byte to Success", "s"), total, outcome);
    report.row(name, TAIL, tail, outcome);
    let cpu = Metric::lower("cpu-total", "CPU, check in the background included", "s");
    report.row(name, cpu, Target::Context, outcome);
}
