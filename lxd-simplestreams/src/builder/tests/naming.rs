//! The names of versions in the catalog.

use super::change::prune;
use super::*;

/// One more build of the same minute; its fingerprint.
fn build(home: &Home, directory: &str, more: &'static str) -> Fingerprint {
    home.image(&format!("tree/images/{directory}"), &Sample { more, ..sample("deb", "20260101") })
}

fn names(home: &Home) -> Vec<String> {
    home.catalog().products["deb:1:amd64:default"].versions.keys().cloned().collect()
}

#[test]
fn a_version_keeps_its_name_and_the_newest_comes_last() {
    let home = Home::new();
    let mut images = vec![build(&home, "m", "  n: 0\n")];
    home.build();
    let serial = |image: &Fingerprint| home.listed()[image].image.properties["serial"].clone();
    let mut expected = vec!["20260101".to_owned()];
    for (directory, more) in
        [("n1", "  n: 1\n"), ("a2", "  n: 2\n"), ("n3", "  n: 3\n"), ("b4", "  n: 4\n")]
    {
        images.push(build(&home, directory, more));
        home.build();
        expected.push(format!("20260101+{:05}", expected.len()));
        assert_eq!(images.iter().map(serial).collect::<Vec<_>>(), expected);
        let newest = images.last().unwrap();
        assert_eq!(&*home.listed()[newest].names, "deb/1,deb/1/default");
    }
    // Also when older ones leave, and when one comes back.
    prune(&home, 2, 48, now());
    assert_eq!(names(&home), expected[3..]);
    prune(&home, 3, 48, now());
    assert_eq!(names(&home), expected[2..]);
    prune(&home, 2, 0, now());
    assert!(!home.build().changed);
    assert_eq!(names(&home), expected[3..]);
    let last = build(&home, "c5", "  n: 5\n");
    home.build();
    assert_eq!(serial(&last), "20260101+00005");
}

#[test]
fn files_of_one_build_that_lie_apart_are_one_version() {
    let home = Home::new();
    home.image("tree/images/a", &sample("deb", "20260101"));
    home.machine("tree/images/b", &sample("deb", "20260101"), 1);
    assert_eq!((home.build().versions, names(&home)), (1, vec!["20260101".to_owned()]));
    assert!(!home.build().changed);
}

/// One more build of the same minute as its builder leaves it, taken into the tree.
fn take(home: &Home, more: &'static str, keep: Option<usize>) -> Fingerprint {
    let _ = fs::remove_dir_all(home.path("out"));
    let image = home.image("out/x", &Sample { more, ..sample("deb", "20260101") });
    let taken = home.open().take(&home.path("out"), Means::Copy, keep).unwrap();
    assert_eq!((taken.taken.len(), told(&taken.broken).len()), (1, 0), "{taken:?}");
    image
}

#[test]
fn what_comes_later_is_newer_also_when_older_ones_have_left() {
    for keep in [None, Some(2)] {
        let home = Home::new();
        for more in ["  n: 1\n", "  n: 2\n", "  n: 3\n", "  n: 4\n", "  n: 5\n"] {
            let newest = take(&home, more, keep);
            home.build();
            prune(&home, 2, 0, now());
            assert_eq!(&*home.listed()[&newest].names, "deb/1,deb/1/default", "{more}");
            assert_eq!(home.verify().faults, []);
        }
        assert_eq!(names(&home), ["20260101+00003", "20260101+00004"]);
        assert!(home.tree().join(at("deb", "20260101~00004")).is_dir());
    }
}

#[test]
fn what_comes_at_once_is_named_by_its_age() {
    let home = Home::new();
    for (directory, more) in [("out/b", "  n: older\n"), ("out/a", "  n: newer\n")] {
        home.image(directory, &Sample { more, ..sample("deb", "20260101") });
    }
    home.open().take(&home.path("out"), Means::Copy, None).unwrap();
    home.build();
    assert_eq!(names(&home), ["20260101", "20260101+00001"]);
    assert!(!home.build().changed);
}
