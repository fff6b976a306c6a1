//! Applying templates as images mean them, and as attackers do: outside of the instance stand
//! canaries, which must be neither changed nor read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{self as nodes, CWD, FileType, Mode, RenameFlags};

use super::*;

const BASE: u32 = 1_000_000;
const SECRET: &str = "root:$6$not-for-images";

/// An image's templates and an instance's root, with canaries beside them.
struct Instance {
    _dir: tempfile::TempDir,
    outside: PathBuf,
    templates: PathBuf,
    rootfs: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Instance {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        let templates = dir.path().join("image/templates");
        let rootfs = dir.path().join("image/rootfs");
        for directory in [&outside, &templates, &rootfs.join("etc"), &outside.join("etc")] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(outside.join("shadow"), SECRET).unwrap();
        fs::write(outside.join("etc/hostname"), SECRET).unwrap();
        fs::write(dir.path().join("canary"), SECRET).unwrap();
        fs::write(dir.path().join("image/canary"), SECRET).unwrap();
        fs::write(templates.join("name.tpl"), "{{ container.name }}\n").unwrap();
        let mut instance =
            Self { _dir: dir, outside, templates, rootfs, before: BTreeMap::default() };
        instance.before = instance.surroundings();
        instance
    }

    /// All that is not the instance's: every name with its type, owner, mode, size, time, content.
    fn surroundings(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut open = vec![self.outside.parent().unwrap().to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                if path == self.rootfs || path == self.templates {
                    continue;
                }
                let metadata = path.symlink_metadata().unwrap();
                let content = if metadata.is_file() { fs::read(&path).unwrap() } else { vec![] };
                let ids = (metadata.uid(), metadata.gid(), metadata.mode(), metadata.nlink());
                let time = (metadata.mtime(), metadata.mtime_nsec());
                found.insert(path.clone(), format!("{ids:?} {time:?} {content:?}"));
                if metadata.is_dir() {
                    open.push(path);
                }
            }
        }
        found
    }

    /// Nothing outside is changed, and nothing of it is inside.
    fn check(&self, case: &str) {
        assert_eq!(self.surroundings(), self.before, "{case}");
        let mut open = vec![self.rootfs.clone()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let metadata = path.symlink_metadata().unwrap();
                if metadata.is_dir() {
                    open.push(path);
                } else if metadata.is_file() {
                    let content = fs::read(&path).unwrap();
                    let leaked = content.windows(SECRET.len()).any(|w| w == SECRET.as_bytes());
                    assert!(!leaked, "{case}: {} has the secret", path.display());
                }
            }
        }
    }

    fn template(&self, name: &str, text: &str) {
        fs::write(self.templates.join(name), text).unwrap();
    }

    fn apply(&self, metadata: &Metadata, trigger: Trigger) -> Result<usize, Error> {
        apply(metadata, &self.templates, &self.rootfs, trigger, &context(), BASE)
    }

    fn one(&self, target: &str, template: &str) -> Result<usize, Error> {
        self.apply(&metadata(&[(target, template, &["create"], false)]), Trigger::Create)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.rootfs.join(path)).unwrap()
    }
}

fn context() -> Context {
    let instance = BTreeMap::from([("name".to_owned(), "c1".to_owned())]);
    Context { instance, ..Context::default() }
}

/// Metadata with templates as (target, source, when, "create only"), without the checks of an import.
fn metadata(templates: &[(&str, &str, &[&str], bool)]) -> Metadata {
    let mut metadata = Metadata::parse(b"architecture: amd64\ncreation_date: 1\n").unwrap();
    for (target, source, when, create_only) in templates {
        let template = Template {
            when: when.iter().map(|word| (*word).to_owned()).collect(),
            create_only: *create_only,
            template: (*source).to_owned(),
            properties: BTreeMap::from([("p".to_owned(), "property".to_owned())]),
        };
        metadata.templates.insert((*target).to_owned(), template);
    }
    metadata
}

