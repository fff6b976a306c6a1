//! Deltas come and versions go.

use super::*;
use crate::signed::tests::ed25519;

fn machines(home: &Home, serials: &[(&str, u8)]) -> Vec<Fingerprint> {
    let one = |(serial, seed): &(&str, u8)| {
        let image = Sample { serial: (*serial).to_owned(), ..sample("vm", "") };
        home.machine(&format!("tree/{}", at("vm", serial)), &image, *seed)
    };
    serials.iter().map(one).collect()
}

pub(super) fn deltas(home: &Home) -> BuildReport {
    home.build_with(&BuildOptions { deltas: Deltas::All, ..BuildOptions::default() })
}

pub(super) fn prune(home: &Home, keep: usize, grace: i64, time: Timestamp) -> BuildReport {
    let options = BuildOptions {
        retention: Some(Retention { keep: Some(keep), days: None }),
        grace: SignedDuration::from_hours(grace),
        ..BuildOptions::default()
    };
    home.open().build(&options, time).unwrap()
}

pub(super) fn hours_later(hours: i64) -> Timestamp {
    now() + SignedDuration::from_hours(hours)
}

#[test]
fn a_delta_is_published_when_it_is_small_and_right() {
    let home = Home::new();
    let images = machines(&home, &[("20260101", 1), ("20260102", 1), ("20260103", 2)]);
    assert_eq!(home.build().deltas, []);
    let report = deltas(&home);
    let (large, small): (Vec<_>, Vec<_>) = report.deltas.iter().partition(|d| d.reason.is_some());
    assert_eq!((small.len(), large.len()), (1, 1), "{report:?}");
    assert!(small[0].made && small[0].size < 1000, "{report:?}");
    assert!(large[0].reason.as_deref().unwrap().contains("not under half"), "{report:?}");
    let listed = home.listed();
    let delta = &listed[&images[1]].files.deltas[0];
    assert_eq!(delta.base, images[0]);
    assert_eq!(home.verify().faults, []);
    let name = "disk.20260101.qcow2.vcdiff";
    let sums = read(&home.tree().join(at("vm", "20260102")).join("SHA256SUMS"));
    assert!(sums.contains(name), "{sums}");

    // Once made it stays, without another look and without being asked for.
    let before = home.files();
    let report = home.build();
    assert!(!report.changed && report.hashed_files == 0);
    assert_eq!(home.files(), before);
    // The same bytes each time.
    let path = home.tree().join(at("vm", "20260102")).join(name);
    let made = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::remove_file(path.with_file_name("SHA256SUMS")).unwrap();
    deltas(&home);
    assert_eq!(fs::read(&path).unwrap(), made);
    // What is remembered is lost: it is checked again.
    fs::remove_dir_all(home.tree().join(STATE)).unwrap();
    assert!(!home.build().changed);
}

#[test]
fn a_wrong_delta_is_told_and_not_published() {
    let home = Home::new();
    let images = machines(&home, &[("20260101", 1), ("20260102", 1)]);
    let path = format!("tree/{}/disk.20260101.qcow2.vcdiff", at("vm", "20260102"));
    home.put(&path, b"\xd6\xc3\xc4\0\0junk");
    let report = home.build();
    assert!(told(&report.broken)[0].contains("cannot be applied"), "{:?}", report.broken);
    assert_eq!(report.images, 2);
    assert!(home.listed()[&images[1]].files.deltas.is_empty());
}

