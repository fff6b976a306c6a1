//! Paths below a directory that somebody else fills: nothing outside of it is read or written.
//!
//! Names in image files and in the root file system of an instance are chosen by strangers. Every
//! path is resolved by the kernel in one step (`openat2`), so that no link leads out, whatever
//! changes meanwhile. Only regular files are opened for their content: a device node or a pipe in
//! a stranger's tree would act on this machine, or never answer.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

/// The most names of one directory that are read.
const MAX_NAMES: usize = 1_000_000;

/// The most links that a new file's name may go through, as for the kernel.
const MAX_LINKS: usize = 40;

/// How often a path is resolved again when directories are moved meanwhile.
const ATTEMPTS: usize = 64;

/// Why something below a root can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path, or a link in it, leads out of the root.
    #[error("{} leads out of its root", path.display())]
    Escapes {
        /// The path, as it was given.
        path: PathBuf,
    },
    /// It is something else than a regular file: a directory, a device, a pipe, a socket.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path, as it was given.
        path: PathBuf,
    },
    /// What the kernel says.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as in "opening".
        action: &'static str,
        /// The path, as it was given.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// The nearest kind of I/O error.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Escapes { .. } => io::ErrorKind::PermissionDenied,
            Self::NotAFile { .. } => io::ErrorKind::InvalidInput,
            Self::Io { source, .. } => source.kind(),
        }
    }
}

type Result<T> = std::result::Result<T, Error>;

/// Who owns a new file, and what may be done with it. Ids are those of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Permissions, with the bits for set-uid, set-gid and sticky.
    pub mode: u32,
}

/// A directory that no path leads out of.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    resolve: ResolveFlags,
}

