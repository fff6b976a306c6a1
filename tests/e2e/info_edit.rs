//! `image info`, `image show`, `image edit` (rows L3, L4, L5).

use lxd_tests::client::{Client, shown};
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe};
use lxd_tests::terminal::Session;
use serde_json::{Value, json};

/// A daemon with one image, `tiny`.
fn tiny() -> (Daemon, String) {
    let daemon = Daemon::start();
    let recipe = Recipe::new("tiny").property("os", "tinyos").property("release", "1");
    let fingerprint = daemon.http().import(&recipe.unified(Compression::Gz));
    let alias = json!({"name": "tiny", "target": fingerprint});
    daemon.http().json("POST", "/1.0/images/aliases", &alias).expect(201);
    (daemon, fingerprint)
}

fn image(daemon: &Daemon, fingerprint: &str) -> Value {
    daemon.http().metadata(&format!("/1.0/images/{fingerprint}"))
}

#[test]
fn info_tells_everything() {
    let (daemon, fingerprint) = tiny();
    let more = json!({"name": "other", "target": fingerprint, "description": "second name"});
    daemon.http().json("POST", "/1.0/images/aliases", &more).expect(201);
    for client in Client::both() {
        for reference in ["tiny", &fingerprint, &fingerprint[..6]] {
            let done = daemon.client(client, &format!("image info {reference}")).ok();
            for line in [
                &format!("Fingerprint: {fingerprint}"),
                "Architecture: x86_64",
                "Type: container",
                "Public: no",
                "Created: 2016/03/15 11:10 UTC",
                "Uploaded: 20",
                "Expires: never",
                "Last used: never",
                "    description: Image tiny",
                "    os: tinyos",
                "    release: 1",
                "    - tiny",
                "Cached: no",
                "Auto update: disabled",
                "    - default",
            ] {
                assert!(done.stdout.contains(line), "no {line:?} in\n{done}");
            }
            assert!(!done.stdout.contains("Source:"), "there is no source:\n{done}");
        }
        daemon.client(client, "image info tiny").ok().says("- other (second name)");
        daemon.client(client, "image info nothing").fails().complains("not found");
    }
    daemon.lxc("image info nothing").fails().complains("Error: Image not found");
}

#[test]
fn info_of_an_ambiguous_prefix() {
    let daemon = Daemon::start();
    let mut by_digit = std::collections::HashMap::<String, u32>::new();
    for number in 0..17 {
        let image = Recipe::new(&format!("n{number}")).unified(Compression::Plain);
        let fingerprint = daemon.http().import(&image);
        *by_digit.entry(fingerprint[..1].to_owned()).or_default() += 1;
    }
    // Seventeen images start with sixteen digits.
    let digit = by_digit.into_iter().find(|(_, count)| *count > 1).unwrap().0;
    daemon.lxc(&format!("image info {digit}")).fails().complains("More than one image matches");
    daemon.http().get(&format!("/1.0/images/{digit}")).refuses(500, "More than one image matches");
    // lxd-cli names the candidates.
    let done = daemon.cli(&format!("image info {digit}")).fails();
    let named =
        done.stderr.matches("Image n").count() + done.stderr.matches(&format!(" {digit}")).count();
    assert!(named >= 2, "candidates are missing:\n{done}");
}

#[test]
fn show_is_what_edit_takes() {
    let (daemon, fingerprint) = tiny();
    for client in Client::both() {
        let shown = daemon.client(client, "image show tiny").ok();
        for line in
            ["auto_update: false", "public: false", "  os: tinyos", "- default", "expires_at:"]
        {
            assert!(shown.stdout.contains(line), "no {line:?} in\n{shown}");
        }
        assert!(!shown.stdout.contains("architecture"), "not editable:\n{shown}");
        let edited =
            shown.stdout.replace("public: false", "public: true").replace("tinyos", "hugeos");
        daemon.client(client, "image edit tiny").stdin(&edited).ok().silent();
        let image = image(&daemon, &fingerprint);
        assert_eq!(image["public"], true);
        assert_eq!(image["properties"]["os"], "hugeos");
        daemon.client(client, "image edit tiny").stdin(&shown.stdout).ok();
        assert_eq!(self::image(&daemon, &fingerprint)["properties"]["os"], "tinyos");
    }
}

#[test]
fn edit_replaces_properties_expiry_and_update_flag() {
    let (daemon, fingerprint) = tiny();
    let text = "auto_update: true\nproperties:\n  description: Edited\n  new: thing\npublic: true\n\
                expires_at: 2030-01-01T00:00:00Z\nprofiles: [default]\n";
    for client in Client::both() {
        daemon.client(client, "image edit tiny").stdin(text).ok();
        let image = image(&daemon, &fingerprint);
        assert_eq!(image["properties"], json!({"description": "Edited", "new": "thing"}));
        assert_eq!(image["auto_update"], true);
        assert_eq!(image["expires_at"], "2030-01-01T00:00:00Z");
        daemon
            .client(client, "image info tiny")
            .ok()
            .says("Expires: 2030/01/01 00:00 UTC")
            .says("Auto update: enabled");
        daemon
            .http()
            .json("PATCH", &format!("/1.0/images/{fingerprint}"), &json!({"auto_update": false}))
            .expect(200);
    }
}

