//! Packs a root file system as an image, the same bytes for the same content.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use lxd_proto::format::{
    Attributes, Entry, EntryKind, FormatError, Fragment, Timestamp, encode_entry,
};
use lxd_proto::metadata::Metadata;
use lxd_proto::remote::Progress;
use rustix::fs::{self as kernel, FileType, SeekFrom};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::ids::Shift;
use super::walk::{Item, Walk};
use super::{Error, open_dir};

/// How much goes from the reading thread to the writing one at once, and how many pieces of it
/// there are.
const PIECE: usize = 1 << 20;
const PIECES: usize = 6;

/// A file whose holes are smaller than this together is stored with its zeros.
const WORTHWHILE: u64 = 64 << 10;

/// The most fragments that a file is stored in; one with more is stored with its zeros.
const MAX_FRAGMENTS: usize = 10_000;

/// What was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// How many entries the archive has.
    pub entries: u64,
    /// How many bytes its files have, holes left out.
    pub bytes: u64,
    /// How many sockets and attributes were left out, as an archive can't hold them.
    pub left_out: u64,
}

/// Streams an image to `out`, uncompressed: `metadata.yaml`, `rootfs/` as it is in `root`, and
/// `templates/`, if there is such a directory.
///
/// Entries are in order of their names, with whole seconds and numeric owners less `shift`; owners
/// outside of the range become nobody. Equal content gives equal bytes. Hard links, devices, pipes,
/// extended attributes and holes are kept; sockets are left out. `progress` counts bytes of files.
///
/// # Errors
/// See [`Error`]; [`Error::Changed`] when something writes to a file at the same time.
pub fn pack(
    metadata: &[u8],
    templates: &Path,
    root: &Path,
    shift: u32,
    out: impl Write,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Packed, Error> {
    let image = Image { metadata, templates, root, shift, holes: Holes::Kept };
    stream(image, out, progress, cancel)
}

/// What is packed.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    pub(super) metadata: &'a [u8],
    pub(super) templates: &'a Path,
    pub(super) root: &'a Path,
    pub(super) shift: u32,
    pub(super) holes: Holes,
}

/// What becomes of holes in files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holes {
    /// They are left out.
    Kept,
    /// They are written as zeros.
    Filled,
}

/// Streams an image to `out`, as [`pack`] does.
pub(super) fn stream(
    image: Image<'_>,
    mut out: impl Write,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Packed, Error> {
    let Image { metadata, templates, root, shift, holes } = image;
    let created = Metadata::parse(metadata).map_err(FormatError::from)?.creation_date;
    let root = open_dir(root).map_err(|errno| Error::read(root, errno))?;
    let templates = match open_dir(templates) {
        Ok(dir) => Some(dir),
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(Error::read(templates, errno)),
    };
    let (full, pieces) = mpsc::sync_channel(PIECES);
    let (back, empty) = mpsc::channel();
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut packer = Packer {
                stream: Stream { piece: Piece::new(), full, empty, progress, cancel },
                packed: Packed::default(),
                shift: Shift(-i64::from(shift)),
                created,
                holes,
            };
            packer.run(metadata, root, templates).map(|()| packer.packed)
        });
        let written = pieces.iter().try_for_each(|piece: Piece| {
            let written = out.write_all(&piece.bytes[..piece.len]);
            // Nobody takes it back when the reader is done.
            let _ = back.send(piece);
            written
        });
        drop(pieces);
        let read = reader.join().unwrap_or(Err(Error::Thread));
        written.map_err(|source| Error::Output { source })?;
        read
    })
}

/// Bytes on their way to the writer.
struct Piece {
    bytes: Box<[u8]>,
    len: usize,
}

impl Piece {
    fn new() -> Self {
        Self { bytes: vec![0; PIECE].into_boxed_slice(), len: 0 }
    }
}

