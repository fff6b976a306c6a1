//! A walk over a tree that strangers have filled: in order of names, without following links, and
//! with bounded memory and descriptors.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use lxd_proto::format::{Attributes, Limits, Timestamp};
use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::Error;
use super::ids::Shift;
use crate::confined;

/// The longest path that an image can hold, as for the kernel.
const MAX_PATH: usize = 4095;

/// How many directories stay open, one in the other.
const OPEN: usize = 64;

/// The kernel's limit on the names of a file's attributes together, and on each value.
const MAX_XATTR: usize = 64 << 10;

/// The most bytes of names that are remembered for hard links.
const MAX_LINKED: usize = 128 << 20;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One thing that was found. Nothing of it was opened.
#[derive(Debug)]
pub(super) struct Item {
    found: OwnedFd,
    pub(super) stat: Stat,
    pub(super) kind: FileType,
}

/// A walk; directories come before what is in them.
#[derive(Debug)]
pub(super) struct Walk {
    root: OwnedFd,
    stack: Vec<Level>,
    /// The path of the last item below the root.
    path: Vec<u8>,
    /// How many names were read and not yet visited.
    waiting: usize,
    linked: Linked,
    xattrs: XattrBuffer,
}

#[derive(Debug)]
struct Level {
    dir: Option<OwnedFd>,
    names: std::vec::IntoIter<OsString>,
    path: usize,
}

/// The first names of files that have several.
#[derive(Debug, Default)]
struct Linked {
    first: HashMap<(u64, u64), FirstName>,
    dir: Option<Rc<[u8]>>,
    bytes: usize,
}

#[derive(Debug)]
struct FirstName {
    /// With its slash; shared by all that are in it.
    dir: Rc<[u8]>,
    name: Vec<u8>,
    /// How many other names are still to come.
    left: u64,
}

#[derive(Debug)]
struct XattrBuffer {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Walk {
    /// A walk over all that is below an open directory.
    pub(super) fn new(root: OwnedFd) -> Result<Self, Error> {
        let mut walk = Self {
            root,
            stack: Vec::new(),
            path: Vec::new(),
            waiting: 0,
            linked: Linked::default(),
            xattrs: XattrBuffer { names: vec![0; MAX_XATTR], value: vec![0; MAX_XATTR] },
        };
        let dir = fs::openat(&walk.root, ".", DIRECTORY, Mode::empty());
        walk.descend(dir.map_err(|errno| Error::look(b".", errno))?)?;
        Ok(walk)
    }

    /// What the root itself is.
    pub(super) fn root(&self) -> Result<Item, Error> {
        let found = fs::openat(&self.root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        Item::new(found).map_err(|errno| Error::look(b".", errno))
    }

    /// The path of the last item, below the root.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The next item.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Error> {
        loop {
            let Some(level) = self.stack.last_mut() else { return Ok(None) };
            self.path.truncate(level.path);
            let Some(name) = level.names.next() else {
                self.stack.pop();
                continue;
            };
            self.waiting -= 1;
            self.open_last()?;
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            if self.path.len() > MAX_PATH {
                return Err(Error::look(&self.path, Errno::NAMETOOLONG));
            }
            match self.find(&name) {
                Ok(item) => {
                    if item.kind.is_dir() {
                        let dir = fs::openat(&item.found, ".", DIRECTORY, Mode::empty())
                            .map_err(|errno| Error::look(&self.path, errno))?;
                        self.descend(dir)?;
                    }
                    return Ok(Some(item));
                }
                // Removed since the directory was read.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(Error::look(&self.path, errno)),
            }
        }
    }

    /// The name that the last item's file had before, if it has several.
    pub(super) fn earlier_name(&mut self, item: &Item) -> Result<Option<Vec<u8>>, Error> {
        if item.kind.is_dir() || item.stat.st_nlink < 2 {
            return Ok(None);
        }
        self.linked.earlier(&self.path, &item.stat)
    }

    /// Owner, permissions, time and attributes of an item, by the ids that `shift` makes of them.
    /// Attributes whose name `keep` turns down are left out.
    pub(super) fn attributes(
        &mut self,
        item: &Item,
        shift: Shift,
        keep: fn(&[u8]) -> bool,
    ) -> Result<Attributes, Error> {
        let stat = &item.stat;
        let xattrs =
            self.xattrs.read(item, shift, keep).map_err(|errno| Error::look(&self.path, errno))?;
        Ok(Attributes {
            mode: stat.st_mode & 0o7777,
            uid: shift.id(stat.st_uid),
            gid: shift.id(stat.st_gid),
            mtime: Timestamp {
                seconds: stat.st_mtime,
                nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            },
            xattrs,
        })
    }

    /// The names of those attributes of an item that `keep` chooses.
    pub(super) fn xattr_names(
        &mut self,
        item: &Item,
        keep: fn(&[u8]) -> bool,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let xattrs = self
            .xattrs
            .read(item, Shift(0), keep)
            .map_err(|errno| Error::look(&self.path, errno))?;
        Ok(xattrs.into_iter().map(|(name, _)| name).collect())
    }

