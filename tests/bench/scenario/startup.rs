//! From the start of the process to its first answer, and what it then costs to have it.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Bench, MIB, list};
use crate::report::{Metric, Target};
use crate::server::Server;
use crate::turns::{Figures, Pair};

/// On an empty directory, then with `--images`.
pub(super) fn run(bench: &mut Bench) {
    let (images, rounds) = (bench.options.images(), bench.options.rounds());
    let first_dir = bench.options.first_dir().to_owned();
    let start = Metric::lower("start", "to the first answer", "ms");
    let idle = Metric::lower("idle", "idle RSS", "MiB");

    let prepare = |side| Server::prepare(side, &first_dir);
    let outcome = Pair::with(&bench.options, prepare).take_turns(rounds, |server, _| {
        *server = Server::prepare(server.side(), &first_dir)?;
        let seconds = server.launch()?;
        server.counters()?.settled_cpu_seconds()?;
        Ok(Figures::from([
            ("start", seconds * 1e3),
            ("idle", server.counters()?.resident()? / MIB),
        ]))
    });
    bench.report.row("first start", start, Target::AtMost(30.0), &outcome);
    bench.report.row("first start", idle, Target::AtMost(15.0), &outcome);

    let outcome = bench.large(images).take_turns(rounds, |server, _| restart(server));
    let name = format!("restart with {images} images");
    bench.report.row(&name, start, Target::AtMost(50.0), &outcome);
    let listed = Metric::lower("listed", "to the end of the first list", "ms");
    bench.report.row(&name, listed, Target::Context, &outcome);
    bench.report.row(&name, idle, Target::AtMost(15.0), &outcome);
    let used = Metric::lower("used", "idle RSS after the first list", "MiB");
    bench.report.row(&name, used, Target::Context, &outcome);
}

fn restart(server: &mut Server) -> Result<Figures> {
    server.stop()?;
    server.sync()?;
    let begin = Instant::now();
    let seconds = server.launch()?;
    let counters = server.counters()?;
    let mut connection = server.connect()?;
    let (status, _) = connection.get_what_comes(list::PATH)?;
    ensure!(status == 200, "the first list: status {status}");
    let listed = begin.elapsed().as_secs_f64();
    counters.settled_cpu_seconds()?;
    let used = counters.resident()?;
    drop(connection);
    // Once more without a list: idle means that nobody has asked for anything.
    server.stop()?;
    server.launch()?;
    let counters = server.counters()?;
    counters.settled_cpu_seconds()?;
    let idle = counters.resident()?;
    Ok(Figures::from([
        ("start", seconds * 1e3),
        ("listed", listed * 1e3),
        ("idle", idle / MIB),
        ("used", used / MIB),
    ]))
}
