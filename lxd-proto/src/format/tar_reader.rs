//! Tar archives by pushing: blocks go in as they arrive, entries come out.

use super::error::FormatError;
use super::tar_header::{
    BLOCK, Fragment, Header, MAX_PATH, Pax, TAR, corrupt, decimal, sparse_block, until_nul,
};

/// The most that an extended header may hold.
const MAX_EXTENDED: u64 = 1 << 20;

/// The most fragments of one sparse file; a file on disk rarely has a thousand.
const MAX_FRAGMENTS: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    HardLink,
    Symlink,
    Device,
    Directory,
    Fifo,
}

/// One entry of an archive.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The name as it is written.
    pub(super) name: &'a [u8],
    /// The target of a link.
    pub(super) link: &'a [u8],
    pub(super) kind: EntryKind,
    /// The size when unpacked.
    pub(super) size: u64,
    /// Whether only fragments of a file are stored.
    pub(super) sparse: bool,
}

/// Who receives the entries.
pub(super) trait Visitor {
    /// A new entry. The answer tells whether its data is wanted.
    fn entry(&mut self, entry: &Entry<'_>) -> Result<bool, FormatError>;

    /// The next data of the entry. Of a sparse file only the fragment at its start is handed out.
    fn data(&mut self, bytes: &[u8]) -> Result<(), FormatError>;

    /// The entry, whose data was wanted, has ended.
    fn entry_end(&mut self) -> Result<(), FormatError>;
}

/// Headers that speak about the entry after them.
#[derive(Default)]
struct Pending {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

/// Checks that the fragments of a sparse file are in order, inside the file, and as long as the
/// data that is stored.
#[derive(Debug)]
struct SparseMap {
    size: u64,
    stored: u64,
    end: u64,
    sum: u64,
    count: u64,
    /// How much of the data belongs to the very start of the file.
    head: u64,
}

enum State {
    /// A header block comes next.
    Header,
    /// The content of an extended header.
    Extended { type_flag: u8, left: u64, padding: u64, content: Vec<u8> },
    /// More blocks with the map of an old GNU sparse file; then its entry.
    SparseBlocks { entry: Box<Waiting>, map: SparseMap },
    /// The map at the start of the data of a pax sparse file; `numbers` were read so far.
    SparseText { map: SparseMap, line: Vec<u8>, numbers: u64, count: u64, offset: u64 },
    /// The data of an entry; `handed` bytes of it are still to be handed out.
    Data { left: u64, padding: u64, handed: u64, wanted: bool },
    /// After the first zero block.
    End,
}

/// An entry whose header is read, but not yet all of its map.
struct Waiting {
    name: Vec<u8>,
    link: Vec<u8>,
}

/// Reads one archive.
pub(super) struct TarReader {
    state: State,
    block: [u8; BLOCK],
    filled: usize,
    pending: Pending,
}

impl TarReader {
    pub(super) fn new() -> Self {
        Self { state: State::Header, block: [0; BLOCK], filled: 0, pending: Pending::default() }
    }

    /// Takes the next bytes of the archive.
    pub(super) fn feed(
        &mut self,
        mut input: &[u8],
        visitor: &mut dyn Visitor,
    ) -> Result<(), FormatError> {
        while !input.is_empty() {
            let used = match &mut self.state {
                State::Data { left, padding, handed, wanted } => {
                    if *wanted && *handed > 0 {
                        let piece = &input[..cut(*handed, input.len())];
                        visitor.data(piece)?;
                        *handed -= piece.len() as u64;
                        *left -= piece.len() as u64;
                        piece.len()
                    } else {
                        let used = cut(left.saturating_add(*padding), input.len());
                        consume(used as u64, left, padding);
                        used
                    }
                }
                State::Extended { left, padding, content, .. } => {
                    let used = if *left > 0 {
                        let used = cut(*left, input.len());
                        content.extend_from_slice(&input[..used]);
                        used
                    } else {
                        cut(*padding, input.len())
                    };
                    consume(used as u64, left, padding);
                    used
                }
                State::SparseText { .. } => self.sparse_text(input[0])?,
                State::End if is_zero(input) => return Ok(()),
                State::End => return Err(FormatError::TrailingData { what: TAR }),
                State::Header | State::SparseBlocks { .. } => {
                    let used = (BLOCK - self.filled).min(input.len());
                    self.block[self.filled..self.filled + used].copy_from_slice(&input[..used]);
                    self.filled += used;
                    used
                }
            };
            input = &input[used..];
            self.advance(visitor)?;
        }
        Ok(())
    }

