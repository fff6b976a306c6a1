//! Where `lxd-cli` is better than `lxc`: streams, exit codes, hints, machine-readable output.

use std::io::{BufRead, Read};

use lxd_tests::client::{Client, subdir, system};
use lxd_tests::daemon::Daemon;
use lxd_tests::events::Events;
use lxd_tests::fixtures::{Compression, Recipe, big, fingerprint};
use lxd_tests::terminal::Session;
use lxd_tests::wait;
use rustix::process::Signal;
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
    system("mkfifo", lxd_tests::client::shown(&daemon.work().join("fifo"))).ok();
    let running = daemon.cli("image import fifo").spawn();
    let pipe = std::fs::File::options().write(true).open(daemon.work().join("fifo")).unwrap();
    running.signal(Signal::INT);
    let done = running.wait();
    drop(pipe);
    assert_eq!(done.code, 130, "{done}");
}

#[test]
fn a_flag_given_twice_and_aliases_with_defaults() {
    let (daemon, print) = with_image("twice");
    daemon.cli("alias add il 'image list -f json -c l'").ok();
    daemon.cli("il -f csv -c F").ok().prints(&format!("{print}\n"));
    // Words that the alias does not place are kept, and placed ones may stand within a word.
    daemon.cli("alias add by 'image list description=@ARG1@ -f csv'").ok();
    daemon.cli("by '.*twice' -c F").ok().prints(&format!("{print}\n"));
    daemon.cli("alias add put 'image import @ARG2@ --alias @ARG1@'").ok();
    daemon.file("two.tar.gz", &Recipe::new("two").unified(Compression::Gz));
    daemon.cli("put two two.tar.gz --public kept=yes").ok();
    daemon.cli("image list public=true kept=yes -f csv -c l").ok().prints("two\n");
    let aliases = daemon.cli("alias list -f json").ok().json();
    assert_eq!(aliases["by"], "image list description=@ARG1@ -f csv");
    let theirs = daemon.lxc("alias list --format json").ok().json();
    assert_eq!(aliases, theirs);
}

#[test]
fn force_local_leaves_the_other_aliases_alone() {
    let daemon = Daemon::start();
    daemon.cli("alias add one version").ok();
    daemon.cli("--force-local alias add three info").ok();
    daemon.cli("alias list -f csv").ok().prints("one,version\nthree,info\n");
    daemon.cli("--force-local alias remove one").ok();
    daemon.cli("alias list -f csv").ok().prints("three,info\n");
}

#[test]
fn an_export_touches_no_other_file_and_leaves_none() {
    let daemon = Daemon::start();
    let bytes = big::unified(Vec::new(), "part", 64, Compression::Plain).unwrap();
    daemon.file("big.tar", &bytes);
    daemon.cli("image import big.tar --alias big").ok();
    daemon.file("mine.tar.part", b"precious");
    daemon.cli("image export big mine").ok();
    assert_eq!(std::fs::read(daemon.work().join("mine.tar.part")).unwrap(), b"precious");
    // Two at a time: one of them has the name first, both end as they should.
    let both = [0, 1].map(|_| daemon.cli("image export big t").spawn());
    let codes: Vec<i32> = both.into_iter().map(|running| running.wait().code).collect();
    assert!(codes.contains(&0) && codes.iter().all(|code| *code <= 1), "{codes:?}");
    assert_eq!(std::fs::read(daemon.work().join("t.tar")).unwrap(), bytes);

    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let dir = subdir(&daemon.work(), &format!("{code}"));
        let export = daemon.cli("image export big x --progress none").dir(&dir).spawn();
        let begun = wait::within(wait::PATIENCE, || std::fs::read_dir(&dir).unwrap().count() > 0);
        assert!(begun, "the export never began");
        export.signal(signal);
        let done = export.wait();
        let left: Vec<_> =
            std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        // It may have been faster than the signal.
        if done.code == 0 {
            assert_eq!(left, ["x.tar"], "{done}");
        } else {
            assert_eq!(done.code, code, "{done}");
            assert!(left.is_empty(), "{left:?} is left behind:\n{done}");
        }
    }
    // A reader that has enough is no failure worth a word.
    let mut export = daemon.cli("image export big - --progress none").spawn();
    drop(export.take_stdout());
    let done = export.wait();
    assert!(!done.stderr.contains("Error"), "{done}");
}