#[test]
fn architecture_and_creation_date_stay() {
    let (daemon, fingerprint) = tiny();
    let body = json!({
        "architecture": "aarch64", "created_at": "2020-01-01T00:00:00Z", "fingerprint": "0".repeat(64),
        "properties": {"a": "b"}, "public": false, "auto_update": false,
    });
    daemon.http().json("PUT", &format!("/1.0/images/{fingerprint}"), &body).expect(200);
    let image = image(&daemon, &fingerprint);
    assert_eq!(image["architecture"], "x86_64");
    assert_eq!(image["created_at"], "2016-03-15T11:10:00Z");
    assert_eq!(image["properties"], json!({"a": "b"}));
}

#[test]
fn cli_wipes_nothing_by_accident() {
    let (daemon, fingerprint) = tiny();
    let before = image(&daemon, &fingerprint);
    daemon.cli("image edit tiny").stdin("").fails();
    daemon.cli("image edit tiny").stdin("publik: true\n").fails().complains("publik");
    daemon.cli("image edit tiny").stdin("public: [\n").fails();
    daemon
        .cli("image edit tiny")
        .stdin("architecture: aarch64\n")
        .fails()
        .complains("architecture");
    assert_eq!(image(&daemon, &fingerprint), before);
    // A file that names only some keys leaves the others alone or is refused: never wipes.
    daemon.cli("image edit tiny").stdin("public: true\n").run();
    assert_eq!(image(&daemon, &fingerprint)["properties"], before["properties"]);
    daemon.lxc("image edit tiny").stdin("public: [\n").fails().complains("yaml");
}

#[test]
fn cli_shows_what_an_edit_would_do() {
    let (daemon, fingerprint) = tiny();
    let text = daemon.cli("image show tiny").ok().stdout.replace("tinyos", "hugeos");
    let done = daemon.cli("image edit tiny --dry-run").stdin(&text).ok();
    assert!(format!("{done}").contains("hugeos"), "no difference shown:\n{done}");
    assert_eq!(image(&daemon, &fingerprint)["properties"]["os"], "tinyos");
}

#[test]
fn a_stale_edit_is_refused() {
    let (daemon, fingerprint) = tiny();
    let path = format!("/1.0/images/{fingerprint}");
    let http = daemon.http();
    let etag = http.get(&path).expect(200).header("etag").expect("an ETag").to_owned();
    http.json("PATCH", &path, &json!({"public": true})).expect(200);
    let body = json!({"public": false, "properties": {}}).to_string();
    let put = || http.request("PUT", &path).header("If-Match", &etag).send(body.as_bytes());
    put().refuses(412, "ETag doesn't match");
    assert_eq!(image(&daemon, &fingerprint)["public"], true);
    http.json("PATCH", &path, &json!({"public": false})).expect(200);
    // Back to what it was: the same ETag again.
    put().expect(200);
}

/// An editor that does `first`, and at its second start `second`; what it found is kept.
fn editor(daemon: &Daemon, first: &str, second: &str) -> String {
    let work = daemon.work();
    let text = format!(
        "#!/bin/sh\ncd {work}\nif [ -e once ]; then cp \"$1\" found2; {second}\nelse touch once; cp \"$1\" found1; {first}\nfi\n",
        work = shown(&work)
    );
    let path = daemon.file("editor.sh", text.as_bytes());
    lxd_tests::client::system("chmod", &format!("755 {}", shown(&path))).ok();
    shown(&path).to_owned()
}

#[test]
fn edit_in_an_editor() {
    for client in Client::both() {
        let (daemon, fingerprint) = tiny();
        let editor = editor(&daemon, "sed -i 's/tinyos/edited/' \"$1\"", "exit 1");
        let session = Session::start(
            daemon
                .client(client, "image edit tiny")
                .env("EDITOR", editor.clone())
                .env("VISUAL", editor),
        );
        let (code, screen) = session.end();
        assert_eq!(code, 0, "{screen}");
        assert_eq!(image(&daemon, &fingerprint)["properties"]["os"], "edited");
        let found = std::fs::read_to_string(daemon.work().join("found1")).unwrap();
        assert!(found.starts_with('#'), "the file explains itself:\n{found}");
    }
}

#[test]
fn a_syntax_error_reopens_the_editor_with_the_text_kept() {
    for client in Client::both() {
        let (daemon, fingerprint) = tiny();
        let spoil = "sed -i 's/tinyos/[kept/' \"$1\"";
        let mend = "sed -i 's/\\[kept/mended/' \"$1\"";
        let editor = editor(&daemon, spoil, mend);
        let edit = daemon
            .client(client, "image edit tiny")
            .env("EDITOR", editor.clone())
            .env("VISUAL", editor);
        let mut session = Session::start(edit);
        session.sees("enter");
        session.types("\n");
        let (code, screen) = session.end();
        assert_eq!(code, 0, "{screen}");
        let found = std::fs::read_to_string(daemon.work().join("found2")).unwrap();
        assert!(found.contains("[kept"), "the text was lost:\n{found}");
        assert_eq!(image(&daemon, &fingerprint)["properties"]["os"], "mended");
    }
}
