//! What the pool promises to uploads that stand still, end early or go away.

use std::io::Write;

use lxd_proto::format::Compression;

use super::*;

const METADATA: &str = "architecture: x86_64\ncreation_date: 1\n";

/// A unified image whose file cannot be compressed much, so that it takes several chunks.
fn image(compression: Compression) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut noise = vec![0_u8; 1 << 20];
    let mut state = 1_u64;
    for byte in &mut noise {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    for (name, content) in [("metadata.yaml", METADATA.as_bytes()), ("rootfs/noise", &noise)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).unwrap();
    }
    let plain = tar.into_inner().unwrap();
    let mut packed = Vec::new();
    let mut compressor =
        lxd_proto::format::Compressor::new(compression, None, &mut packed).unwrap();
    compressor.write_all(&plain).unwrap();
    compressor.finish().unwrap();
    packed
}

fn begin(pool: &CheckPool) -> (Arc<Check>, File) {
    let file = tempfile::tempfile().unwrap();
    (pool.begin(Role::Unified, Arc::new(file.try_clone().unwrap())), file)
}

fn write(check: &Arc<Check>, mut file: &File, bytes: &[u8], before: usize) {
    file.write_all(bytes).unwrap();
    check.written((before + bytes.len()) as u64);
}

#[tokio::test]
async fn uploads_that_stand_still_do_not_keep_others_waiting() {
    let pool = CheckPool::new(1).unwrap();
    let bytes = image(Compression::Gzip);
    let half = bytes.len() / 2;
    // More than there are slots, all of them open and starving.
    let slow: Vec<_> = (0..8).map(|_| begin(&pool)).collect();
    for (check, file) in &slow {
        write(check, file, &bytes[..half], 0);
    }
    let (fast, file) = begin(&pool);
    write(&fast, &file, &bytes, 0);
    fast.complete(bytes.len() as u64, Wanted::Whole);
    let (findings, complete) = fast.verdict(Wanted::Whole).await.unwrap();
    assert!(complete);
    assert_eq!(findings.metadata.unwrap().creation_date, 1);
    // And those that gave way still get their verdict.
    for (check, file) in &slow {
        write(check, file, &bytes[half..], half);
        check.complete(bytes.len() as u64, Wanted::Whole);
    }
    for (check, _) in &slow {
        assert!(check.verdict(Wanted::Whole).await.unwrap().1);
    }
    assert_eq!(pool.shared.queues.lock().urgent_open, 0, "every slot is free again");
}

#[tokio::test]
async fn xz_is_settled_early_and_checked_to_the_end() {
    let pool = CheckPool::new(1).unwrap();
    let mut bytes = image(Compression::Xz);
    let (check, file) = begin(&pool);
    write(&check, &file, &bytes, 0);
    check.complete(bytes.len() as u64, Wanted::Quick);
    let (findings, _) = check.verdict(Wanted::Quick).await.unwrap();
    assert!(findings.metadata.is_some());
    assert!(check.verdict(Wanted::Whole).await.unwrap().1);
    // Damage in the middle passes the quick proof, but not the whole check.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    let (check, file) = begin(&pool);
    write(&check, &file, &bytes, 0);
    check.complete(bytes.len() as u64, Wanted::Whole);
    check.verdict(Wanted::Whole).await.unwrap_err();
    // A missing end does not.
    bytes.truncate(bytes.len() - 4);
    let (check, file) = begin(&pool);
    write(&check, &file, &bytes, 0);
    check.complete(bytes.len() as u64, Wanted::Quick);
    check.verdict(Wanted::Quick).await.unwrap_err();
    // The decoder finds that too, in its own time.
    check.verdict(Wanted::Whole).await.unwrap_err();
    let queues = pool.shared.queues.lock();
    assert!(!queues.background_open && queues.urgent_open == 0, "every slot is free again");
}

#[tokio::test]
async fn an_abandoned_check_ends_and_frees_its_slot() {
    let pool = CheckPool::new(1).unwrap();
    let bytes = image(Compression::Zstd);
    for round in 0..5 {
        let (check, file) = begin(&pool);
        write(&check, &file, &bytes[..bytes.len() / 2], 0);
        check.abandon();
        check.verdict(Wanted::Whole).await.unwrap_err();
        drop(file);
        let _ = round;
    }
    let (check, file) = begin(&pool);
    write(&check, &file, &bytes, 0);
    check.complete(bytes.len() as u64, Wanted::Whole);
    assert!(check.verdict(Wanted::Whole).await.unwrap().1);
}