    /// How many of the next bytes nobody needs to see: the data of an entry that isn't wanted.
    pub(super) fn skippable(&self) -> u64 {
        match &self.state {
            State::Data { left, padding, handed, wanted } if !*wanted || *handed == 0 => {
                left.saturating_add(*padding)
            }
            _ => 0,
        }
    }

    /// Goes on behind the next `count` bytes, at most [`TarReader::skippable`] of them; more than
    /// that is an archive that does not end where it says.
    pub(super) fn skip(
        &mut self,
        count: u64,
        visitor: &mut dyn Visitor,
    ) -> Result<(), FormatError> {
        if count > self.skippable() {
            return Err(corrupt("more was skipped than may be"));
        }
        if let State::Data { left, padding, .. } = &mut self.state {
            consume(count, left, padding);
        }
        self.advance(visitor)
    }

    /// Whether the archive has ended as it should: with its end marker.
    pub(super) fn finish(&self) -> Result<(), FormatError> {
        match self.state {
            State::End => Ok(()),
            _ => Err(FormatError::Truncated { what: TAR }),
        }
    }

    /// Leaves states that have all their bytes.
    fn advance(&mut self, visitor: &mut dyn Visitor) -> Result<(), FormatError> {
        match &mut self.state {
            State::Header if self.filled == BLOCK => {
                self.filled = 0;
                self.header(visitor)?;
            }
            State::SparseBlocks { .. } if self.filled == BLOCK => {
                self.filled = 0;
                self.sparse_blocks(visitor)?;
            }
            State::Extended { type_flag, left: 0, padding: 0, content } => {
                let (type_flag, content) = (*type_flag, std::mem::take(content));
                self.state = State::Header;
                self.pending.take(type_flag, &content)?;
            }
            _ => {}
        }
        if let State::Data { left: 0, padding: 0, wanted, .. } = self.state {
            self.state = State::Header;
            if wanted {
                visitor.entry_end()?;
            }
        }
        Ok(())
    }

    fn header(&mut self, visitor: &mut dyn Visitor) -> Result<(), FormatError> {
        let block = self.block;
        let header = Header(&block);
        if is_zero(&block) {
            if !self.pending.is_empty() {
                return Err(corrupt("an extended header has no entry after it"));
            }
            self.state = State::End;
            return Ok(());
        }
        header.check_sum()?;
        let type_flag = header.type_flag();
        if matches!(type_flag, b'L' | b'K' | b'x' | b'g') {
            return self.extended(type_flag, header.size()?);
        }
        header.check_numbers()?;
        self.entry(&header, visitor)
    }

    fn extended(&mut self, type_flag: u8, size: u64) -> Result<(), FormatError> {
        let limit = match type_flag {
            b'L' | b'K' => MAX_PATH as u64 + 1,
            _ => MAX_EXTENDED,
        };
        if size > limit {
            return Err(corrupt(format!("an extended header is larger than {limit} bytes")));
        }
        self.state =
            State::Extended { type_flag, left: size, padding: padding(size), content: Vec::new() };
        Ok(())
    }

