//! The runtime of instances, over liblxc's command-line tools: start, stop, commands, state.
//!
//! Nothing of it runs inside the daemon or depends on it: monitors live in sessions of their own,
//! and what runs is found again after a restart.

mod attach;
mod cgroup;
mod channel;
mod console;
mod exec;
pub mod helper;
mod ids;
mod lifecycle;
mod limits;
mod monitor;
pub mod mounts;
mod netlink;
mod seccomp;
mod spec;
mod state;
mod sys;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

pub use exec::{Command, Io, Process, Running, Terminal};
pub use ids::Range;
pub use limits::{Limits, Quota};
pub use spec::{Bridge, HardwareAddress, Name, Nic, Spec};
pub use state::{Address, Counters, Family, Interface, Scope, State, Status};

/// What keeps an instance from doing what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that instances need is not there.
    #[error("instances cannot run here: {0}")]
    Missing(String),
    /// A value that cannot be used.
    #[error("invalid {what}: {value:?}")]
    Invalid {
        /// What it was to be.
        what: String,
        /// The value, shortened.
        value: String,
    },
    /// A limit that nothing on this machine would enforce.
    #[error(
        "limits of {controller} need the kernel's {controller} control group, which is not mounted here"
    )]
    NoController {
        /// The controller.
        controller: &'static str,
    },
    /// It does not run.
    #[error("instance {0} is not running")]
    NotRunning(Name),
    /// It runs already.
    #[error("instance {0} is already running")]
    Running(Name),
    /// It is frozen.
    #[error("instance {0} is frozen; unfreeze it first")]
    Frozen(Name),
    /// liblxc did not start it.
    #[error("cannot start instance {name}: {reason}")]
    Start {
        /// The instance.
        name: Name,
        /// What liblxc's log says.
        reason: String,
    },
    /// It did not end in time.
    #[error("instance {name} did not stop within {} s; stop it by force", timeout.as_secs_f32())]
    StillRunning {
        /// The instance.
        name: Name,
        /// How long was waited.
        timeout: Duration,
    },
    /// There is no such command in the instance.
    #[error("command not found: {0:?}")]
    CommandNotFound(String),
    /// What the command names cannot be executed.
    #[error("command cannot be executed: {0:?}")]
    CommandNotExecutable(String),
    /// A step of entering the instance failed.
    #[error("cannot run a command in instance {name}: {step}")]
    Exec {
        /// The instance.
        name: Name,
        /// What was being done.
        step: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The operating system refused something.
    #[error("cannot {what}")]
    System {
        /// What was tried, and on what.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// The status that a shell would give for a command that was not executed.
    pub fn exit_status(&self) -> Option<i32> {
        match self {
            Self::CommandNotFound(_) => Some(127),
            Self::CommandNotExecutable(_) => Some(126),
            _ => None,
        }
    }
}

/// Says what failed on which path.
fn failed<E: Into<io::Error>>(what: &str, path: &Path) -> impl FnOnce(E) -> Error {
    move |error| Error::System { what: format!("{what} {}", path.display()), source: error.into() }
}

/// What is on the machine, and where instances are.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// The program with [`helper::dispatch`] in its `main`.
    helper: PathBuf,
    /// `lxc-start`, or why there is none.
    start: Result<PathBuf, String>,
    ids: Range,
    /// With the map of instances, once it was needed.
    namespace: Mutex<Option<Arc<OwnedFd>>>,
    /// Why instances cannot be overlays, once that was tried.
    overlay: OnceLock<Option<String>>,
}

impl Runtime {
    /// Looks at what is on the machine; `root` is the state directory.
    pub fn detect(root: &Path) -> Self {
        // Stays right when the program's file was replaced by a newer one.
        Self::with_helper(root, Path::new("/proc/self/exe"))
    }

    /// The same, for a program whose `main` does not call [`helper::dispatch`].
    pub fn with_helper(root: &Path, helper: &Path) -> Self {
        let start = if rustix::process::geteuid().is_root() {
            program("lxc-start").ok_or_else(|| "install the package lxc".to_owned())
        } else {
            Err("the daemon must run as root".to_owned())
        };
        let inner = Inner {
            root: root.to_owned(),
            helper: helper.to_owned(),
            start,
            ids: Range::of_this_machine(),
            namespace: Mutex::new(None),
            overlay: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What must be done before instances can run; none if they can.
    pub fn missing(&self) -> Option<&str> {
        self.inner.start.as_ref().err().map(String::as_str)
    }

    /// The ids of the host that instances live in.
    pub fn ids(&self) -> Range {
        self.inner.ids
    }

    /// Why an instance cannot be an overlay on the tree of its image and must be a copy.
    ///
    /// The first call tries it, and blocks for some milliseconds.
    pub fn no_overlay(&self) -> Option<&str> {
        let probe = || {
            let scratch = self.inner.root.join(".overlay-probe");
            let outcome = self
                .namespace()
                .and_then(|namespace| mounts::probe(&scratch, &namespace, self.inner.ids));
            outcome.err().map(|error| match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            })
        };
        self.inner.overlay.get_or_init(probe).as_deref()
    }

    /// Shows `tree`, whose owners are as in its image, at `at` with the owners of instances.
    ///
    /// Read-only; nothing happens if `at` is a mount already. Blocks.
    pub fn mount_idmapped(&self, tree: &Path, at: &Path) -> Result<(), Error> {
        if mounts::is_mounted(at) {
            return Ok(());
        }
        mounts::mount_idmapped(tree, at, &*self.namespace()?)
    }

    /// Mounts an overlay, see [`mounts::mount_overlay`]. Blocks.
    pub fn mount_overlay(&self, layers: &mounts::Layers, target: &Path) -> Result<(), Error> {
        mounts::mount_overlay(layers, target, self.inner.ids)
    }

    fn namespace(&self) -> Result<Arc<OwnedFd>, Error> {
        if let Some(reason) = self.missing() {
            return Err(Error::Missing(reason.to_owned()));
        }
        let mut namespace = self.inner.namespace.lock();
        if let Some(namespace) = &*namespace {
            return Ok(Arc::clone(namespace));
        }
        let new = mounts::user_namespace(&self.inner.helper, self.inner.ids)
            .map_err(failed("make a user namespace with", &self.inner.helper))?;
        Ok(Arc::clone(namespace.insert(Arc::new(new))))
    }

    /// The directory that all instances have theirs in.
    fn instances(&self) -> PathBuf {
        self.inner.root.join("instances")
    }

    fn directory(&self, name: &Name) -> PathBuf {
        self.instances().join(name.as_str())
    }

    /// The monitor of an instance that runs.
    fn monitor(&self, name: &Name) -> Result<monitor::Process, Error> {
        monitor::find(&self.directory(name)).ok_or_else(|| Error::NotRunning(name.clone()))
    }

    /// The first process of an instance that runs; none while it boots once more.
    fn init(&self, name: &Name) -> Result<monitor::Process, Error> {
        monitor::ready(&self.monitor(name)?).ok_or_else(|| Error::NotRunning(name.clone()))
    }
}

/// Where a program of the system is; places that only root can write come last in no `PATH`.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(usual)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}
