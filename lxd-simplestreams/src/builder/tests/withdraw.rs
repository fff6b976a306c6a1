//! What is withdrawn is one image and nothing else: nothing near it goes, and it can come back.

use super::change::{deltas, hours_later, prune};
use super::*;
use crate::publish::INDEX;

fn paths(removals: &[Removal]) -> Vec<&str> {
    removals.iter().map(|removal| removal.path.as_str()).collect()
}

#[test]
fn nothing_below_a_withdrawn_version_goes_with_it() {
    for (above, below) in [("images/deb", "images/deb/sub/new"), ("images", "images/new")] {
        let home = Home::new();
        let old = home.image(&format!("tree/{above}"), &sample("deb", "20260101"));
        let new = home.image(&format!("tree/{below}"), &sample("deb", "20260102"));
        home.put(&format!("tree/{above}/notes.txt"), b"mine");
        home.build();
        assert_eq!(paths(&prune(&home, 1, 0, now()).removed), [above]);
        assert_eq!(home.listed().into_keys().collect::<Vec<_>>(), [new]);
        assert_eq!(home.build().images, 1, "{old} hides nothing");
        assert_eq!(home.verify().faults, []);
        assert_eq!(read(&home.tree().join(above).join("notes.txt")), "mine");
        assert!(!home.tree().join(above).join("root.tar.xz").exists());
    }
}

#[test]
fn containers_and_machines_are_counted_apart() {
    let home = Home::new();
    home.image("tree/images/container", &sample("deb", "20260101"));
    for serial in ["20260102", "20260103"] {
        home.machine(&format!("tree/images/{serial}"), &sample("deb", serial), 1);
    }
    home.build();
    assert_eq!(paths(&prune(&home, 1, 0, now()).withdrawn), ["images/20260102"]);
}

#[test]
fn a_withdrawn_version_comes_back_when_the_rules_keep_it() {
    let home = Home::new();
    let serials = ["20260101", "20260102", "20260103"];
    let images = serials.map(|serial| version(&home, "alpine", serial));
    home.build();
    assert_eq!(prune(&home, 1, 48, now()).withdrawn.len(), 2);
    assert_eq!(home.build().images, 1);
    let report = prune(&home, 2, 48, now());
    assert_eq!(paths(&report.restored), [at("alpine", "20260102")]);
    assert!(home.listed().contains_key(&images[1]));
    assert_eq!(home.verify().faults, []);
    // Its time begins anew.
    prune(&home, 1, 48, hours_later(40));
    assert_eq!(paths(&prune(&home, 1, 48, hours_later(50)).removed), [at("alpine", "20260101")]);
}

#[test]
fn the_last_good_version_comes_back_by_itself() {
    let home = Home::new();
    let serials = ["20260101", "20260102", "20260103"];
    let images = serials.map(|serial| version(&home, "alpine", serial));
    home.build();
    prune(&home, 1, 48, now());
    let newest = format!("{}/root.tar.xz", at("alpine", "20260103"));
    let good = fs::read(home.tree().join(&newest)).unwrap();
    home.put(&format!("tree/{newest}"), &sample("alpine", "20260109").root());
    let report = home.build();
    assert_eq!(paths(&report.restored), [at("alpine", "20260102")]);
    assert_eq!(report.broken.len(), 1);
    assert_eq!(home.listed().into_keys().collect::<Vec<_>>(), [images[1]]);
    assert_eq!(paths(&prune(&home, 1, 0, now()).removed), [at("alpine", "20260101")]);
    assert!(home.listed().contains_key(&images[1]));
    home.put(&format!("tree/{newest}"), &good);
    assert_eq!(paths(&prune(&home, 1, 48, now()).withdrawn), [at("alpine", "20260102")]);
    assert!(home.listed().contains_key(&images[2]));
}

#[test]
fn a_new_image_at_a_withdrawn_path_is_a_new_image() {
    let home = Home::new();
    home.image("tree/images/a", &sample("alpine", "20260101"));
    home.image("tree/images/b", &sample("alpine", "20260102"));
    home.build();
    assert_eq!(paths(&prune(&home, 1, 48, now()).withdrawn), ["images/a"]);
    fs::remove_dir_all(home.tree().join("images/a")).unwrap();
    let new = home.image("tree/images/a", &sample("alpine", "20260103"));
    assert_eq!(home.build().images, 2);
    assert!(home.listed().contains_key(&new));
    let report = prune(&home, 1, 0, hours_later(100));
    assert_eq!(paths(&report.removed), ["images/b"]);
    assert!(home.listed().contains_key(&new));
    assert_eq!(home.verify().faults, []);
}

