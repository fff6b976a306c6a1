//! `image get-property`, `set-property`, `unset-property` (row L6).

use lxd_tests::client::Client;
use lxd_tests::daemon::Daemon;
use lxd_tests::fixtures::{Compression, Recipe};
use serde_json::json;

#[test]
fn get_set_unset() {
    let daemon = Daemon::start();
    let image = Recipe::new("p").property("os", "tiny").unified(Compression::Gz);
    let fingerprint = daemon.http().import(&image);
    let path = format!("/1.0/images/{fingerprint}");
    for client in Client::both() {
        let run = |line: String| daemon.client(client, &line);
        run(format!("image get-property {fingerprint} os")).ok().prints("tiny\n");
        run(format!("image set-property {fingerprint} os 'two words <&>'")).ok();
        run(format!("image get-property {fingerprint} os")).ok().prints("two words <&>\n");
        run(format!("image set-property {fingerprint} new.key ünïcode")).ok();
        assert_eq!(daemon.http().metadata(&path)["properties"]["new.key"], "ünïcode");
        run(format!("image unset-property {fingerprint} new.key")).ok();
        run(format!("image get-property {fingerprint} new.key")).fails().complains("not found");
        let left = json!({"description": "Image p", "os": "two words <&>"});
        assert_eq!(daemon.http().metadata(&path)["properties"], left);
        run(format!("image set-property {fingerprint} os tiny")).ok();
        run("image get-property nothing os".to_owned()).fails().complains("not found");
    }
}

#[test]
fn empty_values_vanish_and_patch_merges() {
    let daemon = Daemon::start();
    let http = daemon.http();
    let image = Recipe::new("p").property("os", "tiny").unified(Compression::Gz);
    let path = format!("/1.0/images/{}", http.import(&image));
    let body = json!({"properties": {"a": "1", "b": ""}, "profiles": ["default"]});
    http.json("PUT", &path, &body).expect(200);
    assert_eq!(http.metadata(&path)["properties"], json!({"a": "1"}));
    http.json("PATCH", &path, &json!({"properties": {"c": "3"}})).expect(200);
    assert_eq!(http.metadata(&path)["properties"], json!({"a": "1", "c": "3"}));
    http.json("PUT", &path, &json!({"properties": null})).expect(200);
    assert_eq!(http.metadata(&path)["properties"], json!({}));
    http.json("PUT", &path, &json!({"properties": {}, "profiles": ["nope"]})).refuses(400, "nope");
}

#[test]
fn a_public_flag_for_lxc() {
    let daemon = Daemon::start();
    let fingerprint = daemon.http().import(&Recipe::new("p").unified(Compression::Gz));
    let shown = daemon.lxc(&format!("image show {fingerprint}")).ok();
    let edited = shown.stdout.replace("public: false", "public: true");
    daemon.lxc(&format!("image edit {fingerprint}")).stdin(edited).ok();
    for client in Client::both() {
        daemon.client(client, "image list -f csv -c p").ok().prints("yes\n");
    }
}
