//! Archives that are right, and one for each way to be wrong.

use super::*;
use crate::format::testing::{METADATA, Random, TarBuilder};

fn check_in(role: Role, archive: &[u8], piece: usize) -> Result<(Parts, u64, u64), String> {
    let mut check = TarCheck::new(role, Limits { entries: 1000, ..Limits::default() });
    archive
        .chunks(piece)
        .try_for_each(|piece| check.feed(piece))
        .and_then(|()| {
            let (entries, unpacked) = (check.entries(), check.unpacked());
            Ok((check.finish()?, entries, unpacked))
        })
        .map_err(|error| error.to_string())
}

/// Checks in pieces of several sizes and wants one answer.
fn check(role: Role, archive: &[u8]) -> Result<(Parts, u64, u64), String> {
    let whole = check_in(role, archive, archive.len().max(1));
    for piece in [1, 7, 512, 64 << 10] {
        let pieces = check_in(role, archive, piece);
        assert_eq!(format!("{pieces:?}"), format!("{whole:?}"), "in pieces of {piece}");
    }
    whole
}

fn good(role: Role, archive: TarBuilder) {
    check(role, &archive.finish()).unwrap();
}

#[track_caller]
fn refused(role: Role, archive: TarBuilder, reason: &str) {
    let error = check(role, &archive.finish()).unwrap_err();
    assert!(error.contains(reason), "{error:?} should have {reason:?}");
}

#[track_caller]
fn refused_image(archive: TarBuilder, reason: &str) {
    refused(Role::Unified, archive, reason);
}

#[test]
fn a_container_image_is_accepted() {
    let archive = TarBuilder::default()
        .dir("./")
        .file("./metadata.yaml", METADATA)
        .dir("./templates/")
        .file("./templates/hosts.tpl", b"127.0.0.1")
        .dir("./rootfs/")
        .dir("./rootfs/etc/")
        .file("./rootfs/etc/passwd", &[b'x'; 5000])
        .file("./rootfs/empty", b"")
        .symlink("./rootfs/bin", "usr/bin")
        .symlink("./rootfs/etc/mtab", "/proc/self/mounts")
        .symlink("./rootfs/up", "../../../../out")
        .hardlink("./rootfs/etc/passwd-", "./rootfs/etc/passwd")
        .hardlink("./rootfs/bin2", "rootfs/bin")
        .entry("./rootfs/fifo", b'6', "", b"")
        .tweaked("./rootfs/null", b'3', "", b"", |header| {
            header[329..336].copy_from_slice(b"0000001");
            header[337..344].copy_from_slice(b"0000003");
        })
        .dir("./rootfs/etc");
    let (parts, entries, unpacked) = check(Role::Unified, &archive.finish()).unwrap();
    assert_eq!(parts.kind, Some(InstanceType::Container));
    assert_eq!(parts.metadata.unwrap().creation_date, 1_424_284_563);
    assert_eq!(entries, 16);
    assert_eq!(unpacked, 5000 + 9 + METADATA.len() as u64);
}

#[test]
fn metadata_may_come_last() {
    let archive = TarBuilder::default().file("rootfs/a", b"x").file("metadata.yaml", METADATA);
    good(Role::Unified, archive);
}

#[test]
fn the_parts_of_a_split_image_are_accepted() {
    let metadata = TarBuilder::default().file("metadata.yaml", METADATA).file("templates/a", b"x");
    good(Role::Metadata, metadata);
    let rootfs =
        TarBuilder::default().dir("./").file("./metadata.yaml/x", b"").file("backup.yaml", b"");
    good(Role::Rootfs, rootfs.symlink("bin", "/usr/bin"));
}

#[test]
fn what_is_missing_is_named_as_lxd_does() {
    let rootfs = || TarBuilder::default().dir("rootfs/");
    refused_image(rootfs(), "Metadata tarball is missing metadata.yaml");
    refused(Role::Metadata, TarBuilder::default(), "Metadata tarball is missing metadata.yaml");
    refused_image(TarBuilder::default().file("metadata.yaml", METADATA), "Invalid instance type");
    refused_image(rootfs().file("metadata.yaml", b"architecture: amd64\n"), "Missing creation");
}

