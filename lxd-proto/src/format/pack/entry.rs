//! The headers of one entry: a ustar block, and an extended header for what doesn't fit there.

use std::io;
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr};
use tar::{EntryType, Header};

use crate::format::tar_header::Fragment;
use crate::format::tar_reader::{Entry, EntryKind};

/// The longest name that fits a header.
const SHORT: usize = 100;

/// The blocks in front of an entry's data. Times are written in whole seconds, users and groups
/// as numbers, and an extended header only where it is needed, so that equal entries have equal
/// bytes.
///
/// Of a file with `fragments` only these are stored: their data follows, one after the other, and
/// then what fills up the last block.
pub fn encode_entry(entry: &Entry<'_>, fragments: Option<&[Fragment]>) -> Vec<u8> {
    let map = fragments.map(sparse_map);
    let mut records = Vec::new();
    let mut name = entry.name.to_vec();
    if entry.kind == EntryKind::Directory {
        name.push(b'/');
    }
    if map.is_some() {
        push_record(&mut records, b"GNU.sparse.major", b"1");
        push_record(&mut records, b"GNU.sparse.minor", b"0");
        push_record(&mut records, b"GNU.sparse.name", &name);
        push_record(&mut records, b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
        name = b"GNUSparseFile.0/entry".to_vec();
    } else if name.len() > SHORT {
        push_record(&mut records, b"path", &name);
    }
    if entry.link.len() > SHORT {
        push_record(&mut records, b"linkpath", entry.link);
    }
    for (key, value) in &entry.attributes.xattrs {
        push_record(&mut records, &[b"SCHILY.xattr.", &key[..]].concat(), value);
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
    let stored = match (fragments, &map) {
        (Some(fragments), Some(map)) => {
            map.len() as u64 + fragments.iter().map(|fragment| fragment.len).sum::<u64>()
        }
        _ => entry.size,
    };
    blocks.extend_from_slice(header(entry, &name, stored).as_bytes());
    blocks.extend_from_slice(&map.unwrap_or_default());
    blocks
}

/// The map in front of the data, as GNU tar's format 1.0 has it: decimal numbers, one a line.
fn sparse_map(fragments: &[Fragment]) -> Vec<u8> {
    let mut map = format!("{}\n", fragments.len());
    for Fragment { offset, len } in fragments {
        map += &format!("{offset}\n{len}\n");
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(512), 0);
    map
}

fn header(entry: &Entry<'_>, name: &[u8], stored: u64) -> Header {
    let attributes = entry.attributes;
    let (kind, device) = match entry.kind {
        EntryKind::File => (EntryType::Regular, None),
        EntryKind::HardLink => (EntryType::Link, None),
        EntryKind::Symlink => (EntryType::Symlink, None),
        EntryKind::CharacterDevice(major, minor) => (EntryType::Char, Some((major, minor))),
        EntryKind::BlockDevice(major, minor) => (EntryType::Block, Some((major, minor))),
        EntryKind::Directory => (EntryType::Directory, None),
        EntryKind::Fifo => (EntryType::Fifo, None),
    };
    let mut header = blank(kind, name);
    header.set_mode(attributes.mode & 0o7777);
    header.set_uid(attributes.uid.into());
    header.set_gid(attributes.gid.into());
    header.set_mtime(u64::try_from(attributes.mtime.seconds).unwrap_or_default());
    if entry.kind == EntryKind::File {
        header.set_size(stored);
    }
    let link = &entry.link[..entry.link.len().min(SHORT)];
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    if let (Some((major, minor)), Some(ustar)) = (device, header.as_ustar_mut()) {
        ustar.set_device_major(major);
        ustar.set_device_minor(minor);
    }
    header.set_cksum();
    header
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
