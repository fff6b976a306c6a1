//! Containers of a Debian image: the first, further ones, the space of many, and their end.

use anyhow::Result;

use super::{Bench, MIB, medium, number};
use crate::client::Connection;
use crate::instances;
use crate::payload;
use crate::report::{Metric, Target};
use crate::server::{Server, Side};
use crate::tree::{Codec, Packed, Tree};
use crate::turns::{Figures, Pair, median};

/// Further launches after each first one.
const FURTHER: usize = 3;

/// How many instances share an image where their space is measured. LXD copies the whole image for
/// each, so that a few of them tell what many take.
fn many(side: Side, short: bool) -> usize {
    match (side, short) {
        (Side::Ours, false) => 50,
        (Side::Ours, true) => 10,
        (Side::Lxd, _) => 3,
    }
}

/// The image is a `.tar.gz`; nothing is deleted before everything that makes files is measured.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let short = bench.options.short;
    let tree = Tree::prepare(short)?;
    bench.report.note(format!("containers are of {}, as .tar.gz", tree.describe()));
    let mut packed = tree.bootable(Codec::Gz)?;
    for dir in bench.options.dirs().to_vec() {
        let name = format!("launch, {}", medium(&dir)?);
        let mut pair = Pair::start(&bench.options, &dir);
        let rounds = bench.options.rounds();
        let launched = pair.take_turns(rounds, |server, _| launches(server, &mut packed));
        let total = many(Side::Ours, short);
        let spaces = pair.take_turns(1, |server, _| {
            let made = many(server.side(), short);
            space(server, &mut packed, made, total)
        });
        let deleted = pair.take_turns(1, |server, _| deletes(server));
        pair.on_both(|server| instances::clear(server));
        let report = &mut bench.report;
        let first = Metric::lower("first", "first of an image, unpacking included", "s");
        report.row(&name, first, Target::Times(1.5), &launched);
        let further = Metric::lower("further", "every further one", "ms");
        report.row(&name, further, Target::Times(10.0), &launched);
        let name = format!("{total} instances, {}", medium(&dir)?);
        let one = Metric::lower("one", "space of the first", "MiB");
        report.row(&name, one, Target::Context, &spaces);
        let all = Metric::lower("all", "space of all of them, per that of the first", "");
        report.row(&name, all, Target::AtMost(1.2), &spaces);
        let name = format!("delete, {}", medium(&dir)?);
        let stop = Metric::lower("stop", "stop by force", "ms");
        report.row(&name, stop, Target::Context, &deleted);
        let delete = Metric::lower("delete", "delete", "ms");
        report.row(&name, delete, Target::Context, &deleted);
    }
    let note = "space of many: LXD's is that of 3, each of the others taking as much as the third";
    bench.report.note(note.to_owned());
    Ok(())
}

/// Uploads an image that the daemon has not seen; its fingerprint.
pub(super) fn upload(server: &Server, packed: &mut Packed) -> Result<String> {
    packed.renew(payload::serial())?;
    let upload = server.connect()?.upload("application/octet-stream", &[&packed.bytes], None)?;
    server.sync()?;
    Ok(upload.fingerprint)
}

fn launches(server: &Server, packed: &mut Packed) -> Result<Figures> {
    let fingerprint = upload(server, packed)?;
    let mut connection = server.connect()?;
    let first = instances::launch(&mut connection, &name(), &fingerprint)?;
    let mut further = Vec::new();
    for _ in 0..FURTHER {
        server.sync()?;
        further.push(instances::launch(&mut connection, &name(), &fingerprint)?);
    }
    server.sync()?;
    Ok(Figures::from([("first", first), ("further", median(further) * 1e3)]))
}

/// A name that no other instance of this run has.
pub(super) fn name() -> String {
    format!("c{}", payload::serial())
}

fn space(server: &Server, packed: &mut Packed, made: usize, total: usize) -> Result<Figures> {
    let fingerprint = upload(server, packed)?;
    let mut connection = server.connect()?;
    let mut taken = vec![measured(server)?];
    for count in 1..=made {
        instances::launch(&mut connection, &name(), &fingerprint)?;
        if count == 1 || count + 1 >= made {
            taken.push(measured(server)?);
        }
    }
    let empty = taken[0];
    let [.., before, last] = taken[..] else { anyhow::bail!("nothing was measured") };
    let all = last + (last - before) * number(total - made) - empty;
    let one = taken[1] - empty;
    Ok(Figures::from([("one", one / MIB), ("all", all / one)]))
}

fn measured(server: &Server) -> Result<f64> {
    // Blocks are counted when they have been allocated.
    server.sync()?;
    instances::used(&server.dir())
}

/// Stops and deletes everything, one after the other.
fn deletes(server: &Server) -> Result<Figures> {
    let mut connection = server.connect()?;
    let (mut stopped, mut deleted) = (Vec::new(), Vec::new());
    for name in names(&mut connection)? {
        let start = std::time::Instant::now();
        instances::stop(&mut connection, &name)?;
        stopped.push(start.elapsed().as_secs_f64());
        deleted.push(instances::delete(&mut connection, &name)?);
    }
    Ok(Figures::from([("stop", median(stopped) * 1e3), ("delete", median(deleted) * 1e3)]))
}

fn names(connection: &mut Connection) -> Result<Vec<String>> {
    let listed = connection.call("GET", "/1.0/instances", "")?;
    let paths = listed["metadata"].as_array().cloned().unwrap_or_default();
    let names = paths.iter().filter_map(|path| path.as_str()?.rsplit('/').next());
    Ok(names.map(str::to_owned).collect())
}
