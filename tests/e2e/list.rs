//! `image list`: columns, formats and filters (rows L1, L2).

use lxd_tests::client::Client;
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe, fingerprint};
use serde_json::{Value, json};

/// Three images: with two aliases and public; with one alias and other properties; a disk without.
struct Shelf {
    daemon: Daemon,
    fingerprints: [String; 3],
}

impl Shelf {
    fn new() -> Self {
        let daemon = Daemon::start();
        let http = daemon.http();
        let first = Recipe::new("first").property("os", "busybox").property("release", "1");
        let second = Recipe::new("second")
            .property("os", "debian")
            .property("release", "12")
            .architecture("arm64");
        let disk = Recipe::new("disk").property("os", "debian");
        let first = http.import(&first.unified(Compression::Gz));
        let second =
            http.import_split(&second.metadata(Compression::Gz), &second.root(Compression::Gz));
        let disk = http.import_split(&disk.metadata(Compression::Gz), &disk.root_qcow2());
        for (name, target) in [("bb/1", &first), ("busybox", &first), ("deb", &second)] {
            let body = json!({"name": name, "target": target});
            http.json("POST", "/1.0/images/aliases", &body).expect(201);
        }
        let public = json!({"public": true});
        http.json("PATCH", &format!("/1.0/images/{first}"), &public).expect(200);
        Self { daemon, fingerprints: [first, second, disk] }
    }

    /// Fingerprints (the first 12 digits) that a list with these words shows, in order.
    fn listed(&self, client: Client, words: &str) -> Vec<usize> {
        let done = self.daemon.client(client, &format!("image list -f csv -c f {words}")).ok();
        let position = |short: &str| {
            let found = self.fingerprints.iter().position(|f| f.starts_with(short));
            found.unwrap_or_else(|| panic!("a stranger: {short}\n{done}"))
        };
        let mut positions: Vec<_> = done.stdout.lines().map(position).collect();
        positions.sort_unstable();
        positions
    }
}

#[test]
fn csv_cells_are_the_same_in_both_clients() {
    let shelf = Shelf::new();
    for columns in ["lfpdatsu", "L", "lfFLpdatsu", "F,l", "s,t"] {
        let line = format!("image list -f csv -c {columns}");
        let judge = shelf.daemon.lxc(&line).ok();
        shelf.daemon.cli(&line).ok().prints(&judge.stdout);
    }
    let line = "image list busybox -f csv -c lfpdats";
    let size = shelf.daemon.http().metadata(&format!("/1.0/images/{}", shelf.fingerprints[0]));
    #[expect(clippy::cast_precision_loss, reason = "a small image")]
    let size = size["size"].as_u64().unwrap() as f64 / f64::from(1 << 20);
    let short = &shelf.fingerprints[0][..12];
    let cells = format!("bb/1 (1 more),{short},yes,Image first,x86_64,CONTAINER,{size:.2}MB\n");
    for client in Client::both() {
        shelf.daemon.client(client, line).ok().prints(&cells);
    }
}

#[test]
fn tables_are_the_same_when_piped() {
    let shelf = Shelf::new();
    for format in ["table", "compact"] {
        for words in ["", "busybox", "no-such-image"] {
            let line = format!("image list -f {format} {words}");
            let judge = shelf.daemon.lxc(&line).ok();
            shelf.daemon.cli(&line).ok().prints(&judge.stdout);
        }
    }
}