fn ids_and_mode(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

#[test]
fn files_are_made_on_their_occasions() {
    let instance = Instance::new();
    instance.template("all", "{{ trigger }} {{ path }} {{ properties.p }} {{ container.name }}\n");
    let metadata = metadata(&[
        ("/create", "all", &["create"], false),
        ("/copy", "all", &["copy"], false),
        ("/start", "all", &["start"], false),
        ("rename", "all", &["rename"], false),
        ("/both", "all", &["create", "copy"], false),
        ("/never", "all", &[], false),
        ("/odd", "all", &["", "Create", " create", "create,copy", "boot", "1"], false),
        ("/odd-too", "all", &["boot", "create", "create"], false),
    ]);
    for (trigger, made) in [
        (Trigger::Create, &["create", "both", "odd-too"][..]),
        (Trigger::Copy, &["copy", "both"]),
        (Trigger::Start, &["start"]),
        (Trigger::Rename, &["rename"]),
    ] {
        assert_eq!(instance.apply(&metadata, trigger).unwrap(), made.len(), "{trigger}");
        for name in ["create", "copy", "start", "rename", "both", "never", "odd", "odd-too"] {
            let path = instance.rootfs.join(name);
            assert_eq!(path.exists(), made.contains(&name), "{trigger} {name}");
            if path.exists() {
                let slash = if name == "rename" { "" } else { "/" };
                let text = format!("{trigger} {slash}{name} property c1\n");
                assert_eq!(instance.read(name), text);
                fs::remove_file(path).unwrap();
            }
        }
    }
    instance.check("occasions");
}

#[test]
fn a_new_file_and_its_directories_are_the_root_users() {
    let instance = Instance::new();
    assert_eq!(instance.one("/var/lib/cloud/seed/nocloud-net/meta-data", "name.tpl").unwrap(), 1);
    let seed = instance.rootfs.join("var/lib/cloud/seed");
    assert_eq!(ids_and_mode(&seed.join("nocloud-net/meta-data")), (BASE, BASE, 0o644));
    for directory in [&seed.join("nocloud-net"), &seed, &instance.rootfs.join("var")] {
        assert_eq!(ids_and_mode(directory), (BASE, BASE, 0o755), "{}", directory.display());
    }
    // A directory that was there stays as it was.
    assert_ne!(ids_and_mode(&instance.rootfs.join("etc")).0, BASE);
}

#[test]
fn a_file_that_is_there_is_emptied_or_left_alone() {
    let instance = Instance::new();
    let path = instance.rootfs.join("etc/hostname");
    fs::write(&path, "a long name that was there before\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(BASE + 7), Some(BASE + 8)).unwrap();
    let only = metadata(&[("/etc/hostname", "name.tpl", &["start"], true)]);
    assert_eq!(instance.apply(&only, Trigger::Start).unwrap(), 0);
    assert_eq!(instance.read("etc/hostname"), "a long name that was there before\n");
    let always = metadata(&[("/etc/hostname", "name.tpl", &["start"], false)]);
    assert_eq!(instance.apply(&always, Trigger::Start).unwrap(), 1);
    assert_eq!(instance.read("etc/hostname"), "c1\n");
    assert_eq!(ids_and_mode(&path), (BASE + 7, BASE + 8, 0o600));
    // Without the file, create_only makes it; a link counts as being there, even one to nothing.
    fs::remove_file(&path).unwrap();
    assert_eq!(instance.apply(&only, Trigger::Start).unwrap(), 1);
    assert_eq!(instance.read("etc/hostname"), "c1\n");
    fs::remove_file(&path).unwrap();
    symlink("nothing", &path).unwrap();
    assert_eq!(instance.apply(&only, Trigger::Start).unwrap(), 0);
    assert!(!instance.rootfs.join("etc/nothing").exists());
}

#[test]
fn a_template_that_fails_leaves_its_file() {
    let instance = Instance::new();
    fs::write(instance.rootfs.join("etc/hostname"), "before\n").unwrap();
    instance.template("bad", "x\n{{ nothing | }}");
    instance.template("include", "{% include \"/etc/shadow\" %}");
    instance.template("loop", &"{% for a in \"0123456789\" %}".repeat(12));
    for (name, expected) in [
        ("bad", "line 2, column 14"),
        ("include", "`include` is refused"),
        ("loop", "expected `{% empty %}`"),
    ] {
        let error = instance.one("/etc/hostname", name).unwrap_err();
        assert!(matches!(error, Error::Render { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(instance.read("etc/hostname"), "before\n");
    }
    instance.check("failing templates");
}

/// CVE-2026-23954, CVE-2026-48752: a template that is something else than a file of the image.
#[test]
fn no_template_is_read_from_elsewhere() {
    let instance = Instance::new();
    let secret = instance.outside.join("shadow");
    let link = |target: &Path, name: &str| symlink(target, instance.templates.join(name)).unwrap();
    link(&secret, "absolute");
    link(Path::new("../../outside/shadow"), "relative");
    link(Path::new("/etc/shadow"), "shadow");
    link(Path::new("/"), "slash");
    link(&instance.outside, "directory");
    link(Path::new(".."), "up");
    link(Path::new("absolute"), "chain");
    link(Path::new("self"), "self");
    link(Path::new("/proc/self/environ"), "magic");
    let fifo = instance.templates.join("fifo");
    nodes::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let zero = instance.templates.join("zero");
    nodes::mknodat(CWD, &zero, FileType::CharacterDevice, Mode::RUSR, nodes::makedev(1, 5))
        .unwrap();
    fs::create_dir(instance.templates.join("dir")).unwrap();
    fs::write(instance.templates.join("large"), "x".repeat(template::MAX_SOURCE + 1)).unwrap();
    fs::write(instance.templates.join("latin-1"), b"caf\xe9").unwrap();
    let outside = secret.to_str().unwrap();
    for name in [
        "absolute",
        "relative",
        "shadow",
        "slash/etc/shadow",
        "directory/shadow",
        "up/canary",
        "chain",
        "self",
        "magic",
        "fifo",
        "zero",
        "dir",
        "large",
        "latin-1",
        "missing",
        "",
        "../canary",
        "../../canary",
        "/etc/shadow",
        "dir/../../canary",
        outside,
        ".",
        "..",
        "a\0b",
        "name.tpl/",
        "name.tpl/x",
    ] {
        let error = instance.one("/etc/hostname", name).unwrap_err();
        assert!(matches!(error, Error::Source { .. } | Error::Read { .. }), "{name}: {error:?}");
        assert!(!instance.rootfs.join("etc/hostname").exists(), "{name}");
        instance.check(name);
    }
    // A link that stays among the templates is fine.
    link(Path::new("name.tpl"), "inside");
    assert_eq!(instance.one("/etc/hostname", "inside").unwrap(), 1);
    assert_eq!(instance.read("etc/hostname"), "c1\n");
}

#[test]
fn directories_that_are_links_are_refused() {
    for (directory, target) in [
        ("templates", "../outside"),
        ("templates", "rootfs"),
        ("rootfs", "../outside"),
        ("rootfs", "/"),
    ] {
        let instance = Instance::new();
        let path = instance.templates.with_file_name(directory);
        fs::rename(&path, path.with_file_name("moved")).unwrap();
        symlink(target, &path).unwrap();
        let before = fs::read_to_string(instance.outside.join("etc/hostname")).unwrap();
        let error = instance.one("/etc/hostname", "shadow").unwrap_err();
        assert!(
            matches!(&error, Error::NoDirectory { path: refused } if *refused == path),
            "{error:?}"
        );
        assert_eq!(fs::read_to_string(instance.outside.join("etc/hostname")).unwrap(), before);
        assert_eq!(fs::read_dir(instance.outside.join("etc")).unwrap().count(), 1);
    }
    // Without a template for the occasion, nothing is looked at.
    let none = metadata(&[("/etc/hostname", "name.tpl", &["start"], false)]);
    let nowhere = Path::new("/nonexistent");
    assert_eq!(apply(&none, nowhere, nowhere, Trigger::Create, &context(), BASE).unwrap(), 0);
}

/// CVE-2026-23954: a target that is no file of the instance.
#[test]
fn no_file_is_written_elsewhere() {
    let instance = Instance::new();
    let outside = instance.outside.to_str().unwrap();
    for target in [
        "../canary",
        "/../canary",
        "/../../canary",
        "../../outside/shadow",
        "/etc/../../canary",
        "/etc/..",
        "..",
        ".",
        "/",
        "",
        "//",
        "/etc/",
        "/etc/x\0y",
    ] {
        let error = instance.one(target, "name.tpl").unwrap_err();
        assert!(matches!(error, Error::Target { .. }), "{target}: {error:?}");
        instance.check(target);
    }
    // An absolute path is one of the instance.
    assert_eq!(instance.one(&format!("{outside}/shadow"), "name.tpl").unwrap(), 1);
    assert_eq!(instance.read(&format!("{}/shadow", &outside[1..])), "c1\n");
    instance.check("absolute");
}

#[test]
fn links_of_the_instance_lead_nowhere_else() {
    let instance = Instance::new();
    let outside = instance.outside.to_str().unwrap().to_owned();
    let link = |target: &str, name: &str| symlink(target, instance.rootfs.join(name)).unwrap();
    link(&format!("{outside}/shadow"), "etc/absolute");
    link("../../../outside/shadow", "etc/relative");
    link("/", "slash");
    link("../../..", "up");
    link(&outside, "directory");
    link("loop", "loop");
    link("/proc/self/root/etc/hostname", "etc/magic");
    link("/etc/hostname", "etc/inside");
    link("/run/name", "etc/later");
    fs::create_dir(instance.rootfs.join("run")).unwrap();
    // What they name does not exist inside, and is not made by following a link.
    for target in [
        "/etc/absolute",
        "/etc/relative",
        "/directory/x",
        "/directory/shadow",
        "/loop",
        "/loop/x",
        "/etc/magic",
    ] {
        let result = instance.one(target, "name.tpl");
        assert!(matches!(result, Err(Error::Make { .. })), "{target}: {result:?}");
        instance.check(target);
    }
    // These end at the instance's own root, as they would for its processes.
    for (target, path) in [
        ("/slash/etc/one", "etc/one"),
        ("/up/etc/two", "etc/two"),
        ("/up/canary", "canary"),
        ("/slash/slash/up/etc/three/four", "etc/three/four"),
        ("/etc/inside", "etc/hostname"),
        ("/etc/later", "run/name"),
    ] {
        assert_eq!(instance.one(target, "name.tpl").unwrap(), 1, "{target}");
        assert_eq!(instance.read(path), "c1\n", "{target}");
        assert_eq!(ids_and_mode(&instance.rootfs.join(path)), (BASE, BASE, 0o644), "{target}");
        instance.check(target);
    }
}

#[test]
fn what_is_no_file_is_not_written_to() {
    let instance = Instance::new();
    let at = |name: &str| instance.rootfs.join("etc").join(name);
    let write = Mode::RUSR | Mode::WUSR;
    nodes::mknodat(CWD, at("fifo"), FileType::Fifo, write, 0).unwrap();
    nodes::mknodat(CWD, at("null"), FileType::CharacterDevice, write, nodes::makedev(1, 3))
        .unwrap();
    nodes::mknodat(CWD, at("disk"), FileType::BlockDevice, write, nodes::makedev(240, 250))
        .unwrap();
    let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("file"), "file").unwrap();
    symlink("null", at("to-null")).unwrap();
    for name in ["fifo", "null", "disk", "socket", "dir", "to-null", "file/x", "null/x"] {
        let result = instance.one(&format!("/etc/{name}"), "name.tpl");
        assert!(matches!(result, Err(Error::Make { .. })), "{name}: {result:?}");
    }
    drop(socket);
    assert_eq!(instance.read("etc/file"), "file");
    instance.check("special files");
}

#[test]
fn an_occasion_has_limits() {
    let instance = Instance::new();
    let names: Vec<String> = (0..=MAX_FILES).map(|index| format!("/f/{index}")).collect();
    let of = |count: usize, template: &'static str| {
        let all = names[..count].iter();
        metadata(
            &all.map(|name| (name.as_str(), template, &["create"][..], false)).collect::<Vec<_>>(),
        )
    };
    assert_eq!(instance.apply(&of(MAX_FILES, "name.tpl"), Trigger::Create).unwrap(), MAX_FILES);
    let error = instance.apply(&of(MAX_FILES + 1, "name.tpl"), Trigger::Create).unwrap_err();
    assert!(matches!(error, Error::Limit(_)), "{error:?}");
    instance.template("large", &"x".repeat(1_000_000));
    let error = instance.apply(&of(20, "large"), Trigger::Create).unwrap_err();
    assert!(matches!(error, Error::Limit(_)), "{error:?}");
    let bytes: u64 = fs::read_dir(instance.rootfs.join("f"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= u64::try_from(MAX_BYTES).unwrap() + 10_000, "{bytes}");
}

/// The root changes while templates are applied, as a process of the instance could make it.
#[test]
fn a_race_leads_nowhere_either() {
    let instance = Instance::new();
    let (place, link) = (instance.rootfs.join("d"), instance.rootfs.join("link"));
    fs::create_dir(&place).unwrap();
    symlink(&instance.outside, &link).unwrap();
    let done = AtomicBool::new(false);
    let metadata = metadata(&[("/d/etc/hostname", "name.tpl", &["start"], false)]);
    let mut made = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                nodes::renameat_with(CWD, &place, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                thread::yield_now();
            }
        });
        for _ in 0..2000 {
            made += instance.apply(&metadata, Trigger::Start).unwrap_or(0);
        }
        done.store(true, Ordering::Relaxed);
    });
    instance.check("race");
    assert!(made > 0, "never was the directory in its place");
}

#[test]
fn occasions_have_names() {
    for trigger in Trigger::ALL {
        assert_eq!(trigger.as_str().parse::<Trigger>().unwrap(), trigger);
    }
    let error = "boot".parse::<Trigger>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown occasion \"boot\"; known are create, copy, start and rename"
    );
}