#[test]
fn verify_does_not_trust_what_is_there_already() {
    let daemon = Daemon::start();
    // Large enough to be accepted long before its reader comes to the broken place.
    let mut bytes = big::unified(Vec::new(), "xz", 128, Compression::Xz).unwrap();
    let late = bytes.len() / 20 * 19;
    bytes[late] ^= 0x55;
    let print = fingerprint(&[&bytes]);
    daemon.file("corrupt.xz", &bytes);
    daemon.cli("image import corrupt.xz").ok();
    daemon.cli("image import corrupt.xz --verify --alias c2").fails().complains("bad");
    daemon.cli("image import corrupt.xz --alias c2").fails().complains("image delete");
    daemon.cli("image info c2").fails();
    let done = daemon.cli("image list -f csv -c fv").ok();
    assert!(done.stdout.starts_with(&format!("{},no: ", &print[..12])), "{done}");
    daemon.cli(&format!("image delete {print}")).ok();
    daemon.cli("image import corrupt.xz --verify").fails();

    let good = Recipe::new("good").unified(Compression::Xz);
    daemon.file("good.xz", &good);
    daemon.cli("image import good.xz").ok();
    daemon.cli("image import good.xz --verify").ok().says("present");
    daemon.cli(&format!("image info {}", fingerprint(&[&good]))).ok().says("Verified: yes");
}

#[test]
fn importing_again_heals_a_lost_file() {
    let (daemon, print) = with_image("lost");
    let blob = daemon.dir().join("blobs").join(&print);
    let whole = std::fs::read(&blob).unwrap();
    let export = format!("/1.0/images/{print}/export");
    for lost in [Some(100), None] {
        match lost {
            Some(length) => std::fs::write(&blob, &whole[..length]).unwrap(),
            None => std::fs::remove_file(&blob).unwrap(),
        }
        if lost.is_some() {
            daemon.http().get(&export).refuses(500, "fsck");
        }
        daemon.cli("image import image.tar.gz").ok().says(&print);
        assert_eq!(std::fs::read(&blob).unwrap(), whole, "{lost:?}");
        assert_eq!(daemon.http().get(&export).expect(200).body, whole);
    }
    daemon.cli("image import image.tar.gz").ok().says("present");
    daemon.cli("image list -f csv -c lv").ok().prints("lost,yes\n");
    // lxc is told that the image is there, and heals it all the same.
    std::fs::write(&blob, &whole[..100]).unwrap();
    daemon.lxc("image import image.tar.gz").fails();
    assert_eq!(std::fs::read(&blob).unwrap(), whole);
}

#[test]
fn fsck_of_nothing_is_an_error() {
    let mut daemon = Daemon::start();
    let typo = daemon.work().join("typo");
    let line = format!("--directory {} fsck", lxd_tests::client::shown(&typo));
    daemon.imaged(&line).fails().complains("no store");
    assert!(!typo.exists(), "the directory was made");
    std::fs::create_dir(&typo).unwrap();
    daemon.imaged(&line).fails().complains("no store");
    assert!(daemon.stop().success());
    daemon.imaged("fsck").exits(0);
}

#[test]
fn a_relative_directory_is_the_daemons_too() {
    let (daemon, print) = with_image("relative");
    for (key, value) in [("LXD_DIR", "../d"), ("LXD_SOCKET", "../d/unix.socket")] {
        let list = daemon.cli("image list -f csv -c F").env(key, value);
        list.ok().prints(&format!("{print}\n"));
    }
}

#[test]
fn query_gives_bytes_as_they_are_and_failures_as_failures() {
    let (daemon, print) = with_image("bytes");
    let mut export = daemon.cli(&format!("query /1.0/images/{print}/export")).spawn();
    let mut bytes = Vec::new();
    export.take_stdout().read_to_end(&mut bytes).unwrap();
    assert_eq!(fingerprint(&[&bytes]), print);
    assert_eq!(export.wait().code, 0);
    daemon.cli("query /1.0/events").fails().silent().complains("400");
}

