//! Reads an archive for unpacking: what comes out obeys the same rules as an import.

use super::error::FormatError;
use super::layout::{Limits, Role};
use super::tar_check::Rules;
use super::tar_reader::{Entry, EntryKind, TarReader, Visitor};
use crate::metadata::Metadata;

/// Who unpacks an archive.
pub trait Receiver {
    /// What stops the unpacking.
    type Error: From<FormatError>;

    /// A new entry. Its name is relative, free of `.`, `..` and double slashes, and empty for the
    /// root of the archive. It was not used before (but for directories, which may come twice),
    /// and all above it are directories, some of them perhaps without an entry of their own.
    /// A hard link's target has the same form, and is a file in the root file system that came
    /// before; a symbolic link's may be anything.
    ///
    /// The answer tells whether its data is wanted.
    fn entry(&mut self, entry: &Entry<'_>) -> Result<bool, Self::Error>;

    /// The next data of the entry, and where in the file it belongs, in ascending order. Holes of
    /// sparse files are left out.
    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// The entry, whose data was wanted, has ended.
    fn entry_end(&mut self) -> Result<(), Self::Error>;
}

/// Takes an uncompressed archive piece by piece and hands out its entries, each checked before.
pub struct Extractor {
    reader: TarReader,
    rules: Rules,
    wanted: Wanted,
}

/// Who wants the data of the current entry.
#[derive(Clone, Copy, Default)]
struct Wanted {
    rules: bool,
    receiver: bool,
}

/// The rules in front of a receiver.
struct Checked<'a, R> {
    rules: &'a mut Rules,
    receiver: &'a mut R,
    wanted: &'a mut Wanted,
}

/// What an archive had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// What its `metadata.yaml` says, if it has one.
    pub metadata: Option<Metadata>,
    /// How many entries it has.
    pub entries: u64,
    /// How many bytes its files have when unpacked, holes counted in.
    pub unpacked_bytes: u64,
}

impl Extractor {
    /// At the start of an archive.
    pub fn new(role: Role, limits: Limits) -> Self {
        Self {
            reader: TarReader::new(),
            rules: Rules::new(role, limits),
            wanted: Wanted::default(),
        }
    }

    /// Takes the next bytes. After an error the extractor is of no further use.
    ///
    /// # Errors
    /// What is wrong with the archive, or the receiver's first error.
    pub fn feed<R: Receiver>(&mut self, bytes: &[u8], receiver: &mut R) -> Result<(), R::Error> {
        let Self { reader, rules, wanted } = self;
        reader.feed(bytes, &mut Checked { rules, receiver, wanted })
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When something is missing.
    pub fn finish(self) -> Result<Extracted, FormatError> {
        self.reader.finish()?;
        let (entries, unpacked_bytes) = (self.rules.entries(), self.rules.unpacked());
        Ok(Extracted { metadata: self.rules.finish()?.metadata, entries, unpacked_bytes })
    }
}

impl<R: Receiver> Visitor for Checked<'_, R> {
    type Error = R::Error;

    fn entry(&mut self, entry: &Entry<'_>) -> Result<bool, R::Error> {
        let rules = self.rules.entry(entry)?;
        let link = match entry.kind {
            EntryKind::HardLink => self.rules.target(),
            _ => entry.link,
        };
        let receiver = self.receiver.entry(&Entry { name: self.rules.path(), link, ..*entry })?;
        *self.wanted = Wanted { rules, receiver };
        Ok(rules || receiver)
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), R::Error> {
        if self.wanted.rules {
            self.rules.data(offset, bytes)?;
        }
        if self.wanted.receiver { self.receiver.data(offset, bytes) } else { Ok(()) }
    }

    fn entry_end(&mut self) -> Result<(), R::Error> {
        if self.wanted.rules {
            self.rules.entry_end()?;
        }
        if self.wanted.receiver { self.receiver.entry_end() } else { Ok(()) }
    }
}

impl std::fmt::Debug for Extractor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extractor").field("entries", &self.rules.entries()).finish_non_exhaustive()
    }
}