#[test]
fn json_and_yaml_are_the_objects_of_the_api() {
    let shelf = Shelf::new();
    let api = shelf.daemon.http().metadata("/1.0/images?recursion=1");
    let sorted = |mut value: Value| {
        value.as_array_mut().unwrap().sort_by_key(|image| image["fingerprint"].to_string());
        value
    };
    for client in Client::both() {
        let printed = shelf.daemon.client(client, "image list -f json").ok().json();
        let mut expected = api.clone();
        if client == Client::Lxc {
            // It prints a field that the API leaves out when unknown only as far as it knows it.
            for image in expected.as_array_mut().unwrap() {
                image.as_object_mut().unwrap().remove("verified");
            }
        }
        assert_eq!(sorted(printed), sorted(expected));
        let yaml = shelf.daemon.client(client, "image list -f yaml").ok();
        for fingerprint in &shelf.fingerprints {
            assert!(yaml.stdout.contains(&format!("fingerprint: {fingerprint}")), "{yaml}");
        }
        shelf.daemon.client(client, "image list nothing-here -f json").ok().prints("[]\n");
        shelf.daemon.client(client, "image list nothing-here -f csv").ok().silent();
    }
}

#[test]
fn filters() {
    let shelf = Shelf::new();
    let short = &shelf.fingerprints[1][..7].to_owned();
    let cases: &[(&str, &[usize])] = &[
        ("", &[0, 1, 2]),
        ("busy", &[0]),
        (short, &[1]),
        ("os=debian", &[1, 2]),
        ("o=debian", &[1, 2]),
        ("os=deb", &[]),
        ("os=deb.*", &[1, 2]),
        ("'os=^deb'", &[1, 2]),
        ("os=debian release=12", &[1]),
        ("os=debian deb", &[1]),
        ("type=container", &[0, 1]),
        ("type=virtual-machine", &[2]),
        ("architecture=aarch64", &[1]),
        ("architecture=x86_64 os=debian", &[2]),
        ("nothing", &[]),
        ("local:busy", &[0]),
        ("local: os=busybox", &[0]),
    ];
    for (words, expected) in cases {
        for client in Client::both() {
            assert_eq!(shelf.listed(client, words), *expected, "{client:?} image list {words}");
        }
    }
    // lxc 5.0.2 compares the words "true" and "yes"; here a boolean is a boolean.
    assert_eq!(shelf.listed(Client::Cli, "public=true"), [0]);
    assert_eq!(shelf.listed(Client::Cli, "public=false"), [1, 2]);
    assert_eq!(shelf.listed(Client::Cli, "cached=true"), [0; 0]);
}

#[test]
fn wrong_columns_and_formats() {
    let shelf = Shelf::new();
    for client in Client::both() {
        let code = if client == Client::Lxc { 1 } else { 2 };
        let run =
            |words: &str| shelf.daemon.client(client, &format!("image list {words}")).exits(code);
        run("-c lz").complains("z");
        run("-c l,,f").complains("l,,f");
        run("-f xml").complains("xml");
    }
}

#[test]
fn sorted_by_alias_in_natural_order_with_nameless_last() {
    let daemon = Daemon::start();
    for name in ["v10", "v9", "v1", ""] {
        let fingerprint =
            daemon.http().import(&Recipe::new(&format!("s{name}")).unified(Compression::Plain));
        if !name.is_empty() {
            let body = json!({"name": name, "target": fingerprint});
            daemon.http().json("POST", "/1.0/images/aliases", &body).expect(201);
        }
    }
    let judge = daemon.lxc("image list -f csv -c l").ok();
    assert_eq!(judge.stdout.lines().collect::<Vec<_>>(), ["v1", "v9", "v10", ""]);
    daemon.cli("image list -f csv -c l").ok().prints(&judge.stdout);
}

#[test]
fn an_upload_is_listed_only_when_whole() {
    let daemon = Daemon::start();
    let bytes = Recipe::new("late").unified(Compression::Gz);
    let mut upload = daemon.http().request("POST", "/1.0/images").chunked();
    upload.chunk(&bytes[..bytes.len() - 1]).unwrap();
    daemon.lxc("image list -f csv").ok().silent();
    upload.chunk(&bytes[bytes.len() - 1..]).unwrap();
    let accepted = upload.end();
    assert_eq!(daemon.http().finish(&accepted)["status"], "Success");
    daemon.lxc("image list -f csv -c F").ok().prints(&format!("{}\n", fingerprint(&[&bytes])));
}
