//! Where `lxd-cli` is better than `lxc`: streams, exit codes, hints, machine-readable output.

use lxd_tests::client::{Client, subdir};
use lxd_tests::daemon::Daemon;
use lxd_tests::events::Events;
use lxd_tests::fixtures::{Compression, Recipe, big, fingerprint};
use lxd_tests::terminal::Session;
use serde_json::{Value, json};

fn with_image(name: &str) -> (Daemon, String) {
    let daemon = Daemon::start();
    let bytes = Recipe::new(name).property("os", "tiny").unified(Compression::Gz);
    daemon.file("image.tar.gz", &bytes);
    daemon.cli(&format!("image import image.tar.gz --alias {name}")).ok();
    (daemon, fingerprint(&[&bytes]))
}

#[test]
fn progress_goes_to_standard_error_and_results_to_standard_output() {
    let daemon = Daemon::start();
    let bytes = big::unified(Vec::new(), "p", 20, Compression::Plain).unwrap();
    let print = fingerprint(&[&bytes]);
    daemon.file("big.tar", &bytes);
    let done = daemon.cli("image import big.tar").ok().says(&print);
    assert!(!done.stdout.contains('\r'), "{done}");
    assert_eq!(done.stdout.trim().lines().count(), 1, "only the result:\n{done}");
    daemon.cli(&format!("image delete {print}")).ok();

    let done = daemon.cli("image import big.tar --progress json").ok();
    let updates: Vec<Value> =
        done.stderr.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    assert!(!updates.is_empty(), "no progress as JSON lines:\n{done}");
    daemon.cli(&format!("image delete {print}")).ok();
    let done = daemon.cli("image import big.tar --progress none").ok();
    assert_eq!(done.stderr, "");
    let done = daemon.cli(&format!("-q image export {print} out")).ok();
    assert_eq!(done.stderr, "");
}

#[test]
fn a_terminal_shows_progress_and_keeps_the_result() {
    let daemon = Daemon::start();
    let bytes = big::unified(Vec::new(), "p", 20, Compression::Plain).unwrap();
    daemon.file("big.tar", &bytes);
    let (code, screen) = Session::start(daemon.cli("image import big.tar")).end();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains('%'), "no progress was shown: {screen:?}");
    let last = screen.rsplit(['\r', '\n']).find(|l| !l.trim().is_empty()).unwrap_or_default();
    assert!(last.contains(&fingerprint(&[&bytes])), "the result is not the last line: {screen:?}");
}

#[test]
fn every_command_speaks_json() {
    let (daemon, print) = with_image("j");
    let json = |line: &str| daemon.cli(&format!("{line} --format json")).ok().json();
    assert_eq!(json("image info j")["fingerprint"], json!(print));
    assert_eq!(json("image show j")["properties"]["os"], "tiny");
    assert_eq!(json("image list")[0]["fingerprint"], json!(print));
    assert_eq!(json("image alias list")[0]["name"], "j");
    assert!(json("config show").is_object());
    assert!(json("operation list").is_object() || json("operation list").is_array());
    assert!(json("info")["environment"].is_object());
    assert!(json("version").is_object());
    let second = Recipe::new("j2").unified(Compression::Gz);
    daemon.file("second.tar.gz", &second);
    assert_eq!(json("image import second.tar.gz")["fingerprint"], json!(fingerprint(&[&second])));
    assert!(json("image export j out").to_string().contains("out.tar.gz"));
    assert!(json("image delete j").to_string().contains(&print));
    // Errors too.
    let done = daemon.cli("image info nothing --format json").fails();
    let told = done.stderr.lines().chain(done.stdout.lines());
    let errors: Vec<Value> = told.filter_map(|l| serde_json::from_str(l).ok()).collect();
    assert!(errors.iter().any(|e| e.to_string().contains("not found")), "{done}");
}

