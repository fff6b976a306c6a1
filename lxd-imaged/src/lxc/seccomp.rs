//! The system calls that no container may make, for liblxc and for commands.

use std::io;

use super::sys;

/// The calls, by name, that fail with `ENOSYS` in every container, as in LXD.
///
/// The user namespace forbids them already; this keeps them from being asked for at all.
const DENIED: &[(&str, libc::c_long)] = &[
    ("kexec_load", libc::SYS_kexec_load),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("init_module", libc::SYS_init_module),
    ("finit_module", libc::SYS_finit_module),
    ("delete_module", libc::SYS_delete_module),
];

/// liblxc's policy file for an instance's first process.
pub(super) fn policy() -> String {
    let mut policy = "2\ndenylist\nreject_force_umount\n[all]\n".to_owned();
    for (name, _) in DENIED {
        policy.push_str(&format!("{name} errno {}\n", libc::ENOSYS));
    }
    policy
}

/// `AUDIT_ARCH_*` of this build.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
/// `AUDIT_ARCH_*` of this build.
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Denies the calls to this process and all that come from it.
///
/// Only calls of the machine's own kind are looked at; for others the user namespace stands alone.
pub(super) fn deny() -> io::Result<()> {
    sys::filter_system_calls(&program())
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn program() -> Vec<libc::sock_filter> {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let filter = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let count = u8::try_from(DENIED.len()).unwrap_or(u8::MAX);
    // Where the structure of a call holds its architecture and its number.
    let mut program = vec![filter(LOAD, 0, 0, 4), filter(JUMP_EQUAL, 0, count + 1, ARCHITECTURE)];
    program.push(filter(LOAD, 0, 0, 0));
    for (left, (_, number)) in (0..count).rev().zip(DENIED) {
        let number = u32::try_from(*number).unwrap_or(u32::MAX);
        program.push(filter(JUMP_EQUAL, left + 1, 0, number));
    }
    program.push(filter(RETURN, 0, 0, ALLOW));
    program.push(filter(RETURN, 0, 0, ERRNO | libc::ENOSYS.unsigned_abs()));
    program
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn program() -> Vec<libc::sock_filter> {
    vec![libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }]
}

#[cfg(test)]
mod tests {
    use super::{DENIED, policy};

    #[test]
    fn the_policy_names_every_call() {
        let policy = policy();
        assert!(policy.starts_with("2\ndenylist\n"));
        assert!(DENIED.iter().all(|(name, _)| policy.contains(&format!("\n{name} errno 38\n"))));
    }
}