#[test]
fn nothing_leaves_the_root() {
    for name in ["../x", "rootfs/../../etc/shadow", "/etc/passwd", "rootfs/..", ".."] {
        refused_image(
            TarBuilder::image().file(name, b"x"),
            &format!("the archive leaves its root: entry {name:?}"),
        );
    }
    refused(Role::Rootfs, TarBuilder::default().file("a/../../b", b""), "leaves its root");
    refused_image(TarBuilder::image().pax(&[("path", "../x")]).file("rootfs/a", b""), "leaves");
    refused_image(TarBuilder::image().entry("@", b'L', "", b"/x\0").file("a", b""), "leaves");
}

#[test]
fn nothing_is_written_through_a_link() {
    // CVE-2026-48749: rootfs/ is there, then becomes a link to the host's root.
    refused_image(TarBuilder::image().symlink("rootfs", "/"), "must be a directory");
    refused_image(
        TarBuilder::default().file("metadata.yaml", METADATA).symlink("rootfs", "/"),
        "must be a directory",
    );
    refused_image(
        TarBuilder::image().symlink("rootfs/a", "/etc").file("rootfs/a/passwd", b""),
        "is below something that is no directory",
    );
    refused_image(
        TarBuilder::image().file("rootfs/a", b"").file("rootfs/a/b/c", b""),
        "is below something that is no directory",
    );
    refused(
        Role::Rootfs,
        TarBuilder::default().symlink("a", "/etc").hardlink("b", "a").file("b/c", b""),
        "is below something that is no directory",
    );
}

#[test]
fn names_are_used_once() {
    let twice = "the archive has two entries named";
    let image = TarBuilder::image;
    refused_image(image().file("metadata.yaml", METADATA), twice);
    refused_image(image().file("./metadata.yaml", METADATA), twice);
    refused_image(image().file("rootfs/a", b"").file("rootfs//a", b""), twice);
    refused_image(image().file("rootfs/a", b"").symlink("rootfs/a", "/"), twice);
    refused_image(image().dir("rootfs/a").symlink("rootfs/a", "/"), twice);
    refused_image(image().file("rootfs/a/b", b"").symlink("rootfs/a", "/"), twice);
    refused_image(image().symlink("rootfs/a", "/").dir("rootfs/a"), twice);
    good(Role::Unified, image().file("rootfs/a", b"").file("rootfs/A", b"").dir("rootfs"));
}

#[test]
fn only_what_belongs_to_an_image_is_at_the_top() {
    let image = TarBuilder::image;
    for name in ["backup.yaml", "exec-output", "x", "metadata.yaml2", "Rootfs"] {
        refused_image(image().file(name, b""), "doesn't belong there");
        refused_image(image().symlink(name, "/etc/passwd"), "doesn't belong there");
    }
    refused_image(image().file("metadata.yaml/x", b""), "doesn't belong there");
    let metadata = || TarBuilder::default().file("metadata.yaml", METADATA);
    refused(Role::Metadata, metadata().file("other", b""), "doesn't belong there");
    refused(Role::Metadata, metadata().dir("rootfs/"), "a whole image");
}

#[test]
fn top_level_parts_are_what_they_should_be() {
    let rootfs = || TarBuilder::default().dir("rootfs/").file("rootfs/m", METADATA);
    let regular = "must be a regular file";
    refused_image(rootfs().symlink("metadata.yaml", "rootfs/m"), regular);
    refused_image(rootfs().hardlink("metadata.yaml", "rootfs/m"), regular);
    refused_image(rootfs().dir("metadata.yaml"), regular);
    refused_image(TarBuilder::image().symlink("templates", "/"), regular);
    refused_image(TarBuilder::image().symlink("templates/a", "/etc/shadow"), regular);
    refused_image(TarBuilder::image().entry("templates/a", b'3', "", b""), regular);
    refused_image(TarBuilder::image().symlink("rootfs.img", "/dev/sda"), regular);
    refused_image(TarBuilder::image().file("rootfs.img", b"raw"), "both rootfs/ and rootfs.img");
    refused_image(TarBuilder::image().symlink("./", "x"), "is no directory but");
    refused(Role::Rootfs, TarBuilder::default().file(".", b""), "must be a directory");
    let large = vec![b' '; Metadata::MAX_BYTES + 1];
    refused_image(TarBuilder::default().file("metadata.yaml", &large), "is larger than 1 MiB");
}