#[test]
fn usage_errors_exit_with_2_and_help_on_standard_error() {
    let daemon = Daemon::start();
    for line in [
        "image info",
        "image frobnicate",
        "image list --no-such-flag",
        "image alias create one",
        "frobnicate",
        "image set-property x",
    ] {
        let done = daemon.cli(line).exits(2).silent();
        assert!(done.stderr.to_lowercase().contains("usage"), "no usage:\n{done}");
    }
    daemon.cli("imagee list").exits(2).complains("image");
    daemon.cli("--help").ok().says("image");
    daemon.cli("image --help").ok().says("import");
    daemon.cli("image import --help").ok().says("--alias");
}

#[test]
fn no_daemon_and_what_to_do() {
    let mut daemon = Daemon::start();
    assert!(daemon.stop().success());
    let done = daemon.cli("image list").fails();
    let socket = daemon.socket();
    assert!(done.stderr.contains(lxd_tests::client::shown(&socket)), "which socket?\n{done}");
    assert!(!done.stderr.contains("http://unix.socket"), "an inner detail leaks:\n{done}");
    let other = daemon.work().join("elsewhere.socket");
    daemon.cli("image list").env("LXD_SOCKET", other).fails().complains("elsewhere.socket");
    daemon.cli("version").ok().says("unreachable");
}

#[test]
fn names_that_are_nearly_right() {
    let (daemon, _) = with_image("debian");
    daemon.cli("image info debain").fails().complains("debian");
    daemon.cli("image info nowhere:debian").fails().complains("local");
    daemon.cli("image list nowhere:").fails().complains("nowhere");
    daemon.cli("image import image.tar.gz local").exits(2).complains("local:");
    daemon.cli("image get-property debian so").fails().complains("os");
    daemon.lxc("image info local:debian").ok();
    daemon.cli("image info local:debian").ok();
}

#[test]
fn info_is_sorted_and_exact() {
    let (daemon, print) = with_image("sorted");
    for (key, value) in [("zeta", "1"), ("alpha", "2"), ("mid", "3")] {
        daemon.cli(&format!("image set-property sorted {key} {value}")).ok();
    }
    let done = daemon.cli("image info sorted").ok();
    let keys: Vec<&str> = done
        .stdout
        .lines()
        .skip_while(|l| *l != "Properties:")
        .skip(1)
        .take_while(|l| l.starts_with("    "))
        .filter_map(|l| l.trim().split(':').next())
        .collect();
    assert_eq!(keys, ["alpha", "description", "mid", "os", "zeta"]);
    let size = daemon.http().metadata(&format!("/1.0/images/{print}"))["size"].to_string();
    assert!(done.stdout.contains(&format!("{size} bytes")), "{done}");
}

#[test]
fn csv_with_a_header_and_raw_cells() {
    let (daemon, print) = with_image("raw");
    let done = daemon.cli("image list -f csv,header -c lf").ok();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines[0], "ALIAS,FINGERPRINT", "{done}");
    assert_eq!(lines[1], format!("raw,{}", &print[..12]));
    let done = daemon.cli("image list -f csv -c su --raw").ok();
    let (size, date) = done.line().split_once(',').unwrap();
    let image = daemon.http().metadata(&format!("/1.0/images/{print}"));
    assert_eq!(size, image["size"].to_string());
    assert!(date.contains('T') && date.ends_with('Z'), "{done}");
}

#[test]
fn deleting_tells_what_it_did() {
    let (daemon, print) = with_image("doomed");
    let plan = daemon.cli("image delete doomed --dry-run").ok();
    assert!(format!("{plan}").contains(&print[..12]), "{plan}");
    let done = daemon.cli("image delete doomed").ok();
    assert!(format!("{done}").contains(&print[..12]), "{done}");
    daemon.cli("image list -f csv").ok().silent();
}

