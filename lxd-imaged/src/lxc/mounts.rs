//! Root file systems made of mounts: id-mapped trees and overlays on them.
//!
//! Mounts outlive the daemon; every function here can be called again after a restart. None of the
//! mounts lets a device node work: an image could carry one for the host's disk.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, CWD, Gid, StatxFlags, Uid};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::ids::Range;
use super::{Error, failed, helper, sys};

/// `STATX_ATTR_MOUNT_ROOT`.
const MOUNT_ROOT: u64 = 0x2000;
/// The most that the kernel takes as options of a mount, its final zero included.
const LONGEST_OPTIONS: usize = 4096;

/// The layers of an overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layers {
    /// What an instance runs on: its own changes over the tree of its image.
    Writable {
        /// The read-only tree, with owners as the host sees them.
        lower: PathBuf,
        /// Where changes go.
        upper: PathBuf,
        /// An empty directory beside `upper`, for the kernel.
        work: PathBuf,
    },
    /// What is published: several trees, the topmost first; at least two.
    ReadOnly(Vec<PathBuf>),
}

/// Makes a user namespace with the map of instances; it stays as long as the descriptor.
pub(super) fn user_namespace(program: &Path, ids: Range) -> io::Result<OwnedFd> {
    let mut holder = Command::new(program)
        .arg(helper::USER_NAMESPACE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let outcome = (|| {
        let mut ready = [0];
        holder.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?.read_exact(&mut ready)?;
        let process = PathBuf::from(format!("/proc/{}", holder.id()));
        let map = format!("0 {} {}\n", ids.base, ids.size);
        std::fs::write(process.join("uid_map"), &map)?;
        std::fs::write(process.join("gid_map"), &map)?;
        std::fs::File::open(process.join("ns/user"))
    })();
    drop(holder.stdin.take());
    holder.wait()?;
    outcome.map(OwnedFd::from)
}

/// Shows `tree` at `at`, read-only, with ids moved as the user namespace says.
pub(super) fn mount_idmapped(tree: &Path, at: &Path, namespace: &OwnedFd) -> Result<(), Error> {
    if is_mounted(at) {
        return Ok(());
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount =
        rustix::mount::open_tree(CWD, tree, flags).map_err(failed("take a view of", tree))?;
    sys::map_ids(mount.as_fd(), namespace.as_fd()).map_err(failed("map the ids of", tree))?;
    std::fs::create_dir_all(at).map_err(failed("make the mount point", at))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", CWD, at, flags).map_err(failed("mount a tree at", at))
}

/// Mounts an overlay at `target`, which is made if need be; nothing happens if it is a mount
/// already.
///
/// A writable overlay's `upper` and `work` are made as well, and belong to the root of instances
/// when they are new.
pub fn mount_overlay(layers: &Layers, target: &Path, ids: Range) -> Result<(), Error> {
    if is_mounted(target) {
        return Ok(());
    }
    if let Layers::Writable { lower, upper, work } = layers {
        make_layer(upper, lower, ids)?;
        std::fs::create_dir_all(work).map_err(failed("make", work))?;
    }
    std::fs::create_dir_all(target).map_err(failed("make the mount point", target))?;
    let options = options(layers).ok_or_else(|| Error::Invalid {
        what: "length of the paths of an overlay".to_owned(),
        value: target.display().to_string(),
    })?;
    let flags = match layers {
        Layers::Writable { .. } => MountFlags::NODEV,
        Layers::ReadOnly(_) => MountFlags::NODEV | MountFlags::NOSUID | MountFlags::RDONLY,
    };
    rustix::mount::mount("overlay", target, "overlay", flags, options.as_c_str())
        .map_err(failed("mount an overlay at", target))
}

/// The top of an instance's changes: it stands for the root directory, so it has its mode.
fn make_layer(upper: &Path, lower: &Path, ids: Range) -> Result<(), Error> {
    if upper.is_dir() {
        return Ok(());
    }
    let mode = std::fs::metadata(lower).map_err(failed("look at", lower))?.permissions();
    std::fs::create_dir_all(upper).map_err(failed("make", upper))?;
    std::fs::set_permissions(upper, mode).map_err(failed("set the mode of", upper))?;
    let (user, group) = (Uid::from_raw(ids.base), Gid::from_raw(ids.base));
    rustix::fs::chown(upper, Some(user), Some(group)).map_err(failed("set the owner of", upper))
}

/// The mount options; none if they are too long for the kernel.
fn options(layers: &Layers) -> Option<CString> {
    let mut text = b"index=off,metacopy=off,xino=off".to_vec();
    match layers {
        Layers::Writable { lower, upper, work } => {
            text.extend(b",redirect_dir=on");
            for (key, path) in [("lowerdir", lower), ("upperdir", upper), ("workdir", work)] {
                text.extend(format!(",{key}=").bytes());
                text.extend(escaped(path, key == "lowerdir"));
            }
        }
        Layers::ReadOnly(lowers) => {
            // The kernel follows redirects that the upper layers of instances contain.
            text.extend(b",redirect_dir=follow,lowerdir=");
            let lowers: Vec<_> = lowers.iter().map(|path| escaped(path, true)).collect();
            text.extend(lowers.join(b":".as_slice()));
        }
    }
    (text.len() < LONGEST_OPTIONS).then(|| CString::new(text).ok()).flatten()
}

/// A path as the overlay's options want it: commas end options, colons lower layers.
fn escaped(path: &Path, colons: bool) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b',') || (colons && *byte == b':') {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    text
}

/// Takes away every mount at `target`, also while something uses it; nothing if there is none.
pub fn unmount(target: &Path) -> Result<(), Error> {
    // Mounts can lie on one another; more than a few are not ours.
    for _ in 0..8 {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        match rustix::mount::unmount(target, flags) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed("unmount", target)(error)),
        }
    }
    Err(failed("unmount all of", target)(rustix::io::Errno::BUSY))
}