/// The archive as it leaves the reading thread.
struct Stream<'a> {
    piece: Piece,
    full: SyncSender<Piece>,
    empty: Receiver<Piece>,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl Stream<'_> {
    fn put(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let room = self.room()?;
            let now = bytes.len().min(room.len());
            room[..now].copy_from_slice(&bytes[..now]);
            self.piece.len += now;
            bytes = &bytes[now..];
        }
        Ok(())
    }

    /// Where the next bytes go; never empty.
    fn room(&mut self) -> Result<&mut [u8], Error> {
        if self.piece.len == PIECE {
            self.send()?;
        }
        Ok(&mut self.piece.bytes[self.piece.len..])
    }

    fn send(&mut self) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let mut next = self.empty.try_recv().unwrap_or_else(|_| Piece::new());
        next.len = 0;
        let piece = std::mem::replace(&mut self.piece, next);
        // The writer has failed, and has the reason.
        self.full.send(piece).map_err(|_| Error::Cancelled)
    }

    /// Puts a part of a file.
    fn copy(&mut self, file: &File, path: &[u8], part: Fragment) -> Result<(), Error> {
        let Fragment { mut offset, len: mut left } = part;
        while left > 0 {
            let room = self.room()?;
            let most = usize::try_from(left).map_or(room.len(), |left| left.min(room.len()));
            let len = match file.read_at(&mut room[..most], offset) {
                Ok(0) => return Err(Error::Changed { name: super::quoted(path) }),
                Ok(len) => len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::look(path, error)),
            };
            self.piece.len += len;
            self.progress.add(len);
            offset += len as u64;
            left -= len as u64;
        }
        Ok(())
    }

    /// Fills up the last block of `len` bytes.
    fn pad(&mut self, len: u64) -> Result<(), Error> {
        let padding = usize::try_from(len.wrapping_neg() % 512).unwrap_or_default();
        self.put(&[0; 512][..padding])
    }
}

/// The reading thread.
struct Packer<'a> {
    stream: Stream<'a>,
    packed: Packed,
    shift: Shift,
    /// When the image was made: the time of what has none of its own.
    created: i64,
    holes: Holes,
}

