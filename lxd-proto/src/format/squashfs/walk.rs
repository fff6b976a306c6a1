//! The walk over all directories, inodes and, when asked for, data.

use super::block::{Blocks, Cursor};
use super::inode::{self, Content, Directory, File, Inode};
use super::superblock::Superblock;
use super::{Walked, corrupt, number, small};
use crate::format::error::{FormatError, quoted};
use crate::format::layout::{Limits, Parts, Place, Role, Shape};
use crate::format::qcow2;
use crate::format::tar_header::MAX_PATH;
use crate::image::InstanceType;
use crate::metadata::Metadata;

/// In a block's size: the block is stored as it is.
const UNCOMPRESSED: u32 = 1 << 24;

/// A directory that is being read.
struct Open {
    number: u32,
    /// The next byte of its listing, and how many follow.
    at: Cursor,
    left: u32,
    /// Of the current run of entries: how many follow, and the block of their inodes.
    run: u32,
    inode_block: u64,
    /// The previous name: names are in order, so that none comes twice.
    previous: Vec<u8>,
    /// The length of the path without this directory's entries.
    path: usize,
}

/// An entry of a directory.
struct Named {
    reference: u64,
    basic_type: u32,
}

pub(super) struct Walk<'a> {
    superblock: Superblock,
    blocks: Blocks<'a>,
    role: Role,
    limits: &'a Limits,
    verify_data: bool,
    xattrs: u32,
    parts: Parts,
    entries: u64,
    /// Bytes of files, and those of them that are no holes.
    unpacked: u64,
    stored: u64,
    path: Vec<u8>,
    buffer: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        superblock: Superblock,
        mut blocks: Blocks<'a>,
        role: Role,
        limits: &'a Limits,
        verify_data: bool,
    ) -> Result<Self, FormatError> {
        let xattrs = xattr_count(&superblock, &blocks)?;
        check_owners(&superblock, &mut blocks)?;
        Ok(Self {
            superblock,
            blocks,
            role,
            limits,
            verify_data,
            xattrs,
            parts: Parts::default(),
            entries: 0,
            unpacked: 0,
            stored: 0,
            path: Vec::new(),
            buffer: Vec::new(),
        })
    }

    /// Walks everything.
    pub(super) fn run(mut self) -> Result<Walked, FormatError> {
        self.check_fragments()?;
        let root = self.inode(self.superblock.root_inode)?;
        let Content::Directory(directory) = root.content else {
            return Err(corrupt("its root is no directory"));
        };
        let mut stack = vec![Open::new(&root, &directory, 0)];
        while let Some(open) = stack.last_mut() {
            self.path.truncate(open.path);
            let Some(named) = self.next(open)? else {
                stack.pop();
                continue;
            };
            let (path, number) = (self.path.len(), open.number);
            let inode = self.inode(named.reference)?;
            if inode.basic_type != named.basic_type {
                return Err(corrupt("a directory has a wrong type for an entry"));
            }
            self.admit(&inode)?;
            if let Content::Directory(directory) = &inode.content {
                // A directory with two parents could be walked without end.
                if directory.parent != number {
                    return Err(corrupt("a directory doesn't know its parent"));
                }
                stack.push(Open::new(&inode, directory, path));
            }
        }
        if self.role == Role::Rootfs {
            self.parts.found(InstanceType::Container)?;
        }
        self.parts.complete(self.role)?;
        Ok(Walked { parts: self.parts, entries: self.entries, unpacked: self.unpacked })
    }

    fn inode(&mut self, reference: u64) -> Result<Inode, FormatError> {
        inode::read(&mut self.blocks, &self.superblock, self.xattrs, reference)
    }

    /// The next entry of a directory; its name is put behind the path.
    fn next(&mut self, open: &mut Open) -> Result<Option<Named>, FormatError> {
        let wrong = || corrupt("a directory has a wrong length");
        if open.left == 0 {
            return if open.run == 0 { Ok(None) } else { Err(wrong()) };
        }
        if open.run == 0 {
            const LONGEST_RUN: u32 = 256;
            let mut run = [0; 12];
            open.left = open.left.checked_sub(12).ok_or_else(wrong)?;
            self.blocks.read(&mut open.at, &mut run)?;
            open.run = small(&run, 0, 4).saturating_add(1);
            open.inode_block = number(&run, 4, 4);
            if open.run > LONGEST_RUN {
                return Err(wrong());
            }
        }
        let mut fixed = [0; 8];
        self.blocks.read(&mut open.at, &mut fixed)?;
        let len = small(&fixed, 6, 2) + 1;
        open.left = open.left.checked_sub(8 + len).ok_or_else(wrong)?;
        open.run -= 1;
        let mut name = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.blocks.read(&mut open.at, &mut name)?;
        self.push_name(&name, &open.previous)?;
        open.previous = name;
        Ok(Some(Named {
            reference: (open.inode_block << 16) | number(&fixed, 0, 2),
            basic_type: small(&fixed, 4, 2),
        }))
    }

    fn push_name(&mut self, name: &[u8], previous: &[u8]) -> Result<(), FormatError> {
        const MAX_NAME: usize = 255;
        self.entries += 1;
        self.limits.check_entries(self.entries)?;
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        if matches!(name, b"." | b"..") || name.contains(&b'/') {
            return Err(FormatError::LeavesRoot { entry: quoted(&self.path) });
        }
        if name.contains(&0) || name.len() > MAX_NAME || self.path.len() > MAX_PATH {
            return Err(FormatError::entry(&self.path, "has a name that no file system takes"));
        }
        if name == previous {
            return Err(FormatError::Duplicate { entry: quoted(&self.path) });
        }
        if name < previous {
            return Err(corrupt("the entries of a directory are not in order"));
        }
        Ok(())
    }

    /// Checks an entry against the rules for images, and its data.
    fn admit(&mut self, inode: &Inode) -> Result<(), FormatError> {
        let place = self.role.place(&self.path)?;
        let (shape, size) = match &inode.content {
            Content::Directory(_) => (Shape::Directory, 0),
            Content::File(file) => (Shape::File, file.size),
            Content::Other => (Shape::Other, 0),
        };
        place.admit(&self.path, shape, size)?;
        let Content::File(file) = &inode.content else {
            if matches!(place, Place::Rootfs | Place::InRootfs) {
                self.parts.found(InstanceType::Container)?;
            }
            return Ok(());
        };
        self.unpacked = self.unpacked.saturating_add(size);
        if self.unpacked > self.limits.unpacked {
            return Err(FormatError::TooLarge { limit: self.limits.unpacked });
        }
        self.check_data(file)?;
        match place {
            Place::Metadata => {
                let content = self.start_of(file, Metadata::MAX_BYTES)?;
                self.parts.metadata = Some(Metadata::parse(&content)?);
            }
            Place::Disk => {
                let head = self.start_of(file, qcow2::HEADER_BYTES)?;
                if head.starts_with(qcow2::MAGIC) {
                    qcow2::check_header(&head, size, self.limits)?;
                }
                self.parts.found(InstanceType::VirtualMachine)?;
            }
            Place::InRootfs => self.parts.found(InstanceType::Container)?,
            Place::Root | Place::Rootfs | Place::Templates => {}
        }
        Ok(())
    }

    /// Checks where a file's blocks are, and what is in them if that is asked for.
    fn check_data(&mut self, file: &File) -> Result<(), FormatError> {
        let block_size = u64::from(self.superblock.block_size);
        let (mut at, mut start, mut left) = (file.sizes, file.start, file.size);
        for _ in 0..file.blocks(self.superblock.block_size) {
            let (stored, compressed) = self.block_size(&mut at)?;
            let len = left.min(block_size);
            left -= len;
            if stored == 0 {
                continue;
            }
            self.blocks.check_range(start, u64::from(stored))?;
            self.stored += len;
            self.limits.check_unpacked(self.superblock.bytes_used, self.stored)?;
            if self.verify_data {
                self.decode(start, stored, compressed)?;
                if self.buffer.len() as u64 != len {
                    return Err(corrupt("a block of a file has a wrong length"));
                }
            }
            start += u64::from(stored);
        }
        Ok(())
    }

    /// Reads the next size of a file's list: how many bytes are stored, and whether compressed.
    fn block_size(&mut self, at: &mut Cursor) -> Result<(u32, bool), FormatError> {
        let mut word = [0; 4];
        self.blocks.read(at, &mut word)?;
        let word = u32::from_le_bytes(word);
        let stored = word & (UNCOMPRESSED - 1);
        if stored > self.superblock.block_size {
            return Err(corrupt("a block is too large"));
        }
        Ok((stored, word & UNCOMPRESSED == 0))
    }

    fn decode(&mut self, start: u64, stored: u32, compressed: bool) -> Result<(), FormatError> {
        let limit = usize::try_from(self.superblock.block_size).unwrap_or_default();
        let stored = usize::try_from(stored).unwrap_or(usize::MAX);
        self.blocks.decode(start, stored, compressed, limit, &mut self.buffer)
    }

    /// The first bytes of a file: all of it, or at most `limit` rounded up to a whole block.
    fn start_of(&mut self, file: &File, limit: usize) -> Result<Vec<u8>, FormatError> {
        let block_size = u64::from(self.superblock.block_size);
        let (mut at, mut start) = (file.sizes, file.start);
        let mut content = Vec::new();
        for _ in 0..file.blocks(self.superblock.block_size) {
            if content.len() >= limit {
                return Ok(content);
            }
            let (stored, compressed) = self.block_size(&mut at)?;
            let len = (file.size - content.len() as u64).min(block_size);
            let end = content.len() + usize::try_from(len).unwrap_or_default();
            if stored > 0 {
                self.decode(start, stored, compressed)?;
                content.extend_from_slice(&self.buffer);
                start += u64::from(stored);
            }
            // A hole, or a block that is shorter than it should be.
            content.resize(end, 0);
        }
        if let Some((index, offset)) = file.fragment {
            let (start, stored, compressed) = self.fragment(index)?;
            self.decode(start, stored, compressed)?;
            let tail = usize::try_from(file.size % block_size).unwrap_or_default();
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            let tail = self
                .buffer
                .get(offset..)
                .and_then(|rest| rest.get(..tail))
                .ok_or_else(|| corrupt("a file's tail is not in its fragment"))?;
            content.extend_from_slice(tail);
        }
        Ok(content)
    }

    fn fragment(&mut self, index: u32) -> Result<(u64, u32, bool), FormatError> {
        let table = self
            .superblock
            .fragment_table
            .ok_or_else(|| corrupt("its fragment table is missing"))?;
        let record = self.blocks.record(table, u64::from(index))?;
        let word = small(&record, 8, 4);
        let stored = word & (UNCOMPRESSED - 1);
        if stored == 0 || stored > self.superblock.block_size {
            return Err(corrupt("a fragment has a wrong size"));
        }
        Ok((number(&record, 0, 8), stored, word & UNCOMPRESSED == 0))
    }

    /// Checks all blocks that hold the tails of several files.
    fn check_fragments(&mut self) -> Result<(), FormatError> {
        for index in 0..self.superblock.fragment_count {
            let (start, stored, compressed) = self.fragment(index)?;
            self.blocks.check_range(start, u64::from(stored))?;
            self.stored += u64::from(self.superblock.block_size);
            self.limits.check_unpacked(self.superblock.bytes_used, self.stored)?;
            if self.verify_data {
                self.decode(start, stored, compressed)?;
            }
        }
        Ok(())
    }
}