#[test]
fn completion_completes_below_the_first_word() {
    let daemon = Daemon::start();
    let script = daemon.cli("completion bash").ok().stdout;
    daemon.file("completion", script.as_bytes());
    for (words, expected) in [
        ("lxd-cli image e", "edit export"),
        ("lxd-cli image list --fo", "--format --force-local"),
        ("lxd-cli completion b", "bash"),
    ] {
        let line = format!(
            "source ./completion; f=$(complete -p lxd-cli | sed \"s/.* -F \\([^ ]*\\) .*/\\1/\"); \
             COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             $f lxd-cli \"${{COMP_WORDS[-1]}}\" \"\"; echo ${{COMPREPLY[@]}}"
        );
        let bash = system("bash", &format!("-c '{line}'")).dir(&daemon.work());
        let mut found: Vec<String> =
            bash.ok().stdout.split_whitespace().map(str::to_owned).collect();
        found.sort();
        let mut expected: Vec<_> = expected.split(' ').collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "{words}");
    }
}

#[test]
fn names_that_no_url_can_hold_are_refused() {
    let (daemon, _) = with_image("dots");
    for name in [".", ".."] {
        daemon.cli(&format!("image alias create {name} dots")).exits(2).complains("alias");
        daemon.cli(&format!("image alias delete {name}")).exits(2).complains("alias");
        daemon.cli(&format!("image import image.tar.gz --alias {name}")).exits(2);
    }
    daemon.cli("image alias rename dots local:").exits(2).complains("remote");
}

#[test]
fn a_moved_alias_keeps_its_description() {
    let (daemon, _) = with_image("first");
    daemon.file("other.tar.gz", &Recipe::new("other").unified(Compression::Gz));
    daemon.cli("image import other.tar.gz --alias other").ok();
    daemon.cli("image alias create a first --description hi").ok();
    daemon.cli("image alias create a other --reuse").ok();
    let row = |description: &str| daemon.cli("image alias list a -f csv").ok().says(description);
    row(",hi\n");
    daemon.cli("image alias create a first --reuse --description new").ok();
    row(",new\n");
    // Words are alternatives, as with lxc.
    let both = daemon.cli("image alias list first other -f csv").ok();
    daemon.lxc("image alias list first other --format csv").ok().prints(&both.stdout);
    assert_eq!(both.stdout.lines().count(), 2, "{both}");
}

#[test]
fn two_files_that_make_no_image() {
    let daemon = Daemon::start();
    let (one, two) = (Recipe::new("one"), Recipe::new("two"));
    daemon.file("one.meta", &one.metadata(Compression::Gz));
    daemon.file("two.meta", &two.metadata(Compression::Gz));
    daemon.file("one.root", &one.root(Compression::Gz));
    daemon.file("one.tar", &one.unified(Compression::Gz));
    daemon.file("two.tar", &two.unified(Compression::Gz));
    daemon.cli("image import one.meta two.meta").fails().complains("no root file system");
    daemon.cli("image import one.tar two.tar").fails().complains("one at a time");
    daemon.cli("image import one.meta two.tar").fails().complains("whole image");
    daemon.cli("image import one.root").fails().complains("METADATA ROOTFS");
    daemon.cli("image import one.meta").fails().complains("METADATA ROOTFS");
    daemon.cli("image import one.meta one.root").ok();
}

#[test]
fn a_directory_may_hold_more_than_the_image() {
    let daemon = Daemon::start();
    let dir = daemon.work().join("tree");
    Recipe::new("tree").directory(&dir);
    let clean = daemon.cli("image import tree --format json").ok().json();
    std::fs::create_dir(dir.join(".git")).unwrap();
    std::fs::write(dir.join("Makefile"), "all:").unwrap();
    let again = daemon.cli("image import tree --format json").ok().complains("Makefile").json();
    assert_eq!(again["fingerprint"], clean["fingerprint"]);
    assert_eq!(again["status"], "present");
}

