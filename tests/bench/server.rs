//! The two programs compared: a home for each, its start, its end.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lxd_tests::tool;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::Connection;
use crate::process::Counters;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// `lxd-imaged` of this workspace.
    Ours,
    /// Debian's `lxd` 5.0.2.
    Lxd,
}

/// A running daemon on a directory of its own; both go when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    side: Side,
    home: TempDir,
    process: Option<Child>,
    /// A file of authorities that the daemon trusts instead of the system's.
    trusts: Option<PathBuf>,
}

impl Server {
    /// A home without a process yet.
    pub(crate) fn prepare(side: Side, parent: &Path) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("b-").tempdir_in(parent);
        let home =
            home.with_context(|| format!("cannot make a directory in {}", parent.display()))?;
        // Root inside of a container is somebody else outside, and must get to its files.
        std::fs::set_permissions(home.path(), Permissions::from_mode(0o711))?;
        std::fs::create_dir(home.path().join("d"))?;
        std::fs::create_dir(home.path().join("conf"))?;
        Ok(Self { side, home, process: None, trusts: None })
    }

    /// A daemon that answers, a real LXD with its storage pool.
    pub(crate) fn start(side: Side, parent: &Path) -> Result<Self> {
        Self::prepare(side, parent)?.ready()
    }

    /// As [`Server::start`]; the daemon trusts the authorities in a file.
    pub(crate) fn start_trusting(side: Side, parent: &Path, trusts: &Path) -> Result<Self> {
        let mut server = Self::prepare(side, parent)?;
        server.trusts = Some(trusts.to_owned());
        server.ready()
    }

    /// Opens a port of this machine for HTTPS; which.
    pub(crate) fn open_port(&self) -> Result<u16> {
        let port = lxd_tests::wire::free_port();
        let body = format!(r#"{{"config":{{"core.https_address":"127.0.0.1:{port}"}}}}"#);
        self.connect()?.call("PATCH", "/1.0", &body)?;
        Ok(port)
    }

    fn ready(mut self) -> Result<Self> {
        let server = &mut self;
        server.launch()?;
        if server.side == Side::Lxd {
            server.lxc(&["storage", "create", "default", "dir"])?;
            server.lxc(&[
                "profile",
                "device",
                "add",
                "default",
                "root",
                "disk",
                "path=/",
                "pool=default",
            ])?;
        }
        Ok(self)
    }

    /// Starts the process; how long it took to the answer to `GET /1.0`, in seconds.
    pub(crate) fn launch(&mut self) -> Result<f64> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let program = match self.side {
            Side::Ours => ours()?,
            Side::Lxd => lxd()?,
        };
        let mut command = Command::new(&program);
        if self.side == Side::Lxd {
            command.args(["--group", "root"]);
        }
        command.env("LXD_DIR", self.dir()).env_remove("LXD_SOCKET");
        if let Some(trusts) = &self.trusts {
            command.env("SSL_CERT_FILE", trusts);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A group of its own: an interrupted run must not leave children of LXD confused.
        command.process_group(0);
        let start = Instant::now();
        let child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let child = self.process.insert(child);
        let socket = self.home.path().join("d/unix.socket");
        while !answers(&socket) {
            if let Some(status) = child.try_wait()? {
                bail!("{} ended at its start ({status}): {}", program.display(), self.log_end());
            }
            ensure!(start.elapsed() < Duration::from_mins(2), "no answer on {}", socket.display());
            std::thread::sleep(Duration::from_micros(300));
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn lxc(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new("lxc");
        command
            .args(words)
            .env("LXD_DIR", self.dir())
            .env("LXD_CONF", self.home.path().join("conf"));
        let output = command.output().context("cannot run lxc")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "lxc {}: {}", words.join(" "), said.trim());
        Ok(())
    }

    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// `LXD_DIR`.
    pub(crate) fn dir(&self) -> PathBuf {
        self.home.path().join("d")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("unix.socket")
    }

    pub(crate) fn connect(&self) -> Result<Connection> {
        Connection::open(&self.socket())
    }

    /// Connects without room for large answers: for many at once.
    pub(crate) fn connect_small(&self) -> Result<Connection> {
        Connection::with_room(&self.socket(), 16 << 10)
    }

    /// What the kernel counts for the daemon.
    pub(crate) fn counters(&self) -> Result<Counters> {
        Ok(Counters::of(self.process.as_ref().context("the daemon does not run")?.id()))
    }

    /// Writes everything to the disk, so that one side does not pay for the other.
    pub(crate) fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(File::open(self.dir())?).context("syncfs")
    }

    /// Ends the daemon with the signal that is meant for it, and waits.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.process.take() else { return Ok(()) };
        // On SIGPWR a real LXD also unmounts what it mounted in its directory.
        let signal = if self.side == Side::Lxd { Signal::POWER } else { Signal::TERM };
        kill_process(Pid::from_child(&child), signal)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("{:?} did not end by itself: {}", self.side, self.log_end());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }

    fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("; ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            crate::progress(&format!("{error:#}"));
        }
    }
}

fn answers(socket: &Path) -> bool {
    let Ok(mut connection) = Connection::with_room(socket, 16 << 10) else { return false };
    matches!(connection.get("/1.0"), Ok((200, _)))
}

fn ours() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let built = here.with_file_name("lxd-imaged");
    ensure!(built.is_file(), "{} is missing: cargo build --release", built.display());
    Ok(built)
}

fn lxd() -> Result<PathBuf> {
    let found =
        ["/usr/bin/lxd", "/usr/sbin/lxd"].map(PathBuf::from).into_iter().find(|p| p.is_file());
    ensure!(tool::is_root(), "a real LXD needs root");
    found.context("no lxd: apt-get install --no-install-recommends lxd lxd-client")
}
