//! Tar archives by pushing: blocks go in as they arrive, entries come out.

use super::error::FormatError;
use super::tar_header::{
    Attributes, BLOCK, Fragment, Header, MAX_PATH, Pax, TAR, corrupt, decimal, sparse_block,
    until_nul,
};

/// The most that an extended header may hold.
const MAX_EXTENDED: u64 = 1 << 20;

/// The most fragments of one sparse file; a file on disk rarely has a thousand.
const MAX_FRAGMENTS: u64 = 1 << 20;

/// What an entry of an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// Another name of a file that came before.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device, with its major and minor number.
    CharacterDevice(u32, u32),
    /// A block device, with its major and minor number.
    BlockDevice(u32, u32),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry of an archive.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The name, with slashes.
    pub name: &'a [u8],
    /// The target of a link.
    pub link: &'a [u8],
    /// What it is.
    pub kind: EntryKind,
    /// The size of a file when unpacked.
    pub size: u64,
    /// Whether only fragments of a file are stored; what lies between them is zeros.
    pub sparse: bool,
    /// Owner, permissions and the like.
    pub attributes: &'a Attributes,
}

/// Who receives the entries.
pub(super) trait Visitor {
    /// What stops the reading.
    type Error: From<FormatError>;

    /// A new entry. The answer tells whether its data is wanted.
    fn entry(&mut self, entry: &Entry<'_>) -> Result<bool, Self::Error>;

    /// The next data of the entry, and where in the file it belongs. It comes in ascending order;
    /// of sparse files, holes are left out.
    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// The entry, whose data was wanted, has ended.
    fn entry_end(&mut self) -> Result<(), Self::Error>;
}

/// Headers that speak about the entry after them.
#[derive(Default)]
struct Pending {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

/// The fragments of a sparse file: in order, inside the file, and as long as the data that is
/// stored.
#[derive(Debug)]
struct SparseMap {
    size: u64,
    stored: u64,
    end: u64,
    sum: u64,
    count: u64,
    /// Fragments that touch are one.
    fragments: Vec<Fragment>,
}

enum State {
    /// A header block comes next.
    Header,
    /// The content of an extended header.
    Extended { type_flag: u8, left: u64, padding: u64, content: Vec<u8> },
    /// More blocks with the map of an old GNU sparse file; then its entry.
    SparseBlocks { entry: Box<Waiting>, map: SparseMap },
    /// The map at the start of the data of a pax sparse file; `numbers` were read so far.
    SparseText { entry: Box<Waiting>, map: SparseMap, text: SparseText },
    /// What fills the block behind such a map.
    SparseFill { entry: Box<Waiting>, map: SparseMap, left: usize },
    /// The data of an entry, which goes where `places` says.
    Data { left: u64, padding: u64, places: Places, wanted: bool },
    /// After the first zero block.
    End,
}

/// An entry whose header is read, but not yet all of its map.
struct Waiting {
    name: Vec<u8>,
    link: Vec<u8>,
    attributes: Attributes,
}

/// How far the textual map of a sparse file was read.
#[derive(Default)]
struct SparseText {
    line: Vec<u8>,
    numbers: u64,
    count: u64,
    offset: u64,
}

/// Where the data of an entry goes: the rest of the current fragment, then the others.
struct Places {
    offset: u64,
    left: u64,
    others: std::vec::IntoIter<Fragment>,
}

impl Places {
    /// One run from the start.
    fn whole(size: u64) -> Self {
        Self { offset: 0, left: size, others: Vec::new().into_iter() }
    }

    fn fragments(fragments: Vec<Fragment>) -> Self {
        Self { offset: 0, left: 0, others: fragments.into_iter() }
    }