#[test]
fn the_delta_of_a_numbered_version_goes_with_its_base() {
    let home = Home::new();
    for (number, more) in ["  n: a\n", "  n: b\n", "  n: c\n"].into_iter().enumerate() {
        let image = Sample { more, ..sample("vm", "20260101") };
        home.put(&format!("tree/images/v{number}/incus.tar.xz"), &image.metadata());
        home.put(&format!("tree/images/v{number}/disk.qcow2"), &qcow2(more, 1));
    }
    deltas(&home);
    assert_eq!(home.verify().deltas, 2);
    let listed = || home.listed().into_values().flat_map(|it| it.files.deltas).count();
    assert_eq!(listed(), 2);
    // All are kept, with their deltas.
    assert_eq!(prune(&home, 5, 0, now()).removed, []);
    assert_eq!((listed(), home.verify().faults), (2, vec![]));
    let report = prune(&home, 2, 0, now());
    assert_eq!(report.removed.len(), 2, "{report:?}");
    assert_eq!((listed(), home.verify().faults), (1, vec![]));
    assert!(!home.build().changed);
}

#[test]
fn a_delta_from_a_version_that_somebody_removed_is_no_fault() {
    let home = Home::new();
    for serial in ["20260101", "20260102"] {
        home.machine(&format!("tree/{}", at("vm", serial)), &sample("vm", serial), 1);
    }
    // Both have metadata that differs, and disks that differ in a few bytes.
    deltas(&home);
    assert_eq!(home.verify().deltas, 1);
    fs::remove_dir_all(home.tree().join(at("vm", "20260101"))).unwrap();
    assert_eq!(home.build().images, 1);
    assert_eq!(home.verify().faults, []);
}

#[test]
fn spare_metadata_goes_with_its_version() {
    let home = Home::new();
    for number in 0..3 {
        let image = sample("alpine", &format!("2026010{}", number + 1));
        for kind in ["lxd", "incus"] {
            home.put(&format!("tree/images/b{number}.{kind}.tar.xz"), &image.metadata());
        }
        home.put(&format!("tree/images/b{number}.root.tar.xz"), &image.root());
    }
    assert_eq!(told(&home.build().broken), [""; 0]);
    assert_eq!(prune(&home, 1, 48, now()).withdrawn.len(), 2);
    assert_eq!(told(&home.build().broken), [""; 0]);
    assert_eq!(prune(&home, 1, 0, now()).removed.len(), 2);
    assert_eq!(told(&home.build().broken), [""; 0]);
    let left = fs::read_dir(home.tree().join("images")).unwrap().count();
    assert_eq!(left, 4, "three files and their hashes");
    assert_eq!(home.verify().faults, []);
}

#[test]
fn documents_of_others_are_not_replaced_unasked() {
    let home = Home::new();
    version(&home, "alpine", "20260101");
    home.build();
    let index = home.tree().join(INDEX);
    let other = r#""index":{"com.example:daily":{"datatype":"image-downloads","path":"streams/v1/other.json","products":["x"]},"#;
    fs::write(&index, read(&index).replace("\"index\":{", other)).unwrap();
    let before = home.files();
    let options = BuildOptions::default();
    let error = home.open().build(&options, now()).unwrap_err();
    assert!(error.to_string().contains("com.example:daily (streams/v1/other.json)"), "{error}");
    assert_eq!(home.files(), before);
    assert!(home.build_with(&BuildOptions { force: true, ..options }).changed);
    assert!(!read(&index).contains("com.example"));
    // A catalog with files in other places is none of ours, either.
    let catalog = home.tree().join(CATALOG);
    fs::write(&catalog, read(&catalog).replace("\"images/", "\"pool/")).unwrap();
    let error = home.open().build(&options, now()).unwrap_err().to_string();
    assert!(error.contains("not below images/, such as \"pool/"), "{error}");
}

