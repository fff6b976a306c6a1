//! Disks whose headers are wrong, one field at a time.

use super::*;
use crate::format::testing::Random;

/// A disk of 1 MiB with nothing in it, its header changed.
pub(crate) fn disk(tweak: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut disk = vec![0; 4 * 65536];
    disk[..4].copy_from_slice(MAGIC);
    disk[4..8].copy_from_slice(&3_u32.to_be_bytes());
    disk[20..24].copy_from_slice(&16_u32.to_be_bytes());
    disk[24..32].copy_from_slice(&(1_u64 << 20).to_be_bytes());
    disk[36..40].copy_from_slice(&1_u32.to_be_bytes());
    disk[40..48].copy_from_slice(&(3_u64 * 65536).to_be_bytes());
    disk[48..56].copy_from_slice(&65536_u64.to_be_bytes());
    disk[56..60].copy_from_slice(&1_u32.to_be_bytes());
    disk[96..100].copy_from_slice(&4_u32.to_be_bytes());
    disk[100..104].copy_from_slice(&104_u32.to_be_bytes());
    tweak(&mut disk);
    disk
}

#[track_caller]
fn refused(reason: &str, tweak: impl FnOnce(&mut [u8])) {
    let error = check(&disk(tweak), &Limits::default()).unwrap_err().to_string();
    assert!(error.contains(reason), "{error:?} should have {reason:?}");
}

#[test]
fn a_plain_disk_is_accepted() {
    check(&disk(|_| {}), &Limits::default()).unwrap();
    // Version 2 ends its header earlier; what follows is no part of it.
    check(&disk(|head| (head[7], head[79]) = (2, 4)), &Limits::default()).unwrap();
    // Compressed with zstd, with subclusters, or not closed properly.
    check(&disk(|head| head[79] = 0b1_1001), &Limits::default()).unwrap();
}

#[test]
fn disks_that_need_other_files_are_refused() {
    refused("backing file", |head| head[15] = 104);
    refused("backing file", |head| (head[7], head[15]) = (2, 104));
    refused("another file", |head| head[79] = 4);
}

#[test]
fn disks_that_cannot_be_read_are_refused() {
    refused("version", |head| head[7] = 1);
    refused("version", |head| head[7] = 4);
    refused("encrypted", |head| head[35] = 1);
    refused("encrypted", |head| head[35] = 2);
    refused("corrupt", |head| head[79] = 2);
    refused("features", |head| head[79] = 32);
    refused("features", |head| head[72] = 128);
    refused("cluster size", |head| head[23] = 8);
    refused("cluster size", |head| head[23] = 22);
    refused("cluster size", |head| head[20] = 1);
    refused("level 1 table is too short", |head| head[39] = 0);
    refused("level 1 table is too short", |head| head[27] = 1);
    refused("unpacks to more than", |head| head[24] = 1);
    refused("table is not where", |head| head[47] = 1);
    refused("table is not where", |head| head[40..48].fill(0));
    refused("table is not where", |head| head[48..56].fill(0));
    refused("truncated", |head| head[36] = 1);
    refused("truncated", |head| head[44] = 1);
    refused("truncated", |head| head[40..46].fill(0xff));
    refused("length of its header", |head| head[103] = 0);
    refused("doesn't begin", |head| head[3] = 0);
}

#[test]
fn cut_and_damaged_disks_never_panic() {
    let whole = disk(|_| {});
    for len in [0, 3, 71, 72, 103, 104, 65536, 3 * 65536 + 7] {
        assert!(check(&&whole[..len], &Limits::default()).is_err(), "cut at {len}");
    }
    check(&&whole[..3 * 65536 + 8], &Limits::default()).unwrap();
    let mut random = Random::new(1);
    for _ in 0..20_000 {
        let mut head = whole[..HEADER_BYTES].to_vec();
        for _ in 0..3 {
            head[4 + random.below(HEADER_BYTES - 4)] = random.byte();
        }
        let _ = check_header(&head, 1 << 20, &Limits::default());
    }
}
