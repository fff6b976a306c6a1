//! Start, clean stop, kill, freeze, and the news that an instance has ended.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{Gid, Uid};
use tokio::process::Command;

use super::cgroup::Hierarchies;
use super::spec::{Files, Name, Spec};
use super::{Error, Runtime, console, failed, helper, monitor, seccomp};

/// How long liblxc may take for a start; it waits for the first process, not for what that does.
const START: Duration = Duration::from_mins(1);
/// How long a killed instance may take to be gone.
const KILL: Duration = Duration::from_secs(15);

/// `SIGRTMIN+3`, by which systemd halts.
const HALT_SYSTEMD: i32 = 37;

impl Runtime {
    /// Starts an instance whose root file system is mounted; returns when its first process runs.
    ///
    /// # Errors
    ///
    /// An error of liblxc carries what its log says.
    pub async fn start(&self, spec: &Spec) -> Result<(), Error> {
        let program = self.inner.start.as_ref().map_err(|reason| Error::Missing(reason.clone()))?;
        let directory = self.directory(&spec.name);
        if monitor::find(&directory).is_some() {
            return Err(Error::Running(spec.name.clone()));
        }
        self.prepare(spec, &directory)?;
        let [log, pid_file] = ["lxc.log", monitor::PID_FILE].map(|name| directory.join(name));
        let mut launch = Command::new(&self.inner.helper);
        launch.arg(helper::LAUNCH).arg(program);
        launch.arg("--name").arg(spec.name.as_str());
        launch.arg("--lxcpath").arg(self.instances());
        launch.arg("--rcfile").arg(directory.join("config"));
        launch.arg("--logfile").arg(&log).args(["--logpriority", "WARN", "--quiet", "--daemon"]);
        launch.arg("--pidfile").arg(&pid_file);
        launch
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        launch.current_dir("/").kill_on_drop(true);
        launch.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let outcome = tokio::time::timeout(START, launch.status()).await;
        let reason = match outcome {
            Ok(Ok(status)) if status.success() => {
                match monitor::note(&directory, &pid_file) {
                    Ok(_) => return Ok(()),
                    // Its first process has ended at once, and the monitor with it.
                    Err(_) => reason(&log, "its first process ended at once".to_owned()),
                }
            }
            Ok(Ok(status)) => reason(&log, ended(status)),
            Ok(Err(error)) => return Err(failed("start", program)(error)),
            Err(_) => {
                if let Ok(monitor) = monitor::note(&directory, &pid_file) {
                    let _ = monitor.signal(libc::SIGKILL);
                }
                reason(&log, format!("liblxc did not answer within {} s", START.as_secs()))
            }
        };
        Err(Error::Start { name: spec.name.clone(), reason })
    }