#[test]
fn a_catalog_does_not_become_empty_by_itself() {
    let home = Home::new();
    version(&home, "alpine", "20260101");
    home.build();
    fs::rename(home.tree().join("images"), home.path("elsewhere")).unwrap();
    for retention in [None, Some(Retention::newest(1))] {
        let report = home.build_with(&BuildOptions { retention, ..BuildOptions::default() });
        let broken = told(&report.broken);
        assert!(broken[0].contains("there is no image below images/"), "{broken:?}");
        assert_eq!(home.listed().len(), 1);
    }
    fs::rename(home.path("elsewhere"), home.tree().join("images")).unwrap();
    assert!(!home.build().changed);
    fs::remove_dir_all(home.tree().join("images")).unwrap();
    let report = home.build_with(&BuildOptions { force: true, ..BuildOptions::default() });
    assert_eq!((report.products, report.broken.len(), report.changed), (0, 0, true));
}

#[test]
fn a_dry_run_leaves_no_trace() {
    let home = Home::new();
    for serial in ["20260101", "20260102"] {
        version(&home, "alpine", serial);
    }
    let look = || LocalTree::open_unchanged(&home.tree(), NonZeroUsize::MIN, Progress::default());
    let open = || LocalTree::open(&home.tree(), false, NonZeroUsize::MIN, Progress::default());
    for error in [look().unwrap_err(), open().unwrap_err()] {
        assert!(matches!(error, TreeError::NoTree(_)), "{error}");
    }
    assert!(!home.tree().join(LOCK).exists());
    home.build();
    fs::remove_file(home.tree().join(LOCK)).unwrap();
    fs::remove_dir_all(home.tree().join(STATE)).unwrap();
    let before = home.files();
    let retention = Some(Retention::newest(1));
    let options = BuildOptions { retention, dry_run: true, ..BuildOptions::default() };
    let report = look().unwrap().build(&options, now()).unwrap();
    assert_eq!((report.withdrawn.len(), report.removed.len()), (1, 1));
    assert_eq!(home.files(), before);
    assert!(!home.tree().join(STATE).exists());
    let _lock = open().unwrap();
    assert!(matches!(look().unwrap_err(), TreeError::Locked(_)));
}

#[test]
fn what_has_expired_goes_before_its_space_is_needed() {
    let home = Home::new();
    for serial in ["20260101", "20260102", "20260103"] {
        version(&home, "alpine", serial);
    }
    home.build();
    let old_catalog = fs::read(home.tree().join(CATALOG)).unwrap();
    prune(&home, 2, 48, now());
    // No document can be written.
    let aside = home.tree().join("streams/v1/.images.json.tmp");
    fs::create_dir(&aside).unwrap();
    let options = BuildOptions { retention: Some(Retention::newest(1)), ..BuildOptions::default() };
    home.open().build(&options, hours_later(1)).unwrap_err();
    assert!(!home.tree().join(at("alpine", "20260101")).exists());
    assert!(home.tree().join(at("alpine", "20260102")).is_dir());
    fs::remove_dir(&aside).unwrap();
    // While a catalog lists something its time has not begun.
    let report = prune(&home, 1, 48, hours_later(100));
    assert_eq!((report.removed.len(), report.changed), (0, true));
    fs::write(home.tree().join(CATALOG), old_catalog).unwrap();
    assert_eq!(prune(&home, 1, 48, hours_later(200)).removed, []);
    assert_eq!(prune(&home, 1, 48, hours_later(248)).removed.len(), 1);
}

#[test]
fn a_second_copy_of_a_withdrawn_image_stays_withdrawn() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    for directory in ["tree/images/a", "tree/images/b"] {
        home.image(directory, &sample("alpine", "20260101"));
    }
    let new = home.image("tree/images/c", &sample("alpine", "20260102"));
    assert_eq!(home.build().doubles.len(), 1);
    assert_eq!(paths(&prune(&home, 1, 48, now()).withdrawn), ["images/a"]);
    // What only looks changed is still what was withdrawn.
    let root = home.tree().join("images/a/root.tar.xz");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(!home.build().changed);
    for left in [["images/b"].as_slice(), &[]] {
        let report = prune(&home, 1, 0, hours_later(48));
        assert_eq!((report.removed.len(), report.changed), (1, false), "{report:?}");
        let there = |path: &&&str| home.tree().join(path).exists();
        assert_eq!(["images/a", "images/b"].iter().filter(there).count(), left.len());
        assert_eq!(home.listed().into_keys().collect::<Vec<_>>(), [new]);
    }
    assert_eq!(home.verify().faults, []);
    assert!(!home.build().changed);
}
