//! Removing a directory that a stranger has filled: deeper than any path, and wider than memory.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

const OPEN: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes a directory with all that is in it; one that is not there is fine. No link is followed.
///
/// Two directories are open at a time, and the stack does not grow: a directory inside of another
/// one is first moved to the top.
///
/// # Errors
/// What the kernel says; the rest may be gone by then.
pub fn remove(path: &Path) -> io::Result<()> {
    let top = match fs::openat(CWD, path, OPEN, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        top => top?,
    };
    let mut moved = 0;
    while !is_empty(&top)? {
        sweep(&top, |name| {
            let inner = fs::openat(&top, name, OPEN, Mode::empty())?;
            while !is_empty(&inner)? {
                sweep(&inner, |name| hoist(inner.as_fd(), name, top.as_fd(), &mut moved))?;
            }
            fs::unlinkat(&top, name, AtFlags::REMOVEDIR)
        })?;
    }
    Ok(fs::rmdir(path)?)
}

/// Removes what is no full directory, and calls `full` with what is one.
fn sweep(
    dir: &OwnedFd,
    mut full: impl FnMut(&CStr) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => match fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => full(name)?,
                outcome => outcome?,
            },
            // What was moved away meanwhile is met again where it is now.
            Err(Errno::NOENT) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn is_empty(dir: &OwnedFd) -> rustix::io::Result<bool> {
    for entry in Dir::read_from(dir)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Moves a directory to the top, under a name that nothing there has.
fn hoist(
    from: BorrowedFd<'_>,
    name: &CStr,
    top: BorrowedFd<'_>,
    moved: &mut u64,
) -> rustix::io::Result<()> {
    loop {
        let free = format!(".removing-{moved}");
        *moved += 1;
        match fs::renameat_with(from, name, top, &free, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories in one another, each made from above the last.
    fn chain(top: &Path, levels: usize) {
        let mut here = fs::openat(CWD, top, OPEN, Mode::empty()).unwrap();
        for _ in 0..levels {
            fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            fs::openat(&here, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
            here = fs::openat(&here, "d", OPEN, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn no_depth_is_too_deep() {
        // In memory: some disks take milliseconds for each directory.
        let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = temp.path().join("x");
        std::fs::create_dir(&path).unwrap();
        chain(&path, 30_000);
        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
    }

    #[test]
    fn links_are_removed_and_what_they_lead_to_stays() {
        let temp = tempfile::tempdir().unwrap();
        let [path, kept] = ["x", "kept"].map(|name| temp.path().join(name));
        for dir in [path.join("a/b/c"), path.join(".removing-0/d"), kept.clone()] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(kept.join("file"), "x").unwrap();
        for link in ["a/b/link", "link"] {
            std::os::unix::fs::symlink(&kept, path.join(link)).unwrap();
        }
        for number in 0..3000 {
            std::fs::write(path.join(format!("a/b/{number}")), "x").unwrap();
        }
        remove(&path).unwrap();
        assert!(!path.exists() && kept.join("file").exists());
        std::os::unix::fs::symlink(&kept, &path).unwrap();
        assert!(remove(&path).is_err());
        assert!(kept.join("file").exists());
    }
}