impl Open {
    fn new(inode: &Inode, directory: &Directory, path: usize) -> Self {
        Self {
            number: inode.number,
            at: directory.listing,
            left: directory.len,
            run: 0,
            inode_block: 0,
            previous: Vec::new(),
            path,
        }
    }
}

/// How many sets of extended attributes there are.
fn xattr_count(superblock: &Superblock, blocks: &Blocks<'_>) -> Result<u32, FormatError> {
    let Some(table) = superblock.xattr_table else { return Ok(0) };
    let mut head = [0; 16];
    blocks.plain(&mut head, table)?;
    blocks.check_range(number(&head, 0, 8), 1)?;
    Ok(small(&head, 8, 4))
}

/// Checks that the table of owners can be read.
fn check_owners(superblock: &Superblock, blocks: &mut Blocks<'_>) -> Result<(), FormatError> {
    const PER_BLOCK: u32 = 2048;
    for index in 0..superblock.id_count.div_ceil(PER_BLOCK) {
        let block = blocks.table_block(superblock.id_table, u64::from(index))?;
        let last = (superblock.id_count - index * PER_BLOCK).min(PER_BLOCK) - 1;
        let offset = usize::try_from(last).unwrap_or_default() * 4;
        blocks.read(&mut Cursor { block, offset }, &mut [0; 4])?;
    }
    Ok(())
}