    /// Where the next of at most `len` bytes go, and how many of them.
    fn next(&mut self, len: usize) -> (u64, usize) {
        while self.left == 0 {
            let Some(fragment) = self.others.next() else { return (self.offset, len) };
            (self.offset, self.left) = (fragment.offset, fragment.len);
        }
        let (at, len) = (self.offset, cut(self.left, len));
        self.offset += len as u64;
        self.left -= len as u64;
        (at, len)
    }
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
    pub(super) fn feed<V: Visitor>(
        &mut self,
        mut input: &[u8],
        visitor: &mut V,
    ) -> Result<(), V::Error> {
        while !input.is_empty() {
            let used = match &mut self.state {
                State::Data { left, padding, places, wanted } => {
                    if *wanted && *left > 0 {
                        let (at, len) = places.next(cut(*left, input.len()));
                        visitor.data(at, &input[..len])?;
                        *left -= len as u64;
                        len
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
                State::SparseText { .. } => self.sparse_text(input[0], visitor)?,
                State::SparseFill { left, .. } => {
                    let used = (*left).min(input.len());
                    *left -= used;
                    used
                }
                State::End if is_zero(input) => return Ok(()),
                State::End => return Err(FormatError::TrailingData { what: TAR }.into()),
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
            State::Data { left, padding, wanted, .. } if !*wanted || *left == 0 => {
                left.saturating_add(*padding)
            }
            _ => 0,
        }
    }

    /// Goes on behind the next `count` bytes, at most [`TarReader::skippable`] of them; more than
    /// that is an archive that does not end where it says.
    pub(super) fn skip<V: Visitor>(&mut self, count: u64, visitor: &mut V) -> Result<(), V::Error> {
        if count > self.skippable() {
            return Err(corrupt("more was skipped than may be").into());
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
    fn advance<V: Visitor>(&mut self, visitor: &mut V) -> Result<(), V::Error> {
        match &mut self.state {
            State::Header if self.filled == BLOCK => {
                self.filled = 0;
                self.header(visitor)?;
            }
            State::SparseBlocks { .. } if self.filled == BLOCK => {
                self.filled = 0;
                self.sparse_blocks(visitor)?;
            }
            State::SparseFill { left: 0, .. } => {
                let state = std::mem::replace(&mut self.state, State::Header);
                if let State::SparseFill { entry, map, .. } = state {
                    return self.sparse_file(&entry, map, visitor);
                }
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

    fn header<V: Visitor>(&mut self, visitor: &mut V) -> Result<(), V::Error> {
        let block = self.block;
        let header = Header(&block);
        if is_zero(&block) {
            if !self.pending.is_empty() {
                return Err(corrupt("an extended header has no entry after it").into());
            }
            self.state = State::End;
            return Ok(());
        }
        header.check_sum()?;
        let type_flag = header.type_flag();
        if matches!(type_flag, b'L' | b'K' | b'x' | b'g') {
            return Ok(self.extended(type_flag, header.size()?)?);
        }
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
    fn entry<V: Visitor>(&mut self, header: &Header<'_>, visitor: &mut V) -> Result<(), V::Error> {
        let Pending { name, link, pax } = std::mem::take(&mut self.pending);
        let mut pax = pax.unwrap_or_default();
        let mut sparse = pax.sparse.take();
        let sparse_name = sparse.as_mut().and_then(|sparse| sparse.name.take());
        let name = agreed(name, sparse_name.or(pax.path.take()))?.unwrap_or_else(|| header.name());
        let link = agreed(link, pax.link.take())?.unwrap_or_else(|| header.link());
        let stored = match pax.size {
            Some(size) => size,
            None => header.size()?,
        };
        let kind = kind(header, &name, stored)?;
        let attributes = header.attributes(pax, &name)?;
        let entry = Waiting { name, link, attributes };
        if header.type_flag() == b'S' {
            let mut map = SparseMap::new(header.sparse_size()?, stored);
            let (fragments, more) = header.sparse_map()?;
            map.extend(&fragments)?;
            if more {
                self.state = State::SparseBlocks { entry: Box::new(entry), map };
                return Ok(());
            }
            return self.sparse_file(&entry, map, visitor);
        }
        let Some(sparse) = sparse else {
            let wanted = visitor.entry(&entry.entry(kind, stored, false))?;
            let places = Places::whole(stored);
            self.state = State::Data { left: stored, padding: padding(stored), places, wanted };
            return self.advance(visitor);
        };
        if kind != EntryKind::File {
            return Err(corrupt("something that is no file is sparse").into());
        }
        let size = sparse.size.ok_or_else(|| corrupt("a sparse file has no size"))?;
        let mut map = SparseMap::new(size, stored);
        if !sparse.map_in_data {
            map.extend(&sparse.map)?;
            return self.sparse_file(&entry, map, visitor);
        }
        self.state = State::SparseText { entry: Box::new(entry), map, text: SparseText::default() };
        Ok(())
    }

    /// A sparse file whose map is complete.
    fn sparse_file<V: Visitor>(
        &mut self,
        entry: &Waiting,
        map: SparseMap,
        visitor: &mut V,
    ) -> Result<(), V::Error> {
        map.finish()?;
        let wanted = visitor.entry(&entry.entry(EntryKind::File, map.size, true))?;
        let (left, places) = (map.stored, Places::fragments(map.fragments));
        self.state = State::Data { left, padding: padding(left), places, wanted };
        self.advance(visitor)
    }

    fn sparse_blocks<V: Visitor>(&mut self, visitor: &mut V) -> Result<(), V::Error> {
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
        self.sparse_file(&entry, map, visitor)
    }

    /// One byte of a map in the data: decimal numbers, one a line: the count, then offset and
    /// length of each fragment; filled up to a whole block.
    fn sparse_text<V: Visitor>(&mut self, byte: u8, visitor: &mut V) -> Result<usize, V::Error> {
        let State::SparseText { map, text, .. } = &mut self.state else {
            return Ok(0);
        };
        let longer = || corrupt("the map of a sparse file is longer than its data");
        map.stored = map.stored.checked_sub(1).ok_or_else(longer)?;
        self.filled = (self.filled + 1) % BLOCK;
        if !text.push(byte, map)? {
            return Ok(1);
        }
        // The rest of the block is filled up.
        let rest = (BLOCK - self.filled) % BLOCK;
        self.filled = 0;
        let State::SparseText { entry, mut map, .. } =
            std::mem::replace(&mut self.state, State::Header)
        else {
            return Ok(1);
        };
        map.stored = map.stored.checked_sub(rest as u64).ok_or_else(longer)?;
        if rest == 0 {
            self.sparse_file(&entry, map, visitor)?;
        } else {
            self.state = State::SparseFill { entry, map, left: rest };
        }
        Ok(1)
    }
}

impl Waiting {
    fn entry(&self, kind: EntryKind, size: u64, sparse: bool) -> Entry<'_> {
        let Self { name, link, attributes } = self;
        Entry { name, link, kind, size, sparse, attributes }
    }
}

impl SparseText {
    /// Takes the next byte; tells whether it was the last one of the map.
    fn push(&mut self, byte: u8, map: &mut SparseMap) -> Result<bool, FormatError> {
        if byte != b'\n' {
            self.line.push(byte);
            if self.line.len() > 20 {
                return Err(corrupt("the map of a sparse file is wrong"));
            }
            return Ok(false);
        }
        let number = decimal(&self.line)?;
        self.line.clear();
        if self.numbers == 0 {
            self.count = number;
        } else if self.numbers % 2 == 1 {
            self.offset = number;
        } else {
            map.extend(&[Fragment { offset: self.offset, len: number }])?;
        }
        self.numbers += 1;
        if self.count > MAX_FRAGMENTS {
            return Err(corrupt("a sparse file has too many fragments"));
        }
        Ok(self.numbers == 1 + 2 * self.count)
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
        Self { size, stored, end: 0, sum: 0, count: 0, fragments: Vec::new() }
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
            match self.fragments.last_mut() {
                Some(last) if last.offset + last.len == fragment.offset => last.len += fragment.len,
                _ if fragment.len > 0 => self.fragments.push(*fragment),
                _ => {}
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
fn kind(header: &Header<'_>, name: &[u8], size: u64) -> Result<EntryKind, FormatError> {
    let kind = match header.type_flag() {
        // Before there was a type for directories, a slash told them.
        0 if name.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => {
            let (major, minor) = header.device()?;
            EntryKind::CharacterDevice(major, minor)
        }
        b'4' => {
            let (major, minor) = header.device()?;
            EntryKind::BlockDevice(major, minor)
        }
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