#[test]
fn unknown_keys_list_nothing_and_succeed() {
    let (daemon, print) = with_image("keys");
    daemon.cli("image list publik=true -f csv").ok().silent().complains("public");
    daemon.cli("image list variant=x -f csv").ok().silent();
    daemon.cli("image list os=* -f csv -c F").ok().prints(&format!("{print}\n"));
    daemon.cli("image list x=y: -f csv").ok().silent();
}

#[test]
fn another_project_matters_to_projects_only() {
    let (daemon, _) = with_image("project");
    for client in [Client::Lxc, Client::Cli] {
        daemon.client(client, "--project foo config show").ok().says("config");
        daemon.client(client, "--project foo image list").fails().complains("roject");
    }
}

#[test]
fn formats_that_a_command_does_not_have() {
    let (daemon, _) = with_image("formats");
    for line in [
        "image info formats -f csv",
        "image info formats -f table",
        "image list -f json,header",
        "image list -f csv,",
        "image list -f text",
    ] {
        daemon.cli(line).exits(2).silent().complains("Invalid format");
    }
    let done = daemon.cli("image info -f json").exits(2).silent();
    let told: Value = serde_json::from_str(&done.stderr).unwrap();
    assert!(told["error"].as_str().unwrap().contains("IMAGE"), "{done}");
    daemon.cli("image info zzz -f yaml").fails().complains("error: ");
    let listed = daemon.cli("remote list -f json").ok().json();
    let theirs = daemon.lxc("remote list --format json").ok().json();
    for key in ["Addr", "Protocol", "Public", "Static", "Global"] {
        assert_eq!(listed["local"][key], theirs["local"][key], "{key}");
    }
}

#[test]
fn what_strangers_write_does_not_command_the_terminal() {
    let daemon = Daemon::start();
    let recipe = Recipe::new("hostile").property("evil", "\u{1b}[2J");
    // The recipe quotes as Rust does; YAML wants its own way.
    let yaml = recipe.yaml().replace("\\u{1b}", "\\x1b");
    let mut tar = lxd_tests::fixtures::Tar::new();
    tar.file("metadata.yaml", yaml.as_bytes());
    tar.dir("rootfs/");
    daemon.file("hostile.tar", &tar.end());
    daemon.cli("image import hostile.tar --alias hostile").ok();
    let (code, screen) = Session::start(daemon.cli("image info hostile")).end();
    assert_eq!(code, 0, "{screen}");
    assert!(!screen.contains('\u{1b}') && screen.contains("[2J"), "{screen:?}");
    // A program gets the value itself.
    daemon.cli("image get-property hostile evil").ok().prints("\u{1b}[2J\n");
}

#[test]
fn the_configuration_is_not_emptied_by_accident() {
    let daemon = Daemon::start();
    daemon.cli("config set images.remote_cache_expiry=20").ok();
    daemon.cli("config edit").stdin("{}").fails().complains("config:");
    daemon.cli("config set user.a=- user.b=-").stdin("5").exits(2).complains("only one");
    daemon.cli("config get images.remote_cache_expiry").ok().prints("20\n");
    daemon.cli("image set x type=y").exits(2).complains("properties.type");
}

#[test]
fn a_monitor_ends_without_complaint() {
    let daemon = Daemon::start();
    let mut monitor = daemon.cli("monitor --type lifecycle -f json").spawn();
    let mut lines = std::io::BufReader::new(monitor.take_stdout()).lines();
    // Whatever happens before it listens is not seen: try until something is.
    let (send, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(lines.next().is_some()));
    let heard = wait::within(wait::PATIENCE, || {
        daemon.cli("config set user.x=1").ok();
        seen.try_recv().is_ok()
    });
    assert!(heard, "no event came");
    monitor.signal(Signal::INT);
    let done = monitor.wait();
    assert_eq!((done.code, done.stderr.as_str()), (130, ""), "{done}");
}

#[test]
fn an_unchanged_draft_is_not_kept() {
    let (daemon, _) = with_image("draft");
    let tmp = subdir(&daemon.work(), "tmp");
    let edit = daemon.cli("image edit draft").env("EDITOR", "/nonexistent/ed").env("TMPDIR", &tmp);
    let (code, screen) = Session::start(edit).end();
    assert!(code == 1 && !screen.contains("is kept"), "{code}: {screen}");
    assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 0);
}
