//! The structs against bodies as LXD 5.0.2 sends and takes them: same keys, same order, same nulls.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

/// Reads `text` as a `T` and writes it again: byte for byte the same.
fn same<T: Serialize + DeserializeOwned>(text: &str) -> T {
    let text: String = text.lines().map(str::trim_start).collect();
    let value: T = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&value).unwrap(), text);
    value
}

const INSTANCE: &str = r#""architecture":"x86_64",
    "config":{"image.os":"busybox","user.a":"b","volatile.base_image":"a65894de"},
    "devices":{},"ephemeral":false,"profiles":["default"],"stateful":false,"description":"",
    "created_at":"2026-11-24T01:57:44.669157322Z",
    "expanded_config":{"image.os":"busybox","user.a":"b","volatile.base_image":"a65894de"},
    "expanded_devices":{"root":{"path":"/","pool":"default","type":"disk"}},
    "name":"c2","status":"Stopped","status_code":102,"last_used_at":"1970-01-01T00:00:00Z",
    "location":"none","type":"container","project":"default""#;

const SNAPSHOT: &str = r#"{"expires_at":"0001-01-01T00:00:00Z","architecture":"x86_64",
    "config":{"image.os":"busybox"},"created_at":"2026-11-24T01:57:36.780142962Z","devices":{},
    "ephemeral":false,"expanded_config":{"image.os":"busybox"},
    "expanded_devices":{"root":{"path":"/","pool":"default","type":"disk"}},
    "last_used_at":"0001-01-01T00:00:00Z","name":"s0","profiles":["default"],
    "stateful":false,"size":-1}"#;

const DOWN: &str = r#"{"status":"Stopped","status_code":102,"disk":{},
    "memory":{"usage":0,"usage_peak":0,"swap_usage":0,"swap_usage_peak":0},
    "network":null,"pid":0,"processes":0,"cpu":{"usage":0}}"#;

const UP: &str = r#"{"status":"Running","status_code":103,"disk":{},
    "memory":{"usage":638976,"usage_peak":1126400,"swap_usage":0,"swap_usage_peak":0},
    "network":{"lo":{"addresses":[{"family":"inet","address":"127.0.0.1","netmask":"8",
    "scope":"local"}],"counters":{"bytes_received":0,"bytes_sent":0,"packets_received":0,
    "packets_sent":0,"errors_received":0,"errors_sent":0,"packets_dropped_outbound":0,
    "packets_dropped_inbound":0},"hwaddr":"","host_name":"","mtu":65536,"state":"down",
    "type":"loopback"}},"pid":25178,"processes":2,"cpu":{"usage":9219079}}"#;

#[test]
fn instances_are_what_lxd_shows() {
    let instance: Instance = same(&format!("{{{INSTANCE}}}"));
    assert_eq!(instance.status, InstanceStatus::Stopped);
    assert_eq!(instance.config[key::BASE_IMAGE], "a65894de");
    let full =
        format!("{{{INSTANCE},\"backups\":null,\"state\":{DOWN},\"snapshots\":[{SNAPSHOT}]}}");
    let full: InstanceFull = same(&full);
    assert_eq!(full.instance, instance);
    assert_eq!(full.state, Some(InstanceState::down(InstanceStatus::Stopped)));
    assert_eq!(full.snapshots.unwrap()[0].name, "s0");
    same::<InstanceFull>(&format!(
        "{{{INSTANCE},\"backups\":null,\"state\":{UP},\"snapshots\":null}}"
    ));
}

#[test]
fn states_and_snapshots_are_what_lxd_shows() {
    let state: InstanceState = same(UP);
    let network = state.network.unwrap();
    assert_eq!(network["lo"].addresses[0].scope, "local");
    let snapshot: Snapshot = same(SNAPSHOT);
    assert!(time::is_unset(snapshot.expires_at));
}

#[test]
fn nulls_and_missing_keys_of_other_servers_are_read() {
    let text = r#"{"name":"c","status":"Frozen","status_code":110,"config":null,"profiles":null}"#;
    let instance: InstanceFull = serde_json::from_str(text).unwrap();
    assert!(instance.instance.config.is_empty() && instance.state.is_none());
    assert!(instance.instance.status.is_up());
}

#[test]
fn every_status_has_its_own_name_and_code() {
    for status in InstanceStatus::ALL {
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<InstanceStatus>(&json).unwrap(), status);
        let same = InstanceStatus::ALL.iter().filter(|other| other.code() == status.code());
        assert_eq!(same.count(), 1);
    }
    assert!(serde_json::from_str::<InstanceStatus>("\"Lost\"").is_err());
}

