//! Unpacks the files of an image into a directory of ours.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{self, Receiver as Pieces, SyncSender};
use std::thread;

use lxd_proto::format::{
    Attributes, Compression, Decoder, Entry, EntryKind, Extracted, Extractor, FileType, Limits,
    Receiver, Role,
};
use lxd_proto::metadata::Metadata;
use lxd_proto::remote::Progress;
use tokio_util::sync::CancellationToken;

use super::tree::{NewFile, Node, Tree};
use super::{Error, open_dir, squashfs};

/// How much is read of an image file at once.
const READ: usize = 256 << 10;

/// How much decoded data goes from one thread to the other at once, and how many pieces of it
/// there are.
const PIECE: usize = 1 << 20;
const PIECES: usize = 4;

/// The files of an image.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The unified file, or the metadata tarball of a split image.
    pub head: &'a Path,
    /// The root file system of a split image.
    pub rootfs: Option<&'a Path>,
}

/// What was unpacked.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// What `metadata.yaml` says, read from the archive as it was unpacked.
    pub metadata: Metadata,
    /// How many entries the image has.
    pub entries: u64,
    /// How many bytes its files have, holes counted in.
    pub bytes: u64,
    /// How many extended attributes were left out: the file system doesn't take them, or they
    /// would steer the overlay that the tree becomes a part of.
    pub dropped_xattrs: u64,
}

