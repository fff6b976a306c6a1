//! The large image from one daemon to another over HTTPS.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;

use super::{Bench, MIB, medium, number};
use crate::payload::Tarball;
use crate::report::{Metric, Target};
use crate::server::{Server, Side};
use crate::turns::{Figures, Pair};

/// A daemon that has the image, and its port.
struct Origin {
    server: Server,
    port: u16,
    fingerprint: String,
}

/// A unified image of `--size`, pulled by fingerprint.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let size = bench.options.size();
    let image = Tarball::unified("copied")?.with_serial("rootfs/serial")?.filled("rootfs", size)?;
    for dir in bench.options.dirs().to_vec() {
        let name = format!("copy between two daemons, {}", medium(&dir)?);
        let mut pair = Pair::start(&bench.options, &dir);
        let mut origins = BTreeMap::new();
        pair.on_both(|target| {
            let server = Server::start(target.side(), &dir)?;
            let kind = "application/octet-stream";
            let upload = server.connect()?.upload(kind, &[image.bytes()], None)?;
            let port = server.open_port()?;
            let body = json!({"public": true}).to_string();
            let path = format!("/1.0/images/{}", upload.fingerprint);
            server.connect()?.call("PATCH", &path, &body)?;
            server.sync()?;
            let origin = Origin { server, port, fingerprint: upload.fingerprint };
            origins.insert(target.side() == Side::Ours, origin);
            Ok(())
        });
        let outcome = pair.take_turns(bench.options.rounds(), |target, _| {
            let origin = &origins.get(&(target.side() == Side::Ours)).context("no origin")?;
            copy(origin, target, number(image.bytes().len()))
        });
        let report = &mut bench.report;
        report.row(&name, Metric::lower("time", "time", "s"), Target::Times(2.5), &outcome);
        let cpu = Metric::lower("cpu", "CPU of both ends per GB", "s");
        report.row(&name, cpu, Target::AtMost(2.2), &outcome);
        let peak = Metric::lower("peak", "peak RSS of the target", "MiB");
        report.row(&name, peak, Target::Context, &outcome);
    }
    Ok(())
}

fn copy(origin: &Origin, target: &Server, bytes: f64) -> Result<Figures> {
    let certificate = std::fs::read_to_string(origin.server.dir().join("server.crt"))?;
    let request = json!({"source": {
        "type": "image", "mode": "pull", "protocol": "lxd", "fingerprint": origin.fingerprint,
        "server": format!("https://127.0.0.1:{}", origin.port), "certificate": certificate,
    }});
    let (source, counters) = (origin.server.counters()?, target.counters()?);
    counters.forget_peak()?;
    let cpu = source.settled_cpu_seconds()? + counters.settled_cpu_seconds()?;
    let mut connection = target.connect()?;
    let start = Instant::now();
    let accepted = connection.call("POST", "/1.0/images", &request.to_string())?;
    connection.finished(&accepted)?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = source.settled_cpu_seconds()? + counters.settled_cpu_seconds()? - cpu;
    let peak = counters.peak()? / MIB;
    connection.delete(&origin.fingerprint)?;
    target.sync()?;
    Ok(Figures::from([("time", seconds), ("cpu", cpu / bytes * 1e9), ("peak", peak)]))
}
