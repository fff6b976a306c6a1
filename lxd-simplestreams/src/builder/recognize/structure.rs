//! Whether a tarball looks like a root file system: any tarball can be checked as one.

use std::io::{self, Read};

use lxd_proto::format::{
    Compression, Decoder, Entry, EntryKind, Extractor, FormatError, Limits, Receiver, Role,
};

/// Directories, or links to them, that one or the other of is in every system, and in the
/// tarballs of logs and sources that lie about beside images in none.
const DIRECTORIES: [&[u8]; 9] =
    [b"bin", b"boot", b"dev", b"etc", b"lib", b"proc", b"sbin", b"sys", b"usr"];

/// Looks for one.
#[derive(Default)]
struct Search {
    found: bool,
}

impl Receiver for Search {
    type Error = FormatError;

    fn entry(&mut self, entry: &Entry<'_>) -> Result<bool, FormatError> {
        let mut names = entry.name.split(|&byte| byte == b'/');
        let top = names.next().unwrap_or_default();
        let is_directory = names.next().is_some()
            || matches!(entry.kind, EntryKind::Directory | EntryKind::Symlink);
        self.found |= is_directory && DIRECTORIES.contains(&top);
        Ok(false)
    }

    fn data(&mut self, _: u64, _: &[u8]) -> Result<(), FormatError> {
        Ok(())
    }

    fn entry_end(&mut self) -> Result<(), FormatError> {
        Ok(())
    }
}

/// Whether the tarball, or the beginning of it that can be read, has such a directory.
pub(super) fn is_root(mut file: impl Read, compression: Compression) -> io::Result<bool> {
    let mut search = Search::default();
    let mut extractor = Extractor::new(Role::Rootfs, Limits::default());
    let Ok(mut decoder) = Decoder::new(compression) else { return Ok(false) };
    let mut buffer = vec![0; 64 << 10];
    while !search.found {
        let count = super::read(&mut file, &mut buffer)?;
        // What is wrong with it is told by those who check it whole.
        if count == 0
            || decoder
                .feed(&buffer[..count], &mut |piece| extractor.feed(piece, &mut search))
                .is_err()
        {
            break;
        }
    }
    Ok(search.found)
}
