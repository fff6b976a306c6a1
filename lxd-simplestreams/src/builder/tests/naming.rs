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
