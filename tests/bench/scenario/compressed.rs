//! A Debian root comes in, compressed: the answer after its last byte, and the whole.

use std::io::Read;
use std::time::Instant;

use anyhow::Result;

use super::import::{Body, measure, time_rows};
use super::{Bench, medium, number};
use crate::payload;
use crate::report::Target;
use crate::tree::{Codec, Packed, Tree};
use crate::turns::Pair;

/// What the kernel and the answer may add to the decoder's own time.
const GRACE: f64 = 1.25;
/// "Overlapped with the upload": the answer comes this soon after the last byte, in ms.
const OVERLAPPED: f64 = 300.0;

/// .tar.gz, .tar.zst, .tar.xz, and .tar.xz with its metadata last, slowly.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let tree = Tree::prepare(bench.options.short)?;
    bench.report.note(format!("compressed images hold {}", tree.describe()));
    for dir in bench.options.dirs().to_vec() {
        let medium = medium(&dir)?;
        for codec in Codec::ALL {
            let packed = tree.packed(codec, false)?;
            let decoder = decode_seconds(codec, &packed)?;
            let mb = number(packed.bytes.len()) / 1e6;
            bench.report.note(format!(
                "{}, {mb:.0} MB: one thread of this machine decodes it in {decoder:.2} s",
                codec.extension()
            ));
            let target = match codec {
                Codec::Xz => Target::Times(1.0),
                Codec::Gz | Codec::Zst => Target::AtMost(decoder * GRACE),
            };
            let name = format!("import {}, {medium}", codec.extension());
            one(bench, &dir, &name, packed, (target, Target::Context), None);
        }
        let pace = bench.options.throttle;
        let name = format!("import .tar.xz, metadata last, {pace} MB/s, {medium}");
        let packed = tree.packed(Codec::Xz, true)?;
        let targets = (Target::Context, Target::AtMost(OVERLAPPED));
        one(bench, &dir, &name, packed, targets, Some(pace * 1e6));
    }
    Ok(())
}

fn one(
    bench: &mut Bench,
    dir: &std::path::Path,
    name: &str,
    mut packed: Packed,
    (total, tail): (Target, Target),
    pace: Option<f64>,
) {
    let mut pair = Pair::start(&bench.options, dir);
    let outcome = pair.take_turns(bench.options.rounds(), |server, _| {
        packed.renew(payload::serial())?;
        let kind = "application/octet-stream";
        measure(server, &Body { kind, parts: &[&packed.bytes], pace })
    });
    time_rows(bench, name, total, tail, &outcome);
}

/// How long one thread needs to unpack it all, doing nothing with what comes out.
fn decode_seconds(codec: Codec, packed: &Packed) -> Result<f64> {
    let bytes = packed.bytes.as_slice();
    let mut reader: Box<dyn Read + '_> = match codec {
        Codec::Gz => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Codec::Zst => Box::new(zstd::stream::read::Decoder::new(bytes)?),
        Codec::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(bytes)),
    };
    let mut buffer = vec![0; crate::client::STEP];
    let start = Instant::now();
    while reader.read(&mut buffer)? > 0 {}
    Ok(start.elapsed().as_secs_f64())
}