    /// An entry proper begins.
    fn entry(&mut self, header: &Header<'_>, visitor: &mut dyn Visitor) -> Result<(), FormatError> {
        let Pending { name, link, pax } = std::mem::take(&mut self.pending);
        let pax = pax.unwrap_or_default();
        let mut sparse = pax.sparse;
        let sparse_name = sparse.as_mut().and_then(|sparse| sparse.name.take());
        let name = agreed(name, sparse_name.or(pax.path))?.unwrap_or_else(|| header.name());
        let link = agreed(link, pax.link)?.unwrap_or_else(|| header.link());
        let stored = match pax.size {
            Some(size) => size,
            None => header.size()?,
        };
        let kind = kind(header.type_flag(), &name, stored)?;
        let entry = Waiting { name, link };
        if header.type_flag() == b'S' {
            let mut map = SparseMap::new(header.sparse_size()?, stored);
            let (fragments, more) = header.sparse_map()?;
            map.extend(&fragments)?;
            if more {
                self.state = State::SparseBlocks { entry: Box::new(entry), map };
                return Ok(());
            }
            return self.sparse_file(&entry, &map, visitor);
        }
        let Some(sparse) = sparse else {
            let entry =
                Entry { name: &entry.name, link: &entry.link, kind, size: stored, sparse: false };
            let wanted = visitor.entry(&entry)?;
            self.state =
                State::Data { left: stored, padding: padding(stored), handed: stored, wanted };
            return self.advance(visitor);
        };
        if kind != EntryKind::File {
            return Err(corrupt("something that is no file is sparse"));
        }
        let size = sparse.size.ok_or_else(|| corrupt("a sparse file has no size"))?;
        let mut map = SparseMap::new(size, stored);
        if !sparse.map_in_data {
            map.extend(&sparse.map)?;
            return self.sparse_file(&entry, &map, visitor);
        }
        let entry = Entry { name: &entry.name, link: &entry.link, kind, size, sparse: true };
        // Where the first fragment is comes after the entry: its data can't be handed out.
        if visitor.entry(&entry)? {
            return Err(FormatError::entry(entry.name, "must not be stored as a sparse file"));
        }
        self.state = State::SparseText { map, line: Vec::new(), numbers: 0, count: 0, offset: 0 };
        Ok(())
    }

    /// A sparse file whose map is complete.
    fn sparse_file(
        &mut self,
        entry: &Waiting,
        map: &SparseMap,
        visitor: &mut dyn Visitor,
    ) -> Result<(), FormatError> {
        map.finish()?;
        let wanted = visitor.entry(&Entry {
            name: &entry.name,
            link: &entry.link,
            kind: EntryKind::File,
            size: map.size,
            sparse: true,
        })?;
        let left = map.stored;
        self.state = State::Data { left, padding: padding(left), handed: map.head, wanted };
        self.advance(visitor)
    }

    fn sparse_blocks(&mut self, visitor: &mut dyn Visitor) -> Result<(), FormatError> {
        let State::SparseBlocks { entry, mut map } =
            std::mem::replace(&mut self.state, State::Header)
        else {
            return Ok(());
        };
        let (fragments, more) = sparse_block(&self.block)?;
        map.extend(&fragments)?;
        if more {
            self.state = State::SparseBlocks { entry, map };
            return Ok(());
        }
        self.sparse_file(&entry, &map, visitor)
    }

    /// One byte of a map in the data: decimal numbers, one a line: the count, then offset and
    /// length of each fragment; filled up to a whole block.
    fn sparse_text(&mut self, byte: u8) -> Result<usize, FormatError> {
        let State::SparseText { map, line, numbers, count, offset } = &mut self.state else {
            return Ok(0);
        };
        map.stored = map
            .stored
            .checked_sub(1)
            .ok_or_else(|| corrupt("the map of a sparse file is longer than its data"))?;
        self.filled = (self.filled + 1) % BLOCK;
        if byte != b'\n' {
            line.push(byte);
            if line.len() > 20 {
                return Err(corrupt("the map of a sparse file is wrong"));
            }
            return Ok(1);
        }
        let number = decimal(line)?;
        line.clear();
        if *numbers == 0 {
            *count = number;
        } else if *numbers % 2 == 1 {
            *offset = number;
        } else {
            map.extend(&[Fragment { offset: *offset, len: number }])?;
        }
        *numbers += 1;
        if *count > MAX_FRAGMENTS {
            return Err(corrupt("a sparse file has too many fragments"));
        }
        if *numbers == 1 + 2 * *count {
            let rest = (BLOCK - self.filled) % BLOCK;
            self.filled = 0;
            let data = map
                .stored
                .checked_sub(rest as u64)
                .ok_or_else(|| corrupt("the map of a sparse file is longer than its data"))?;
            SparseMap { stored: data, ..*map }.finish()?;
            let left = map.stored;
            self.state = State::Data { left, padding: padding(data), handed: 0, wanted: false };
        }
        Ok(1)
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.pax.is_none()
    }

