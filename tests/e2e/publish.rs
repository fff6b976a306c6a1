//! Images from containers: what was changed is in them, and nothing else happened.

use std::time::Duration;

use lxd_tests::client::Finished;
use lxd_tests::containers::{hosting, shell, status};
use lxd_tests::daemon::Daemon;
use lxd_tests::wait;
use serde_json::{Value, json};

fn fingerprint(done: &Finished) -> String {
    let word = done.stdout.split_whitespace().last().unwrap_or_default();
    assert_eq!(word.len(), 64, "no fingerprint:\n{done}");
    word.to_owned()
}

fn image(daemon: &Daemon, print: &str) -> Value {
    daemon.http().metadata(&format!("/1.0/images/{print}"))
}

#[test]
fn a_change_travels_from_container_to_container() {
    let (daemon, _) = hosting();
    daemon.lxc("launch busybox c1").ok();
    shell(&daemon, "c1", "echo old > /root/file; rm /etc/group");
    daemon.lxc("snapshot c1 s0").ok();
    shell(&daemon, "c1", "echo new > /root/file; ln /root/file /root/hard; ln -s file /root/soft");
    daemon.lxc("publish c1 --alias early").fails().complains("running");
    let early = fingerprint(&daemon.lxc("publish c1/s0 --alias early").ok());
    assert_eq!(status(&daemon, "c1"), "Running", "publishing a snapshot stops nothing");
    let late = fingerprint(&daemon.lxc("publish c1 --force --alias late os=mine").ok());
    assert_eq!(status(&daemon, "c1"), "Running", "it was started again");
    assert_ne!(early, late);
    assert_eq!(image(&daemon, &early)["properties"]["description"], "Image busybox");
    let properties = image(&daemon, &late)["properties"].clone();
    assert_eq!(properties["os"], "mine", "{properties}");

    daemon.lxc("launch early c2").ok();
    shell(&daemon, "c2", "cat /root/file; test ! -e /etc/group").prints("old\n");
    daemon.lxc("launch late c3").ok();
    shell(&daemon, "c3", "cat /root/soft; stat -c %h:%u /root/hard").prints("new\n2:0\n");

    daemon.lxc("image export late out").ok();
    daemon.lxc("delete -f c1 c2 c3").ok();
    daemon.lxc("image delete late early").ok();
    let files = std::fs::read_dir(daemon.work()).unwrap().flatten();
    let exported = files.map(|it| it.file_name().into_string().unwrap());
    let exported = exported.filter(|name| name.starts_with("out")).collect::<Vec<_>>();
    assert_eq!(exported.len(), 1, "{exported:?}");
    let back = daemon.lxc(&format!("image import {} --alias again", exported[0])).ok();
    assert_eq!(fingerprint(&back), late);
    daemon.lxc("launch again c4").ok();
    shell(&daemon, "c4", "cat /root/file").prints("new\n");
}

#[test]
fn every_compression_can_be_launched() {
    let (daemon, _) = hosting();
    daemon.lxc("init busybox c1").ok();
    daemon.file("change", b"changed\n");
    daemon.lxc("file push change c1/root/change").ok();
    for compression in ["none", "gzip", "zstd", "xz", "squashfs"] {
        let line = format!("publish c1 --alias {compression} --compression {compression}");
        let print = fingerprint(&daemon.lxc(&line).ok());
        let name = image(&daemon, &print)["filename"].as_str().unwrap_or_default().to_owned();
        let bytes = std::fs::read(daemon.dir().join("blobs").join(&print)).unwrap();
        let magic: &[u8] = match compression {
            "gzip" => &[0x1f, 0x8b],
            "zstd" => &[0x28, 0xb5, 0x2f, 0xfd],
            "xz" => &[0xfd, b'7', b'z'],
            "squashfs" => b"hsqs",
            _ => b"metadata.yaml",
        };
        assert!(bytes.starts_with(magic), "{compression}: {name} {:?}", &bytes[..16]);
        daemon.lxc(&format!("launch {compression} c-{compression}")).ok();
        shell(&daemon, &format!("c-{compression}"), "cat /root/change").prints("changed\n");
    }
    daemon.lxc("publish c1 --compression bogus").fails().complains("bogus");
}

#[test]
fn the_same_content_is_the_same_image() {
    let (daemon, _) = hosting();
    daemon.lxc("init busybox c1").ok();
    let first = fingerprint(&daemon.lxc("publish c1 --alias one").ok());
    daemon
        .lxc("publish c1 --alias two")
        .fails()
        .complains(&format!("The image already exists: {first}"));
    daemon.lxc("image delete one").ok();
    let second = fingerprint(&daemon.lxc("publish c1 --alias two").ok());
    assert_eq!(first, second);
}

#[test]
fn what_is_asked_of_an_image_is_recorded() {
    let (daemon, _) = hosting();
    daemon.lxc("init busybox c1").ok();
    let line =
        "publish c1 --alias a --alias b --public --expire 2040-01-02T03:04:05Z os=x release=1";
    let print = fingerprint(&daemon.lxc(line).ok());
    let image = image(&daemon, &print);
    assert_eq!(image["public"], true, "{image}");
    assert!(image["expires_at"].as_str().unwrap().starts_with("2040-01-02T03:04:05"), "{image}");
    assert_eq!(image["properties"]["os"], "x", "{image}");
    assert_eq!(image["properties"]["release"], "1", "{image}");
    let mut aliases: Vec<_> =
        image["aliases"].as_array().unwrap().iter().map(|alias| alias["name"].clone()).collect();
    aliases.sort_by_key(Value::to_string);
    assert_eq!(aliases, [json!("a"), json!("b")]);
    daemon.lxc("publish none").fails().complains("not found");
    daemon.lxc("publish c1/none").fails();
    daemon.lxc("publish c1 --expire tomorrow").fails();
    assert_eq!(daemon.files_in("spool"), [""; 0]);
}

#[test]
fn killed_while_publishing_nothing_is_half_made() {
    let (mut daemon, print) = hosting();
    daemon.lxc("init busybox c1").ok();
    daemon.file("big", &lxd_tests::fixtures::noise(9, 24 << 20));
    daemon.lxc("file push big c1/root/big").ok();
    for round in 0_u64..3 {
        let publish = daemon.lxc("publish c1 --alias half").spawn();
        wait::within(Duration::from_millis(20 + 60 * round), || {
            round == 0 && daemon.bytes_in("spool") > 0
        });
        daemon.kill();
        publish.wait();
        daemon.launch();
        wait::until("leftovers to go", || daemon.files_in("spool").is_empty());
        let images = daemon.http().metadata("/1.0/images");
        for path in images.as_array().unwrap() {
            let found = path.as_str().unwrap().rsplit('/').next().unwrap();
            if found != print {
                daemon.lxc(&format!("image delete {found}")).ok();
            }
        }
        assert_eq!(daemon.files_in("blobs"), [print.as_str()]);
    }
    daemon.lxc("publish c1 --alias whole").ok();
    daemon.lxc("launch whole c2").ok();
    shell(&daemon, "c2", "wc -c /root/big").says(&(24 << 20).to_string());
}
