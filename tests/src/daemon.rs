//! A daemon of a test's own: its directory, its process, its log.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::{Client, Invocation, subdir};
use crate::containers;
use crate::http::Http;
use crate::tool;
use crate::wait::{self, Turn};

/// Which program serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `lxd-imaged` of this workspace.
    Ours,
    /// Debian's `lxd` 5.0.2.
    Lxd,
}

/// A serving process with a temporary home: state, client configuration, work files and log.
///
/// Everything goes when it is dropped, except after a failed test: then the log's end is shown
/// and the directory kept.
#[derive(Debug)]
pub struct Daemon {
    kind: Kind,
    base: Option<TempDir>,
    process: Option<Child>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    user: Option<(u32, PathBuf)>,
    _turn: Turn,
}

impl Daemon {
    /// A running `lxd-imaged` on an empty directory.
    pub fn start() -> Self {
        let kind = match std::env::var("LXD_TEST_AGAINST").as_deref() {
            // Shows whether a test describes what a real LXD does too.
            Ok("lxd") => return crate::peer::start(),
            _ => Kind::Ours,
        };
        let mut daemon = Self::prepare(kind, Turn::shared());
        daemon.launch();
        daemon
    }

    /// A running `lxd-imaged` in a test that has the machine for itself.
    pub fn start_alone() -> Self {
        let mut daemon = Self::prepare(Kind::Ours, Turn::alone());
        daemon.launch();
        daemon
    }

    /// A home without a process yet.
    pub fn prepare(kind: Kind, turn: Turn) -> Self {
        let base =
            tempfile::Builder::new().prefix("lxdt-").tempdir().expect("a temporary directory");
        // Root of a container is a stranger here, and walks through to its root file system.
        let mode = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(base.path(), mode).unwrap();
        let daemon = Self {
            kind,
            base: Some(base),
            process: None,
            environment: Vec::new(),
            arguments: Vec::new(),
            user: None,
            _turn: turn,
        };
        for dir in ["d", "conf", "work", "home"] {
            subdir(daemon.base(), dir);
        }
        // With a configuration in place no client prints its first-run hints.
        std::fs::write(daemon.base().join("conf/config.yml"), "remotes: {}\n").unwrap();
        daemon
    }

    /// Sets a variable for the next launch.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    /// Adds an argument for the next launch.
    pub fn add_argument(&mut self, argument: &str) {
        self.arguments.push(argument.to_owned());
    }

    /// Has the next launch run `program`, a copy that anybody may run, as this user.
    pub fn run_as(&mut self, user: u32, program: &Path) {
        self.user = Some((user, program.to_owned()));
    }

