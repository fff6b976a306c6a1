//! `config get/set/unset/show/edit` on the server's keys.

use lxd_tests::client::Client;
use lxd_tests::daemon::Daemon;
use serde_json::json;

#[test]
fn get_set_unset_show() {
    let daemon = Daemon::start();
    for client in Client::both() {
        let run = |line: &str| daemon.client(client, line);
        run("config set images.auto_update_interval 12").ok().silent();
        run("config set images.remote_cache_expiry=3 user.note='hello world'").ok();
        run("config get images.auto_update_interval").ok().prints("12\n");
        run("config get user.note").ok().prints("hello world\n");
        let shown = run("config show").ok();
        for line in ["config:", "  images.auto_update_interval: \"12\"", "  user.note: hello world"]
        {
            assert!(shown.stdout.contains(line), "no {line:?} in\n{shown}");
        }
        run("config unset user.note").ok();
        run("config unset images.remote_cache_expiry").ok();
        run("config unset images.auto_update_interval").ok();
        assert_eq!(daemon.http().metadata("/1.0")["config"], json!({}));
    }
}

#[test]
fn bad_keys_and_values() {
    let daemon = Daemon::start();
    for client in Client::both() {
        let run = |line: &str| daemon.client(client, line);
        run("config set core.bogus 1").fails().complains("core.bogus");
        run("config set images.auto_update_interval abc").fails().complains("integer");
        run("config set images.auto_update_cached maybe").fails().complains("boolean");
        run("config set images.compression_algorithm zzz").fails().complains("zzz");
    }
    daemon.lxc("config get core.bogus").ok().prints("\n");
    daemon.cli("config get core.bogus").fails().complains("core.bogus");
    assert_eq!(daemon.http().metadata("/1.0")["config"], json!({}));
}

#[test]
fn values_are_normalised_and_survive_a_restart() {
    let mut daemon = Daemon::start();
    daemon.lxc("config set images.auto_update_cached no").ok();
    daemon.lxc("config set images.compression_algorithm 'zstd -19'").ok();
    let expected =
        json!({"images.auto_update_cached": "false", "images.compression_algorithm": "zstd -19"});
    assert_eq!(daemon.http().metadata("/1.0")["config"], expected);
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.http().metadata("/1.0")["config"], expected);
}

#[test]
fn edit_replaces_the_whole_set() {
    let daemon = Daemon::start();
    for client in Client::both() {
        daemon.lxc("config set images.auto_update_interval 9").ok();
        let text = "config:\n  images.remote_cache_expiry: \"2\"\n";
        daemon.client(client, "config edit").stdin(text).ok();
        let expected = json!({"images.remote_cache_expiry": "2"});
        assert_eq!(daemon.http().metadata("/1.0")["config"], expected);
        daemon.client(client, "config edit").stdin("config: [\n").fails();
        daemon.cli("config edit").stdin("").fails();
        assert_eq!(daemon.http().metadata("/1.0")["config"], expected);
        daemon.lxc("config unset images.remote_cache_expiry").ok();
    }
}

#[test]
fn over_the_api() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let etag = http.get("/1.0").expect(200).header("etag").expect("an ETag").to_owned();
    http.json("PATCH", "/1.0", &json!({"config": {"user.a": "1"}})).expect(200);
    http.json("PATCH", "/1.0", &json!({"config": {"user.b": "2"}})).expect(200);
    assert_eq!(http.metadata("/1.0")["config"], json!({"user.a": "1", "user.b": "2"}));
    let body = json!({"config": {}}).to_string();
    http.request("PUT", "/1.0")
        .header("If-Match", &etag)
        .send(body.as_bytes())
        .refuses(412, "ETag doesn't match");
    http.json("PUT", "/1.0", &json!({"config": {"user.a": 6}})).refuses(400, "user.a");
    let body =
        json!({"config": {"user.a": null, "user.b": "", "images.auto_update_interval": "9"}});
    http.json("PUT", "/1.0", &body).expect(200);
    assert_eq!(http.metadata("/1.0")["config"], json!({"images.auto_update_interval": "9"}));
    http.json("PUT", "/1.0", &json!({"config": {}})).expect(200);
    assert_eq!(http.metadata("/1.0")["config"], json!({}));
    http.json("PUT", "/1.0", &json!({"config": {"foo.bar": "x"}}))
        .refuses(400, "cannot set 'foo.bar' to 'x': unknown key");
}

#[test]
fn a_trust_password_is_never_shown() {
    let daemon = Daemon::start();
    let http = daemon.http();
    daemon.lxc("config set core.trust_password sekrit").ok();
    let seen = http.request("GET", "/1.0").header("User-Agent", "LXD 5.0.2 (Linux)").send(b"");
    assert_eq!(seen.metadata()["config"]["core.trust_password"], true);
    // Other clients expect strings.
    assert_eq!(http.metadata("/1.0")["config"]["core.trust_password"], "true");
    // Read back and put again it means "unchanged".
    daemon.lxc("config set user.x 1").ok();
    daemon.lxc("config get core.trust_password").ok().prints("true\n");
    assert!(!String::from_utf8_lossy(&seen.body).contains("sekrit"));
    assert!(!daemon.log().contains("sekrit"), "a secret in the log");
}
