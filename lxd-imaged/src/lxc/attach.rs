//! The helper's part of a command in a container: enter its namespaces, execute, report the end.
//!
//! The helper cannot be traced or looked into from the container: it is not dumpable before it
//! enters, and nothing of it is left in the process once the command is executed.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, WaitId, WaitIdOptions};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use rustix::thread::{CapabilitySet, ThreadNameSpaceType};

use super::channel::{self, Invocation, Reply, Request};
use super::{cgroup, helper, seccomp, sys};

/// The device number of `/dev/ptmx`, in every Linux.
const PTMX: (u32, u32) = (5, 2);

/// A step that failed, and why.
struct Failure(&'static str, io::Error);

trait Step<T> {
    fn step(self, name: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, name: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure(name, error.into()))
    }
}

/// Serves one request, which comes through the socket that is standard input.
pub(super) fn run() -> io::Result<()> {
    let socket = rustix::stdio::stdin();
    let reply = match serve(socket) {
        Ok(status) => Reply::Exited(status),
        Err(Failure(step, error)) => {
            let error = error.raw_os_error().unwrap_or(libc::EIO);
            Reply::Failed { step: step.to_owned(), error }
        }
    };
    channel::send(socket, &reply, &[])
}

fn serve(socket: BorrowedFd<'_>) -> Result<i32, Failure> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step("set dumpable")?;
    let (request, descriptors) = channel::receive::<Request>(socket)
        .and_then(|message| message.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
        .step("read the request")?;
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or(io::ErrorKind::InvalidData);
    let invocation: Invocation =
        serde_json::from_reader(io::BufReader::new(File::from(next().step("read the request")?)))
            .map_err(io::Error::from)
            .step("read the command")?;
    let init = next().step("read the request")?;
    let pipes = match request.terminal {
        Some(_) => None,
        None => Some([next(), next(), next()]),
    };
    // What belongs to the host is opened while it is in sight.
    let groups = cgroup::doors(request.init).step("find the control groups")?;
    let capabilities = capabilities(request.init).step("find the capabilities")?;
    let profile = Profile::of(request.init).step("find the security profile")?;
    rustix::thread::move_into_thread_name_spaces(
        init.as_fd(),
        ThreadNameSpaceType::USER
            | ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::PROCESS_ID
            | ThreadNameSpaceType::NETWORK
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::CONTROL_GROUP,
    )
    .step("enter the container")?;
    become_user(0, 0).step("become root of the container")?;

    let mut command = command(&invocation);
    match (request.terminal, pipes) {
        (Some(size), _) => {
            let (master, slave) = terminal(size, invocation.uid).step("open a terminal")?;
            channel::send(socket, &Reply::Terminal, &[master.as_fd()]).step("hand the terminal")?;
            drop(master);
            let [input, output] = [slave.try_clone(), slave.try_clone()];
            command
                .stdin(input.step("open a terminal")?)
                .stdout(output.step("open a terminal")?)
                .stderr(slave);
        }
        (None, Some([input, output, errors])) => {
            command
                .stdin(Stdio::from(input.step("read the request")?))
                .stdout(Stdio::from(output.step("read the request")?))
                .stderr(Stdio::from(errors.step("read the request")?));
        }
        (None, None) => {}
    }
    let plan = Plan {
        groups,
        capabilities,
        profile,
        terminal: request.terminal.is_some(),
        uid: invocation.uid,
        gid: invocation.gid,
        directory: invocation.directory,
    };
    sys::before_exec(&mut command, move || plan.prepare());
    let child = command.spawn().step(EXECUTE)?;
    drop(command);
    let pid = Pid::from_child(&child);
    let process =
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).step("watch the command")?;
    channel::send(socket, &Reply::Started, &[process.as_fd()]).step("report the start")?;
    wait(&process).step("wait for the command")
}

/// The step whose failure says that the command itself is at fault.
pub(super) const EXECUTE: &str = "execute the command";

fn command(invocation: &Invocation) -> Command {
    let mut argv = invocation.argv.iter();
    let mut command = Command::new(argv.next().map_or("", String::as_str));
    command
        .args(argv)
        .env_clear()
        .envs(invocation.environment.iter().map(|(key, value)| (key, value)));
    command
}

/// What the new process does before it is the command.
struct Plan {
    groups: Vec<OwnedFd>,
    /// Those that a process of the container can ever have.
    capabilities: CapabilitySet,
    profile: Option<Profile>,
    terminal: bool,
    uid: u32,
    gid: u32,
    directory: String,
}

impl Plan {
    fn prepare(&self) -> io::Result<()> {
        helper::ordinary_surroundings();
        for group in &self.groups {
            // 0 is whoever writes it. A group that is gone by now limits nothing.
            let _ = rustix::io::write(group, b"0");
        }
        rustix::process::setsid()?;
        if self.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        if let Some(profile) = &self.profile {
            profile.apply()?;
        }
        drop_all_but(self.capabilities)?;
        seccomp::deny()?;
        become_user(self.uid, self.gid)?;
        // As in LXD, a directory that is not there is no reason not to run.
        if rustix::process::chdir(self.directory.as_str()).is_err() {
            rustix::process::chdir("/")?;
        }
        Ok(())
    }
}

/// The `AppArmor` profile of a container.
struct Profile {
    /// The host's view of processes: what the container calls `/proc` may be anything.
    processes: OwnedFd,
    label: Vec<u8>,
}

impl Profile {
    /// None where `AppArmor` confines nothing.
    fn of(init: i32) -> io::Result<Option<Self>> {
        // A kernel without AppArmor has no such file, or says so when it is read.
        let Ok(label) = std::fs::read(format!("/proc/{init}/attr/apparmor/current")) else {
            return Ok(None);
        };
        let end = label.iter().position(|byte| matches!(byte, b' ' | b'\n' | 0));
        let label = label[..end.unwrap_or(label.len())].to_vec();
        if label.is_empty() || label == b"unconfined" {
            return Ok(None);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let processes = rustix::fs::open("/proc", flags, Mode::empty())?;
        Ok(Some(Self { processes, label }))
    }

    /// Has the kernel apply the profile when this process executes its command.
    fn apply(&self) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&self.processes, "self/attr/apparmor/exec", flags, Mode::empty())?;
        let order = [b"exec ", self.label.as_slice()].concat();
        File::from(file).write_all(&order)
    }
}

/// The bounding set of a process.
fn capabilities(pid: i32) -> io::Result<CapabilitySet> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let bound = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bound = bound.and_then(|bound| u64::from_str_radix(bound.trim(), 16).ok());
    Ok(CapabilitySet::from_bits_retain(bound.ok_or(io::ErrorKind::InvalidData)?))
}

/// Limits the capabilities that this process can get by executing something.
fn drop_all_but(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The kernel knows no more than the ones before.
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Takes an identity of the container, without groups.
fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// A new terminal of the container's own, for a user of it.
fn terminal((columns, rows): (u16, u16), uid: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    // What lies at this path is up to the container: it must not make us wait or be something else.
    let flags =
        OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
    let kind = rustix::fs::fstat(&master)?;
    let device = (rustix::fs::major(kind.st_rdev), rustix::fs::minor(kind.st_rdev));
    if FileType::from_raw_mode(kind.st_mode) != FileType::CharacterDevice || device != PTMX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None)?;
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size)?;
    Ok((master, slave))
}

/// The status of the process, once it has ended: what it returned, or 128 and the signal.
fn wait(process: &OwnedFd) -> io::Result<i32> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                return Ok(status.exit_status().or(signal).unwrap_or(255));
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
