//! A simplestreams server: clients that read a large catalog, daemons that fetch from it and
//! follow it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use lxd_tests::fixtures::{Compression, Recipe, big};
use lxd_tests::streams::Tree;
use lxd_tests::tool;
use lxd_tests::web::{Authority, Web};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Bench, MIB, number};
use crate::report::{Metric, Target};
use crate::server::Server;
use crate::turns::{Figures, Outcome, Pair, medians};

/// A web server and a file with the authority behind it.
struct Site {
    web: Web,
    authority: PathBuf,
    home: TempDir,
}

impl Site {
    fn open(tree: &Tree) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let authority = Authority::new();
        let file = home.path().join("authority.crt");
        std::fs::write(&file, authority.pem())?;
        let web = Web::start(&authority);
        web.publish(tree.files());
        Ok(Self { web, authority: file, home })
    }

    fn offer(&self, alias: &str) -> Value {
        json!({"source": {
            "type": "image", "mode": "pull", "protocol": "simplestreams", "alias": alias,
            "server": self.web.address(),
        }})
    }
}

/// `image list` and `image info` of 1,000 products with 3 versions each: `lxd-cli` beside `lxc`.
pub(super) fn catalog(bench: &mut Bench) -> Result<()> {
    let products = if bench.options.short { 200 } else { 1000 };
    let mut tree = Tree::default();
    for product in 0..products {
        for serial in ["20260101_0000", "20260102_0000", "20260103_0000"] {
            let (name, build) = (format!("os{product}:1"), format!("{product} {serial}"));
            tree.split(&name, serial, build.as_bytes(), ("squashfs", b"root"));
        }
    }
    let site = Site::open(&tree)?;
    let here = std::env::current_exe()?.with_file_name("lxd-cli");
    ensure!(here.is_file(), "{} is missing: cargo build --release", here.display());
    for (what, words, times) in
        [("list", &["image", "list", "s:"][..], 20.0), ("info", &["image", "info", "s:os7"], 25.0)]
    {
        let rounds = bench.options.rounds();
        let ours = measure(&site, &here, words, rounds);
        let lxd = if bench.options.ours_only {
            Err(anyhow!(crate::turns::NOT_ASKED))
        } else {
            measure(&site, &tool::require("lxc"), words, rounds)
        };
        let outcome = Outcome { ours, lxd };
        let name = format!("image {what} of {products} × 3 simplestreams images");
        let report = &mut bench.report;
        report.row(&name, Metric::lower("time", "time", "ms"), Target::Times(times), &outcome);
        let asked = Metric::lower("asked", "requests when warm", "");
        report.row(&name, asked, Target::AtMost(1.0), &outcome);
        let bytes = Metric::lower("bytes", "bytes of documents when warm", "");
        report.row(&name, bytes, Target::AtMost(1000.0), &outcome);
    }
    Ok(())
}

/// Runs a client a few times, after once to warm up.
fn measure(site: &Site, program: &Path, words: &[&str], rounds: usize) -> Result<Figures> {
    let home = site.home.path().join(program.file_name().context("a program has a name")?);
    std::fs::create_dir_all(&home)?;
    let remote = format!(
        "remotes: {{s: {{addr: '{}', protocol: simplestreams, public: true}}}}\n",
        site.web.address()
    );
    std::fs::write(home.join("config.yml"), remote)?;
    let run = || -> Result<()> {
        let mut command = Command::new(program);
        command.args(words).env("LXD_CONF", &home).env("HOME", &home);
        command.env("XDG_CACHE_HOME", home.join("cache")).env("SSL_CERT_FILE", &site.authority);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}", words.join(" "), said.trim());
        Ok(())
    };
    run()?;
    let mut all = Vec::new();
    for _ in 0..2 * rounds {
        site.web.asked();
        site.web.body_bytes();
        let start = Instant::now();
        run()?;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let asked = number(site.web.asked().len());
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let bytes = site.web.body_bytes() as f64;
        all.push(Figures::from([("time", milliseconds), ("asked", asked), ("bytes", bytes)]));
    }
    Ok(medians(&all))
}

