//! The system calls of the runtime that have no safe wrapper.
#![expect(unsafe_code, reason = "no safe wrapper of these system calls exists")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::thread::UnshareFlags;
use tokio::io::unix::AsyncFd;

const AT_EMPTY_PATH: libc::c_int = 0x1000;
const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// `struct mount_attr` of the kernel.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Makes a detached mount read-only and shows its owners through the map of a user namespace.
pub(super) fn map_ids(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = MountAttributes {
        set: MOUNT_ATTR_IDMAP | MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
        clear: 0,
        propagation: 0,
        user_namespace: user_namespace.as_raw_fd().unsigned_abs().into(),
    };
    // SAFETY: both descriptors are open, the path is empty and ends with a zero, and the structure
    // has the size that is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    outcome(result)
}

/// Sends any signal, real-time ones included, to the process of a pidfd.
pub(super) fn send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open, no information and no flags are given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    outcome(result)
}

/// Gives this process, which has one thread, a user namespace of its own.
pub(super) fn new_user_namespace() -> io::Result<()> {
    // SAFETY: no file descriptor table is unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(io::Error::from)
}

/// Runs `prepare` in the new process just before it executes the command.
///
/// The process that spawns must have one thread, so that `prepare` may do what it likes.
pub(super) fn before_exec(
    command: &mut Command,
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the helper that calls this has a single thread; no lock can be held by another one.
    unsafe { command.pre_exec(prepare) };
}

/// Applies a filter of system calls to this process and what it executes.
pub(super) fn filter_system_calls(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call, which only reads it.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    outcome(result)
}

/// Keeps every descriptor but the standard ones from what this process executes.
///
/// Whoever started the daemon may have left some open, which must not get into a container.
pub(super) fn keep_descriptors() -> io::Result<()> {
    const CLOSE_ON_EXEC: libc::c_uint = 4;
    // SAFETY: nothing is closed, only marked.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, CLOSE_ON_EXEC)
    };
    outcome(result)
}

/// Lets every signal reach what this process executes, and do what it does by itself.
///
/// Whoever started the daemon may ignore or hold back some, which containers would inherit.
pub(super) fn ordinary_signals() {
    // SAFETY: this process has one thread and no handlers; an empty set is initialised before use.
    // Numbers that are no signals, or cannot be changed, are refused without harm.
    unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// A descriptor as tokio waits for it.
pub(super) fn asynchronous(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same descriptor all its life, and `AsyncFd` gives no `&mut` away
    // that anybody here asks for.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}

fn outcome(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
