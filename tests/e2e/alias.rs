//! `image alias`: names for images, with `/`, spaces and colons (row L6).

use lxd_tests::client::Client;
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe};
use serde_json::json;

fn two_images() -> (Daemon, String, String) {
    let daemon = Daemon::start();
    let one = daemon.http().import(&Recipe::new("one").unified(Compression::Gz));
    let two = daemon.http().import(&Recipe::new("two").unified(Compression::Gz));
    (daemon, one, two)
}

#[test]
fn create_list_rename_delete() {
    for client in Client::both() {
        let (daemon, one, two) = two_images();
        let run = |line: &str| daemon.client(client, line);
        run(&format!("image alias create a/b {one}")).ok();
        run(&format!("image alias create 'with space' {}", &two[..9])).ok();
        let short = (&one[..12], &two[..12]);
        let expected = format!("a/b,{},CONTAINER,\nwith space,{},CONTAINER,\n", short.0, short.1);
        run("image alias list -f csv").ok().prints(&expected);
        run("image alias list space -f csv")
            .ok()
            .prints(&format!("with space,{},CONTAINER,\n", short.1));
        run(&format!("image alias create a/b {two}")).fails().complains("a/b");
        run("image alias rename a/b c:d").ok();
        run("image alias rename c:d x").run();
        run("image info 'with space'").ok().says(&two);
        run("image alias delete 'with space'").ok();
        run("image alias delete 'with space'").fails().complains("not found");
        run(&format!("image alias create z {}", "0".repeat(64))).fails().complains("not found");
        let left = run("image alias list -f csv").ok();
        assert_eq!(left.stdout.lines().count(), 1, "{left}");
    }
}

#[test]
fn lists_are_the_same_in_both_clients() {
    let (daemon, one, two) = two_images();
    for (name, target) in [("v10", &one), ("v9", &one), ("z z", &two)] {
        let body = json!({"name": name, "target": target, "description": format!("about {name}")});
        daemon.http().json("POST", "/1.0/images/aliases", &body).expect(201);
    }
    for format in ["table", "csv", "compact"] {
        for words in ["", "v", "none"] {
            let line = format!("image alias list {words} -f {format}");
            let judge = daemon.lxc(&line).ok();
            daemon.cli(&line).ok().prints(&judge.stdout);
        }
    }
    // Several words widen a list of aliases, while they narrow one of images.
    let judge = daemon.lxc("image alias list v z -f csv").ok().says("v10").says("z z");
    daemon.cli("image alias list v z -f csv").ok().prints(&judge.stdout);
    let listed = daemon.cli("image alias list v9 -f json").ok().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "a filter holds for json too: {listed}");
}

#[test]
fn names_are_percent_encoded_or_not() {
    let (daemon, one, _) = two_images();
    let http = daemon.http();
    let create = |name: &str| {
        let body = json!({"name": name, "target": one, "description": "d"});
        http.json("POST", "/1.0/images/aliases", &body)
    };
    for name in ["t/1", "plus+and space", "ünïcode", "100%", "a//b", ".."] {
        create(name).expect(201);
    }
    let both = ["/1.0/images/aliases/t/1", "/1.0/images/aliases/t%2F1"];
    for path in both {
        assert_eq!(http.metadata(path)["name"], "t/1", "{path}");
    }
    for (path, name) in [
        ("plus+and%20space", "plus+and space"),
        ("%C3%BCn%C3%AFcode", "ünïcode"),
        ("100%25", "100%"),
        ("a%2F%2Fb", "a//b"),
        ("%2E%2E", ".."),
    ] {
        assert_eq!(http.metadata(&format!("/1.0/images/aliases/{path}"))["name"], name);
    }
    // Every URL of the list leads to its alias.
    let urls = http.metadata("/1.0/images/aliases");
    for url in urls.as_array().unwrap() {
        http.get(url.as_str().unwrap()).expect(200);
    }
    assert_eq!(urls.as_array().map(Vec::len), Some(6));
    http.request("DELETE", both[1]).send(b"").expect(200);
    http.get(both[0]).refuses(404, "Image alias not found");
}