    /// Writes what liblxc reads, and removes what an earlier start has left.
    fn prepare(&self, spec: &Spec, directory: &Path) -> Result<(), Error> {
        let [config, policy, log, pid_file] =
            ["config", "seccomp", "lxc.log", monitor::PID_FILE].map(|name| directory.join(name));
        monitor::forget(directory);
        for old in [&log, &pid_file] {
            let _ = std::fs::remove_file(old);
        }
        let files = Files { console: &console::file(directory), seccomp: &policy };
        let confine = Path::new("/sys/kernel/security/apparmor/profiles").exists();
        let text = spec.config(self.inner.ids, &Hierarchies::mounted(), confine, &files)?;
        std::fs::write(&config, text).map_err(failed("write", &config))?;
        std::fs::write(&policy, seccomp::policy()).map_err(failed("write", &policy))?;
        // The instance's root passes through, and nobody else: below are its set-user-id programs.
        let (user, group) = (Uid::from_raw(self.inner.ids.base), Gid::ROOT);
        rustix::fs::chown(directory, Some(user), Some(group))
            .map_err(failed("set the owner of", directory))?;
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o100))
            .map_err(failed("set the mode of", directory))
    }

    /// Asks the instance to halt and waits until it is gone; without a timeout, as long as it takes.
    ///
    /// # Errors
    ///
    /// [`Error::StillRunning`] after the timeout; the instance has been asked, and may still obey.
    pub async fn stop(&self, name: &Name, timeout: Option<Duration>) -> Result<(), Error> {
        let monitor = self.monitor(name)?;
        if let Some(init) = monitor::init(&monitor) {
            init.signal(halt_signal(init.pid())).map_err(|source| Error::System {
                what: format!("ask instance {name} to halt"),
                source,
            })?;
            thaw(init.pid());
        }
        let gone = self.ended(name, monitor);
        match timeout {
            None => gone.await,
            Some(timeout) => match tokio::time::timeout(timeout, gone).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Error::StillRunning { name: name.clone(), timeout }),
            },
        }
    }

    /// Ends the instance at once and waits until it is gone.
    pub async fn kill(&self, name: &Name) -> Result<(), Error> {
        let monitor = self.monitor(name)?;
        // Without a first process it is on its way down, and the monitor cleans up.
        if let Some(init) = monitor::init(&monitor) {
            init.signal(libc::SIGKILL).map_err(|source| Error::System {
                what: format!("kill instance {name}"),
                source,
            })?;
            thaw(init.pid());
        }
        if let Ok(outcome) = tokio::time::timeout(KILL, self.ended(name, monitor)).await {
            return outcome;
        }
        // The first process dies with its monitor.
        if let Ok(monitor) = self.monitor(name) {
            let _ = monitor.signal(libc::SIGKILL);
        }
        Err(Error::StillRunning { name: name.clone(), timeout: KILL })
    }

    /// Waits until the instance has ended; at once if it does not run.
    ///
    /// Its root file system is unused then, and its network gone. A reboot from inside is no end.
    pub async fn watch(&self, name: &Name) -> Result<(), Error> {
        match self.monitor(name) {
            Ok(monitor) => self.ended(name, monitor).await,
            Err(_) => Ok(()),
        }
    }

    async fn ended(&self, name: &Name, monitor: monitor::Process) -> Result<(), Error> {
        let pid = monitor.pid();
        let init = monitor::init(&monitor);
        let wait = async {
            monitor.gone().await?;
            match init {
                Some(init) => init.gone().await,
                None => Ok(()),
            }
        };
        wait.await.map_err(|source| Error::System {
            what: format!("wait for process {pid}, the monitor of instance {name}"),
            source,
        })
    }

    /// Stops every process of the instance where it is.
    pub fn freeze(&self, name: &Name) -> Result<(), Error> {
        self.set_frozen(name, true)
    }

    /// Lets every process of the instance continue.
    pub fn unfreeze(&self, name: &Name) -> Result<(), Error> {
        self.set_frozen(name, false)
    }

    fn set_frozen(&self, name: &Name, frozen: bool) -> Result<(), Error> {
        let init = self.init(name)?;
        Hierarchies::mounted().freeze(init.pid(), frozen).map_err(|source| Error::System {
            what: format!("{} instance {name}", if frozen { "freeze" } else { "unfreeze" }),
            source,
        })
    }
}

/// Lets a frozen instance act on its signal.
fn thaw(init: i32) {
    let hierarchies = Hierarchies::mounted();
    if hierarchies.is_frozen(init)
        && let Err(error) = hierarchies.freeze(init, false)
    {
        tracing::warn!(%error, "cannot unfreeze an instance that is to stop");
    }
}

/// The signal by which this first process halts: systemd tells it by blocking its own.
fn halt_signal(init: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
    let blocked = status
        .lines()
        .find_map(|line| line.strip_prefix("SigBlk:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    if blocked & (1 << (HALT_SYSTEMD - 1)) == 0 { libc::SIGPWR } else { HALT_SYSTEMD }
}

fn ended(status: ExitStatus) -> String {
    format!("lxc-start ended with {status} and said nothing")
}

/// What the log of liblxc says went wrong first: what follows are consequences.
fn reason(log: &Path, otherwise: String) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    first_error(&String::from_utf8_lossy(&text)).unwrap_or(otherwise)
}

fn first_error(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains(" ERROR "))?;
    // `lxc-start NAME TIME ERROR  part - file.c:function:line - what happened`
    let text = line.splitn(3, " - ").nth(2).unwrap_or(line);
    Some(text.chars().filter(|c| !c.is_control()).take(500).collect())
}

#[cfg(test)]
mod tests {
    use super::first_error;

    #[test]
    fn the_first_error_is_the_reason() {
        let log = "\
lxc-start c1 20261124121500.000 WARN     conf - ../src/lxc/conf.c:a:1 - never mind
lxc-start c1 20261124121500.000 ERROR    network - ../src/lxc/network.c:b:2 - No such bridge - \"x\"
lxc-start c1 20261124121500.000 ERROR    start - ../src/lxc/start.c:c:3 - Failed to spawn
";
        assert_eq!(first_error(log).as_deref(), Some("No such bridge - \"x\""));
        assert_eq!(first_error("lxc-start c1 1 WARN x - y - z\n"), None);
    }
}