#[test]
fn hard_links_stay_in_the_root_file_system() {
    let image = || TarBuilder::image().file("rootfs/a", b"");
    for (target, reason) in [
        ("rootfs/missing", "doesn't come before it"),
        ("metadata.yaml", "outside of the root"),
        ("../a", "leaves its root"),
        ("/etc/shadow", "leaves its root"),
        ("rootfs", "outside of the root"),
        ("a", "outside of the root"),
        ("", "empty name"),
    ] {
        refused_image(image().hardlink("rootfs/b", target), reason);
    }
    refused_image(image().dir("rootfs/d").hardlink("rootfs/b", "rootfs/d"), "to a directory");
}

#[test]
fn virtual_machines_have_a_disk_of_their_own() {
    let image = |disk: &[u8]| {
        TarBuilder::default().file("metadata.yaml", METADATA).file("rootfs.img", disk)
    };
    let disk = qcow2::tests::disk(|_| {});
    let archive = image(&disk).finish();
    let (parts, ..) = check(Role::Unified, &archive).unwrap();
    assert_eq!(parts.kind, Some(InstanceType::VirtualMachine));
    good(Role::Unified, image(b"raw bytes"));
    let backed = qcow2::tests::disk(|head| head[15] = 200);
    refused_image(image(&backed), "backing file");
    refused_image(image(&disk[..60]), "qcow2 disk is truncated");
    refused_image(image(&disk).file("rootfs/a", b""), "both rootfs/ and rootfs.img");
}

#[test]
fn long_names_come_in_three_ways() {
    let long = format!("rootfs/{}", "d/".repeat(300));
    let image = TarBuilder::image;
    good(Role::Unified, image().pax(&[("path", &long)]).dir("x/"));
    good(Role::Unified, image().entry("@", b'L', "", long.as_bytes()).dir("x/"));
    let prefixed = image().tweaked("tail", b'0', "", b"", |header| {
        header[345..358].copy_from_slice(b"rootfs/prefix");
    });
    let prefixed = prefixed.file("rootfs/prefix/tail", b"");
    refused_image(prefixed, "two entries named \"rootfs/prefix/tail\"");
    // Some writers put an extended header before the long name: both must agree.
    let both = |pax: &str, gnu: &str| {
        image().pax(&[("path", pax)]).entry("@", b'L', "", gnu.as_bytes()).file("x", b"")
    };
    good(Role::Unified, both("rootfs/a", "rootfs/a"));
    refused_image(both("rootfs/a", "rootfs/b"), "different names");
    let target = "t".repeat(300);
    good(Role::Unified, image().entry("@", b'K', "", target.as_bytes()).symlink("rootfs/l", "x"));
    good(Role::Unified, image().pax(&[("linkpath", &target)]).symlink("rootfs/l", "x"));
    refused_image(image().entry("@", b'L', "", &[b'a'; 5000]).file("x", b""), "larger than");
    refused_image(image().entry("@", b'x', "", &vec![b'a'; 2 << 20]).file("x", b""), "larger than");
    let component = format!("rootfs/{}", "c".repeat(256));
    refused_image(image().pax(&[("path", &component)]).file("x", b""), "longer than 255");
}

