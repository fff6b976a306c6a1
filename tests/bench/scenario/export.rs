//! The large image goes out over the socket.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{Bench, MIB, medium, number};
use crate::payload::Tarball;
use crate::report::{Metric, Target};
use crate::turns::{Figures, Pair};

/// A unified image of `--size`, from a warm page cache.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let size = bench.options.size();
    let image = Tarball::unified("large")?.with_serial("rootfs/serial")?.filled("rootfs", size)?;
    for dir in bench.options.dirs().to_vec() {
        let name = format!("export, {}", medium(&dir)?);
        let mut pair = Pair::start(&bench.options, &dir);
        pair.on_both(|server| {
            server.connect()?.upload("application/octet-stream", &[image.bytes()], None)?;
            server.sync()
        });
        let outcome = pair.take_turns(bench.options.rounds(), |server, _| {
            let mut connection = server.connect()?;
            let images = connection.call("GET", "/1.0/images", "")?;
            let path = images["metadata"][0].as_str().context("the image is gone")?;
            let path = format!("{path}/export");
            let counters = server.counters()?;
            counters.forget_peak()?;
            let cpu = counters.settled_cpu_seconds()?;
            let start = Instant::now();
            let bytes = connection.download(&path)?;
            let seconds = start.elapsed().as_secs_f64();
            ensure!(
                bytes == image.bytes().len(),
                "{bytes} bytes came, not {}",
                image.bytes().len()
            );
            let cpu = counters.settled_cpu_seconds()? - cpu;
            let bytes = number(bytes);
            Ok(Figures::from([
                ("rate", bytes / seconds / 1e6),
                ("cpu", cpu / bytes * 1e9),
                ("peak", counters.peak()? / MIB),
            ]))
        });
        let report = &mut bench.report;
        report.row(&name, Metric::higher("rate", "rate", "MB/s"), Target::Times(1.5), &outcome);
        report.row(&name, Metric::lower("cpu", "CPU per GB", "s"), Target::Times(2.0), &outcome);
        report.row(&name, Metric::lower("peak", "peak RSS", "MiB"), Target::Context, &outcome);
    }
    Ok(())
}
