//! The front door: every format and role, in pieces, cut, extended and as a bomb.

use std::io::Write;

use super::*;
use crate::format::squashfs::tests::{image_dir, mksquashfs};
use crate::format::testing::{METADATA, Random, TarBuilder, compress};

fn image() -> Vec<u8> {
    TarBuilder::image().file("rootfs/noise", &Random::new(8).bytes(70_000)).finish()
}

fn run(role: Role, file: &[u8], piece: usize) -> Result<Findings, FormatError> {
    let mut checker = Checker::new(role, Limits::default());
    for piece in file.chunks(piece) {
        checker.feed(piece)?;
    }
    checker.finish(&file)
}

fn reason(role: Role, file: &[u8]) -> String {
    run(role, file, 1 << 16).unwrap_err().to_string()
}

#[test]
fn tarballs_of_every_compression_are_read() {
    for compression in Compression::ALL {
        let file = compress(compression, &image());
        let whole = run(Role::Unified, &file, file.len()).unwrap();
        assert_eq!(whole.file_type, FileType::Tar(compression));
        assert_eq!(whole.kind, Some(InstanceType::Container));
        assert_eq!(whole.entries, 3);
        assert_eq!(whole.unpacked_bytes, 70_000 + METADATA.len() as u64);
        for piece in [1, 7, 64 << 10] {
            assert_eq!(run(Role::Unified, &file, piece).unwrap(), whole, "{compression} {piece}");
        }
    }
}

#[test]
fn cut_tarballs_are_refused() {
    for compression in Compression::ALL {
        let file = compress(compression, &image());
        // Of the two zero blocks that end a plain archive one may be missing.
        let whole = if compression == Compression::None { file.len() - 1023 } else { file.len() };
        for len in (0..whole).step_by(397).chain(whole - 40..whole) {
            assert!(run(Role::Unified, &file[..len], 4096).is_err(), "{compression} at {len}");
        }
        let tail = [&file[..], b"tail"].concat();
        assert!(run(Role::Unified, &tail, 4096).is_err(), "{compression}");
    }
}

#[test]
fn damaged_tarballs_never_panic() {
    let mut random = Random::new(4);
    for compression in Compression::ALL {
        let file = compress(compression, &image());
        for _ in 0..150 {
            let mut damaged = file.clone();
            for _ in 0..3 {
                let at = random.below(damaged.len());
                damaged[at] = random.byte();
            }
            let _ = run(Role::Unified, &damaged, 1 + random.below(9000));
        }
    }
}

#[test]
fn other_files_are_refused() {
    for file in [&b""[..], b"x", b"PK\x03\x04 a zip file", &[0; 4096], METADATA] {
        assert_eq!(reason(Role::Unified, file), "Unsupported compression");
    }
    assert_eq!(
        reason(Role::Unified, b"BZ"),
        "the bzip2 data is truncated; send the whole file again"
    );
    assert!(reason(Role::Unified, b"hsqs").contains("squashfs image is truncated"));
    assert!(reason(Role::Rootfs, b"QFI\xfb").contains("qcow2 disk is truncated"));
    let words = compress(Compression::Gzip, b"not a tar archive");
    assert!(reason(Role::Unified, &words).contains("tar archive is truncated"));
}

#[test]
fn squashfs_and_disks_are_checked_at_the_end() {
    let dir = image_dir();
    let unified = mksquashfs(dir.path(), &["-comp", "xz"]);
    let findings = run(Role::Unified, &unified, 1000).unwrap();
    assert_eq!(findings.file_type, FileType::Squashfs);
    assert_eq!(findings.kind, Some(InstanceType::Container));
    assert!(findings.metadata.is_some());
    let rootfs = mksquashfs(&dir.path().join("rootfs"), &[]);
    assert!(run(Role::Rootfs, &rootfs, 1000).unwrap().metadata.is_none());
    let disk = qcow2::tests::disk(|_| {});
    let findings = run(Role::Rootfs, &disk, 1000).unwrap();
    assert_eq!(findings.kind, Some(InstanceType::VirtualMachine));
    assert_eq!(findings.unpacked_bytes, disk.len() as u64);
    let refusal = "it must be a tarball with metadata.yaml";
    assert!(reason(Role::Metadata, &rootfs).contains(refusal));
    assert!(reason(Role::Metadata, &disk).contains(refusal));
    assert!(reason(Role::Unified, &disk).contains(refusal));

    let mut checker = Checker::new(Role::Unified, Limits::default());
    checker.feed(&unified[..FileType::DETECT_BYTES]).unwrap();
    assert!(checker.known().slow && !checker.known().settled);
    checker.skip((unified.len() - FileType::DETECT_BYTES) as u64).unwrap();
    checker.verify_data(false).finish(&unified).unwrap();
}