#[test]
fn what_creates_an_instance_is_spelled_as_lxc_does() {
    let head = r#"{"architecture":"","config":{},"devices":{},"ephemeral":false,"profiles":null,
        "stateful":false,"description":"","name":"c1","source":"#;
    let tail = r#","instance_type":"","type":"container"}"#;
    let local =
        r#"{"type":"image","certificate":"","fingerprint":"a658","allow_inconsistent":false}"#;
    let post: InstancesPost = same(&format!("{head}{local}{tail}"));
    assert_eq!(post.source.parse(), Ok(Source::Local(ImageOf::Fingerprint("a658"))));
    assert!(post.put.profiles.is_none() && !post.start);

    let remote = r#"{"type":"image","certificate":"PEM","alias":"bb","server":"https://h:8443",
        "protocol":"lxd","mode":"pull","allow_inconsistent":false}"#;
    let post: InstancesPost = same(&format!("{head}{remote}{tail}"));
    let server = Server {
        url: "https://h:8443",
        protocol: "lxd",
        certificate: "PEM",
        secret: "",
        project: "",
        keyring: "",
    };
    assert_eq!(post.source.parse(), Ok(Source::Remote(ImageOf::Alias("bb"), server)));

    let copy = r#"{"type":"copy","certificate":"","base-image":"a658","source":"c1/s0","live":true,
        "allow_inconsistent":false}"#;
    let post: InstancesPost = same(&format!("{head}{copy}{tail}"));
    let source = Source::Copy { instance: "c1", snapshot: Some("s0"), instance_only: false };
    assert_eq!(post.source.parse(), Ok(source));
}

#[test]
fn short_bodies_are_filled_up() {
    let text = r#"{"name":"","source":{"type":"none"},"type":"","devices":null,"start":true}"#;
    let post: InstancesPost = serde_json::from_str(text).unwrap();
    assert_eq!((post.kind, post.start), (InstanceType::Container, true));
    assert_eq!(post.source.parse(), Ok(Source::Nothing));
    let post: InstancesPost = serde_json::from_str(r#"{"source":null}"#).unwrap();
    assert_eq!(post.source.parse(), Err(Invalid::Kind(String::new())));
    assert!(serde_json::from_str::<InstancesPost>(r#"{"type":"pod"}"#).is_err());
}

#[test]
fn sources_that_make_no_sense_are_refused_in_the_words_of_lxd() {
    let said = |text: &str| {
        let source: InstanceSource = serde_json::from_str(text).unwrap();
        source.parse().unwrap_err().to_string()
    };
    assert_eq!(said(r#"{"type":"bogus"}"#), "Unknown source type bogus");
    assert_eq!(
        said(r#"{"type":"image"}"#),
        "Must specify one of alias, fingerprint or properties for init from image"
    );
    assert_eq!(said(r#"{"type":"copy"}"#), "must specify a source instance");
    assert_eq!(said(r#"{"type":"copy","source":"c1/"}"#), "must specify a source instance");
    assert!(said(r#"{"type":"migration"}"#).contains("publish"));
}

#[test]
fn a_secret_of_an_image_is_not_shown() {
    let text = r#"{"type":"image","fingerprint":"a658","server":"https://h","secret":"s3cret"}"#;
    let source: InstanceSource = serde_json::from_str(text).unwrap();
    assert!(!format!("{source:?} {:?}", source.parse()).contains("s3cret"));
}

#[test]
fn edits_actions_and_snapshots_are_spelled_as_lxc_does() {
    let put: InstancePut = same(
        r#"{"architecture":"x86_64","config":{"user.foo":"bar"},"devices":{},"ephemeral":false,
        "profiles":["default"],"stateful":false,"description":""}"#,
    );
    assert_eq!(put.restore, "");
    let state: StatePut = same(r#"{"action":"start","timeout":-1,"force":false,"stateful":false}"#);
    assert_eq!(state, StatePut::new(Action::Start));
    assert_eq!("stop".parse(), Ok(Action::Stop));
    let error = "zzz".parse::<Action>().unwrap_err();
    assert_eq!(error.to_string(), "Unknown action: 'zzz'");
    let post: SnapshotsPost = same(r#"{"name":"s0","stateful":false,"expires_at":null}"#);
    assert_eq!(post.expires_at, None);
    let rename: InstancePost = serde_json::from_str(r#"{"name":"new"}"#).unwrap();
    assert!(!rename.migration && rename.name == "new");
}
