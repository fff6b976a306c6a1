//! Copies a tree as it is: a root file system, or the upper layer of an overlay.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{self as kernel, FileType, SeekFrom};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::ids::Shift;
use super::tree::{Node, Tree};
use super::walk::{Item, Walk};
use super::{Error, open_dir};

/// How much of a file is copied between two looks at whether the copy was called off.
const STEP: usize = 16 << 20;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// How many files, directories and other things.
    pub entries: u64,
    /// How many bytes were copied; none of what the file system shares.
    pub bytes: u64,
    /// How many extended attributes the target's file system doesn't take.
    pub dropped_xattrs: u64,
}

/// Copies the directory `from` to `to`, which must not exist, with ids moved by `shift`.
///
/// Nothing is interpreted: whiteouts, opaque directories and all other attributes of an overlay's
/// layer arrive as they are, hard links stay hard links, holes stay holes. Data is shared where
/// the file system can. When this returns, everything is on the disk.
///
/// # Errors
/// See [`Error`]; what was copied by then is removed.
pub fn copy(
    from: &Path,
    to: &Path,
    shift: i64,
    cancel: &CancellationToken,
) -> Result<Copied, Error> {
    let open = |path: &Path| open_dir(path).map_err(|errno| Error::read(path, errno));
    let source = open(from)?;
    let (Some(above), Some(name)) = (to.parent(), to.file_name()) else {
        return Err(Error::read(to, Errno::INVAL));
    };
    if to.symlink_metadata().is_ok() {
        return Err(Error::read(to, Errno::EXIST));
    }
    let target = open(if above.as_os_str().is_empty() { Path::new(".") } else { above })?;
    let handle = target.try_clone().map_err(|source| Error::read(above, source))?;
    let mut copier = Copier {
        walk: Walk::new(source)?,
        tree: Tree::verbatim(target),
        shift: Shift(shift),
        cancel,
        copied: Copied::default(),
        can_clone: true,
    };
    let result = copier
        .run(name.as_bytes())
        .and_then(|()| kernel::syncfs(&handle).map_err(|errno| Error::read(to, errno)));
    if let Err(error) = result {
        // What can't be removed is left to the sweep.
        let _ = super::remove(to);
        return Err(error);
    }
    Ok(Copied { dropped_xattrs: copier.tree.dropped(), ..copier.copied })
}

struct Copier<'a> {
    walk: Walk,
    tree: Tree,
    shift: Shift,
    cancel: &'a CancellationToken,
    copied: Copied,
    /// Until the file system says that it can't share data.
    can_clone: bool,
}

impl Copier<'_> {
    fn run(&mut self, name: &[u8]) -> Result<(), Error> {
        let top = self.walk.root()?;
        let attributes = self.walk.attributes(&top, self.shift, |_| true)?;
        self.tree.directory(name, &attributes)?;
        let mut path = Vec::new();
        while let Some(item) = self.walk.next()? {
            self.go_on()?;
            path.clear();
            path.extend_from_slice(name);
            path.push(b'/');
            let below = path.len();
            path.extend_from_slice(self.walk.path());
            if let Some(earlier) = self.walk.earlier_name(&item)? {
                let earlier = [&path[..below], &earlier].concat();
                self.tree.hard_link(&path, &earlier)?;
            } else {
                self.item(&item, &path)?;
            }
            self.copied.entries += 1;
        }
        self.tree.leave()
    }

    fn go_on(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn item(&mut self, item: &Item, path: &[u8]) -> Result<(), Error> {
        let attributes = self.walk.attributes(item, self.shift, |_| true)?;
        let (major, minor) = (kernel::major(item.stat.st_rdev), kernel::minor(item.stat.st_rdev));
        let node = match item.kind {
            FileType::Directory => return self.tree.directory(path, &attributes),
            FileType::RegularFile => {
                let new = self.tree.file(path)?;
                self.content(item, &new.file, path)?;
                return self.tree.finish(&new, path, &attributes);
            }
            FileType::Symlink => {
                let target = self.walk.target(item)?;
                return self.tree.symlink(path, &target, &attributes);
            }
            FileType::CharacterDevice => Node::Character(major, minor),
            FileType::BlockDevice => Node::Block(major, minor),
            FileType::Fifo => Node::Fifo,
            FileType::Socket | FileType::Unknown => Node::Socket,
        };
        self.tree.node(path, node, &attributes)
    }

    fn content(&mut self, item: &Item, to: &File, path: &[u8]) -> Result<(), Error> {
        let size = item.size();
        if size == 0 {
            return Ok(());
        }
        let from = self.walk.open(item)?;
        if self.can_clone {
            if kernel::ioctl_ficlone(to, &from).is_ok() {
                return Ok(());
            }
            self.can_clone = false;
        }
        to.set_len(size).map_err(|source| Error::write(path, source))?;
        let mut at = 0;
        while at < size {
            let start = match kernel::seek(&from, SeekFrom::Data(at)) {
                Ok(start) if start < size => start,
                Ok(_) | Err(Errno::NXIO) => break,
                Err(errno) => return Err(Error::look(path, errno)),
            };
            let hole = kernel::seek(&from, SeekFrom::Hole(start));
            let end = hole.map_err(|errno| Error::look(path, errno))?.min(size);
            self.part(&from, to, start, end, path)?;
            at = end;
        }
        Ok(())
    }

    /// Copies what lies between two places of a file.
    fn part(
        &mut self,
        from: &File,
        to: &File,
        start: u64,
        end: u64,
        path: &[u8],
    ) -> Result<(), Error> {
        let (mut read, mut written) = (start, start);
        while read < end {
            self.go_on()?;
            let most = usize::try_from(end - read).map_or(STEP, |left| left.min(STEP));
            let len = match kernel::copy_file_range(
                from.as_fd(),
                Some(&mut read),
                to.as_fd(),
                Some(&mut written),
                most,
            ) {
                Ok(0) => return Err(Error::Changed { name: super::quoted(path) }),
                Ok(len) => len as u64,
                Err(Errno::XDEV | Errno::NOTSUP | Errno::INVAL | Errno::NOSYS) => {
                    let len = by_hand(from, to, read, most)
                        .map_err(|source| Error::write(path, source))?;
                    if len == 0 {
                        return Err(Error::Changed { name: super::quoted(path) });
                    }
                    (read, written) = (read + len, written + len);
                    len
                }
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Error::write(path, errno)),
            };
            self.copied.bytes += len;
        }
        Ok(())
    }
}

/// Copies at most `most` bytes through memory, between file systems that can't do it themselves.
fn by_hand(from: &File, to: &File, at: u64, most: usize) -> io::Result<u64> {
    let mut buffer = vec![0; most.min(1 << 20)];
    let len = from.read_at(&mut buffer, at)?;
    to.write_all_at(&buffer[..len], at)?;
    Ok(len as u64)
}