    /// Starts the process and waits until it accepts connections.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "already running");
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(self.program());
        if let Some((user, program)) = &self.user {
            use std::os::unix::process::CommandExt;
            command = Command::new(program);
            command.uid(*user).gid(*user);
        }
        if self.kind == Kind::Lxd {
            command.args(["--group", "root"]);
        }
        command.args(&self.arguments);
        command.env("LXD_DIR", self.dir()).env_remove("LXD_SOCKET");
        command.envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child =
            command.spawn().unwrap_or_else(|e| panic!("{}: {e}", self.program().display()));
        let up = wait::within(wait::PATIENCE, || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the daemon ended at start ({status}):\n{}", self.log());
            }
            UnixStream::connect(self.socket()).is_ok()
        });
        self.process = Some(child);
        assert!(up, "the daemon does not listen:\n{}", self.log());
    }

    /// The program that serves.
    pub fn program(&self) -> PathBuf {
        match self.kind {
            Kind::Ours => tool::ours("lxd-imaged"),
            Kind::Lxd => tool::require("lxd"),
        }
    }

    fn base(&self) -> &Path {
        self.base.as_ref().expect("the home lives as long as the daemon").path()
    }

    /// `LXD_DIR`.
    pub fn dir(&self) -> PathBuf {
        self.base().join("d")
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("unix.socket")
    }

    /// Where this test keeps files; clients run here.
    pub fn work(&self) -> PathBuf {
        self.base().join("work")
    }

    /// Writes a file into [`Daemon::work`].
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.work().join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).unwrap();
        }
        std::fs::write(&path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    fn log_path(&self) -> PathBuf {
        self.base().join("log")
    }

    /// What the daemon logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A run of `client` against this daemon.
    pub fn client(&self, client: Client, line: &str) -> Invocation {
        let program = match client {
            Client::Lxc => tool::require("lxc"),
            Client::Cli => tool::ours("lxd-cli"),
        };
        self.point(Invocation::new(&program, line))
    }

    /// A run of `lxc`.
    pub fn lxc(&self, line: &str) -> Invocation {
        self.client(Client::Lxc, line)
    }

    /// A run of `lxd-cli`.
    pub fn cli(&self, line: &str) -> Invocation {
        self.client(Client::Cli, line)
    }

    /// A run of the daemon's own program with a subcommand.
    pub fn imaged(&self, line: &str) -> Invocation {
        self.point(Invocation::new(&tool::ours("lxd-imaged"), line))
    }

    /// Any program, in the work directory and with the environment that points here.
    pub fn point(&self, invocation: Invocation) -> Invocation {
        let base = self.base();
        invocation
            .dir(&self.work())
            .env("LXD_DIR", self.dir())
            .env("LXD_CONF", base.join("conf"))
            .env("HOME", base.join("home"))
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
    }

    /// The protocol by hand.
    pub fn http(&self) -> Http {
        Http::new(self.socket())
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child().id()).expect("a process id fits")
    }

    fn child(&self) -> &Child {
        self.process.as_ref().expect("the daemon is running")
    }

    /// SIGKILL: no chance to tidy up.
    pub fn kill(&mut self) {
        let mut child = self.process.take().expect("the daemon is running");
        child.kill().expect("kill a child of ours");
        child.wait().expect("wait for a child of ours");
    }

    /// SIGTERM (SIGPWR for a real LXD, which then unmounts what it mounted), and its end.
    pub fn stop(&mut self) -> ExitStatus {
        let signal = if self.kind == Kind::Lxd { Signal::POWER } else { Signal::TERM };
        kill_process(Pid::from_child(self.child()), signal).expect("signal a child of ours");
        self.wait_end()
    }

    /// Waits for a daemon that was told to end.
    pub fn wait_end(&mut self) -> ExitStatus {
        let mut child = self.process.take().expect("the daemon is running");
        let mut status = None;
        let ended = wait::within(wait::PATIENCE, || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the daemon does not end:\n{}", self.log());
        }
        status.expect("it ended")
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Resident memory in bytes, now.
    pub fn resident(&self) -> u64 {
        self.status_field("VmRSS:")
    }

    /// Highest resident memory in bytes since [`Daemon::forget_peak`].
    pub fn peak(&self) -> u64 {
        self.status_field("VmHWM:")
    }

    /// Starts a new measurement of [`Daemon::peak`].
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("reset VmHWM");
    }

    /// Processor time used so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: f64 =
            fields.split(' ').skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum();
        #[expect(clippy::cast_precision_loss, reason = "100 on every Linux")]
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        ticks / per_second
    }

    fn status_field(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .unwrap_or_else(|| panic!("no {field} in\n{status}"));
        kib.trim().parse::<u64>().unwrap() * 1024
    }

    /// Bytes of all files under `LXD_DIR/name`; 0 when there is no such directory.
    pub fn bytes_in(&self, name: &str) -> u64 {
        fn sum(dir: &Path) -> u64 {
            let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
            entries
                .flatten()
                .map(|entry| match entry.metadata() {
                    Ok(meta) if meta.is_dir() => sum(&entry.path()),
                    Ok(meta) => meta.len(),
                    Err(_) => 0,
                })
                .sum()
        }
        sum(&self.dir().join(name))
    }

    /// Names of the files in `LXD_DIR/name`, sorted.
    pub fn files_in(&self, name: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.dir().join(name)) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_running() {
            if self.kind == Kind::Lxd {
                self.stop();
            } else {
                self.kill();
            }
        }
        if self.kind == Kind::Ours && self.dir().join("instances").is_dir() {
            containers::clear(&self.dir());
            // Root file systems are no help to who reads the log.
            for part in ["instances", "snapshots", "trees"] {
                let _ = std::fs::remove_dir_all(self.dir().join(part));
            }
        }
        if std::thread::panicking()
            && let Some(base) = self.base.take()
        {
            let log = self.log_tail(base.path());
            let kept = base.keep();
            eprintln!("--- daemon log, kept with all files in {}:\n{log}", kept.display());
        }
    }
}

impl Daemon {
    fn log_tail(&self, base: &Path) -> String {
        let log = std::fs::read_to_string(base.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}
