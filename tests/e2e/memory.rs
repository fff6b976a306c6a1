//! Memory does not grow with the image.

use std::io::Read;

use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe, big};
use lxd_tests::http::multipart_type;

/// How much an import or export may need beside a decoder's window.
const ALLOWED: u64 = 32 << 20;
/// The image's size in MiB.
const SIZE: usize = 256;

/// Imports with `send`, exports, and looks at the peak of each.
fn measure(name: &str, window: u64, send: impl FnOnce(&Daemon) -> String) {
    let daemon = Daemon::start();
    daemon.http().import(&Recipe::new("warm").unified(Compression::Gz));
    let idle = daemon.resident();
    daemon.forget_peak();
    let fingerprint = send(&daemon);
    let peak = daemon.peak();
    let mib = |bytes: u64| bytes >> 20;
    assert!(
        peak <= idle + ALLOWED + window,
        "{name} import: idle {} MiB, peak {} MiB",
        mib(idle),
        mib(peak)
    );
    daemon.forget_peak();
    let path = format!("/1.0/images/{fingerprint}/export");
    let (head, mut body) = daemon.http().request("GET", &path).stream();
    head.expect(200);
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    while let Ok(read @ 1..) = body.read(&mut buffer) {
        total += read as u64;
    }
    let size = daemon.http().metadata(&format!("/1.0/images/{fingerprint}"))["size"].as_u64();
    assert!(Some(total) >= size, "{name} export: {total} bytes of {size:?}");
    let peak = daemon.peak();
    assert!(
        peak <= idle + ALLOWED,
        "{name} export: idle {} MiB, peak {} MiB",
        mib(idle),
        mib(peak)
    );
}

fn unified(compression: Compression, mib: usize, window: u64) {
    measure(&format!("{compression:?}"), window, |daemon| {
        let upload = daemon.http().request("POST", "/1.0/images").chunked();
        let writer = std::io::BufWriter::with_capacity(256 << 10, upload);
        let writer = big::unified(writer, "big", mib, compression).unwrap();
        let accepted = writer.into_inner().unwrap().end();
        finished(daemon, &accepted)
    });
}

fn finished(daemon: &Daemon, accepted: &lxd_tests::http::Response) -> String {
    let done = daemon.http().finish(accepted);
    assert_eq!(done["status"], "Success", "{done}");
    done["metadata"]["fingerprint"].as_str().unwrap().to_owned()
}

#[test]
fn plain() {
    unified(Compression::Plain, SIZE, 0);
}

#[test]
fn gz() {
    unified(Compression::Gz, SIZE, 0);
}

#[test]
fn zst() {
    unified(Compression::Zst, SIZE, 1 << 20);
}

#[test]
fn xz_and_its_deep_check() {
    unified(Compression::Xz, SIZE, 1 << 20);
}

#[test]
fn bz2_and_lzma() {
    // Slow codecs: a quarter of the size shows as well that nothing grows with it.
    unified(Compression::Bz2, SIZE / 4, 4 << 20);
    unified(Compression::Lzma, SIZE / 4, 1 << 20);
}

#[test]
fn split() {
    measure("split", 0, |daemon| {
        let metadata = Recipe::new("big").metadata(Compression::Gz);
        let request = daemon
            .http()
            .request("POST", "/1.0/images")
            .header("Content-Type", &multipart_type())
            .chunked();
        let body = lxd_tests::http::multipart(&[("metadata", &metadata), ("rootfs", b"")]);
        // Everything before the root's bytes, then the root, then what closes the body.
        let tail = body.len() - body.iter().rev().skip(2).position(|b| *b == b'\n').unwrap() - 4;
        let mut writer = std::io::BufWriter::with_capacity(256 << 10, request);
        std::io::Write::write_all(&mut writer, &body[..tail]).unwrap();
        let mut writer = big::root(writer, SIZE, Compression::Plain).unwrap();
        std::io::Write::write_all(&mut writer, &body[tail..]).unwrap();
        let accepted = writer.into_inner().unwrap().end();
        finished(daemon, &accepted)
    });
}

#[test]
fn a_thousand_images() {
    let daemon = Daemon::start();
    let http = daemon.http();
    for number in 0..1000 {
        http.import(&Recipe::new(&format!("n{number}")).unified(Compression::Plain));
    }
    daemon.forget_peak();
    let list = http.metadata("/1.0/images?recursion=1");
    assert_eq!(list.as_array().map(Vec::len), Some(1000));
    let peak = daemon.peak() >> 20;
    assert!(peak <= 64, "{peak} MiB resident after a list of 1,000");
}
