//! `image delete` (row L6): the image, its aliases, its bytes.

use lxd_tests::client::Client;
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe};
use lxd_tests::wait;
use serde_json::json;

/// A daemon with images of these names and an alias each.
fn shelf(names: &[&str]) -> Daemon {
    let daemon = Daemon::start();
    for name in names {
        let image = Recipe::new(name).unified(Compression::Gz);
        let body = json!({"name": name, "target": daemon.http().import(&image)});
        daemon.http().json("POST", "/1.0/images/aliases", &body).expect(201);
    }
    daemon
}

fn names(daemon: &Daemon) -> Vec<String> {
    let aliases = daemon.http().metadata("/1.0/images/aliases?recursion=1");
    aliases.as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn several_at_once() {
    for client in Client::both() {
        let daemon = shelf(&["a", "b", "c", "d"]);
        daemon.client(client, "image delete a b").ok();
        assert_eq!(names(&daemon), ["c", "d"]);
        assert_eq!(daemon.http().metadata("/1.0/images").as_array().map(Vec::len), Some(2));
        daemon.client(client, "image delete a").fails().complains("not found");
    }
}

#[test]
fn a_wrong_name_among_them() {
    let daemon = shelf(&["a", "b", "c", "d"]);
    // lxc stops in the middle; lxd-cli looks all of them up first.
    daemon.lxc("image delete a nope b").fails().complains("Image not found");
    assert_eq!(names(&daemon), ["b", "c", "d"]);
    daemon.cli("image delete b nope c").fails().complains("nope");
    assert_eq!(names(&daemon), ["b", "c", "d"]);
    daemon.cli("image delete b c --dry-run").ok();
    assert_eq!(names(&daemon), ["b", "c", "d"]);
}

#[test]
fn bytes_go_with_the_last_image_that_needs_them() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let root = Recipe::new("shared").root(Compression::Gz);
    let one = http.import_split(&Recipe::new("one").metadata(Compression::Gz), &root);
    let two = http.import_split(&Recipe::new("two").metadata(Compression::Gz), &root);
    assert_eq!(daemon.files_in("blobs").len(), 3, "one root for both images");

    let delete = |fingerprint: &str| {
        let path = format!("/1.0/images/{fingerprint}");
        let done = http.finish(&http.request("DELETE", &path).send(b""));
        assert_eq!(done["status"], "Success");
        assert_eq!(done["description"], "Deleting image");
        assert_eq!(done["resources"], json!({"images": [path]}));
        http.get(&path).refuses(404, "not found");
        http.get(&format!("{path}/export")).refuses(404, "not found");
    };
    delete(&one);
    wait::until("the first metadata to go", || daemon.files_in("blobs").len() == 2);
    let export = http.get(&format!("/1.0/images/{two}/export")).expect(200);
    assert_eq!(export.parts()[1].2, root, "the second image is whole");
    delete(&two);
    wait::until("the rest to go", || daemon.files_in("blobs").is_empty());
    http.request("DELETE", &format!("/1.0/images/{two}")).send(b"").refuses(404, "not found");
}

#[test]
fn an_image_can_come_back() {
    let daemon = Daemon::start();
    let image = Recipe::new("phoenix").unified(Compression::Gz);
    for _ in 0..3 {
        let fingerprint = daemon.http().import(&image);
        let export = daemon.http().get(&format!("/1.0/images/{fingerprint}/export")).expect(200);
        assert_eq!(export.body, image);
        daemon.lxc(&format!("image delete {fingerprint}")).ok();
    }
}

#[test]
fn an_export_under_way_survives_the_delete() {
    use std::io::Read;
    let daemon = Daemon::start();
    let image =
        lxd_tests::fixtures::big::unified(Vec::new(), "long", 24, Compression::Plain).unwrap();
    let fingerprint = daemon.http().import(&image);
    let http = daemon.http();
    let (head, mut body) =
        http.request("GET", &format!("/1.0/images/{fingerprint}/export")).stream();
    head.expect(200);
    let mut start = [0; 1000];
    body.read_exact(&mut start).unwrap();
    daemon.lxc(&format!("image delete {fingerprint}")).ok();
    let mut rest = Vec::new();
    body.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len() + 1000, image.len());
    assert!(rest == image[1000..], "the tail changed");
    wait::until("its bytes to go", || daemon.bytes_in("blobs") == 0);
}