impl Packer<'_> {
    fn run(
        &mut self,
        metadata: &[u8],
        root: OwnedFd,
        templates: Option<OwnedFd>,
    ) -> Result<(), Error> {
        let attributes = self.ours(0o644);
        let size = metadata.len() as u64;
        self.entry(b"metadata.yaml", EntryKind::File, b"", size, &attributes)?;
        self.stream.put(metadata)?;
        self.stream.pad(size)?;
        self.root(root)?;
        if let Some(templates) = templates {
            self.templates(templates)?;
        }
        self.stream.put(&[0; 1024])?;
        self.stream.send()
    }

    fn root(&mut self, root: OwnedFd) -> Result<(), Error> {
        let mut walk = Walk::new(root)?;
        let top = walk.root()?;
        let attributes = walk.attributes(&top, self.shift, kept)?;
        self.entry(b"rootfs", EntryKind::Directory, b"", 0, &attributes)?;
        let mut name = Vec::new();
        while let Some(item) = walk.next()? {
            if item.kind.is_socket() {
                self.packed.left_out += 1;
                continue;
            }
            name.clear();
            name.extend_from_slice(b"rootfs/");
            name.extend_from_slice(walk.path());
            self.item(&mut walk, &item, &name)?;
        }
        Ok(())
    }

    /// Packs one thing of the root file system.
    fn item(&mut self, walk: &mut Walk, item: &Item, name: &[u8]) -> Result<(), Error> {
        let mut attributes = walk.attributes(item, self.shift, kept)?;
        attributes.mtime.nanoseconds = 0;
        if let Some(earlier) = walk.earlier_name(item)? {
            attributes.xattrs.clear();
            let target = [b"rootfs/", &earlier[..]].concat();
            return self.entry(name, EntryKind::HardLink, &target, 0, &attributes);
        }
        let device = || (kernel::major(item.stat.st_rdev), kernel::minor(item.stat.st_rdev));
        let kind = match item.kind {
            FileType::RegularFile => return self.file(walk, item, name, &attributes),
            FileType::Symlink => {
                let target = walk.target(item)?;
                return self.entry(name, EntryKind::Symlink, &target, 0, &attributes);
            }
            FileType::Directory => EntryKind::Directory,
            FileType::Fifo => EntryKind::Fifo,
            FileType::CharacterDevice => EntryKind::CharacterDevice(device().0, device().1),
            FileType::BlockDevice => EntryKind::BlockDevice(device().0, device().1),
            FileType::Socket | FileType::Unknown => {
                self.packed.left_out += 1;
                return Ok(());
            }
        };
        self.entry(name, kind, b"", 0, &attributes)
    }

    fn file(
        &mut self,
        walk: &Walk,
        item: &Item,
        name: &[u8],
        attributes: &Attributes,
    ) -> Result<(), Error> {
        let size = item.size();
        if size == 0 {
            return self.entry(name, EntryKind::File, b"", 0, attributes);
        }
        let file = walk.open(item)?;
        if self.holes == Holes::Kept
            && let Some(fragments) = fragments(&file, item)
        {
            let entry =
                Entry { name, link: b"", kind: EntryKind::File, size, sparse: true, attributes };
            self.packed.entries += 1;
            self.stream.put(&encode_entry(&entry, Some(&fragments)))?;
            let mut stored = 0;
            for part in fragments {
                self.stream.copy(&file, name, part)?;
                stored += part.len;
            }
            self.packed.bytes += stored;
            return self.stream.pad(stored);
        }
        self.entry(name, EntryKind::File, b"", size, attributes)?;
        self.stream.copy(&file, name, Fragment { offset: 0, len: size })?;
        self.packed.bytes += size;
        self.stream.pad(size)?;
        // A file that grows is one that is being written.
        if file.metadata().map_err(|source| Error::look(name, source))?.len() > size {
            return Err(Error::Changed { name: super::quoted(name) });
        }
        Ok(())
    }

    /// Packs the templates: files and directories only, which belong to nobody in particular.
    fn templates(&mut self, dir: OwnedFd) -> Result<(), Error> {
        let mut walk = Walk::new(dir)?;
        self.entry(b"templates", EntryKind::Directory, b"", 0, &self.ours(0o755))?;
        while let Some(item) = walk.next()? {
            let name = [b"templates/", walk.path()].concat();
            let (kind, mode, size) = match item.kind {
                FileType::Directory => (EntryKind::Directory, 0o755, 0),
                FileType::RegularFile => (EntryKind::File, 0o644, item.size()),
                _ => {
                    self.packed.left_out += 1;
                    continue;
                }
            };
            let attributes = self.ours(mode);
            self.entry(&name, kind, b"", size, &attributes)?;
            if size > 0 {
                let file = walk.open(&item)?;
                self.stream.copy(&file, &name, Fragment { offset: 0, len: size })?;
                self.stream.pad(size)?;
                self.packed.bytes += size;
            }
        }
        Ok(())
    }

    fn ours(&self, mode: u32) -> Attributes {
        let mtime = Timestamp { seconds: self.created, nanoseconds: 0 };
        Attributes { mode, mtime, ..Attributes::default() }
    }

    fn entry(
        &mut self,
        name: &[u8],
        kind: EntryKind,
        link: &[u8],
        size: u64,
        attributes: &Attributes,
    ) -> Result<(), Error> {
        self.packed.entries += 1;
        let entry = Entry { name, link, kind, size, sparse: false, attributes };
        self.stream.put(&encode_entry(&entry, None))
    }
}

/// Attributes that belong into an image: not the overlay's own, and none whose name an archive
/// can't hold.
fn kept(name: &[u8]) -> bool {
    !name.starts_with(b"trusted.overlay.") && !name.contains(&b'=')
}

/// Where a file has data, if leaving out its holes is worthwhile.
fn fragments(file: &File, item: &Item) -> Option<Vec<Fragment>> {
    let size = item.size();
    let allocated = u64::try_from(item.stat.st_blocks).unwrap_or_default().saturating_mul(512);
    if allocated.saturating_add(WORTHWHILE) > size {
        return None;
    }
    let mut fragments = Vec::new();
    let (mut at, mut stored) = (0, 0);
    loop {
        let offset = match kernel::seek(file, SeekFrom::Data(at)) {
            Ok(offset) if offset < size => offset,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        let end = kernel::seek(file, SeekFrom::Hole(offset)).ok()?.min(size);
        if end <= offset || fragments.len() >= MAX_FRAGMENTS {
            return None;
        }
        fragments.push(Fragment { offset, len: end - offset });
        stored += end - offset;
        at = end;
    }
    // As GNU tar does: an empty fragment says where a file ends that ends in a hole.
    if at < size {
        fragments.push(Fragment { offset: size, len: 0 });
    }
    (stored.saturating_add(WORTHWHILE) <= size).then_some(fragments)
}