#[test]
fn versions_leave_the_catalog_first_and_the_disk_later() {
    let home = Home::new();
    let serials = ["20260101", "20260102", "20260103"];
    let images = machines(&home, &serials.map(|serial| (serial, 1)));
    version(&home, "lone", "20200101");
    deltas(&home);
    assert_eq!(home.listed()[&images[2]].files.deltas.len(), 1);

    let dry = BuildOptions {
        retention: Some(Retention { keep: Some(1), days: None }),
        dry_run: true,
        ..BuildOptions::default()
    };
    let before = home.files();
    let report = home.build_with(&dry);
    assert_eq!(report.withdrawn.len(), 3, "{report:?}");
    assert_eq!(report.removed, report.withdrawn_sorted());
    assert_eq!(home.files(), before);

    let report = prune(&home, 2, 48, now());
    let paths: Vec<&str> = report.withdrawn.iter().map(|gone| gone.path.as_str()).collect();
    let delta = format!("{}/disk.20260101.qcow2.vcdiff", at("vm", "20260102"));
    assert_eq!(paths, [&at("vm", "20260101"), &delta]);
    assert!(report.withdrawn.iter().all(|gone| !gone.reason.is_empty()));
    assert!(report.removed.is_empty());
    let listed = home.listed();
    assert!(!listed.contains_key(&images[0]) && listed.contains_key(&images[1]));
    assert!(listed[&images[1]].files.deltas.is_empty());
    assert_eq!(listed[&images[2]].files.deltas.len(), 1);
    assert!(home.tree().join(at("vm", "20260101")).is_dir());
    assert_eq!(home.verify().faults, []);
    // A build does not bring it back, nor does an earlier end come of it.
    assert!(!home.build().changed);
    assert!(prune(&home, 2, 48, hours_later(47)).removed.is_empty());
    let report = prune(&home, 2, 48, hours_later(48));
    assert_eq!(report.removed.len(), 2, "{report:?}");
    assert!(!report.changed);
    assert!(!home.tree().join(at("vm", "20260101")).exists());
    assert!(!home.tree().join(&delta).exists());
    assert!(home.tree().join(at("vm", "20260102")).is_dir());
    assert_eq!(home.verify().faults, []);
    assert_eq!(told(&home.build().broken), [""; 0]);
    // The newest stays, whatever is asked.
    prune(&home, 0, 0, hours_later(50));
    assert!(home.listed().contains_key(&images[2]));
    assert!(home.tree().join(at("lone", "20200101")).is_dir());
}

impl BuildReport {
    fn withdrawn_sorted(&self) -> Vec<Removal> {
        let mut sorted = self.withdrawn.clone();
        sorted.sort_by(|a, b| a.path.cmp(&b.path));
        sorted
    }
}

#[test]
fn an_empty_product_leaves_no_directories() {
    let home = Home::new();
    let first = version(&home, "alpine", "20260101");
    // Of a directory with other things in it only the files go.
    let image = sample("alpine", "20260102");
    home.image("tree/images/flat", &image);
    home.put("tree/images/flat/whole.tar", &sample("whole", "20260101").unified());
    home.image("tree/images/alpine/3", &sample("alpine", "20260103"));
    assert_eq!(home.build().images, 4);
    prune(&home, 1, 0, now());
    assert!(!home.listed().contains_key(&first));
    assert!(!home.tree().join("images/alpine/1").exists());
    let sums = read(&home.tree().join("images/flat/SHA256SUMS"));
    assert!(sums.lines().count() == 1 && sums.contains("whole.tar"), "{sums}");
    assert_eq!(home.verify().faults, []);
}

#[test]
fn a_signed_tree_loses_no_file_that_its_signed_catalog_names() {
    let home = Home::new();
    for serial in ["20260101", "20260102"] {
        version(&home, "alpine", serial);
    }
    let ((first, _), (second, keyring)) = (ed25519(), ed25519());
    let options = BuildOptions {
        retention: Some(Retention { keep: Some(1), days: None }),
        ..BuildOptions::default()
    };
    let build = |signer, options: &BuildOptions| {
        let report = home.open().signed_by(signer).build(options, now()).unwrap();
        assert!(report.is_signed && report.broken.is_empty(), "{report:?}");
        report
    };
    assert!(!build(Some(first), &BuildOptions::default()).is_signature_old);
    let report = build(None, &options);
    assert!(report.is_signature_old && report.withdrawn.len() == 1, "{report:?}");
    assert_eq!(report.removed, []);
    let dry = BuildOptions { dry_run: true, ..options };
    assert_eq!(build(None, &dry).removed, []);
    assert!(home.tree().join(at("alpine", "20260101")).is_dir());

    let report = build(Some(second), &options);
    assert!(!report.is_signature_old && report.removed.len() == 1, "{report:?}");
    assert!(!home.tree().join(at("alpine", "20260101")).exists());
    let signed = fs::read(home.tree().join("streams/v1/images.sjson")).unwrap();
    let listed = String::from_utf8(keyring.verify(&signed).unwrap().payload).unwrap();
    assert!(listed.contains("20260102") && !listed.contains("20260101"), "{listed}");
}