#[test]
fn moving_an_alias_is_atomic_and_told() {
    let (daemon, _) = with_image("moving");
    let second = Recipe::new("second").unified(Compression::Gz);
    daemon.file("second.tar.gz", &second);
    let mut events = Events::listen(&daemon.http(), "type=lifecycle");
    let done = daemon.cli("image import second.tar.gz --alias moving --reuse").ok();
    assert!(format!("{done}").contains("moving"), "a moved alias is told:\n{done}");
    let seen = events.until("of the moved alias", |e| {
        e["metadata"]["action"].as_str().is_some_and(|a| a.starts_with("image-alias-"))
    });
    let actions = lxd_tests::events::actions(&seen);
    assert!(!actions.contains(&"image-alias-deleted".to_owned()), "there was a gap: {actions:?}");
    assert!(actions.contains(&"image-alias-updated".to_owned()), "{actions:?}");
}

#[test]
fn query_and_info_and_version() {
    let (daemon, print) = with_image("q");
    let listed = daemon.cli("query /1.0/images").ok().json();
    assert_eq!(listed, json!([format!("/1.0/images/{print}")]));
    let raw = daemon.cli("query --raw /1.0/images").ok().json();
    assert_eq!(raw["type"], "sync");
    daemon.cli("query /1.0/nothing").fails().complains("not found");
    daemon.cli("query nothing").exits(2).complains("/");
    let patch = format!("query -X PATCH -d '{{\"public\":true}}' /1.0/images/{print}");
    daemon.cli(&patch).ok();
    assert_eq!(daemon.http().metadata(&format!("/1.0/images/{print}"))["public"], true);
    let wait = daemon.cli(&format!("query -X DELETE --wait /1.0/images/{print}")).ok();
    assert!(!wait.stdout.contains("Running"), "{wait}");
    assert_eq!(daemon.http().metadata("/1.0/images"), json!([]));
    daemon.cli("info").ok().says("api_version: \"1.0\"").says("environment:");
    daemon.cli("version").ok().says("Client version:").says("Server version:");
    daemon.cli("--version").ok();
}

#[test]
fn user_aliases_and_completion() {
    let (daemon, print) = with_image("c");
    daemon.cli("alias add il 'image list -f csv -c F'").ok();
    daemon.cli("il").ok().prints(&format!("{print}\n"));
    daemon.cli("alias list").ok().says("il").says("image list -f csv -c F");
    // The file is lxc's too.
    daemon.lxc("il").ok().prints(&format!("{print}\n"));
    daemon.cli("alias rename il images").ok();
    daemon.cli("alias add images x").fails().complains("images");
    daemon.cli("alias remove images").ok();
    daemon.cli("alias remove images").fails();
    for shell in ["bash", "zsh", "fish"] {
        let done = daemon.cli(&format!("completion {shell}")).ok();
        assert!(done.stdout.contains("lxd-cli"), "{done}");
    }
}

#[test]
fn exports_by_the_other_client() {
    // What one client writes the other takes.
    let daemon = Daemon::start();
    let recipe = Recipe::new("cross");
    let (metadata, rootfs) = (recipe.metadata(Compression::Gz), recipe.root(Compression::Xz));
    let print = daemon.http().import_split(&metadata, &rootfs);
    for (writer, reader) in [(Client::Lxc, Client::Cli), (Client::Cli, Client::Lxc)] {
        let dir = subdir(&daemon.work(), &format!("{writer:?}"));
        daemon.client(writer, &format!("image export {print}")).dir(&dir).ok();
        daemon
            .http()
            .finish(&daemon.http().request("DELETE", &format!("/1.0/images/{print}")).send(b""));
        let line = format!("image import meta-{print}.tar.gz {print}.tar.xz");
        daemon.client(reader, &line).dir(&dir).ok().says(&print);
    }
}

#[test]
fn interrupted_by_a_person() {
    let daemon = Daemon::start();
    lxd_tests::client::system("mkfifo", lxd_tests::client::shown(&daemon.work().join("fifo"))).ok();
    let running = daemon.cli("image import fifo").spawn();
    let pipe = std::fs::File::options().write(true).open(daemon.work().join("fifo")).unwrap();
    running.signal(rustix::process::Signal::INT);
    let done = running.wait();
    drop(pipe);
    assert_eq!(done.code, 130, "{done}");
}