#[test]
fn extended_headers_speak_about_one_entry() {
    let image = TarBuilder::image;
    good(Role::Unified, image().entry("g", b'g', "", b"13 comment=a\n"));
    refused_image(image().entry("g", b'g', "", b"17 path=rootfs/b\n"), "global header");
    let twice = image().pax(&[("path", "rootfs/a")]).pax(&[("path", "rootfs/b")]);
    refused_image(twice.file("x", b""), "two extended headers");
    refused_image(image().pax(&[("path", "rootfs/a")]), "has no entry after it");
    // CVE-2025-62518: the size of the extended header counts, not the one in the header.
    let hidden = TarBuilder::default().file("../smuggled", b"").open_ended();
    let sized =
        image().pax(&[("size", "512")]).tweaked("rootfs/a", b'0', "", b"", |_| {}).data(&hidden);
    good(Role::Unified, sized);
    refused_image(image().pax(&[("size", "512")]).dir("rootfs/d").data(&hidden), "has data");
}

#[test]
fn entries_that_readers_disagree_about_are_refused() {
    let image = TarBuilder::image;
    refused_image(image().entry("rootfs/d", b'5', "", b"data"), "is no regular file but has data");
    refused_image(image().entry("rootfs/l", b'2', "x", b"data"), "is no regular file but has data");
    refused_image(image().file("rootfs/f/", b""), "ends with a slash");
    good(Role::Unified, image().entry("rootfs/old/", 0, "", b"").file("rootfs/old/x", b""));
    for type_flag in [b'D', b'M', b'V', b'N', b'X', b'8', b'A', 0x80] {
        refused_image(image().entry("rootfs/a", type_flag, "", b""), "type not known here");
    }
    refused_image(image().symlink("rootfs/l", ""), "is a link to nothing");
}

#[test]
fn headers_must_be_sound() {
    let image = TarBuilder::image;
    let mut archive = image().file("rootfs/a", b"").finish();
    archive[1024 + 3] ^= 1;
    assert!(check(Role::Unified, &archive).unwrap_err().contains("checksum"));
    for (field, bytes) in [(124, &b"-0000000001"[..]), (124, b"zzz"), (100, b"99"), (136, b"x")] {
        let archive = image().tweaked("rootfs/a", b'0', "", b"", |header| {
            header[field..field + bytes.len()].copy_from_slice(bytes);
        });
        refused_image(archive, "a number in a header");
    }
    let huge = image().tweaked("rootfs/a", b'0', "", b"", |header| {
        header[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255]);
    });
    refused_image(huge, "unpacks to more than");
    let negative = image().tweaked("rootfs/a", b'0', "", b"", |header| {
        header[124..136].fill(0xff);
    });
    refused_image(negative, "a size is negative");
    let dated = image().tweaked("rootfs/a", b'0', "", b"", |header| header[136..148].fill(0xff));
    good(Role::Unified, dated);
}

fn gnu_sparse(size: u64, fragments: &[(u64, u64)], more: &[(u64, u64)], data: &[u8]) -> TarBuilder {
    let write = |block: &mut [u8], fragments: &[(u64, u64)]| {
        for (at, (offset, len)) in fragments.iter().enumerate() {
            let field = format!("{offset:011o} {len:011o} ");
            block[at * 24..at * 24 + 24].copy_from_slice(field.as_bytes());
        }
    };
    let head = TarBuilder::image().tweaked("rootfs/sparse", b'S', "", &[], |header| {
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[257..265].copy_from_slice(b"ustar  \0");
        write(&mut header[386..482], fragments);
        header[482] = u8::from(!more.is_empty());
        header[483..494].copy_from_slice(format!("{size:011o}").as_bytes());
    });
    let mut block = [0; 512];
    write(&mut block, more);
    let head = if more.is_empty() { head } else { head.data(&block) };
    head.data(data)
}

