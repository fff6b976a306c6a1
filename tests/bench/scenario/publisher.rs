//! The simplestreams publisher: live from a store of many images, and as a tree on disk.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use sha2::{Digest, Sha256};

use super::https::{collect, rate};
use super::{Bench, MIB, number};
use crate::client::{Connection, STEP};
use crate::nginx::Nginx;
use crate::payload::{self, Tarball};
use crate::report::{Metric, Target};
use crate::server::{Server, Side};
use crate::turns::{Figures, NOT_ASKED, Outcome, median, medians};

const CATALOG: &str = "/streams/v1/images.json";
/// Builds of each product.
const VERSIONS: usize = 3;
/// Answers whose first byte is waited for: each takes a tenth of a millisecond, which anything else
/// on the machine disturbs.
const FIRST_BYTES: usize = 40;
/// Uploads at once while the store grows, and clients that read the catalog.
const WORKERS: usize = 8;

/// A catalog of 20,000 products, three versions each: rendered, served beside nginx with the same
/// bytes, and changed.
pub(super) fn serve(bench: &mut Bench) -> Result<()> {
    let products = if bench.options.short { 200 } else { 20_000 };
    let server = Server::start(Side::Ours, bench.options.first_dir())?;
    let start = Instant::now();
    fill(&server, products)?;
    let per_second = number(products * VERSIONS) / start.elapsed().as_secs_f64();
    crate::progress(&format!("{} images, {per_second:.0} per second", products * VERSIONS));
    let port = server.open_port()?;
    let mut connection = Connection::https(port, STEP)?;
    let [first, _] = connection.timed("/streams/v1/index.json")?;
    let (_, catalog) = connection.get(CATALOG)?;
    let length = catalog.len();
    let name =
        format!("live catalog, {products} products x {VERSIONS} ({:.1} MB)", number(length) / 1e6);
    let own = |title: &'static str, value: f64| Outcome {
        ours: Ok(Figures::from([(title, value)])),
        lxd: Err(anyhow!(NOT_ASKED)),
    };
    let report = &mut bench.report;
    let rendered = Metric::lower("render", "first rendering", "ms");
    report.row(&name, rendered, Target::AtMost(1000.0), &own("render", first * 1e3));
    let nginx = Nginx::start(&server, &[("catalog", &catalog)]);
    let (mut ours, mut theirs) = (Ok(Vec::new()), Ok(Vec::new()));
    let figures = |port: u16, path: &str| {
        let mut connection = Connection::https(port, STEP)?;
        let times = (0..FIRST_BYTES).map(|_| Ok(connection.timed(path)?[0]));
        let times = times.collect::<Result<Vec<_>>>()?;
        let rate = rate(port, path, WORKERS, 3, length)?;
        Ok(Figures::from([("first", median(times) * 1e3), ("rate", rate)]))
    };
    for round in 0..2 * bench.options.rounds() {
        if (round + round / 2) % 2 == 0 {
            collect(&mut ours, || figures(port, CATALOG));
        } else {
            collect(&mut theirs, || {
                let nginx = nginx.as_ref().map_err(|error| anyhow!("{error:#}"))?;
                figures(nginx.port, "/catalog")
            });
        }
    }
    let outcome =
        Outcome { ours: ours.map(|all| medians(&all)), lxd: theirs.map(|all| medians(&all)) };
    let beside = format!("{name}, {WORKERS} clients, beside nginx");
    let report = &mut bench.report;
    let rate = Metric::higher("rate", "rate", "MB/s");
    report.row(&beside, rate, Target::Times(0.8), &outcome);
    let first = Metric::lower("first", "first byte", "ms");
    report.row(&beside, first, Target::Times(0.8), &outcome);
    let visible = (0..5).map(|build| visible(&server, port, build)).collect::<Result<Vec<_>>>()?;
    let metric = Metric::lower("visible", "published to read whole", "ms");
    let visible = own("visible", median(visible) * 1e3);
    report.row(&name, metric, Target::AtMost(1000.0), &visible);
    let peak = server.counters()?.peak()? / MIB;
    report.row(
        &name,
        Metric::lower("peak", "peak RSS", "MiB"),
        Target::Context,
        &own("peak", peak),
    );
    Ok(())
}

/// Imports three public builds of each product.
fn fill(server: &Server, products: usize) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        let mut connection = server.connect_small()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= products * VERSIONS {
                return Ok(());
            }
            let (product, build) = (number / VERSIONS, number % VERSIONS);
            connection.publish(&payload::version(&format!("release-{product:05}"), build)?)?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("an upload panicked"))?)
    })
}

/// Seconds from the end of an import to the end of a catalog that has it.
fn visible(server: &Server, port: u16, build: usize) -> Result<f64> {
    let mut connection = Connection::https(port, STEP)?;
    let fingerprint = server.connect()?.publish(&payload::version("new", build)?)?;
    let start = Instant::now();
    let (_, catalog) = connection.get(CATALOG)?;
    let took = start.elapsed().as_secs_f64();
    let shown = catalog.windows(fingerprint.len()).any(|part| part == fingerprint.as_bytes());
    ensure!(shown, "the catalog does not have an image that was published before");
    Ok(took)
}

/// A tree of 500 images: built, and beside it only hashed, by as many threads as there are cores.
pub(super) fn build(bench: &mut Bench) -> Result<()> {
    let (images, size) = if bench.options.short { (20, 1 << 20) } else { (500, 8 << 20) };
    let home = tempfile::Builder::new().prefix("tree-").tempdir_in(bench.options.first_dir())?;
    let mut tarball = Tarball::unified("built")?.with_serial("rootfs/serial")?;
    tarball = tarball.filled("rootfs", size)?;
    let mut files = Vec::new();
    for number in 0..images {
        tarball.renew()?;
        let folder = format!("images/bench/r{number:04}/amd64/default/20260101_0000");
        let folder = home.path().join(folder);
        std::fs::create_dir_all(&folder)?;
        files.push(folder.join("image.tar"));
        std::fs::write(folder.join("image.tar"), tarball.bytes())?;
    }
    let (mut built, mut hashed) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.rounds() {
        hashed.push(Figures::from([("time", seconds(|| hash(&files))?)]));
        built.push(Figures::from([("time", seconds(|| streams_build(home.path()))?)]));
        // What the last build remembers of the files.
        std::fs::remove_dir_all(home.path().join(".lxd-streams"))?;
        std::fs::remove_dir_all(home.path().join("streams"))?;
    }
    let outcome = Outcome { ours: Ok(medians(&built)), lxd: Ok(medians(&hashed)) };
    let name = format!("tree of {images} images of {} MiB, beside sha256 alone", size >> 20);
    let metric = Metric::lower("time", "build", "s");
    bench.report.row(&name, metric, Target::Times(0.7), &outcome);
    Ok(())
}

fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

fn hash(files: &[std::path::PathBuf]) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut file = std::fs::File::open(path)?;
            let mut buffer = vec![0; STEP];
            let mut hash = Sha256::new();
            loop {
                let read = std::io::Read::read(&mut file, &mut buffer)?;
                if read == 0 {
                    break;
                }
                hash.update(&buffer[..read]);
            }
            std::hint::black_box(hash.finalize());
        }
        Ok(())
    };
    let cores = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("hashing panicked"))?)
    })
}

fn streams_build(tree: &Path) -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("lxd-cli");
    let mut command = Command::new(&program);
    command.args(["streams", "build", "--quiet"]).arg(tree);
    command.env("LXD_CONF", tree.join(".conf"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(status.success(), "streams build ended with {status}");
    Ok(())
}