impl Root {
    /// Confines to a directory whose links must stay inside: `..` and links that lead out are
    /// [`Error::Escapes`], absolute paths and absolute links too.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn open(path: &Path) -> Result<Self> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        Self::with(path, resolve)
    }

    /// Confines to the root file system of an instance. Absolute paths, absolute links and `..`
    /// mean what they mean to a process whose root it is: they end at the root.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn of_instance(path: &Path) -> Result<Self> {
        Self::with(path, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    fn with(path: &Path, resolve: ResolveFlags) -> Result<Self> {
        let dir = fs::openat(CWD, path, OFlags::PATH | DIRECTORY, Mode::empty())
            .map_err(|errno| failed("opening", path, errno))?;
        Ok(Self { dir, resolve })
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::NotAFile`] for anything else than a regular file.
    pub fn open_file(&self, path: &Path) -> Result<File> {
        self.reopen(path, OFlags::RDONLY)
    }

    /// Opens a regular file that exists for appending.
    ///
    /// # Errors
    /// As [`Root::open_file`].
    pub fn append_file(&self, path: &Path) -> Result<File> {
        self.reopen(path, OFlags::WRONLY | OFlags::APPEND)
    }

    /// Makes a file, or empties the one that is there, and opens it for writing. Links are
    /// followed as far as the root reaches, also one to a file that doesn't exist yet.
    ///
    /// # Errors
    /// As [`Root::open_file`]; when the directory it belongs into doesn't exist.
    pub fn create_file(&self, path: &Path, owned: Owned) -> Result<File> {
        let mut place = path.to_owned();
        for _ in 0..MAX_LINKS {
            let (parent, name) = self.parent(&place, path)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | NEVER_FOLLOW;
            let file = match fs::openat(&parent, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => file,
                Err(Errno::EXIST) => match self.reopen(&place, OFlags::WRONLY | OFlags::TRUNC) {
                    Ok(file) => file.into(),
                    // A link to what isn't there, or it has just been removed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        match fs::readlinkat(&parent, &name, Vec::new()) {
                            Ok(target) => {
                                let target = OsString::from_vec(target.into_bytes());
                                place = parent_of(&place).join(target);
                            }
                            Err(Errno::NOENT) => {}
                            Err(errno) => return Err(failed("creating", path, errno)),
                        }
                        continue;
                    }
                    Err(error) => return Err(error),
                },
                Err(errno) => return Err(failed("creating", path, errno)),
            };
            own(file.as_fd(), owned).map_err(|errno| failed("changing", path, errno))?;
            return Ok(file.into());
        }
        Err(failed("creating", path, Errno::LOOP))
    }

    /// Makes a directory, and those above it that are missing; all of them get the same owner and
    /// permissions. One that is there stays as it is.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn create_dir_all(&self, path: &Path, owned: Owned) -> Result<()> {
        let mut so_far = PathBuf::new();
        let mut here = None;
        for component in path.components() {
            so_far.push(component);
            let next = match self.resolve(&so_far, OFlags::PATH | DIRECTORY) {
                Ok(next) => next,
                Err(Errno::NOENT) => {
                    let above = here.as_ref().unwrap_or(&self.dir);
                    make_dir(above.as_fd(), component.as_os_str(), owned)
                        .map_err(|errno| failed("creating", path, errno))?
                }
                Err(errno) => return Err(failed("opening", path, errno)),
            };
            here = Some(next);
        }
        Ok(())
    }

    /// Makes a symbolic link, whose target may be anything.
    ///
    /// # Errors
    /// When something has that name already; see [`Error`].
    pub fn symlink(&self, target: &OsStr, path: &Path, uid: u32, gid: u32) -> Result<()> {
        let (parent, name) = self.parent(path, path)?;
        fs::symlinkat(target, &parent, &name)
            .and_then(|()| {
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                fs::chownat(&parent, &name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            })
            .map_err(|errno| failed("creating", path, errno))
    }

    /// Removes a file, a link itself, or an empty directory.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove(&self, path: &Path) -> Result<()> {
        let (parent, name) = self.parent(path, path)?;
        match fs::unlinkat(&parent, &name, AtFlags::empty()) {
            Err(Errno::ISDIR) => fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR),
            result => result,
        }
        .map_err(|errno| failed("removing", path, errno))
    }

    /// What the path itself is: of a link, the link.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn metadata(&self, path: &Path) -> Result<Metadata> {
        let file = self.look(path, OFlags::PATH | OFlags::NOFOLLOW, "reading")?;
        File::from(file).metadata().map_err(|source| io_failed("reading", path, source))
    }

    /// What the path leads to: of a link, its target.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn target_metadata(&self, path: &Path) -> Result<Metadata> {
        let file = self.look(path, OFlags::PATH, "reading")?;
        File::from(file).metadata().map_err(|source| io_failed("reading", path, source))
    }

    /// Where a symbolic link points to, as it is written.
    ///
    /// # Errors
    /// `InvalidInput` for what is no link; see [`Error`].
    pub fn read_link(&self, path: &Path) -> Result<OsString> {
        let link = self.look(path, OFlags::PATH | OFlags::NOFOLLOW, "reading")?;
        match fs::readlinkat(&link, "", Vec::new()) {
            Ok(target) => Ok(OsString::from_vec(target.into_bytes())),
            // So the kernel says "no link" of an open file.
            Err(Errno::NOENT) => Err(failed("reading", path, Errno::INVAL)),
            Err(errno) => Err(failed("reading", path, errno)),
        }
    }

    /// The names in a directory, in byte order.
    ///
    /// # Errors
    /// When there are more than a million; see [`Error`].
    pub fn read_dir(&self, path: &Path) -> Result<Vec<OsString>> {
        let dir = self.look(path, OFlags::RDONLY | DIRECTORY, "reading")?;
        let mut names =
            names(dir, MAX_NAMES).map_err(|source| io_failed("reading", path, source))?;
        names.sort_unstable();
        Ok(names)
    }

    /// Opens a regular file: it is found without being opened, looked at, and only then opened.
    fn reopen(&self, path: &Path, flags: OFlags) -> Result<File> {
        let found = self.look(path, OFlags::PATH, "opening")?;
        match reopen_file(found.as_fd(), flags) {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(Error::NotAFile { path: path.to_owned() }),
            Err(errno) => Err(failed("opening", path, errno)),
        }
    }

    fn look(&self, path: &Path, flags: OFlags, action: &'static str) -> Result<OwnedFd> {
        self.resolve(path, flags).map_err(|errno| failed(action, path, errno))
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        for _ in 1..ATTEMPTS {
            // The kernel gives up on `..` when something is renamed at the same time.
            match fs::openat2(&self.dir, path, flags | CLOSE, Mode::empty(), self.resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        fs::openat2(&self.dir, path, flags | CLOSE, Mode::empty(), self.resolve)
    }

    /// The directory above a path, and the name in it.
    fn parent(&self, path: &Path, given: &Path) -> Result<(OwnedFd, OsString)> {
        let Some(name) = path.file_name() else {
            return Err(failed("opening", given, Errno::INVAL));
        };
        let parent = self
            .resolve(parent_of(path), OFlags::PATH | DIRECTORY)
            .map_err(|errno| failed("opening", given, errno))?;
        Ok((parent, name.to_owned()))
    }
}

const CLOSE: OFlags = OFlags::CLOEXEC;
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(CLOSE);
const NEVER_FOLLOW: OFlags = OFlags::NOFOLLOW.union(CLOSE);

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn failed(action: &'static str, path: &Path, errno: Errno) -> Error {
    match errno {
        Errno::XDEV => Error::Escapes { path: path.to_owned() },
        errno => io_failed(action, path, errno.into()),
    }
}

fn io_failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}

/// Opens what an `O_PATH` descriptor stands for, if that is a regular file.
pub(crate) fn reopen_file(
    found: BorrowedFd<'_>,
    flags: OFlags,
) -> rustix::io::Result<Option<File>> {
    if !fs::FileType::from_raw_mode(fs::fstat(found)?.st_mode).is_file() {
        return Ok(None);
    }
    let place = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(Some(fs::open(place, flags | CLOSE, Mode::empty())?.into()))
}

/// Makes a directory of one name, and opens it.
fn make_dir(above: BorrowedFd<'_>, name: &OsStr, owned: Owned) -> rustix::io::Result<OwnedFd> {
    fs::mkdirat(above, name, Mode::RWXU)?;
    let dir = fs::openat(above, name, OFlags::RDONLY | DIRECTORY | NEVER_FOLLOW, Mode::empty())?;
    own(dir.as_fd(), owned)?;
    Ok(dir)
}

/// Sets owner, then permissions: a change of the owner takes the set-uid bit away.
fn own(file: BorrowedFd<'_>, owned: Owned) -> rustix::io::Result<()> {
    fs::fchown(file, Some(Uid::from_raw(owned.uid)), Some(Gid::from_raw(owned.gid)))?;
    fs::fchmod(file, Mode::from_raw_mode(owned.mode & 0o7777))
}

/// The names in an open directory, in no order.
pub(crate) fn names(dir: OwnedFd, most: usize) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::Dir::new(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        if names.len() >= most {
            return Err(io::Error::other(format!("the directory has more than {most} entries")));
        }
        names.push(OsStr::from_bytes(name).to_owned());
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
