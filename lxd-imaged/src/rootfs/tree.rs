//! A new tree, written entry by entry: each below a directory that is held open, never by a path
//! that could lead through a link.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use lxd_proto::format::{Attributes, Timestamp};
use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::Error;

/// How many directories stay open, one in the other, besides the deepest.
const OPEN: usize = 64;

/// The attribute that new files inherit access lists from.
const DEFAULT_ACL: &str = "system.posix_acl_default";
const ACCESS_ACL: &str = "system.posix_acl_access";

const NEW: OFlags =
    OFlags::CREATE.union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const DIRECTORY: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);

type Result<T> = std::result::Result<T, Error>;
type Kernel<T> = rustix::io::Result<T>;
/// Tells by its name whether an attribute is applied.
type Keep = fn(&[u8]) -> bool;

/// A tree that grows below a directory of ours.
///
/// Paths are relative and in the form of [`lxd_proto::format::Receiver::entry`]. Attributes are
/// applied at once; a directory's time, which every entry in it changes, is put back when the
/// tree leaves the directory.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// The directories from below the root down to the current one.
    stack: Vec<Frame>,
    /// Attributes that the file system would not take.
    dropped: u64,
    /// Which attributes are applied.
    keep: Keep,
}

/// A directory on the way to the current entry.
#[derive(Debug)]
struct Frame {
    name: Vec<u8>,
    /// `None` when there are too many; opened again when it is needed.
    dir: Option<OwnedFd>,
    mtime: Timespec,
    /// Whether the time must be put back.
    changed: bool,
    inherited: Inherited,
}

/// What new entries of a directory get besides what they are given.
#[derive(Clone, Copy, Debug, Default)]
struct Inherited {
    group: bool,
    acl: bool,
}

/// A special file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) file: File,
    inherited: Inherited,
}

