//! Checks a whole tar archive, entry by entry, against the rules for images.

use super::error::{FormatError, quoted};
use super::layout::{Limits, Parts, Place, Role, Shape, normalise};
use super::names::{Names, Node};
use super::qcow2;
use super::tar_header::MAX_PATH;
use super::tar_reader::{Entry, EntryKind, TarReader, Visitor};
use crate::image::InstanceType;
use crate::metadata::Metadata;

/// Checks a tar archive that is pushed into it, uncompressed.
pub(super) struct TarCheck {
    reader: TarReader,
    rules: Rules,
}

/// What entries are held against.
pub(super) struct Rules {
    role: Role,
    limits: Limits,
    names: Names,
    parts: Parts,
    entries: u64,
    unpacked: u64,
    /// The normal form of the current entry's name.
    path: Vec<u8>,
    /// The normal form of a hard link's target.
    target: Vec<u8>,
    /// A directory that is known to be one, with all above it.
    parent: Vec<u8>,
    wanted: Option<Wanted>,
}

/// Data that is looked into.
enum Wanted {
    Metadata(Vec<u8>),
    Disk { size: u64, head: Vec<u8> },
}

impl TarCheck {
    pub(super) fn new(role: Role, limits: Limits) -> Self {
        Self { reader: TarReader::new(), rules: Rules::new(role, limits) }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.reader.feed(bytes, &mut self.rules)
    }

    pub(super) fn skippable(&self) -> u64 {
        self.reader.skippable()
    }

    pub(super) fn skip(&mut self, count: u64) -> Result<(), FormatError> {
        self.reader.skip(count, &mut self.rules)
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.rules.parts
    }

    pub(super) fn entries(&self) -> u64 {
        self.rules.entries
    }

    pub(super) fn unpacked(&self) -> u64 {
        self.rules.unpacked
    }

    /// Ends the archive and hands out what was found.
    pub(super) fn finish(self) -> Result<Parts, FormatError> {
        self.reader.finish()?;
        self.rules.finish()
    }
}

impl Visitor for Rules {
    type Error = FormatError;

    fn entry(&mut self, entry: &Entry<'_>) -> Result<bool, FormatError> {
        self.entries += 1;
        self.limits.check_entries(self.entries)?;
        let mut path = std::mem::take(&mut self.path);
        let wanted = normalise(entry.name, &mut path).and_then(|()| self.admit(entry, &path));
        self.path = path;
        self.wanted = wanted?;
        Ok(self.wanted.is_some())
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), FormatError> {
        match &mut self.wanted {
            // The size was checked before.
            Some(Wanted::Metadata(content)) => content.extend_from_slice(bytes),
            Some(Wanted::Disk { size, head }) => {
                let missing = qcow2::HEADER_BYTES.saturating_sub(head.len());
                // Of a sparse disk, what comes before the first hole.
                if missing == 0 || offset != head.len() as u64 {
                    return Ok(());
                }
                head.extend_from_slice(&bytes[..missing.min(bytes.len())]);
                if head.len() == qcow2::HEADER_BYTES {
                    check_disk(head, *size, &self.limits)?;
                    self.parts.found(InstanceType::VirtualMachine)?;
                }
            }
            None => {}
        }
        Ok(())
    }

    fn entry_end(&mut self) -> Result<(), FormatError> {
        match self.wanted.take() {
            Some(Wanted::Metadata(content)) => {
                self.parts.metadata = Some(Metadata::parse(&content)?);
            }
            Some(Wanted::Disk { size, head }) => {
                check_disk(&head, size, &self.limits)?;
                self.parts.found(InstanceType::VirtualMachine)?;
            }
            None => {}
        }
        Ok(())
    }
}

/// Whether a disk inside an archive may be used: a QEMU one must be self-contained; any other is
/// raw bytes.
fn check_disk(head: &[u8], size: u64, limits: &Limits) -> Result<(), FormatError> {
    if head.starts_with(qcow2::MAGIC) { qcow2::check_header(head, size, limits) } else { Ok(()) }
}

impl Rules {
    pub(super) fn new(role: Role, limits: Limits) -> Self {
        Self {
            role,
            limits,
            names: Names::new(),
            parts: Parts::default(),
            entries: 0,
            unpacked: 0,
            path: Vec::new(),
            target: Vec::new(),
            parent: Vec::new(),
            wanted: None,
        }
    }

