//! An image of a stopped Debian container, with gzip and with zstd.

use anyhow::Result;

use super::launch::{name, upload};
use super::{Bench, MIB, medium};
use crate::instances;
use crate::report::{Metric, Target};
use crate::tree::{Codec, Tree};
use crate::turns::{Figures, Pair};

/// From a warm page cache.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let tree = Tree::prepare(bench.options.short)?;
    let mut packed = tree.bootable(Codec::Gz)?;
    for dir in bench.options.dirs().to_vec() {
        let medium = medium(&dir)?;
        let mut pair = Pair::start(&bench.options, &dir);
        pair.on_both(|server| {
            let fingerprint = upload(server, &mut packed)?;
            instances::create(&mut server.connect()?, &name(), &fingerprint)
        });
        for (algorithm, time) in [("gzip", 1.7), ("zstd", 1.2)] {
            let outcome = pair.take_turns(bench.options.rounds(), |server, _| {
                let mut connection = server.connect()?;
                let listed = connection.call("GET", "/1.0/instances", "")?;
                let path = listed["metadata"][0].as_str().unwrap_or_default();
                let instance = path.rsplit('/').next().unwrap_or_default();
                server.sync()?;
                let counters = server.counters()?;
                let cpu = counters.settled_cpu_seconds()?;
                let made = instances::publish(&mut connection, instance, algorithm)?;
                let cpu = counters.settled_cpu_seconds()? - cpu;
                connection.delete(&made.fingerprint)?;
                Ok(Figures::from([
                    ("seconds", made.seconds),
                    ("size", made.bytes / MIB),
                    ("cpu", cpu),
                ]))
            });
            let name = format!("publish, {algorithm}, {medium}");
            let report = &mut bench.report;
            report.row(&name, Metric::lower("seconds", "time", "s"), Target::Times(time), &outcome);
            let smaller = if algorithm == "gzip" { Target::Times(1.0) } else { Target::Context };
            report.row(&name, Metric::lower("size", "output", "MiB"), smaller, &outcome);
            report.row(&name, Metric::lower("cpu", "CPU", "s"), Target::Context, &outcome);
        }
        pair.on_both(|server| instances::clear(server));
    }
    Ok(())
}
