//! The daemon's own program in the roles that need a process with one thread.
//!
//! The daemon starts itself again: to hold a user namespace, to start a container outside of the
//! daemon's session, and to enter a running container. Nothing here runs inside the daemon.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::fs::Mode;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::{attach, sys};

/// What a container may keep open before it asks for more, as on any Linux.
const OPEN_FILES: u64 = 1024;

/// The roles, as the first argument.
pub(super) const USER_NAMESPACE: &str = "lxc-user-namespace";
pub(super) const LAUNCH: &str = "lxc-launch";
pub(super) const ATTACH: &str = "lxc-attach";

/// Plays the role that the arguments ask for; none if this is to be the daemon.
///
/// `main` calls this before anything else, above all before it starts a thread.
pub fn dispatch() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next()?;
    let role = role.to_str().filter(|role| [USER_NAMESPACE, LAUNCH, ATTACH].contains(role))?;
    let outcome = sys::keep_descriptors().and_then(|()| match role {
        USER_NAMESPACE => hold_user_namespace(),
        LAUNCH => launch(arguments),
        _ => attach::run(),
    });
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "Error: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Makes a user namespace, says so, and keeps it until its standard input ends.
fn hold_user_namespace() -> io::Result<()> {
    sys::new_user_namespace()?;
    io::stdout().write_all(b"\n")?;
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Executes the rest of the arguments in a session of its own, with what a boot would give.
fn launch(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> io::Result<()> {
    let program = arguments.next().ok_or(io::ErrorKind::InvalidInput)?;
    ordinary_surroundings();
    rustix::process::setsid()?;
    Err(Command::new(program).args(arguments).exec())
}

/// Undoes what the daemon set for itself, or was given: its file mask, its limit of open files,
/// and signals that are ignored.
pub(super) fn ordinary_surroundings() {
    sys::ordinary_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(limit.maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES)));
    // Lowering cannot fail; if it did, the process would only have more than it expects.
    let _ = setrlimit(Resource::Nofile, limit);
}
