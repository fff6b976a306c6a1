//! Images come in from directories as builders and exports leave them.

use super::*;

fn take(home: &Home, keep: Option<usize>) -> TakenReport {
    home.open().take(&home.path("source"), Means::Copy, keep).unwrap()
}

/// Product and serial of each, as it stands in its path.
fn paths(report: &TakenReport) -> Vec<&str> {
    report.taken.iter().map(|taken| taken.path.strip_prefix("images/").unwrap()).collect()
}

#[test]
fn every_kind_of_directory_is_understood() {
    let home = Home::new();
    let one = sample("built", "20260101");
    home.put("source/built/incus.tar.xz", &one.metadata());
    home.put("source/built/rootfs.tar.xz", &one.root());
    home.put("source/built/disk.qcow2", &qcow2("x", 1));
    home.put("source/built/build.log", b"...");
    let two = sample("exported", "20260101");
    let print = sha256(&[&two.metadata(), &two.root()]);
    home.put(&format!("source/exports/meta-{print}.tar.xz"), &two.metadata());
    home.put(&format!("source/exports/{print}.rootfs"), &two.root());
    let three = sample("whole", "20260101").unified();
    home.put("source/exports/whole.tar.gz", &three);
    // Names that say something else than the bytes.
    let four = sample("wrong", "20260101");
    let other = sha256(&[b"other"]);
    home.put(&format!("source/wrong/{other}.tar.xz"), &four.metadata());
    home.put(&format!("source/wrong/{other}.root"), &four.root());

    let report = take(&home, None);
    assert_eq!(
        paths(&report),
        [
            "built/1/amd64/default/20260101",
            "whole/1/amd64/default/20260101",
            "exported/1/amd64/default/20260101",
        ]
    );
    let broken = told(&report.broken);
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(broken[0].contains(&format!("not the image {other}")), "{broken:?}");

    let built = home.build();
    assert_eq!((built.images, built.hashed_files), (4, 0), "{built:?}");
    assert!(home.listed().contains_key(&print));
    let sums = read(&home.tree().join(at("built", "20260101")).join("SHA256SUMS"));
    for name in ["lxd.tar.xz", "root.tar.xz", "disk.qcow2"] {
        assert!(sums.contains(&format!("  {name}\n")), "{sums}");
    }
    assert_eq!(home.verify().faults, []);
    let again = take(&home, None);
    assert_eq!((paths(&again).len(), again.present), (0, 4));
}

#[test]
fn what_would_not_stay_does_not_come() {
    let home = Home::new();
    for serial in ["20260101", "20260102", "20260103", "20260104"] {
        home.image(&format!("source/{serial}"), &sample("alpine", serial));
    }
    let report = take(&home, Some(2));
    let expected = ["alpine/1/amd64/default/20260103", "alpine/1/amd64/default/20260104"];
    assert_eq!((paths(&report), report.older), (expected.to_vec(), 2));
    home.image("source/20260105", &sample("alpine", "20260105"));
    assert_eq!(paths(&take(&home, Some(2))), ["alpine/1/amd64/default/20260105"]);
}

#[test]
fn what_was_withdrawn_does_not_come_back() {
    let home = Home::new();
    for serial in ["20260101", "20260102"] {
        home.image(&format!("source/{serial}"), &sample("alpine", serial));
    }
    take(&home, None);
    let retention = Some(Retention { keep: Some(1), days: None });
    let options = BuildOptions { retention, grace: GRACE, ..BuildOptions::default() };
    assert_eq!(home.build_with(&options).withdrawn.len(), 1);
    let report = take(&home, None);
    assert_eq!((paths(&report).len(), report.present), (0, 2));
    let built = home.build();
    assert_eq!((built.images, built.changed, built.hashed_files), (1, false, 0));
}

#[test]
fn builds_of_one_serial_are_versions_behind_each_other() {
    let home = Home::new();
    home.image("source/a", &sample("alpine", "20260101"));
    let second = Sample { more: "  note: other\n", ..sample("alpine", "20260101") };
    home.image("source/b", &second);
    let report = take(&home, None);
    let expected = ["alpine/1/amd64/default/20260101", "alpine/1/amd64/default/20260101~00001"];
    assert_eq!(paths(&report), expected);
    assert_eq!(home.build().images, 2);
}

#[test]
fn links_share_the_bytes_and_are_read_once() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let home = Home::new();
    home.image("source/a", &sample("alpine", "20260101"));
    for name in ["lxd.tar.xz", "root.tar.xz"] {
        let path = home.path("source/a").join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    home.open().take(&home.path("source"), Means::Link, None).unwrap();
    let inode = |path: PathBuf| path.metadata().unwrap().ino();
    let there = home.tree().join(at("alpine", "20260101")).join("root.tar.xz");
    assert_eq!(inode(there), inode(home.path("source/a/root.tar.xz")));
    assert_eq!(home.build().hashed_files, 0);
}

#[test]
fn what_was_left_half_done_goes() {
    let home = Home::new();
    home.put(&format!("tree/{STATE}/incoming/version-0/lxd.tar.xz"), b"half");
    home.image("source/a", &sample("alpine", "20260101"));
    assert_eq!(take(&home, None).taken.len(), 1);
    home.build();
    assert!(!home.tree().join(STATE).join("incoming").exists());
    assert_eq!(home.verify().faults, []);
}

#[test]
fn what_was_removed_comes_back_only_when_it_would_stay() {
    let home = Home::new();
    for serial in ["20260101", "20260102", "20260103"] {
        home.image(&format!("source/{serial}"), &sample("alpine", serial));
    }
    take(&home, None);
    change::prune(&home, 1, 0, now());
    let report = take(&home, None);
    assert_eq!((report.taken.len(), report.present, report.older), (0, 1, 2));
    assert_eq!(paths(&take(&home, Some(2))), ["alpine/1/amd64/default/20260102"]);
    home.build();
    assert_eq!(home.listed().len(), 2);
    // Where nothing else is left of a product, its newest comes.
    fs::remove_dir_all(home.tree().join("images/alpine")).unwrap();
    home.image("source/20260103", &sample("alpine", "20260101"));
    assert_eq!(paths(&take(&home, None)).len(), 1);
}

#[test]
fn what_is_a_product_of_its_own_always_comes() {
    let home = Home::new();
    home.image("source/container", &sample("alpine", "20260101"));
    home.machine("source/machine", &sample("alpine", "20260102"), 1);
    assert_eq!(take(&home, Some(1)).taken.len(), 2);
}

#[test]
fn of_a_build_that_got_one_file_more_only_that_one_comes() {
    let home = Home::new();
    let container = home.image("source/a", &sample("alpine", "20260101"));
    take(&home, None);
    home.build();
    home.put("source/a/disk.qcow2", &qcow2("x", 1));
    let report = take(&home, None);
    assert_eq!(
        (paths(&report), report.present),
        (vec!["alpine/1/amd64/default/20260101~00001"], 1)
    );
    for _ in 0..2 {
        let built = home.build();
        assert_eq!((told(&built.broken), built.images), (vec![], 2));
        assert_eq!(built.doubles, []);
    }
    assert!(home.listed().contains_key(&container));
    assert_eq!(take(&home, None).present, 2);
    assert_eq!(home.verify().faults, []);
}
