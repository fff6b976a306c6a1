//! Inodes: what a directory entry stands for.

use super::block::{Blocks, Cursor};
use super::superblock::Superblock;
use super::{corrupt, number, small};
use crate::format::error::FormatError;
use crate::format::tar_header::MAX_PATH;

/// The fragment index of a file that has none.
const NO_FRAGMENT: u32 = u32::MAX;

/// The xattr index of an inode that has none.
const NO_XATTR: u32 = u32::MAX;

/// An inode, as far as it matters for checking.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inode {
    pub(super) number: u32,
    /// The type, as directory entries have it (1 to 7).
    pub(super) basic_type: u32,
    pub(super) content: Content,
}

/// What is behind an inode.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    Directory(Directory),
    File(File),
    /// A link, device, fifo or socket.
    Other,
}

/// Where a directory's listing is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory {
    pub(super) listing: Cursor,
    pub(super) len: u32,
    pub(super) parent: u32,
}

/// Where a file's data is.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    pub(super) start: u64,
    pub(super) size: u64,
    /// The block and the offset in it where the file's tail is, if it shares one with others.
    pub(super) fragment: Option<(u32, u32)>,
    /// Where the list of the sizes of its blocks is.
    pub(super) sizes: Cursor,
}

impl File {
    /// How many blocks it has for itself.
    pub(super) fn blocks(&self, block_size: u32) -> u64 {
        let block_size = u64::from(block_size);
        match self.fragment {
            Some(_) => self.size / block_size,
            None => self.size.div_ceil(block_size),
        }
    }
}

/// Reads the inode that a 48-bit reference points to.
pub(super) fn read(
    blocks: &mut Blocks<'_>,
    superblock: &Superblock,
    xattrs: u32,
    reference: u64,
) -> Result<Inode, FormatError> {
    let block = superblock
        .inode_table
        .checked_add(reference >> 16)
        .filter(|&block| block < superblock.directory_table)
        .ok_or_else(|| corrupt("an inode is not in the inode table"))?;
    let mut at = Cursor { block, offset: usize::try_from(reference & 0xffff).unwrap_or_default() };
    let mut head = [0; 16];
    blocks.read(&mut at, &mut head)?;
    let inode_type = small(&head, 0, 2);
    let inode_number = small(&head, 12, 4);
    if inode_number == 0 || inode_number > superblock.inode_count {
        return Err(corrupt("an inode has a number out of range"));
    }
    if small(&head, 4, 2) >= superblock.id_count || small(&head, 6, 2) >= superblock.id_count {
        return Err(corrupt("an inode has an owner that is not in the table of owners"));
    }
    let mut body = Body { blocks, superblock, xattrs, at };
    let content = body.content(inode_type)?;
    let basic_type = if inode_type > 7 { inode_type - 7 } else { inode_type };
    Ok(Inode { number: inode_number, basic_type, content })
}

struct Body<'b, 'a> {
    blocks: &'b mut Blocks<'a>,
    superblock: &'b Superblock,
    xattrs: u32,
    at: Cursor,
}

impl Body<'_, '_> {
    fn read<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut bytes = [0; N];
        self.blocks.read(&mut self.at, &mut bytes)?;
        Ok(bytes)
    }

    fn content(&mut self, inode_type: u32) -> Result<Content, FormatError> {
        match inode_type {
            1 => {
                let raw = self.read::<16>()?;
                let len = small(&raw, 8, 2);
                self.directory(small(&raw, 0, 4), small(&raw, 10, 2), len, small(&raw, 12, 4))
            }
            8 => {
                let raw = self.read::<24>()?;
                self.xattr(small(&raw, 20, 4))?;
                let len = small(&raw, 4, 4);
                self.directory(small(&raw, 8, 4), small(&raw, 18, 2), len, small(&raw, 12, 4))
            }
            2 => {
                let raw = self.read::<16>()?;
                let fragment = (small(&raw, 4, 4), small(&raw, 8, 4));
                self.file(u64::from(small(&raw, 0, 4)), u64::from(small(&raw, 12, 4)), fragment)
            }
            9 => {
                let raw = self.read::<40>()?;
                self.xattr(small(&raw, 36, 4))?;
                let fragment = (small(&raw, 28, 4), small(&raw, 32, 4));
                self.file(number(&raw, 0, 8), number(&raw, 8, 8), fragment)
            }
            3 | 10 => {
                self.link()?;
                if inode_type == 10 {
                    let raw = self.read::<4>()?;
                    self.xattr(small(&raw, 0, 4))?;
                }
                Ok(Content::Other)
            }
            4 | 5 => self.read::<8>().map(|_| Content::Other),
            6 | 7 => self.read::<4>().map(|_| Content::Other),
            11 | 12 => {
                let raw = self.read::<12>()?;
                self.xattr(small(&raw, 8, 4))?;
                Ok(Content::Other)
            }
            13 | 14 => {
                let raw = self.read::<8>()?;
                self.xattr(small(&raw, 4, 4))?;
                Ok(Content::Other)
            }
            _ => Err(corrupt("an inode is of a type not known here")),
        }
    }

    fn xattr(&self, index: u32) -> Result<(), FormatError> {
        if index != NO_XATTR && index >= self.xattrs {
            return Err(corrupt("an inode has attributes that are not in their table"));
        }
        Ok(())
    }

    fn directory(
        &self,
        block: u32,
        offset: u32,
        len: u32,
        parent: u32,
    ) -> Result<Content, FormatError> {
        // The length counts "." and "..", which are not stored, as three bytes.
        let len = len.checked_sub(3).ok_or_else(|| corrupt("a directory has a wrong length"))?;
        let block = self.superblock.directory_table + u64::from(block);
        let listing = Cursor { block, offset: usize::try_from(offset).unwrap_or(usize::MAX) };
        Ok(Content::Directory(Directory { listing, len, parent }))
    }

    fn file(
        &self,
        start: u64,
        size: u64,
        (fragment, offset): (u32, u32),
    ) -> Result<Content, FormatError> {
        let block_size = u64::from(self.superblock.block_size);
        let fragment = (fragment != NO_FRAGMENT).then_some((fragment, offset));
        if let Some((index, offset)) = fragment {
            let end = u64::from(offset) + size % block_size;
            if index >= self.superblock.fragment_count || end > block_size {
                return Err(corrupt("a file's tail is not in the table of fragments"));
            }
        }
        Ok(Content::File(File { start, size, fragment, sizes: self.at }))
    }

    fn link(&mut self) -> Result<(), FormatError> {
        let raw = self.read::<8>()?;
        let len = usize::try_from(small(&raw, 4, 4)).unwrap_or(usize::MAX);
        if len == 0 || len > MAX_PATH {
            return Err(corrupt("a link has a target of a wrong length"));
        }
        let mut target = vec![0; len];
        self.blocks.read(&mut self.at, &mut target)?;
        if target.contains(&0) {
            return Err(corrupt("a link has a target with a NUL"));
        }
        Ok(())
    }
}
