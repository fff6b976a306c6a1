//! A state directory with instances of a tiny system, and nothing left of them afterwards.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::Duration;

use lxd_imaged::lxc::mounts::{self, Layers};
use lxd_imaged::lxc::{Command, Io, Limits, Name, Process, Runtime, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The programs that busybox stands for in the tests.
const PROGRAMS: &[&str] = &[
    "awk",
    "find",
    "grep",
    "ip",
    "readlink",
    "udhcpc",
    "cat",
    "chmod",
    "echo",
    "env",
    "false",
    "halt",
    "head",
    "hostname",
    "id",
    "init",
    "kill",
    "ls",
    "mkdir",
    "mknod",
    "mount",
    "mv",
    "ping",
    "pwd",
    "rm",
    "sh",
    "sha256sum",
    "sleep",
    "stat",
    "stty",
    "tail",
    "tee",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "wc",
];

/// How long anything here may take on a machine that is busy with other things.
pub(crate) const LONG: Duration = Duration::from_mins(1);

pub(crate) struct Machine {
    pub(crate) runtime: Runtime,
    temp: tempfile::TempDir,
}

impl Machine {
    /// A machine that can run instances; the tests of the runtime need one.
    pub(crate) fn new() -> Self {
        let temp = tempfile::Builder::new().prefix("lxd-imaged-runtime").tempdir().unwrap();
        std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let machine = Self { runtime: runtime(temp.path()), temp };
        assert_eq!(machine.runtime.missing(), None, "these tests need root and the package lxc");
        machine.make_tree();
        machine
    }

    pub(crate) fn root(&self) -> &Path {
        self.temp.path()
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.root().join("trees/busybox/rootfs")
    }

    pub(crate) fn mapped(&self) -> PathBuf {
        self.root().join("trees/busybox/mapped")
    }

    pub(crate) fn directory(&self, name: &Name) -> PathBuf {
        self.root().join("instances").join(name.as_str())
    }

    /// The root file system of an image, with ids as in the image.
    fn make_tree(&self) {
        let tree = self.tree();
        for directory in ["bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp"] {
            std::fs::create_dir_all(tree.join(directory)).unwrap();
        }
        std::fs::set_permissions(tree.join("tmp"), std::fs::Permissions::from_mode(0o1777))
            .unwrap();
        std::fs::copy(busybox(), tree.join("bin/busybox")).unwrap();
        for program in PROGRAMS {
            symlink("busybox", tree.join("bin").join(program)).unwrap();
        }
        symlink("../bin/busybox", tree.join("sbin/init")).unwrap();
        let inittab = "::sysinit:/bin/echo the console speaks\n::ctrlaltdel:/bin/true\n";
        std::fs::write(tree.join("etc/inittab"), inittab).unwrap();
    }

    /// Mounts the root file system of a new instance.
    pub(crate) fn prepare(&self, name: &str) -> Spec {
        let name = Name::new(name).unwrap();
        let directory = self.directory(&name);
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&directory).unwrap();
        self.runtime.mount_idmapped(&self.tree(), &self.mapped()).unwrap();
        let rootfs = directory.join("rootfs");
        let layers = Layers::Writable {
            lower: self.mapped(),
            upper: directory.join("upper"),
            work: directory.join("work"),
        };
        self.runtime.mount_overlay(&layers, &rootfs).unwrap();
        let (hostname, limits) = (name.to_string(), Limits::default());
        Spec { name, rootfs, hostname, environment: Vec::new(), limits, network: None }
    }

    /// An instance that runs.
    pub(crate) async fn started(&self, name: &str) -> Name {
        let spec = self.prepare(name);
        self.runtime.start(&spec).await.unwrap();
        spec.name
    }

    /// Executes a command line and feeds it; what it wrote and how it ended.
    pub(crate) async fn run(&self, name: &Name, command: Command, input: &[u8]) -> Outcome {
        let running = self.runtime.exec(name, command).await.unwrap();
        let Io::Pipes { mut stdin, mut stdout, mut stderr } = running.io else {
            panic!("asked for pipes")
        };
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let feed = async {
            // A command need not read what it is given.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let all = async {
            let ((), read, complained) =
                tokio::join!(feed, stdout.read_to_end(&mut out), stderr.read_to_end(&mut errors));
            read.unwrap();
            complained.unwrap();
            running.process.wait().await.unwrap()
        };
        let status = tokio::time::timeout(LONG, all).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Outcome { status, stdout: text(out), stderr: text(errors) }
    }

    /// The output of a shell script that must succeed.
    pub(crate) async fn shell(&self, name: &Name, script: &str) -> String {
        let outcome = self.run(name, shell(script), b"").await;
        assert_eq!(outcome.status, 0, "{script}: {}", outcome.stderr);
        outcome.stdout
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let instances = self.root().join("instances");
        for entry in instances.read_dir().into_iter().flatten().flatten() {
            let name = entry.file_name();
            // Ends what a failed test has left running.
            let _ = Program::new("lxc-stop")
                .args(["--kill", "--name"])
                .arg(&name)
                .arg("--lxcpath")
                .arg(&instances)
                .output();
            let _ = mounts::unmount(&entry.path().join("rootfs"));
        }
        let _ = mounts::unmount(&self.mapped());
    }
}

/// How a command ended and what it wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A runtime over a state directory, as a daemon that has just started sees it.
pub(crate) fn runtime(root: &Path) -> Runtime {
    Runtime::with_helper(root, Path::new(env!("CARGO_BIN_EXE_lxd-imaged")))
}

/// A command with pipes, run as root, with a usual environment.
pub(crate) fn command(argv: &[&str]) -> Command {
    Command {
        argv: argv.iter().map(ToString::to_string).collect(),
        environment: vec![("PATH".to_owned(), "/bin:/sbin".to_owned())],
        uid: 0,
        gid: 0,
        directory: "/root".to_owned(),
        terminal: None,
    }
}

/// A shell script.
pub(crate) fn shell(script: &str) -> Command {
    command(&["sh", "-c", script])
}

/// How a process ends, within reason.
pub(crate) async fn end(process: &Process) -> i32 {
    tokio::time::timeout(LONG, process.wait()).await.unwrap().unwrap()
}

fn busybox() -> PathBuf {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = places.into_iter().find(|path| path.is_file());
    found.expect("these tests need the package busybox-static")
}
