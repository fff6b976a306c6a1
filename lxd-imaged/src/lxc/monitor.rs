//! Which instances run: liblxc's monitor of each, found again after a restart of the daemon.
//!
//! The monitor is the parent of an instance's first process, lives as long as the instance and
//! cleans up after it. It survives a reboot from inside, when the first process becomes another.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags};

use super::sys;

/// The note about a monitor, in an instance's directory: boot, process id, start time.
const NOTE: &str = "monitor";
/// Where liblxc writes the monitor's process id, before the instance runs.
pub(super) const PID_FILE: &str = "monitor.pid";
/// How liblxc's monitors call themselves, before the directory and the name of their instance.
const TITLE: &str = "[lxc monitor]";

/// A process that can be signalled and waited for without mistaking it for a later one.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    handle: OwnedFd,
}

impl Process {
    /// The process of this id, if there is one.
    fn open(pid: i32) -> Option<Self> {
        let handle = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        Some(Self { pid, handle })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    /// Sends a signal; a process that is gone has got it.
    pub(super) fn signal(&self, signal: i32) -> io::Result<()> {
        match sys::send_signal(self.handle.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }

    /// Waits until the process is gone.
    pub(super) async fn gone(self) -> io::Result<()> {
        sys::asynchronous(self.handle)?.readable().await.map(drop)
    }
}

/// The monitor of the instance in `directory`, if it runs.
pub(super) fn find(directory: &Path) -> Option<Process> {
    noted(directory).or_else(|| adopt(directory))
}

/// The monitor that was not noted, because the daemon ended in the middle of a start.
fn adopt(directory: &Path) -> Option<Process> {
    let pid_file = directory.join(PID_FILE);
    let pid: i32 = std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok()?;
    let process = Process::open(pid)?;
    // What the process calls itself, now that it cannot become another one.
    let title = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let title = String::from_utf8_lossy(&title);
    let (above, name) = (directory.parent()?.to_str()?, directory.file_name()?.to_str()?);
    let ours = title.trim_end_matches('\0') == format!("{TITLE} {above} {name}");
    if !ours {
        return None;
    }
    if let Err(error) = note(directory, &pid_file) {
        tracing::warn!(%error, instance = name, "a running instance could not be noted");
    }
    Some(process)
}

/// The monitor as it was noted.
fn noted(directory: &Path) -> Option<Process> {
    let note = std::fs::read_to_string(directory.join(NOTE)).ok()?;
    let mut parts = note.split_whitespace();
    let (boot, pid, start) = (parts.next()?, parts.next()?, parts.next()?);
    if boot != boot_id()? {
        return None;
    }
    let process = Process::open(pid.parse().ok()?)?;
    // Opened first: if it started when the note says, it is the one, whatever happens later.
    let noted: u64 = start.parse().ok()?;
    (status(process.pid)?.start == noted).then_some(process)
}

/// Notes which process liblxc said was the monitor.
pub(super) fn note(directory: &Path, pid_file: &Path) -> io::Result<Process> {
    let text = std::fs::read_to_string(pid_file)?;
    let pid = text.trim().parse().map_err(io::Error::other)?;
    let process = Process::open(pid).ok_or(io::ErrorKind::NotFound)?;
    let (Some(status), Some(boot)) = (status(pid), boot_id()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    // Not flushed: after a crash of the machine nothing runs.
    let aside = directory.join(".monitor.partial");
    std::fs::write(&aside, format!("{boot} {pid} {}\n", status.start))?;
    std::fs::rename(&aside, directory.join(NOTE))?;
    Ok(process)
}

/// Forgets what was noted.
pub(super) fn forget(directory: &Path) {
    let _ = std::fs::remove_file(directory.join(NOTE));
}

/// The first process of an instance once it is the instance's own program.
///
/// Before that, liblxc still works in it, and its namespaces may show the host.
pub(super) fn ready(monitor: &Process) -> Option<Process> {
    let init = init(monitor)?;
    let program = |pid: i32| {
        let status = std::fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some((status.dev(), status.ino()))
    };
    (program(init.pid)? != program(monitor.pid)?).then_some(init)
}

/// The first process of an instance: the monitor's child that is number 1 where it lives.
pub(super) fn init(monitor: &Process) -> Option<Process> {
    let pid = monitor.pid;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().filter_map(|child| child.parse().ok()).find_map(|child| {
        let process = Process::open(child)?;
        (is_first(child) && status(child)?.parent == pid).then_some(process)
    })
}

fn is_first(pid: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let mut numbers = numbers.unwrap_or_default().split_whitespace();
    numbers.next_back() == Some("1") && numbers.next().is_some()
}

/// What the kernel says of a process that has not ended; one that waits to be noticed has.
struct Status {
    parent: i32,
    /// Clock ticks since the machine started.
    start: u64,
}

fn status(pid: i32) -> Option<Status> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may contain anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    Some(Status { parent, start: fields.nth(17)?.parse().ok()? })
}

fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Process, boot_id, find, forget, note, status};

    #[test]
    fn a_process_is_found_again_but_not_another_one_of_its_number() {
        let temp = tempfile::tempdir().unwrap();
        let pid_file = temp.path().join("pid");
        let me = std::process::id();
        std::fs::write(&pid_file, format!("{me}\n")).unwrap();
        assert!(find(temp.path()).is_none());
        note(temp.path(), &pid_file).unwrap();
        assert_eq!(find(temp.path()).map(|process| process.pid().unsigned_abs()), Some(me));

        let start = status(me.cast_signed()).unwrap().start;
        let boot = boot_id().unwrap();
        let note = temp.path().join("monitor");
        std::fs::write(&note, format!("{boot} {me} {}\n", start + 1)).unwrap();
        assert!(find(temp.path()).is_none());
        std::fs::write(&note, format!("another-boot {me} {start}\n")).unwrap();
        assert!(find(temp.path()).is_none());
        forget(temp.path());
        assert!(!note.exists());
        assert!(Process::open(i32::MAX).is_none());
    }
}