/// Unpacks an image into `into`, an empty directory: `rootfs/`, `templates/`, `metadata.yaml`.
///
/// Owners, permissions, times, extended attributes, hard links, devices and holes are those of the
/// image; `templates/` and `metadata.yaml` belong to us alone. The archive is held against the
/// rules of an import again, and nothing is written through a link. `progress` counts bytes of the
/// image files. When this returns, everything is on the disk.
///
/// `into` must be closed to everybody else: there are set-uid programs of strangers in it.
///
/// # Errors
/// See [`Error`]; what was unpacked by then is removed.
pub fn unpack(
    source: Source<'_>,
    into: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Unpacked, Error> {
    let result = unpack_all(source, into, progress, cancel);
    if result.is_err() {
        clear(into);
    }
    result
}

fn unpack_all(
    source: Source<'_>,
    into: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Unpacked, Error> {
    let open = |path: &Path| File::open(path).map_err(|source| Error::read(path, source));
    let head = open(source.head)?;
    let rootfs = source.rootfs.map(|path| open(path).map(|file| (path, file))).transpose()?;
    let len = |file: &File| file.metadata().map_or(0, |metadata| metadata.len());
    progress.set_total(len(&head) + rootfs.as_ref().map_or(0, |(_, file)| len(file)));

    let dir = open_dir(into).map_err(|errno| Error::read(into, errno))?;
    let root = dir.try_clone().map_err(|source| Error::read(into, source))?;
    let mut job = Job { tree: Tree::new(root), into, progress, cancel };
    let role = if rootfs.is_some() { Role::Metadata } else { Role::Unified };
    let mut extracted = job.file(source.head, head, role)?;
    if let Some((path, file)) = rootfs {
        let second = job.file(path, file, Role::Rootfs)?;
        extracted.entries += second.entries;
        extracted.unpacked_bytes += second.unpacked_bytes;
    }
    job.tree.finish_rootfs()?;
    rustix::fs::syncfs(&dir).map_err(|errno| Error::read(into, errno))?;
    let metadata = extracted.metadata.ok_or(lxd_proto::format::FormatError::MissingMetadata)?;
    Ok(Unpacked {
        metadata,
        entries: extracted.entries,
        bytes: extracted.unpacked_bytes,
        dropped_xattrs: job.tree.dropped(),
    })
}

/// Removes what an unpacking that failed has left. What can't be removed is left to the sweep.
fn clear(into: &Path) {
    for name in ["rootfs", "templates", squashfs::ASIDE] {
        let _ = super::remove(&into.join(name));
    }
    let _ = std::fs::remove_file(into.join("metadata.yaml"));
}

struct Job<'a> {
    tree: Tree,
    into: &'a Path,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl Job<'_> {
    /// Unpacks one file of an image.
    fn file(&mut self, path: &Path, mut file: File, role: Role) -> Result<Extracted, Error> {
        let mut head = vec![0; FileType::DETECT_BYTES];
        let mut filled = 0;
        while filled < head.len() {
            match file.read(&mut head[filled..]).map_err(|source| Error::read(path, source))? {
                0 => break,
                len => filled += len,
            }
        }
        head.truncate(filled);
        let unknown = lxd_proto::format::FormatError::UnsupportedCompression;
        match FileType::detect(&head).ok_or(unknown)? {
            FileType::Tar(compression) => self.tar(path, file, head, compression, role),
            FileType::Qcow2 => Err(Error::VirtualMachine),
            FileType::Squashfs => {
                let Self { into, progress, cancel, .. } = *self;
                squashfs::unpack(path, &file, &head, role, into, progress, cancel)
            }
        }
    }

    /// Unpacks a tarball: one thread decodes, this one writes.
    fn tar(
        &mut self,
        path: &Path,
        file: File,
        head: Vec<u8>,
        compression: Compression,
        role: Role,
    ) -> Result<Extracted, Error> {
        let (full, pieces) = mpsc::sync_channel(PIECES);
        let (back, empty) = mpsc::channel();
        let decoder = Decoding {
            path,
            file,
            limits: Limits::default(),
            progress: self.progress,
            cancel: self.cancel,
            pieces: full,
            empty,
        };
        let (written, decoded) = thread::scope(|scope| {
            let decoding = scope.spawn(move || decoder.run(&head, compression));
            let written = self.write(role, &pieces, &back);
            // A decoder that still runs finds nobody to decode for.
            drop(pieces);
            (written, decoding.join().unwrap_or(Err(Error::Thread)))
        });
        match (written, decoded) {
            // The archive looks cut when the decoder stops: its own reason is the right one.
            (_, Err(error)) => Err(error),
            (written, Ok(())) => written?.finish().map_err(Error::from),
        }
    }

    fn write(
        &mut self,
        role: Role,
        pieces: &Pieces<Vec<u8>>,
        back: &mpsc::Sender<Vec<u8>>,
    ) -> Result<Extractor, Error> {
        let mut extractor = Extractor::new(role, Limits::default());
        let mut writer = Writer {
            tree: &mut self.tree,
            in_rootfs: role == Role::Rootfs,
            path: Vec::new(),
            attributes: Attributes::default(),
            open: None,
        };
        for mut piece in pieces {
            extractor.feed(&piece, &mut writer)?;
            piece.clear();
            // Nobody takes it back when the decoder is done.
            let _ = back.send(piece);
        }
        Ok(extractor)
    }
}

/// The decoding thread.
struct Decoding<'a> {
    path: &'a Path,
    file: File,
    limits: Limits,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
    pieces: SyncSender<Vec<u8>>,
    empty: Pieces<Vec<u8>>,
}

/// Why decoding stops.
enum Stop {
    Error(Error),
    /// Nobody wants more: the writer has failed, and has the reason.
    Unwanted,
}

impl From<lxd_proto::format::FormatError> for Stop {
    fn from(error: lxd_proto::format::FormatError) -> Self {
        Self::Error(error.into())
    }
}

impl Decoding<'_> {
    fn run(mut self, head: &[u8], compression: Compression) -> Result<(), Error> {
        match self.decode(head, compression) {
            Ok(()) | Err(Stop::Unwanted) => Ok(()),
            Err(Stop::Error(error)) => Err(error),
        }
    }

    fn decode(&mut self, head: &[u8], compression: Compression) -> Result<(), Stop> {
        let mut decoder = Decoder::new(compression)?;
        let mut buffer = vec![0; READ];
        buffer[..head.len()].copy_from_slice(head);
        let mut len = head.len();
        let (mut read, mut decoded) = (0, 0);
        let mut piece = self.piece();
        while len > 0 {
            if self.cancel.is_cancelled() {
                return Err(Stop::Error(Error::Cancelled));
            }
            read += len as u64;
            decoder.feed(&buffer[..len], &mut |mut bytes| {
                decoded += bytes.len() as u64;
                self.limits.check_unpacked(read, decoded)?;
                while !bytes.is_empty() {
                    let (now, later) = bytes.split_at(bytes.len().min(PIECE - piece.len()));
                    piece.extend_from_slice(now);
                    bytes = later;
                    if piece.len() == PIECE {
                        let full = std::mem::replace(&mut piece, self.piece());
                        self.pieces.send(full).map_err(|_| Stop::Unwanted)?;
                    }
                }
                Ok::<(), Stop>(())
            })?;
            self.progress.add(len);
            let failed = |source| Stop::Error(Error::read(self.path, source));
            len = self.file.read(&mut buffer).map_err(failed)?;
        }
        self.pieces.send(piece).map_err(|_| Stop::Unwanted)?;
        Ok(decoder.finish()?)
    }

    /// A buffer that came back, or a new one; the channel bounds how many there are.
    fn piece(&self) -> Vec<u8> {
        self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE))
    }
}