#[test]
fn what_is_known_grows() {
    let tar = TarBuilder::default()
        .file("metadata.yaml", METADATA)
        .file("rootfs/a", &Random::new(2).bytes(200_000))
        .finish();
    let file = compress(Compression::Xz, &tar);
    let mut checker = Checker::new(Role::Unified, Limits::default());
    checker.feed(&file[..100]).unwrap();
    assert_eq!(checker.known().file_type, None);
    checker.feed(&file[100..100_000]).unwrap();
    let known = checker.known();
    assert_eq!(known.file_type, Some(FileType::Tar(Compression::Xz)));
    assert_eq!(known.metadata.map(|metadata| metadata.creation_date), Some(1_424_284_563));
    assert_eq!(known.kind, Some(InstanceType::Container));
    assert!(known.settled && known.slow);
    assert!(checker.finish(&&file[..100_000]).is_err());

    let metadata = TarBuilder::default().file("metadata.yaml", METADATA).finish();
    let mut checker = Checker::new(Role::Metadata, Limits::default());
    checker.feed(&metadata).unwrap();
    assert!(checker.known().settled && !checker.known().slow);
    assert_eq!(checker.finish(&metadata).unwrap().kind, None);
}

#[test]
fn plain_data_can_be_skipped() {
    let tar = image();
    let mut checker = Checker::new(Role::Unified, Limits::default());
    let (mut at, mut fed) = (0, 0);
    while at < tar.len() {
        let skip = checker.skippable();
        if skip > 0 {
            checker.skip(skip).unwrap();
            at += usize::try_from(skip).unwrap();
        } else {
            let end = (at + 4096).min(tar.len());
            checker.feed(&tar[at..end]).unwrap();
            fed += end - at;
            at = end;
        }
    }
    assert!(fed < 10_000, "{fed}");
    assert_eq!(checker.finish(&tar).unwrap(), run(Role::Unified, &tar, 1000).unwrap());

    let mut checker = Checker::new(Role::Unified, Limits::default());
    checker.feed(&compress(Compression::Gzip, &tar)[..10_000]).unwrap();
    assert_eq!(checker.skippable(), 0);
    assert!(checker.skip(1).is_err());
}

#[test]
fn bombs_end_early() {
    let zeros = vec![0; 1 << 20];
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Xz] {
        let mut archive = TarBuilder::image()
            .tweaked("rootfs/zeros", b'0', "", b"", |header| {
                header[124..135].copy_from_slice(b"10000000000");
            })
            .open_ended();
        for _ in 0..24 {
            archive.extend_from_slice(&zeros);
        }
        let file = compress(compression, &archive);
        let limits = Limits { ratio_floor: 10 << 20, ..Limits::default() };
        let mut checker = Checker::new(Role::Unified, limits);
        let error = checker.feed(&file).unwrap_err();
        assert!(matches!(error, FormatError::Bomb { ratio: 250 }), "{compression}: {error}");
    }
}

#[test]
fn a_real_bomb_ends_at_the_default_limit() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&image()[..2048]).unwrap();
    let header = TarBuilder::default().tweaked("rootfs/zeros", b'0', "", b"", |header| {
        header[124..135].copy_from_slice(b"10000000000");
    });
    encoder.write_all(&header.open_ended()).unwrap();
    for _ in 0..600 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let file = encoder.finish().unwrap();
    let mut checker = Checker::new(Role::Unified, Limits::default());
    assert!(matches!(checker.feed(&file), Err(FormatError::Bomb { .. })));
}