    /// The normal form of the last entry's name.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The normal form of the last hard link's target.
    pub(super) fn target(&self) -> &[u8] {
        &self.target
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    pub(super) fn unpacked(&self) -> u64 {
        self.unpacked
    }

    /// Ends the archive and hands out what was found.
    pub(super) fn finish(mut self) -> Result<Parts, FormatError> {
        if self.role == Role::Rootfs {
            self.parts.found(InstanceType::Container)?;
        }
        self.parts.complete(self.role)?;
        Ok(self.parts)
    }

    /// Checks an entry, and tells what its data is wanted for.
    fn admit(&mut self, entry: &Entry<'_>, path: &[u8]) -> Result<Option<Wanted>, FormatError> {
        let place = self.role.place(path)?;
        let shape = match entry.kind {
            EntryKind::File => Shape::File,
            EntryKind::Directory => Shape::Directory,
            _ => Shape::Other,
        };
        place.admit(path, shape, entry.size)?;
        let node = self.node(entry)?;
        if place != Place::Root {
            self.check_parents(path)?;
            self.add(path, node)?;
        }
        self.unpacked = self.unpacked.saturating_add(entry.size);
        if self.unpacked > self.limits.unpacked {
            return Err(FormatError::TooLarge { limit: self.limits.unpacked });
        }
        match place {
            Place::Metadata if entry.sparse => {
                Err(FormatError::entry(path, "must not be stored as a sparse file"))
            }
            Place::Metadata => Ok(Some(Wanted::Metadata(Vec::new()))),
            Place::Disk => Ok(Some(Wanted::Disk { size: entry.size, head: Vec::new() })),
            Place::Rootfs | Place::InRootfs => {
                self.parts.found(InstanceType::Container)?;
                Ok(None)
            }
            Place::Root | Place::Templates => Ok(None),
        }
    }

    /// What the entry's name will stand for.
    fn node(&mut self, entry: &Entry<'_>) -> Result<Node, FormatError> {
        match entry.kind {
            EntryKind::File => Ok(Node::File),
            EntryKind::Directory => Ok(Node::Directory),
            EntryKind::CharacterDevice(..) | EntryKind::BlockDevice(..) | EntryKind::Fifo => {
                Ok(Node::Other)
            }
            EntryKind::Symlink => {
                let reason = match entry.link {
                    [] => "is a link to nothing",
                    link if link.contains(&0) => "is a link to a name with a NUL",
                    link if link.len() > MAX_PATH => "is a link to a name over 4095 bytes",
                    // It may point anywhere: inside a container that is the container's business,
                    // and nothing is unpacked through a link.
                    _ => return Ok(Node::Other),
                };
                Err(FormatError::entry(entry.name, reason))
            }
            EntryKind::HardLink => self.linked(entry),
        }
    }

    /// What a hard link points to: something earlier in the same root file system.
    fn linked(&mut self, entry: &Entry<'_>) -> Result<Node, FormatError> {
        normalise(entry.link, &mut self.target)?;
        if self.role.place(&self.target).ok() != Some(Place::InRootfs) {
            return Err(FormatError::entry(
                entry.name,
                "is a hard link to something outside of the root file system",
            ));
        }
        match self.names.get(&self.target) {
            Some(node @ (Node::File | Node::Other)) => Ok(node),
            Some(Node::Directory) => {
                Err(FormatError::entry(entry.name, "is a hard link to a directory"))
            }
            None => Err(FormatError::entry(
                entry.name,
                "is a hard link to something that doesn't come before it",
            )),
        }
    }

    /// Checks that everything above a path is a directory, and stays one.
    fn check_parents(&mut self, path: &[u8]) -> Result<(), FormatError> {
        let Some(end) = path.iter().rposition(|&byte| byte == b'/') else { return Ok(()) };
        let parent = &path[..end];
        if parent == self.parent {
            return Ok(());
        }
        // Upwards, to the first directory that is known: all above that one are known too.
        let mut missing = Vec::new();
        for (at, _) in path.iter().enumerate().rev().filter(|&(_, &byte)| byte == b'/') {
            match self.names.get(&path[..at]) {
                Some(Node::Directory) => break,
                Some(_) => {
                    return Err(FormatError::entry(
                        path,
                        "is below something that is no directory",
                    ));
                }
                None => missing.push(at),
            }
        }
        for at in missing.into_iter().rev() {
            self.add(&path[..at], Node::Directory)?;
        }
        self.parent.clear();
        self.parent.extend_from_slice(parent);
        Ok(())
    }

    fn add(&mut self, path: &[u8], node: Node) -> Result<(), FormatError> {
        match (self.names.get(path), node) {
            // Appending to an archive repeats directories, which does no harm.
            (Some(Node::Directory), Node::Directory) => Ok(()),
            (Some(_), _) => Err(FormatError::Duplicate { entry: quoted(path) }),
            (None, _) => {
                self.limits.check_entries(self.names.len() as u64 + 1)?;
                self.names.insert(path, node);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