    /// Remembers the content of an extended header.
    fn take(&mut self, type_flag: u8, content: &[u8]) -> Result<(), FormatError> {
        let again = match type_flag {
            b'L' => self.name.replace(until_nul(content).to_vec()).is_some(),
            b'K' => self.link.replace(until_nul(content).to_vec()).is_some(),
            b'g' => {
                if !Pax::parse(content)?.is_harmless() {
                    return Err(corrupt("a global header renames or resizes entries"));
                }
                false
            }
            _ => self.pax.replace(Pax::parse(content)?).is_some(),
        };
        if again {
            return Err(corrupt("two extended headers of one kind speak about one entry"));
        }
        Ok(())
    }
}

impl SparseMap {
    fn new(size: u64, stored: u64) -> Self {
        Self { size, stored, end: 0, sum: 0, count: 0, head: 0 }
    }

    fn extend(&mut self, fragments: &[Fragment]) -> Result<(), FormatError> {
        let bad = || corrupt("the map of a sparse file is wrong");
        for fragment in fragments {
            if fragment.offset < self.end {
                return Err(bad());
            }
            self.end = fragment.offset.checked_add(fragment.len).ok_or_else(bad)?;
            if self.end > self.size {
                return Err(bad());
            }
            // Fragments that touch at the start of the file are one run of data.
            if fragment.offset == self.head && self.sum == self.head {
                self.head += fragment.len;
            }
            self.sum += fragment.len;
            self.count += 1;
        }
        if self.count > MAX_FRAGMENTS {
            return Err(corrupt("a sparse file has too many fragments"));
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), FormatError> {
        if self.sum == self.stored {
            Ok(())
        } else {
            Err(corrupt("the map of a sparse file doesn't fit its data"))
        }
    }
}

/// The type of an entry. Whatever readers take for different things is refused.
fn kind(type_flag: u8, name: &[u8], size: u64) -> Result<EntryKind, FormatError> {
    let kind = match type_flag {
        // Before there was a type for directories, a slash told them.
        0 if name.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' | b'4' => EntryKind::Device,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        _ => return Err(FormatError::entry(name, "is of a type not known here")),
    };
    if kind != EntryKind::File && size != 0 {
        return Err(FormatError::entry(name, "is no regular file but has data"));
    }
    if kind != EntryKind::Directory && name.ends_with(b"/") {
        return Err(FormatError::entry(name, "is no directory but its name ends with a slash"));
    }
    Ok(kind)
}

/// The one name that a GNU and a pax header give to an entry; readers differ in which they prefer.
fn agreed(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, FormatError> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => {
            Err(corrupt("two extended headers give different names to one entry"))
        }
        (gnu, pax) => Ok(pax.or(gnu)),
    }
}

/// What is missing to a whole block behind `size` bytes.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// `len`, or `limit` when that is less.
fn cut(limit: u64, len: usize) -> usize {
    usize::try_from(limit).map_or(len, |limit| limit.min(len))
}

/// Takes `count` bytes off the data, then off its padding.
fn consume(count: u64, left: &mut u64, padding: &mut u64) {
    let data = count.min(*left);
    *left -= data;
    *padding -= (count - data).min(*padding);
}

/// Whether all bytes are zero.
fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}