impl Tree {
    /// A tree below an open directory. Attributes that steer an overlay are left out: the tree is
    /// made of what strangers say and will be the lower layer of one, in which nothing must be
    /// hidden or redirected.
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { keep: |name| !name.starts_with(b"trusted.overlay."), ..Self::verbatim(root) }
    }

    /// A tree that takes all attributes.
    pub(super) fn verbatim(root: OwnedFd) -> Self {
        Self { root, stack: Vec::new(), dropped: 0, keep: |_| true }
    }

    /// How many extended attributes the file system would not take.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Makes a directory, or changes the attributes of one that is there.
    pub(super) fn directory(&mut self, path: &[u8], attributes: &Attributes) -> Result<()> {
        let keep = self.keep;
        let (parent, inherited, name) = self.enter_parent(path)?;
        let make = || {
            match fs::mkdirat(parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            let dir = fs::openat(parent, name, DIRECTORY, Mode::empty())?;
            // It may be there already, with an owner and access lists of its own.
            let inherited = Inherited { group: true, ..inherited };
            apply(dir.as_fd(), attributes, inherited, keep)
        };
        self.dropped += make().map_err(|errno| Error::write(path, errno))?;
        Ok(())
    }

    /// Makes a file; [`Tree::finish`] must follow when its content is written.
    pub(super) fn file(&mut self, path: &[u8]) -> Result<NewFile> {
        let (parent, inherited, name) = self.enter_parent(path)?;
        let file = fs::openat(parent, name, NEW | OFlags::WRONLY, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| Error::write(path, errno))?;
        Ok(NewFile { file: file.into(), inherited })
    }

    /// Gives a written file its attributes.
    pub(super) fn finish(
        &mut self,
        new: &NewFile,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<()> {
        self.dropped += apply(new.file.as_fd(), attributes, new.inherited, self.keep)
            .map_err(|errno| Error::write(path, errno))?;
        Ok(())
    }

    /// Makes a symbolic link.
    pub(super) fn symlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<()> {
        let keep = self.keep;
        let (parent, inherited, name) = self.enter_parent(path)?;
        let make = || {
            fs::symlinkat(OsStr::from_bytes(target), parent, name)?;
            apply_named(parent, name, attributes, inherited, true, keep)
        };
        self.dropped += make().map_err(|errno| Error::write(path, errno))?;
        Ok(())
    }

    /// Makes a device, a pipe or a socket.
    pub(super) fn node(&mut self, path: &[u8], node: Node, attributes: &Attributes) -> Result<()> {
        let keep = self.keep;
        let (parent, inherited, name) = self.enter_parent(path)?;
        let (kind, device) = match node {
            Node::Character(major, minor) => (FileType::CharacterDevice, fs::makedev(major, minor)),
            Node::Block(major, minor) => (FileType::BlockDevice, fs::makedev(major, minor)),
            Node::Fifo => (FileType::Fifo, 0),
            Node::Socket => (FileType::Socket, 0),
        };
        let make = || {
            fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)?;
            apply_named(parent, name, attributes, inherited, false, keep)
        };
        self.dropped += make().map_err(|errno| Error::write(path, errno))?;
        Ok(())
    }

    /// Gives a file of the tree another name.
    pub(super) fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let failed = |errno| Error::write(path, errno);
        let (above, target) = split(target);
        let from = match above {
            [] => None,
            above => Some(self.find(above).map_err(failed)?),
        };
        // Entered after `find`, which needs the root only.
        let root = self.root.try_clone().map_err(|source| Error::write(path, source))?;
        let (parent, _, name) = self.enter_parent(path)?;
        let from = from.as_ref().unwrap_or(&root);
        fs::linkat(from, target, parent, name, AtFlags::empty()).map_err(failed)
    }

    /// Ends the tree: makes `rootfs/` if nothing was in it, and puts all times back.
    pub(super) fn finish_rootfs(&mut self) -> Result<()> {
        self.enter(b"rootfs")?;
        self.leave()
    }

    /// Leaves all directories, and puts their times back.
    pub(super) fn leave(&mut self) -> Result<()> {
        self.leave_to(0)
    }

    /// Opens a directory of the tree without following links.
    fn find(&self, path: &[u8]) -> Kernel<OwnedFd> {
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    /// Goes to the directory that an entry belongs into, which is about to change.
    fn enter_parent<'s, 'p>(
        &'s mut self,
        path: &'p [u8],
    ) -> Result<(BorrowedFd<'s>, Inherited, &'p OsStr)> {
        let (above, name) = split(path);
        self.enter(above)?;
        let Some(frame) = self.stack.last_mut() else {
            return Ok((self.root.as_fd(), Inherited::default(), name));
        };
        frame.changed = true;
        let inherited = frame.inherited;
        match &frame.dir {
            Some(dir) => Ok((dir.as_fd(), inherited, name)),
            // `enter` has opened it.
            None => Err(Error::write(path, Errno::BADF)),
        }
    }

    /// Goes to a directory, and makes what is missing on the way.
    fn enter(&mut self, path: &[u8]) -> Result<()> {
        let mut names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        let mut same = 0;
        let mut next = names.next();
        while let (Some(name), Some(frame)) = (next, self.stack.get(same))
            && frame.name == name
        {
            same += 1;
            next = names.next();
        }
        self.leave_to(same)?;
        self.open_last().map_err(|errno| Error::write(path, errno))?;
        while let Some(name) = next {
            self.push(name).map_err(|errno| Error::write(path, errno))?;
            next = names.next();
        }
        Ok(())
    }

    /// Leaves directories until `depth` are left.
    fn leave_to(&mut self, depth: usize) -> Result<()> {
        while self.stack.len() > depth {
            let Some(mut frame) = self.stack.pop() else { break };
            frame.put_back().map_err(|errno| Error::write(&frame.name, errno))?;
        }
        Ok(())
    }

    /// Goes one directory down.
    fn push(&mut self, name: &[u8]) -> Kernel<()> {
        let parent = match self.stack.last() {
            Some(frame) => frame.dir.as_ref().ok_or(Errno::BADF)?,
            None => &self.root,
        };
        let dir = match fs::openat(parent, name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => {
                fs::mkdirat(parent, name, Mode::RWXU)?;
                let dir = fs::openat(parent, name, DIRECTORY, Mode::empty())?;
                let mode = 0o755;
                apply(
                    dir.as_fd(),
                    &Attributes { mode, ..Attributes::default() },
                    Inherited { group: true, acl: true },
                    |_| true,
                )?;
                if let Some(frame) = self.stack.last_mut() {
                    frame.changed = true;
                }
                dir
            }
            result => result?,
        };
        let stat = fs::fstat(&dir)?;
        let inherited = Inherited {
            group: Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID),
            acl: has_default_acl(dir.as_fd())?,
        };
        if self.stack.len() > OPEN
            && let Some(frame) = self.stack.last_mut()
        {
            frame.put_back()?;
            frame.dir = None;
        }
        self.stack.push(Frame {
            name: name.to_vec(),
            dir: Some(dir),
            mtime: mtime(&stat),
            changed: false,
            inherited,
        });
        Ok(())
    }

    /// Opens the current directory again if there were too many.
    fn open_last(&mut self) -> Kernel<()> {
        if self.stack.last().is_none_or(|frame| frame.dir.is_some()) {
            return Ok(());
        }
        let first = self.stack.iter().rposition(|frame| frame.dir.is_some()).map_or(0, |at| at + 1);
        let mut here: Option<OwnedFd> = None;
        for at in first..self.stack.len() {
            let above = match (&here, at.checked_sub(1)) {
                (Some(dir), _) => dir,
                (None, Some(above)) => self.stack[above].dir.as_ref().ok_or(Errno::BADF)?,
                (None, None) => &self.root,
            };
            here = Some(fs::openat(above, &self.stack[at].name[..], DIRECTORY, Mode::empty())?);
        }
        if let Some(frame) = self.stack.last_mut() {
            frame.dir = here;
        }
        Ok(())
    }
}