/// Whether something is mounted at `path`.
pub fn is_mounted(path: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(CWD, path, flags, StatxFlags::empty())
        .is_ok_and(|status| status.stx_attributes.bits() & MOUNT_ROOT != 0)
}

/// Tries in `scratch`, which is emptied and removed, whether instances can be overlays.
pub(super) fn probe(scratch: &Path, namespace: &OwnedFd, ids: Range) -> Result<(), Error> {
    let [tree, mapped, target] = ["tree", "mapped", "target"].map(|name| scratch.join(name));
    let clear = || {
        for mount in [&target, &mapped] {
            let _ = unmount(mount);
        }
        let _ = crate::rootfs::remove(scratch);
    };
    clear();
    let outcome = (|| {
        std::fs::create_dir_all(tree.join("etc")).map_err(failed("make", &tree))?;
        mount_idmapped(&tree, &mapped, namespace)?;
        let layers = Layers::Writable {
            lower: mapped.clone(),
            upper: scratch.join("upper"),
            work: scratch.join("work"),
        };
        mount_overlay(&layers, &target, ids)?;
        let file = target.join("etc/file");
        // Some file systems let an overlay be mounted and then nothing be written.
        std::fs::write(&file, "").map_err(failed("write to an overlay, at", &file))
    })();
    clear();
    outcome
}

#[cfg(test)]
mod tests {
    use super::{Layers, PathBuf, options};

    #[test]
    fn paths_cannot_add_options() {
        let layers = Layers::Writable {
            lower: PathBuf::from("/a:b,volatile"),
            upper: PathBuf::from("/c,d"),
            work: PathBuf::from("/e\\f"),
        };
        let options = options(&layers).unwrap().into_string().unwrap();
        assert!(
            options.ends_with(",lowerdir=/a\\:b\\,volatile,upperdir=/c\\,d,workdir=/e\\\\f"),
            "{options}"
        );
    }

    #[test]
    fn options_that_the_kernel_would_cut_off_are_refused() {
        let long = PathBuf::from("/x".repeat(2000));
        assert!(options(&Layers::ReadOnly(vec![long.clone()])).is_some());
        assert!(options(&Layers::ReadOnly(vec![long.clone(), long])).is_none());
    }
}