    /// Opens the last item, a regular file, for reading.
    pub(super) fn open(&self, item: &Item) -> Result<File, Error> {
        match confined::reopen_file(item.found.as_fd(), OFlags::RDONLY) {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(Error::look(&self.path, Errno::INVAL)),
            Err(errno) => Err(Error::look(&self.path, errno)),
        }
    }

    /// Where the last item, a symbolic link, points to.
    pub(super) fn target(&self, item: &Item) -> Result<Vec<u8>, Error> {
        fs::readlinkat(&item.found, "", Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(|errno| Error::look(&self.path, errno))
    }

    fn find(&self, name: &OsStr) -> rustix::io::Result<Item> {
        let dir = self.stack.last().and_then(|level| level.dir.as_ref()).ok_or(Errno::BADF)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Item::new(fs::openat(dir, name, flags, Mode::empty()))
    }

    /// Goes into a directory, whose path is the current one.
    fn descend(&mut self, dir: OwnedFd) -> Result<(), Error> {
        let failed = |errno: Errno| Error::look(&self.path, errno);
        let most = usize::try_from(Limits::default().entries).unwrap_or(usize::MAX);
        let list = fs::openat(&dir, ".", DIRECTORY, Mode::empty()).map_err(failed)?;
        let mut names = confined::names(list, most.saturating_sub(self.waiting))
            .map_err(|source| Error::look(&self.path, source))?;
        names.sort_unstable();
        self.waiting += names.len();
        if self.stack.len() > OPEN
            && let Some(level) = self.stack.last_mut()
        {
            level.dir = None;
        }
        let (names, path) = (names.into_iter(), self.path.len());
        self.stack.push(Level { dir: Some(dir), names, path });
        Ok(())
    }

    /// Opens the current directory again if there were too many.
    fn open_last(&mut self) -> Result<(), Error> {
        let Some(level) = self.stack.last_mut() else { return Ok(()) };
        if level.dir.is_none() {
            let resolve = ResolveFlags::BENEATH
                | ResolveFlags::NO_SYMLINKS
                | ResolveFlags::NO_MAGICLINKS
                | ResolveFlags::NO_XDEV;
            let path = &self.path[..level.path];
            let dir = fs::openat2(&self.root, path, DIRECTORY, Mode::empty(), resolve)
                .map_err(|errno| Error::look(path, errno))?;
            level.dir = Some(dir);
        }
        Ok(())
    }
}

impl Item {
    fn new(found: rustix::io::Result<OwnedFd>) -> rustix::io::Result<Self> {
        let found = found?;
        let stat = fs::fstat(&found)?;
        Ok(Self { found, stat, kind: FileType::from_raw_mode(stat.st_mode) })
    }

    /// A path to the thing itself, also when it is a link, for as long as this is open.
    pub(super) fn place(&self) -> String {
        format!("/proc/self/fd/{}", self.found.as_raw_fd())
    }

    /// The size of a file.
    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or_default()
    }
}

impl Linked {
    fn earlier(&mut self, path: &[u8], stat: &Stat) -> Result<Option<Vec<u8>>, Error> {
        let id = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.first.get_mut(&id) {
            let earlier = [&first.dir[..], &first.name[..]].concat();
            first.left -= 1;
            if first.left == 0 {
                self.bytes = self.bytes.saturating_sub(earlier.len());
                self.first.remove(&id);
            }
            return Ok(Some(earlier));
        }
        let slash = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (above, name) = path.split_at(slash);
        let dir = match &self.dir {
            Some(dir) if dir[..] == *above => Rc::clone(dir),
            _ => Rc::from(above),
        };
        self.dir = Some(Rc::clone(&dir));
        // The directory is shared by its names; counting it for each errs on the safe side.
        self.bytes += name.len() + dir.len();
        if self.bytes > MAX_LINKED {
            let reason = std::io::Error::other("there are too many files with several names");
            return Err(Error::look(path, reason));
        }
        let name = name.to_vec();
        self.first.insert(id, FirstName { dir, name, left: stat.st_nlink - 1 });
        Ok(None)
    }
}

impl XattrBuffer {
    /// The attributes of what a descriptor stands for, in order of their names.
    fn read(
        &mut self,
        item: &Item,
        shift: Shift,
        keep: fn(&[u8]) -> bool,
    ) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let place = item.place();
        let len = match fs::listxattr(&place, &mut self.names[..]) {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
            result => result?,
        };
        let mut xattrs = Vec::new();
        for name in self.names[..len].split(|&byte| byte == 0) {
            if name.is_empty() || !keep(name) {
                continue;
            }
            let len = match fs::getxattr(&place, name, &mut self.value[..]) {
                // Removed since, or not for us to see.
                Err(Errno::NODATA | Errno::NOTSUP) => continue,
                result => result?,
            };
            xattrs.push((name.to_vec(), shift.xattr(name, &self.value[..len])));
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }
}
