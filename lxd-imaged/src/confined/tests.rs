//! A tree full of traps: every way out is tried, and a canary outside of it must not change.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rustix::fs as nodes;

use super::*;

const OWNED: Owned = Owned { uid: 0, gid: 0, mode: 0o640 };

struct Trap {
    _dir: tempfile::TempDir,
    root: PathBuf,
    canary: PathBuf,
}

impl Trap {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let canary = dir.path().join("canary");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(&canary, "untouched").unwrap();
        fs::write(root.join("etc/passwd"), "inside").unwrap();
        symlink(&canary, root.join("absolute")).unwrap();
        symlink("../canary", root.join("relative")).unwrap();
        symlink("/", root.join("slash")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("/etc/passwd", root.join("etc/inside")).unwrap();
        symlink("/etc/new", root.join("etc/dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        Self { _dir: dir, root, canary }
    }

    fn unchanged(&self) {
        assert_eq!(fs::read_to_string(&self.canary).unwrap(), "untouched");
        let beside: Vec<_> = fs::read_dir(self.canary.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(beside.len(), 2, "something was made beside the root: {beside:?}");
    }
}

fn content(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn nothing_leads_out_of_a_strict_root() {
    let trap = Trap::new();
    let root = Root::open(&trap.root).unwrap();
    let canary = trap.canary.to_str().unwrap();
    for path in
        ["absolute", "relative", "slash/etc/passwd", "up/canary", "../canary", "up", "/x", canary]
    {
        let path = Path::new(path);
        assert!(root.open_file(path).is_err(), "{path:?}");
        assert!(root.append_file(path).is_err(), "{path:?}");
        assert!(root.create_file(path, OWNED).is_err(), "{path:?}");
    }
    for path in ["up/new", "slash/new", "../new", "/new", "etc/../../new"] {
        let path = Path::new(path);
        assert!(matches!(root.create_file(path, OWNED), Err(Error::Escapes { .. })), "{path:?}");
        assert!(matches!(root.create_dir_all(path, OWNED), Err(Error::Escapes { .. })));
        assert!(matches!(root.symlink("x".as_ref(), path, 0, 0), Err(Error::Escapes { .. })));
        assert!(matches!(root.remove(path), Err(Error::Escapes { .. })), "{path:?}");
        assert!(matches!(root.metadata(path), Err(Error::Escapes { .. })), "{path:?}");
        assert!(matches!(root.read_dir(path), Err(Error::Escapes { .. })), "{path:?}");
        assert!(matches!(root.read_link(path), Err(Error::Escapes { .. })), "{path:?}");
    }
    // Looking at a link is no escape.
    assert_eq!(root.read_link(Path::new("relative")).unwrap(), "../canary");
    assert!(root.metadata(Path::new("absolute")).unwrap().is_symlink());
    assert!(root.target_metadata(Path::new("absolute")).is_err());
    trap.unchanged();
}

#[test]
fn links_of_an_instance_end_at_its_root() {
    let trap = Trap::new();
    let root = Root::of_instance(&trap.root).unwrap();
    for path in
        ["etc/inside", "/etc/inside", "slash/etc/passwd", "../../etc/passwd", "up/etc/passwd"]
    {
        assert_eq!(content(root.open_file(Path::new(path)).unwrap()), "inside", "{path}");
    }
    for path in ["absolute", "relative", "up/canary", "loop"] {
        assert!(root.open_file(Path::new(path)).is_err(), "{path}");
    }
    // A link to nothing: what it names is made, inside.
    let mut file = root.create_file(Path::new("etc/dangling"), OWNED).unwrap();
    file.write_all(b"made").unwrap();
    assert_eq!(fs::read_to_string(trap.root.join("etc/new")).unwrap(), "made");
    let mut file = root.create_file(Path::new("relative"), OWNED).unwrap();
    file.write_all(b"made").unwrap();
    assert_eq!(fs::read_to_string(trap.root.join("canary")).unwrap(), "made");
    assert!(root.create_file(Path::new("absolute"), OWNED).is_err(), "no such directory inside");
    assert!(root.create_file(Path::new("loop"), OWNED).is_err());
    root.create_dir_all(Path::new("/up/../a/b"), OWNED).unwrap();
    assert!(trap.root.join("a/b").is_dir());
    trap.unchanged();
}

#[test]
fn only_regular_files_are_opened() {
    let trap = Trap::new();
    let root = Root::of_instance(&trap.root).unwrap();
    let nodes = nodes::open(&trap.root, OFlags::RDONLY, Mode::empty()).unwrap();
    let null = nodes::makedev(1, 3);
    nodes::mknodat(&nodes, "fifo", nodes::FileType::Fifo, Mode::RUSR, 0).unwrap();
    nodes::mknodat(&nodes, "null", nodes::FileType::CharacterDevice, Mode::RUSR, null).unwrap();
    symlink("null", trap.root.join("to-null")).unwrap();
    for name in ["fifo", "null", "to-null", "etc", "/"] {
        let path = Path::new(name);
        let opened = root.open_file(path);
        assert!(matches!(opened, Err(Error::NotAFile { .. })), "{name}: {opened:?}");
        assert!(root.append_file(path).is_err(), "{name}");
        assert!(root.create_file(path, OWNED).is_err(), "{name}");
    }
}

#[test]
fn files_get_owner_and_mode() {
    let trap = Trap::new();
    let root = Root::of_instance(&trap.root).unwrap();
    let owned = Owned { uid: 1_000_000, gid: 1_000_001, mode: 0o4755 };
    drop(root.create_file(Path::new("etc/passwd"), owned).unwrap());
    let metadata = fs::metadata(trap.root.join("etc/passwd")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.len()), (1_000_000, 1_000_001, 0));
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o4755);
    root.append_file(Path::new("etc/passwd")).unwrap().write_all(b"ab").unwrap();
    root.append_file(Path::new("etc/passwd")).unwrap().write_all(b"c").unwrap();
    assert_eq!(content(root.open_file(Path::new("etc/passwd")).unwrap()), "abc");
    root.symlink("a\nb".as_ref(), Path::new("etc/new"), 5, 6).unwrap();
    assert!(root.symlink("x".as_ref(), Path::new("etc/new"), 5, 6).is_err());
    assert_eq!(root.metadata(Path::new("etc/new")).unwrap().uid(), 5);
    assert_eq!(root.read_link(Path::new("etc/new")).unwrap(), "a\nb");
    assert!(root.read_link(Path::new("etc/passwd")).is_err());
    assert_eq!(root.read_dir(Path::new("etc")).unwrap(), ["dangling", "inside", "new", "passwd"]);
    assert!(root.remove(Path::new("etc")).is_err(), "it isn't empty");
    for name in root.read_dir(Path::new("etc")).unwrap() {
        root.remove(&Path::new("etc").join(name)).unwrap();
    }
    root.remove(Path::new("etc")).unwrap();
    assert!(!trap.root.join("etc").exists());
}