#[test]
fn sparse_files_have_a_map_that_fits() {
    let sparse = |size, fragments: &[_], data| gnu_sparse(size, fragments, &[], data);
    good(Role::Unified, sparse(10_000, &[(0, 3), (4096, 2), (10_000, 0)], b"abcde"));
    good(Role::Unified, gnu_sparse(1 << 30, &[(0, 512); 1], &[(4096, 88)], &[1; 600]));
    let (.., unpacked) =
        check(Role::Unified, &sparse(10_000, &[(4096, 5)], b"abcde").finish()).unwrap();
    assert_eq!(unpacked, 10_000 + METADATA.len() as u64);
    for (size, fragments) in [
        (10_000, &[(0, 3), (2, 2)][..]),
        (10_000, &[(0, 3)]),
        (4, &[(0, 5)]),
        (10_000, &[(4096, 2), (0, 3)]),
    ] {
        refused_image(sparse(size, fragments, b"abcde"), "map of a sparse file");
    }
}

#[test]
fn sparse_files_of_pax_are_read_too() {
    let with = |records: &[(&str, &str)], data: &[u8]| {
        let name = ("GNU.sparse.name", "rootfs/sparse");
        let records: Vec<_> = records.iter().copied().chain([name]).collect();
        TarBuilder::image().pax(&records).file("GNUSparseFile.0/sparse", data)
    };
    let in_data = |map: &str, data: &[u8]| {
        let mut content = map.as_bytes().to_vec();
        content.resize(content.len().next_multiple_of(512), 0);
        content.extend_from_slice(data);
        let one = ("GNU.sparse.major", "1");
        with(&[one, ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9000")], &content)
    };
    good(Role::Unified, in_data("2\n0\n3\n4096\n2\n", b"abcde"));
    good(Role::Unified, in_data("0\n", b""));
    for map in ["2\n0\n3\n4096\n3\n", "1\n8999\n5\n", "x\n", "99999999\n", "1\n0\n"] {
        assert!(check(Role::Unified, &in_data(map, b"abcde").finish()).is_err(), "{map:?}");
    }
    let map = ("GNU.sparse.map", "0,3,4096,2");
    good(Role::Unified, with(&[("GNU.sparse.size", "9000"), map], b"abcde"));
    refused_image(with(&[("GNU.sparse.size", "9000"), map], b"abcdef"), "doesn't fit its data");
    refused_image(with(&[map], b"abcde"), "has no size");
    let metadata = TarBuilder::default().pax(&[
        ("GNU.sparse.name", "metadata.yaml"),
        ("GNU.sparse.size", "5"),
        ("GNU.sparse.map", "0,5"),
    ]);
    refused_image(metadata.file("x", b"abcde"), "must not be stored as a sparse file");
}

#[test]
fn the_end_must_be_there_and_nothing_after_it() {
    let image = || TarBuilder::image().file("rootfs/a", &[7; 1300]);
    let whole = image().finish();
    for len in 0..whole.len() - 1023 {
        let error = check_in(Role::Unified, &whole[..len], 1 << 16).unwrap_err();
        assert!(error.contains("tar archive is truncated"), "cut at {len}: {error}");
    }
    // One zero block is enough to know that nothing is missing.
    check(Role::Unified, &whole[..whole.len() - 512]).unwrap();
    let mut padded = whole.clone();
    padded.resize(10_240 + 77, 0);
    check(Role::Unified, &padded).unwrap();
    for at in [whole.len(), whole.len() - 1, whole.len() - 512] {
        let mut long = whole.clone();
        long.resize(10_240, 0);
        long[at] = 1;
        let error = check(Role::Unified, &long).unwrap_err();
        assert!(error.contains("foreign bytes after the end"), "{error}");
    }
    let two = [&whole[..], &whole[..]].concat();
    assert!(check(Role::Unified, &two).is_err());
}

#[test]
fn entries_are_counted_with_the_directories_they_imply() {
    let mut many = TarBuilder::image();
    for i in 0..998 {
        many = many.file(&format!("rootfs/{i}"), b"");
    }
    let (_, entries, _) = check_in(Role::Unified, &many.finish(), 4096).unwrap();
    assert_eq!(entries, 1000);
    let mut many = TarBuilder::image();
    for i in 0..600 {
        many = many.file(&format!("rootfs/{i}/x"), b"");
    }
    let error = check_in(Role::Unified, &many.finish(), 4096).unwrap_err();
    assert!(error.contains("more than 1000 entries"), "{error}");
}

#[test]
fn data_can_be_skipped() {
    let archive = TarBuilder::image()
        .file("rootfs/a", &vec![1; 100_000])
        .file("rootfs/b", &[2; 511])
        .file("rootfs/c", &[])
        .finish();
    let mut check = TarCheck::new(Role::Unified, Limits::default());
    let (mut at, mut skipped) = (0, 0);
    while at < archive.len() {
        let skip = check.skippable();
        if skip > 0 {
            assert!(check.skip(skip + 1).is_err());
            check.skip(skip).unwrap();
            skipped += skip;
            at += usize::try_from(skip).unwrap();
        } else {
            let end = (at + 512).min(archive.len());
            check.feed(&archive[at..end]).unwrap();
            at = end;
        }
    }
    assert_eq!(skipped, 100_352 + 512);
    let unpacked = check.unpacked();
    check.finish().unwrap();
    assert_eq!(unpacked, 100_511 + METADATA.len() as u64);
}

#[test]
fn damaged_archives_never_panic() {
    let mut random = Random::new(42);
    let sources = [
        TarBuilder::image()
            .pax(&[("path", "rootfs/long"), ("size", "5")])
            .file("x", b"12345")
            .entry("@", b'L', "", b"rootfs/gnu\0")
            .file("y", b"z")
            .hardlink("rootfs/h", "rootfs/gnu")
            .finish(),
        gnu_sparse(10_000, &[(0, 3)], &[(4096, 2)], b"abcde").finish(),
    ];
    for source in sources {
        for _ in 0..20_000 {
            let mut archive = source.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(archive.len());
                archive[at] = random.byte();
            }
            // Most damage would end at the checksum.
            for block in archive.chunks_exact_mut(512) {
                if &block[257..262] == b"ustar" {
                    crate::format::testing::seal(block.try_into().unwrap());
                }
            }
            let _ = check_in(Role::Unified, &archive, 1 + random.below(3000));
        }
    }
}

#[test]
fn archives_of_gnu_tar_are_accepted_in_all_its_formats() {
    use std::fs::{create_dir_all, hard_link, write};

    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    create_dir_all(at("rootfs/").join("long/".repeat(30))).unwrap();
    write(at("metadata.yaml"), METADATA).unwrap();
    write(at("rootfs/file"), Random::new(1).bytes(3000)).unwrap();
    write(at("rootfs/").join("long/".repeat(30)).join("l".repeat(120)), "x").unwrap();
    hard_link(at("rootfs/file"), at("rootfs/link")).unwrap();
    std::os::unix::fs::symlink("t".repeat(200), at("rootfs/symlink")).unwrap();
    let sparse = std::fs::File::create(at("rootfs/sparse")).unwrap();
    for part in 0..40 {
        let offset = part * (1 << 20) + 4096;
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", offset).unwrap();
    }
    sparse.set_len(100 << 20).unwrap();

    for options in [
        &["--format=gnu"][..],
        &["--format=gnu", "-S"],
        &["--format=posix"],
        &["--format=posix", "-S"],
        &["--format=posix", "-S", "--sparse-version=0.0"],
        &["--format=posix", "-S", "--sparse-version=0.1"],
    ] {
        let output = std::process::Command::new("tar")
            .args(options)
            .arg("-C")
            .arg(dir.path())
            .args(["-c", "metadata.yaml", "rootfs"])
            .output()
            .unwrap();
        assert!(output.status.success());
        let (parts, entries, unpacked) = check_in(Role::Unified, &output.stdout, 100_000)
            .unwrap_or_else(|error| {
                panic!("{options:?}: {error}");
            });
        assert_eq!(parts.kind, Some(InstanceType::Container));
        assert_eq!(entries, 37, "{options:?}");
        assert_eq!(unpacked, (100 << 20) + 3001 + METADATA.len() as u64, "{options:?}");
    }
}
