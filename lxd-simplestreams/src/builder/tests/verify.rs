//! Each fault of a tree is found, and none hides another.

use super::*;
use FaultKind::{Delta, Document, Fingerprint as Combined, Hash, Missing, Orphan, Size, Twin};

const INDEX: &str = "streams/v1/index.json";

fn edit(home: &Home, path: &str, from: &str, to: &str) {
    let path = home.tree().join(path);
    let text = read(&path);
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn every_fault_is_found() {
    let new = at("vm", "20260102");
    let (disk, delta) = (format!("{new}/disk.qcow2"), format!("{new}/disk.20260101.qcow2.vcdiff"));
    type Damage<'a> = &'a dyn Fn(&Home);
    let put = |home: &Home, path: &str, bytes: &[u8]| home.put(&format!("tree/{path}"), bytes);
    let remove = |home: &Home, path: &str| fs::remove_file(home.tree().join(path)).unwrap();
    let cases: &[(Damage<'_>, &[FaultKind])] = &[
        (&|home| remove(home, &disk), &[Missing, Missing]),
        (&|home| put(home, &disk, b"QFI\xfb"), &[Size]),
        (&|home| put(home, &disk, &qcow2("20260102", 9)), &[Hash]),
        (&|home| put(home, &delta, b"junk"), &[Size]),
        (&|home| put(home, &format!("{INDEX}.gz"), b"junk"), &[Twin]),
        (&|home| remove(home, &format!("{INDEX}.gz")), &[]),
        (&|home| remove(home, CATALOG), &[Missing, Orphan]),
        (&|home| put(home, CATALOG, b"{}x"), &[Document, Twin, Orphan]),
        (&|home| put(home, INDEX, b"["), &[Document, Twin, Orphan]),
        (&|home| edit(home, INDEX, "vm:1:amd64:default", "other"), &[Document, Twin]),
        (&|home| edit(home, INDEX, "streams/v1/images", "../images"), &[Document, Twin, Orphan]),
        (
            &|home| edit(home, CATALOG, "combined_disk-kvm-img_sha256\":\"", "x\":\""),
            &[Document, Twin],
        ),
        (&|home| edit(home, CATALOG, "20260101\":{", "latest\":{"), &[Document, Delta, Twin]),
        (&|home| edit(home, CATALOG, "\"amd64\"", "\"vax\""), &[Document, Twin]),
        (&|home| put(home, "images/x/disk.qcow2", &qcow2("x", 3)), &[Orphan]),
        (&|home| put(home, "images/x/notes.txt", b"hello"), &[]),
        (&|home| put(home, &format!("{new}/SHA256SUMS"), b""), &[Hash]),
    ];
    for (number, (damage, expected)) in cases.iter().enumerate() {
        let home = Home::new();
        for serial in ["20260101", "20260102"] {
            let image = Sample { serial: serial.to_owned(), ..sample("vm", "") };
            home.machine(&format!("tree/{}", at("vm", serial)), &image, 1);
        }
        home.build_with(&BuildOptions { deltas: Deltas::All, ..BuildOptions::default() });
        assert_eq!(home.verify().faults, []);
        damage(&home);
        let faults = home.verify().faults;
        let mut found: Vec<FaultKind> = faults.iter().map(|fault| fault.kind).collect();
        found.sort();
        found.dedup();
        let mut expected = expected.to_vec();
        expected.sort();
        expected.dedup();
        assert_eq!(found, expected, "{number}: {faults:#?}");
    }
}

#[test]
fn wrong_combinations_and_deltas_are_found() {
    let home = Home::new();
    for (serial, seed) in [("20260101", 7), ("20260102", 1), ("20260103", 1)] {
        let image = Sample { serial: serial.to_owned(), ..sample("vm", "") };
        home.machine(&format!("tree/{}", at("vm", serial)), &image, seed);
    }
    home.build_with(&BuildOptions { deltas: Deltas::All, ..BuildOptions::default() });
    // A delta that starts from another version than the catalog says.
    edit(&home, CATALOG, "\"delta_base\":\"20260102\"", "\"delta_base\":\"20260101\"");
    let text = read(&home.tree().join(CATALOG));
    let at = text.find("combined_disk-kvm-img_sha256\":\"").unwrap() + 31;
    let other = "0".repeat(64);
    let hash = text[at..at + 64].to_owned();
    fs::write(home.tree().join(CATALOG), text.replacen(&hash, &other, 1)).unwrap();
    let faults = home.verify().faults;
    let kinds: Vec<FaultKind> = faults.iter().map(|fault| fault.kind).collect();
    for kind in [Combined, Delta, Twin] {
        assert!(kinds.contains(&kind), "{kind:?}: {faults:#?}");
    }
}

#[test]
fn a_listed_image_that_no_server_takes_is_found() {
    let home = Home::new();
    version(&home, "alpine", "20260101");
    home.build();
    let root = sample("alpine", "20260101").root();
    let (short, path) = (&root[..root.len() - 1500], home.tree().join(CATALOG));
    home.put(&format!("tree/{}/root.tar.xz", at("alpine", "20260101")), short);
    let metadata = sample("alpine", "20260101").metadata();
    let text = read(&path)
        .replace(&sha256(&[&root]).to_string(), &sha256(&[short]).to_string())
        .replace(&sha256(&[&metadata, &root]).to_string(), &sha256(&[&metadata, short]).to_string())
        .replace(&format!("\"size\":{}", root.len()), &format!("\"size\":{}", short.len()));
    fs::write(&path, text).unwrap();
    fs::remove_file(documents::twin(&path)).unwrap();
    let faults = home.verify().faults;
    assert!(faults.iter().any(|fault| fault.kind == FaultKind::Content), "{faults:#?}");
}