/// Writes the entries of one archive into the tree.
struct Writer<'a> {
    tree: &'a mut Tree,
    /// Whether the archive is a root file system, and not an image with one in it.
    in_rootfs: bool,
    /// The current entry's place in the tree, and what it gets when its data is written.
    path: Vec<u8>,
    attributes: Attributes,
    open: Option<NewFile>,
}

impl Receiver for Writer<'_> {
    type Error = Error;

    fn entry(&mut self, entry: &Entry<'_>) -> Result<bool, Error> {
        self.path.clear();
        if self.in_rootfs {
            self.path.extend_from_slice(b"rootfs");
            if !entry.name.is_empty() {
                self.path.push(b'/');
            }
        } else if entry.name.is_empty() {
            return Ok(false);
        }
        self.path.extend_from_slice(entry.name);
        if self.path == b"rootfs.img" {
            return Err(Error::VirtualMachine);
        }
        let ours;
        let attributes = if self.path.split(|&byte| byte == b'/').next() == Some(b"rootfs") {
            entry.attributes
        } else {
            // Templates and metadata are read by us only.
            let mode = if entry.kind == EntryKind::Directory { 0o700 } else { 0o600 };
            ours = Attributes { mode, mtime: entry.attributes.mtime, ..Attributes::default() };
            &ours
        };
        let (tree, path) = (&mut *self.tree, &self.path[..]);
        match entry.kind {
            EntryKind::File => {
                let new = tree.file(path)?;
                if entry.sparse {
                    let set = new.file.set_len(entry.size);
                    set.map_err(|source| Error::write(path, source))?;
                }
                self.attributes.clone_from(attributes);
                self.open = Some(new);
                return Ok(true);
            }
            EntryKind::Directory => tree.directory(path, attributes)?,
            EntryKind::Symlink => tree.symlink(path, entry.link, attributes)?,
            EntryKind::HardLink if self.in_rootfs => {
                tree.hard_link(path, &[b"rootfs/", entry.link].concat())?;
            }
            EntryKind::HardLink => tree.hard_link(path, entry.link)?,
            EntryKind::CharacterDevice(major, minor) => {
                tree.node(path, Node::Character(major, minor), attributes)?;
            }
            EntryKind::BlockDevice(major, minor) => {
                tree.node(path, Node::Block(major, minor), attributes)?;
            }
            EntryKind::Fifo => tree.node(path, Node::Fifo, attributes)?,
        }
        Ok(false)
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let Some(new) = &self.open else { return Ok(()) };
        new.file.write_all_at(bytes, offset).map_err(|source| Error::write(&self.path, source))
    }

    fn entry_end(&mut self) -> Result<(), Error> {
        let Some(new) = self.open.take() else { return Ok(()) };
        self.tree.finish(&new, &self.path, &self.attributes)
    }
}