/// Fifty clients want one image that nobody has yet.
pub(super) fn pull(bench: &mut Bench) -> Result<()> {
    const CLIENTS: usize = 50;
    let mib = if bench.options.short { 16 } else { 128 };
    let mut tree = Tree::default();
    let metadata = Recipe::new("pulled").metadata(Compression::Xz);
    let root = big::root(Vec::new(), mib, Compression::Plain)?;
    let fingerprint = tree.split("os:1", "20260101_0000", &metadata, ("root.tar.xz", &root));
    let site = Site::open(&tree)?;
    let request = site.offer("os").to_string();
    let start = |side| Server::start_trusting(side, bench.options.first_dir(), &site.authority);
    let mut pair = Pair::with(&bench.options, start);
    let outcome = pair.take_turns(bench.options.rounds(), |server, _| {
        let counters = server.counters()?;
        counters.forget_peak()?;
        site.web.body_bytes();
        let start = Instant::now();
        let failures = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        let mut connection = server.connect_small()?;
                        let accepted = connection.call("POST", "/1.0/images", &request)?;
                        connection.finished(&accepted).map(drop)
                    })
                })
                .collect();
            let ended = threads.into_iter().map(|thread| matches!(thread.join(), Ok(Ok(()))));
            ended.filter(|succeeded| !succeeded).count()
        });
        let seconds = start.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let bytes = site.web.body_bytes() as f64 / number(root.len());
        let peak = counters.peak()? / MIB;
        server.connect()?.delete(&fingerprint)?;
        Ok(Figures::from([
            ("time", seconds),
            ("peak", peak),
            ("failures", number(failures)),
            ("bytes", bytes),
        ]))
    });
    let name = format!("{CLIENTS} clients pull one simplestreams image of {mib} MiB");
    let report = &mut bench.report;
    report.row(&name, Metric::lower("time", "time", "s"), Target::Times(20.0), &outcome);
    report.row(&name, Metric::lower("peak", "peak RSS", "MiB"), Target::AtMost(60.0), &outcome);
    report.row(&name, Metric::lower("failures", "failures", ""), Target::AtMost(0.0), &outcome);
    let bytes = Metric::lower("bytes", "downloads of the image", "");
    report.row(&name, bytes, Target::AtMost(1.1), &outcome);
    Ok(())
}

/// 100 images that follow a simplestreams server are all current.
pub(super) fn refresh(bench: &mut Bench) -> Result<()> {
    let images = if bench.options.short { 10 } else { 100 };
    let mut tree = Tree::default();
    let mut fingerprints = Vec::new();
    for number in 0..images {
        let recipe = Recipe::new(&format!("os{number}"));
        let (metadata, root) = (recipe.metadata(Compression::Xz), recipe.root(Compression::Gz));
        let product = format!("os{number}:1");
        fingerprints.push(tree.split(&product, "20260101_0000", &metadata, ("root.tar.xz", &root)));
    }
    let site = Site::open(&tree)?;
    let start = |side| Server::start_trusting(side, bench.options.first_dir(), &site.authority);
    let mut pair = Pair::with(&bench.options, start);
    pair.on_both(|server| {
        let mut connection = server.connect()?;
        for number in 0..images {
            let mut request = site.offer(&format!("os{number}"));
            request["auto_update"] = json!(true);
            let accepted = connection.call("POST", "/1.0/images", &request.to_string())?;
            connection.finished(&accepted)?;
        }
        Ok(())
    });
    let outcome = pair.take_turns(bench.options.rounds(), |server, _| {
        let mut connection = server.connect()?;
        let start = Instant::now();
        for fingerprint in &fingerprints {
            let path = format!("/1.0/images/{fingerprint}/refresh");
            let accepted = connection.call("POST", &path, "{}")?;
            let done = connection.finished(&accepted)?;
            ensure!(done["metadata"]["refreshed"] != true, "it was refreshed: {done}");
        }
        Ok(Figures::from([("time", start.elapsed().as_secs_f64())]))
    });
    let name = format!("refresh of {images} current images, one after the other");
    bench.report.row(&name, Metric::lower("time", "time", "s"), Target::Times(10.0), &outcome);
    Ok(())
}