impl Frame {
    /// Gives the directory the time back that it had before it was written to.
    fn put_back(&mut self) -> Kernel<()> {
        if std::mem::take(&mut self.changed)
            && let Some(dir) = &self.dir
        {
            fs::futimens(dir, &times(self.mtime))?;
        }
        Ok(())
    }
}

/// The directory part of a path, and its last name.
fn split(path: &[u8]) -> (&[u8], &OsStr) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], OsStr::from_bytes(&path[slash + 1..])),
        None => (&[], OsStr::from_bytes(path)),
    }
}

fn mtime(stat: &fs::Stat) -> Timespec {
    Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    }
}

/// Times to be set: the same for access and change.
fn times(mtime: Timespec) -> Timestamps {
    Timestamps { last_access: mtime, last_modification: mtime }
}

fn timespec(time: Timestamp) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) }
}

fn has_default_acl(dir: BorrowedFd<'_>) -> Kernel<bool> {
    match fs::fgetxattr_query(dir, DEFAULT_ACL) {
        Ok(len) => Ok(len > 0),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether the file system itself gave a new entry this group.
fn needs_owner(attributes: &Attributes, inherited: Inherited) -> bool {
    inherited.group || attributes.uid != 0 || attributes.gid != 0
}

/// Gives an open file or directory its attributes: the owner first, as a change of it takes
/// set-uid bits and capabilities away; the time last. Returns how many attributes were dropped.
fn apply(
    file: BorrowedFd<'_>,
    attributes: &Attributes,
    inherited: Inherited,
    keep: Keep,
) -> Kernel<u64> {
    if needs_owner(attributes, inherited) {
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        fs::fchown(file, Some(uid), Some(gid))?;
    }
    if inherited.acl {
        for name in [ACCESS_ACL, DEFAULT_ACL] {
            removed(fs::fremovexattr(file, name))?;
        }
    }
    fs::fchmod(file, Mode::from_raw_mode(attributes.mode))?;
    let mut dropped = 0;
    for (name, value) in &attributes.xattrs {
        if !keep(name) {
            dropped += 1;
            continue;
        }
        dropped += refused(fs::fsetxattr(file, &name[..], value, XattrFlags::empty()))?;
    }
    fs::futimens(file, &times(timespec(attributes.mtime)))?;
    Ok(dropped)
}

/// The same for what can't be opened.
fn apply_named(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    attributes: &Attributes,
    inherited: Inherited,
    is_link: bool,
    keep: Keep,
) -> Kernel<u64> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    if needs_owner(attributes, inherited) {
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        fs::chownat(parent, name, Some(uid), Some(gid), nofollow)?;
    }
    let place = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
    if !is_link {
        if inherited.acl {
            removed(fs::lremovexattr(&place, ACCESS_ACL))?;
        }
        fs::chmodat(parent, name, Mode::from_raw_mode(attributes.mode), AtFlags::empty())?;
    }
    let mut dropped = 0;
    for (key, value) in &attributes.xattrs {
        if !keep(key) {
            dropped += 1;
            continue;
        }
        let set = fs::lsetxattr(&place, &key[..], value, XattrFlags::empty());
        dropped += refused(set)?;
    }
    fs::utimensat(parent, name, &times(timespec(attributes.mtime)), nofollow)?;
    Ok(dropped)
}

/// 1 for an attribute that this file system or machine has no use for.
fn refused(set: Kernel<()>) -> Kernel<u64> {
    match set {
        Ok(()) => Ok(0),
        // The second for "user" attributes of links and devices.
        Err(Errno::NOTSUP | Errno::PERM) => Ok(1),
        Err(errno) => Err(errno),
    }
}

fn removed(result: Kernel<()>) -> Kernel<()> {
    match result {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(errno) => Err(errno),
    }
}
