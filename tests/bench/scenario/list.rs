//! All images with their properties, of a small and of a large store.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Bench, number};
use crate::report::{Metric, Target};
use crate::server::Server;
use crate::turns::Figures;

/// What a client asks for to show a list.
pub(super) const PATH: &str = "/1.0/images?recursion=1";

/// A fifth of `--images`, then all of them.
pub(super) fn run(bench: &mut Bench) {
    let all = bench.options.images();
    let rounds = bench.options.rounds();
    for (images, times) in [((all / 5).max(1), 200.0), (all, 500.0)] {
        let outcome = bench.large(images).take_turns(rounds, |server, _| list(server));
        let name = format!("list of {images} images, recursion=1");
        let time = Metric::lower("time", "time to the last byte", "ms");
        let complete = Metric::higher("images", "images in the answer", "");
        bench.report.row(&name, time, Target::Times(times), &outcome);
        bench.report.row(&name, complete, Target::AtLeast(number(images)), &outcome);
        let cpu = Metric::lower("cpu", "CPU", "ms");
        bench.report.row(&name, cpu, Target::Context, &outcome);
    }
}

fn list(server: &Server) -> Result<Figures> {
    /// Enough lists for a processor time that a clock of 10 ms can show.
    const LISTS: usize = 10;
    let counters = server.counters()?;
    let cpu = counters.settled_cpu_seconds()?;
    let mut connection = server.connect()?;
    let mut times = Vec::new();
    let mut images = 0;
    let begin = Instant::now();
    while times.len() < LISTS && begin.elapsed().as_secs() < 2 {
        let start = Instant::now();
        let (status, body) = connection.get_what_comes(PATH)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        ensure!(status == 200, "status {status}");
        images = occurrences(&body, br#""fingerprint":"#);
    }
    let lists = number(times.len());
    let cpu = counters.settled_cpu_seconds()? - cpu;
    Ok(Figures::from([
        ("time", crate::turns::median(times)),
        ("images", number(images)),
        ("cpu", cpu / lists * 1e3),
    ]))
}

fn occurrences(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).filter(|window| *window == what).count()
}
