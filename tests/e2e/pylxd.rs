//! The Python client: lists, uploads, fetches by alias, edits, deletes.

use lxd_tests::client::Invocation;
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe, fingerprint};
use lxd_tests::tool;

const SCENARIO: &str = include_str!("pylxd_scenario.py");

#[test]
fn the_scenario() {
    let daemon = Daemon::start();
    let python = tool::python_with_pylxd();
    daemon.file("scenario.py", SCENARIO.as_bytes());
    let unified = Recipe::new("py").property("os", "tiny").unified(Compression::Gz);
    let split = Recipe::new("py-split");
    let (metadata, rootfs) = (split.metadata(Compression::Xz), split.root(Compression::Gz));
    daemon.file("unified.tar.gz", &unified);
    daemon.file("meta.tar.xz", &metadata);
    daemon.file("root.tar.gz", &rootfs);
    let line =
        format!("scenario.py {} {}", fingerprint(&[&unified]), fingerprint(&[&metadata, &rootfs]));
    daemon.point(Invocation::new(&python, &line)).ok().says("all steps passed");
    assert_eq!(daemon.http().metadata("/1.0/images"), serde_json::json!([]));
}