#[test]
fn over_the_api() {
    let (daemon, one, two) = two_images();
    let http = daemon.http();
    let path = "/1.0/images/aliases/n";
    let body = json!({"name": "n", "target": &one[..10], "description": "first"});
    let made = http.json("POST", "/1.0/images/aliases", &body).expect(201);
    assert_eq!(made.header("location"), Some(path));
    assert_eq!(made.json()["metadata"], json!(null));
    let alias = json!({"name": "n", "target": one, "description": "first", "type": "container"});
    assert_eq!(http.metadata(path), alias);

    http.json("POST", "/1.0/images/aliases", &body).refuses(409, "already exists");
    http.json("POST", "/1.0/images/aliases", &json!({"name": "m"}))
        .refuses(400, "name and target are required");
    let lost = json!({"name": "m", "target": "0".repeat(64)});
    http.json("POST", "/1.0/images/aliases", &lost).refuses(404, "not found");

    http.json("PATCH", path, &json!({"description": "patched"})).expect(200);
    assert_eq!(http.metadata(path)["description"], "patched");
    assert_eq!(http.metadata(path)["target"], one);
    let etag = http.get(path).header("etag").expect("an ETag").to_owned();
    http.json("PUT", path, &json!({"target": two, "description": ""})).expect(200);
    assert_eq!(http.metadata(path)["target"], two);
    http.json("PUT", path, &json!({"description": "x"})).refuses(400, "target");
    let stale = json!({"target": one}).to_string();
    http.request("PUT", path)
        .header("If-Match", &etag)
        .send(stale.as_bytes())
        .refuses(412, "ETag doesn't match");

    let renamed = http.json("POST", path, &json!({"name": "new/name"})).expect(201);
    assert_eq!(renamed.header("location"), Some("/1.0/images/aliases/new%2Fname"));
    http.get(path).refuses(404, "Image alias not found");
    http.json("POST", path, &json!({"name": "x"})).refuses(404, "Image alias not found");
    http.json("POST", "/1.0/images/aliases", &json!({"name": "n", "target": one})).expect(201);
    http.json("POST", path, &json!({"name": "new/name"})).refuses(409, "already exists");
}

#[test]
fn an_alias_wins_over_a_fingerprint_of_the_same_spelling() {
    let (daemon, one, two) = two_images();
    let prefix = &two[..8];
    let body = json!({"name": prefix, "target": one});
    daemon.http().json("POST", "/1.0/images/aliases", &body).expect(201);
    for client in Client::both() {
        daemon.client(client, &format!("image info {prefix}")).ok().says(&one);
    }
    // The image resource itself knows no aliases.
    daemon.http().get("/1.0/images/one").refuses(404, "Image not found");
    assert_eq!(daemon.http().metadata(&format!("/1.0/images/{prefix}"))["fingerprint"], json!(two));
}

#[test]
fn cli_takes_an_alias_as_target_and_suggests_names() {
    let (daemon, one, _) = two_images();
    daemon.cli(&format!("image alias create ubuntu {one}")).ok();
    daemon.cli("image alias create jammy ubuntu").ok();
    daemon.cli("image info jammy").ok().says(&one);
    daemon.lxc("image alias create noble ubuntu").fails().complains("Image not found");
    daemon.cli("image info ubunut").fails().complains("ubuntu");
    daemon.cli("image alias delete jamy").fails().complains("jammy");
}

#[test]
fn many_writers_lose_no_alias() {
    let (daemon, one, _) = two_images();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (http, one) = (daemon.http(), one.clone());
            scope.spawn(move || {
                for number in 0..10 {
                    let body = json!({"name": format!("w{writer}-{number}"), "target": one});
                    http.json("POST", "/1.0/images/aliases", &body).expect(201);
                }
            });
        }
    });
    assert_eq!(daemon.http().metadata("/1.0/images/aliases").as_array().map(Vec::len), Some(80));
    let image = daemon.http().metadata(&format!("/1.0/images/{one}"));
    assert_eq!(image["aliases"].as_array().map(Vec::len), Some(80));
}
