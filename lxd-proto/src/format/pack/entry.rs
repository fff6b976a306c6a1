//! The headers of one entry: a ustar block, and an extended header for what doesn't fit there.

use std::fs::Metadata as FileMetadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr, major, minor};
use tar::{EntryType, Header};

/// The longest name that fits a header.
const SHORT: usize = 100;

/// One entry to be written.
pub(super) struct Entry<'a> {
    metadata: &'a FileMetadata,
    name: Vec<u8>,
    kind: EntryType,
    /// The target of a link.
    pub(super) link: Vec<u8>,
    /// In order of their names.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Entry<'a> {
    pub(super) fn new(metadata: &'a FileMetadata, name: &[u8]) -> Self {
        let file_type = metadata.file_type();
        let kind = if file_type.is_dir() {
            EntryType::Directory
        } else if file_type.is_symlink() {
            EntryType::Symlink
        } else if file_type.is_char_device() {
            EntryType::Char
        } else if file_type.is_block_device() {
            EntryType::Block
        } else if file_type.is_fifo() {
            EntryType::Fifo
        } else {
            EntryType::Regular
        };
        let mut name = name.to_vec();
        if kind == EntryType::Directory {
            name.push(b'/');
        }
        Self { metadata, name, kind, link: Vec::new(), xattrs: Vec::new() }
    }

    /// Another name of a file that was written before.
    pub(super) fn hard_link(metadata: &'a FileMetadata, name: &[u8], first: &[u8]) -> Self {
        Self {
            metadata,
            name: name.to_vec(),
            kind: EntryType::Link,
            link: first.to_vec(),
            xattrs: Vec::new(),
        }
    }

    /// The blocks in front of the entry's data.
    pub(super) fn encode(&self, newest: u64) -> Vec<u8> {
        let mut records = Vec::new();
        if self.name.len() > SHORT {
            push_record(&mut records, b"path", &self.name);
        }
        if self.link.len() > SHORT {
            push_record(&mut records, b"linkpath", &self.link);
        }
        for (name, value) in &self.xattrs {
            push_record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        let mut blocks = Vec::new();
        if !records.is_empty() {
            let mut header = blank(EntryType::XHeader, b"PaxHeaders/entry");
            header.set_size(records.len() as u64);
            header.set_cksum();
            blocks.extend_from_slice(header.as_bytes());
            blocks.extend_from_slice(&records);
            blocks.resize(blocks.len().next_multiple_of(512), 0);
        }
        blocks.extend_from_slice(self.header(newest).as_bytes());
        blocks
    }

    fn header(&self, newest: u64) -> Header {
        let mut header = blank(self.kind, &self.name);
        header.set_mode(self.metadata.mode() & 0o7777);
        header.set_uid(self.metadata.uid().into());
        header.set_gid(self.metadata.gid().into());
        header.set_mtime(u64::try_from(self.metadata.mtime()).unwrap_or_default().min(newest));
        if self.kind == EntryType::Regular {
            header.set_size(self.metadata.len());
        }
        let link = &self.link[..self.link.len().min(SHORT)];
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        if matches!(self.kind, EntryType::Char | EntryType::Block)
            && let Some(ustar) = header.as_ustar_mut()
        {
            ustar.set_device_major(major(self.metadata.rdev()));
            ustar.set_device_minor(minor(self.metadata.rdev()));
        }
        header.set_cksum();
        header
    }
}

/// A header with nothing but a type and as much of a name as fits.
fn blank(kind: EntryType, name: &[u8]) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    let short = &name[..name.len().min(SHORT)];
    header.as_old_mut().name[..short.len()].copy_from_slice(short);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

/// Appends `LENGTH KEY=VALUE\n`, where the length counts itself.
fn push_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len += 1;
    }
    records.extend_from_slice(len.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The extended attributes of a file, in order of their names; none where there can't be any.
pub(super) fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // The kernel's limit on the list of names, and on each value.
    const MOST: usize = 64 << 10;
    let mut list = vec![0; MOST];
    let len = match llistxattr(path, &mut list[..]) {
        Ok(len) => len,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut names: Vec<&[u8]> =
        list[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let mut xattrs = Vec::new();
    for name in names {
        if name.contains(&b'=') {
            let name = String::from_utf8_lossy(name);
            return Err(io::Error::other(format!("attribute {name:?} can't be kept in a tarball")));
        }
        let mut value = vec![0; MOST];
        let len = lgetxattr(path, name, &mut value[..])?;
        value.truncate(len);
        xattrs.push((name.to_vec(), value));
    }
    Ok(xattrs)
}
