//! Each fault of a tree is found, and none hides another.

use super::*;
use FaultKind::{
    Delta, Document, Fingerprint as Combined, Hash, Missing, Orphan, Permissions, Signature, Size,
    Twin,
};

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
    let wrong = format!("{}  disk.qcow2\n", "0".repeat(64));
    let chmod = |home: &Home, path: &str, mode: u32| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(home.tree().join(path), mode).unwrap();
    };
    let put = |home: &Home, path: &str, bytes: &[u8]| home.put(&format!("tree/{path}"), bytes);
    let remove = |home: &Home, path: &str| fs::remove_file(home.tree().join(path)).unwrap();
    let cases: &[(Damage<'_>, &[FaultKind])] = &[
        (&|home| remove(home, &disk), &[Missing, Missing]),
        (&|home| put(home, &disk, b"QFI\xfb"), &[Size]),
        (&|home| put(home, &disk, &qcow2("20260102", 9)), &[Hash]),
        (&|home| put(home, &delta, b"junk"), &[Size]),
        (&|home| put(home, &format!("{INDEX}.gz"), b"junk"), &[Twin]),
        (&|home| remove(home, &format!("{INDEX}.gz")), &[]),
        (&|home| remove(home, CATALOG), &[Missing]),
        (&|home| put(home, CATALOG, b"{}x"), &[Document, Twin]),
        (&|home| put(home, INDEX, b"["), &[Document, Twin]),
        (&|home| edit(home, INDEX, "vm:1:amd64:default", "other"), &[Document, Twin]),
        (&|home| edit(home, INDEX, "streams/v1/images", "../images"), &[Document, Twin]),
        (
            &|home| edit(home, CATALOG, "combined_disk-kvm-img_sha256\":\"", "x\":\""),
            &[Document, Twin],
        ),
        (&|home| edit(home, CATALOG, "20260101\":{", "latest\":{"), &[Document, Delta, Twin]),
        (&|home| edit(home, CATALOG, "\"amd64\"", "\"vax\""), &[Document, Twin]),
        (&|home| put(home, "images/x/disk.qcow2", &qcow2("x", 3)), &[Orphan]),
        (&|home| put(home, "images/x/notes.txt", b"hello"), &[]),
        (&|home| put(home, &format!("{new}/SHA256SUMS"), b""), &[]),
        (&|home| put(home, &format!("{new}/SHA256SUMS"), wrong.as_bytes()), &[Hash]),
        (&|home| edit(home, CATALOG, "products:1.0", ""), &[Document, Twin]),
        (&|home| edit(home, INDEX, "products:1.0", ""), &[Document, Twin]),
        (&|home| edit(home, CATALOG, "vm/1,", "vm/1, "), &[Document, Twin]),
        (&|home| edit(home, CATALOG, "vm/1,", "vm/1,,"), &[Document, Twin]),
        (
            &|home| {
                // As if there were no metadata in any version.
                for name in ["lxd.tar.xz", "incus.tar.xz"] {
                    for _ in 0..2 {
                        edit(home, CATALOG, &format!("\"ftype\":\"{name}\""), "\"ftype\":\"x\"");
                    }
                }
            },
            &[Document, Twin],
        ),
        (
            &|home| {
                let catalog = read(&home.tree().join(CATALOG));
                let key = "combined_disk-kvm-img_sha256\":\"";
                let at = catalog.find(key).unwrap() + key.len();
                let hash = &catalog[at..at + 64];
                edit(home, CATALOG, hash, &hash.to_uppercase());
            },
            &[Document, Twin],
        ),
        (&|home| chmod(home, &disk, 0), &[Permissions]),
        (&|home| chmod(home, &disk, 0o600), &[]),
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

#[test]
fn the_cause_comes_first() {
    let home = Home::new();
    version(&home, "a", "20260101");
    home.build();
    fs::remove_file(home.tree().join(at("a", "20260101")).join("root.tar.xz")).unwrap();
    edit(&home, CATALOG, "products:1.0", "");
    let faults = home.verify().faults;
    assert!(faults[0].path.starts_with("streams/") && faults.len() > 2, "{faults:#?}");
}

#[test]
fn one_name_for_two_products_is_found() {
    let home = Home::new();
    version(&home, "a", "20260101");
    version(&home, "b", "20260101");
    home.build();
    edit(&home, CATALOG, "\"b/1,", "\"a/1,");
    let faults = home.verify().faults;
    let told = "the alias a/1 leads to a:1:amd64:default and to b:1:amd64:default";
    assert!(faults.iter().any(|fault| fault.reason == told), "{faults:#?}");
}

#[test]
fn signed_documents_are_checked() {
    const SIGNED: &str = "streams/v1/images.sjson";
    const SIGNED_INDEX: &str = "streams/v1/index.sjson";
    let (_, other) = crate::signed::tests::ed25519();
    type Damage<'a> = &'a dyn Fn(&Home);
    let put = |home: &Home, path: &str, bytes: &[u8]| home.put(&format!("tree/{path}"), bytes);
    let remove = |home: &Home, path: &str| fs::remove_file(home.tree().join(path)).unwrap();
    let cases: &[(Damage<'_>, &[&str])] = &[
        (&|_| {}, &[]),
        (&|home| remove(home, SIGNED), &[SIGNED]),
        (&|home| remove(home, SIGNED_INDEX), &[SIGNED_INDEX]),
        (&|home| put(home, SIGNED, b"junk"), &[SIGNED]),
        (&|home| edit(home, SIGNED, "a/1", "b/1"), &[SIGNED]),
        (&|home| edit(home, SIGNED_INDEX, "images.sjson", "xmages.sjson"), &[SIGNED_INDEX]),
        (
            &|home| {
                // A tree that was changed and not signed anew.
                version(home, "a", "20260102");
                home.build();
            },
            &[SIGNED],
        ),
    ];
    for (number, (damage, expected)) in cases.iter().enumerate() {
        let home = Home::new();
        version(&home, "a", "20260101");
        let (signer, keyring) = crate::signed::tests::ed25519();
        let options = BuildOptions::default();
        home.open().signed_by(Some(signer)).build(&options, now()).unwrap();
        damage(&home);
        for keyring in [None, Some(&keyring)] {
            let faults = home.verify_signed(keyring).faults;
            let found: Vec<&str> = faults
                .iter()
                .filter(|fault| fault.kind == Signature)
                .map(|fault| fault.path.as_str())
                .collect();
            assert_eq!(found, *expected, "{number}: {faults:#?}");
        }
        let stranger = home.verify_signed(Some(&other)).faults;
        assert_eq!(stranger.len(), 2, "{number}: signed by somebody else");
    }
    let home = Home::new();
    version(&home, "a", "20260101");
    home.build();
    assert_eq!(home.verify().faults, []);
    let unsigned = home.verify_signed(Some(&other)).faults;
    assert_eq!(unsigned.len(), 2, "it is not signed at all");
}
