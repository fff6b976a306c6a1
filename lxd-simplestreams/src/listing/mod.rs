//! All images and aliases of a server as one block of bytes: the same on disk and in memory,
//! with tables to look things up without reading the rest.

mod build;
mod codec;
mod record;
#[cfg(test)]
mod tests;

use std::ops::Range;

use lxd_proto::alias::AliasEntry;
use lxd_proto::arch::Architecture;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::image::{Image, InstanceType};
use lxd_proto::remote::Want;

use crate::convert::{ImageFiles, Listed};

use build::preference;
pub(crate) use build::{Rules, build};
pub use codec::Damaged;
use codec::{Reader, Writer};

/// The largest listing, in bytes.
pub(crate) const MAX_LISTING: usize = 256 << 20;

/// First bytes of every listing; the digit changes with the layout.
const MAGIC: &[u8; 8] = b"lxdlist1";
/// Where the part begins that the checksum covers.
const SUMMED_FROM: usize = MAGIC.len() + 4;
/// Magic, checksum and the header's length.
const BEFORE_HEADER: usize = SUMMED_FROM + 4;
/// Bytes an image takes in the table of the order: an offset.
const IMAGE_ENTRY: usize = 4;
/// Bytes an image takes in the table of fingerprints: itself and an offset.
const FINGERPRINT_ENTRY: usize = 32 + 4;
/// Bytes an alias takes in the table of names: an offset.
const ALIAS_ENTRY: usize = 4;
/// Images named when a prefix is ambiguous.
const MAX_CANDIDATES: usize = 100;

/// The listing would be larger than [`MAX_LISTING`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the list of its images is larger than {MAX_LISTING} bytes")]
pub(crate) struct TooLarge;

/// All images and aliases of a server.
///
/// Layout, numbers little-endian: magic, CRC-32 of the rest, header, counts, offsets of images
/// in order, fingerprints (sorted) with offsets, offsets of aliases (sorted), data. Offsets
/// count from the beginning of the data.
#[derive(Debug)]
pub struct Listing {
    bytes: Vec<u8>,
    header: Range<usize>,
    images: Range<usize>,
    fingerprints: Range<usize>,
    aliases: Range<usize>,
}

/// What a prefix leads to.
#[derive(Debug, Clone, PartialEq)]
pub enum Matching {
    /// No image begins so.
    None,
    /// Exactly this one does.
    One(Box<Image>),
    /// Several do; at most 100 of them are named.
    Several(Vec<Fingerprint>),
}

/// An alias as a listing keeps it.
struct Alias<'a> {
    name: &'a str,
    kind: InstanceType,
    architecture: Architecture,
    target: Fingerprint,
}

impl Listing {
    fn assemble(
        header: &[u8],
        counts: [usize; 2],
        tables: &[u8],
        data: &[u8],
    ) -> Result<Self, TooLarge> {
        let length = BEFORE_HEADER + header.len() + 8 + tables.len() + data.len();
        if length > MAX_LISTING {
            return Err(TooLarge);
        }
        let mut to = Writer(Vec::with_capacity(length));
        to.0.extend_from_slice(MAGIC);
        to.word(0);
        to.word(header.len());
        to.0.extend_from_slice(header);
        for count in counts {
            to.word(count);
        }
        to.0.extend_from_slice(tables);
        to.0.extend_from_slice(data);
        let sum = crc32fast::hash(&to.0[SUMMED_FROM..]);
        to.0[MAGIC.len()..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
        Self::from_bytes(to.0).map_err(|Damaged| TooLarge)
    }

    /// The same images under another header.
    pub(crate) fn with_header(&self, header: &[u8]) -> Result<Self, TooLarge> {
        let counts = [self.len(), self.alias_count()];
        let tables = &self.bytes[self.images.start..self.aliases.end];
        Self::assemble(header, counts, tables, self.data())
    }

    /// The listing in these bytes, which may be anything.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Damaged> {
        let mut reader = Reader::at(&bytes, 0)?;
        if reader.bytes(MAGIC.len())? != MAGIC {
            return Err(Damaged);
        }
        let sum = reader.word()?;
        if usize::try_from(crc32fast::hash(&bytes[SUMMED_FROM..])) != Ok(sum) {
            return Err(Damaged);
        }
        let length = reader.word()?;
        reader.bytes(length)?;
        let (images, aliases) = (reader.word()?, reader.word()?);
        let header = BEFORE_HEADER..BEFORE_HEADER + length;
        let mut end = header.end + 8;
        let mut table = |count: usize, entry: usize| {
            let start = end;
            end = start.checked_add(count.checked_mul(entry)?)?;
            (end <= bytes.len()).then_some(start..end)
        };
        let images_at = table(images, IMAGE_ENTRY).ok_or(Damaged)?;
        let fingerprints = table(images, FINGERPRINT_ENTRY).ok_or(Damaged)?;
        let aliases = table(aliases, ALIAS_ENTRY).ok_or(Damaged)?;
        Ok(Self { bytes, header, images: images_at, fingerprints, aliases })
    }

    /// The bytes, to be stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the builder has told it to remember.
    pub fn header(&self) -> &[u8] {
        &self.bytes[self.header.clone()]
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.images.len() / IMAGE_ENTRY
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// All images: sorted by system and release, the newest build first.
    pub fn images(&self) -> impl Iterator<Item = Result<Image, Damaged>> {
        self.offsets().map(|offset| record::image(&mut Reader::at(self.data(), offset?)?))
    }

    /// All images as they were found, each with the number of its catalog.
    pub(crate) fn listed(&self) -> impl Iterator<Item = Result<(u16, Listed), Damaged>> {
        self.offsets().map(|offset| record::listed(&mut Reader::at(self.data(), offset?)?))
    }

    fn data(&self) -> &[u8] {
        &self.bytes[self.aliases.end..]
    }

    fn offsets(&self) -> impl Iterator<Item = Result<usize, Damaged>> {
        let table = &self.bytes[self.images.clone()];
        table.chunks_exact(IMAGE_ENTRY).map(|entry| Reader::at(entry, 0)?.word())
    }

    /// The image whose fingerprint begins with `prefix`.
    pub fn matching(&self, prefix: &Prefix) -> Result<Matching, Damaged> {
        let (lowest, highest) = (prefix.lowest(), prefix.highest());
        let mut fingerprints = Vec::new();
        let mut place = self.first_fingerprint(&lowest);
        let mut offset = 0;
        while let Some((fingerprint, at)) = self.fingerprint(place) {
            if fingerprint > highest || fingerprints.len() == MAX_CANDIDATES {
                break;
            }
            fingerprints.push(fingerprint);
            offset = at;
            place += 1;
        }
        match fingerprints.len() {
            0 => Ok(Matching::None),
            1 => {
                let image = record::image(&mut Reader::at(self.data(), offset)?)?;
                Ok(Matching::One(Box::new(image)))
            }
            _ => Ok(Matching::Several(fingerprints)),
        }
    }

    /// The files of an image.
    pub fn files(&self, fingerprint: &Fingerprint) -> Result<Option<ImageFiles>, Damaged> {
        match self.fingerprint(self.first_fingerprint(fingerprint)) {
            Some((found, offset)) if found == *fingerprint => {
                let mut reader = Reader::at(self.data(), offset)?;
                record::image(&mut reader)?;
                record::files(&mut reader).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The place of the first fingerprint that is not below `lowest`.
    fn first_fingerprint(&self, lowest: &Fingerprint) -> usize {
        partition(self.len(), |place| {
            self.fingerprint(place).is_some_and(|(fingerprint, _)| fingerprint < *lowest)
        })
    }

    fn fingerprint(&self, place: usize) -> Option<(Fingerprint, usize)> {
        let table = &self.bytes[self.fingerprints.clone()];
        let mut reader = Reader::at(table, place.checked_mul(FINGERPRINT_ENTRY)?).ok()?;
        Some((reader.fingerprint().ok()?, reader.word().ok()?))
    }

    /// All aliases, sorted: for each name and type the one that this machine prefers.
    pub fn aliases(&self) -> Result<Vec<AliasEntry>, Damaged> {
        let mut entries: Vec<AliasEntry> = Vec::new();
        for place in 0..self.alias_count() {
            let alias = self.alias_at(place)?;
            let known = entries.last().is_some_and(|last: &AliasEntry| {
                last.name == alias.name && last.kind == alias.kind
            });
            if !known {
                entries.push(alias.entry());
            }
        }
        Ok(entries)
    }

    /// The alias with this name for what is wanted: a container before a virtual machine, the
    /// wanted architecture (or this machine's) before those that it can run, before any other.
    pub fn alias(&self, name: &str, want: &Want) -> Result<Option<AliasEntry>, Damaged> {
        let first = partition(self.alias_count(), |place| {
            self.alias_at(place).is_ok_and(|alias| alias.name < name)
        });
        let mut best: Option<Alias<'_>> = None;
        for place in first..self.alias_count() {
            let alias = self.alias_at(place)?;
            if alias.name != name {
                break;
            }
            if want.kind.is_some_and(|kind| kind != alias.kind) {
                continue;
            }
            // Sorted by kind and by what suits this machine.
            let better = best.as_ref().is_none_or(|best| {
                let suits = |of: &Alias<'_>| preference(want.architecture, of.architecture);
                best.kind == alias.kind && suits(&alias) < suits(best)
            });
            if better {
                best = Some(alias);
            }
        }
        Ok(best.map(|alias| alias.entry()))
    }

    fn alias_count(&self) -> usize {
        self.aliases.len() / ALIAS_ENTRY
    }

    fn alias_at(&self, place: usize) -> Result<Alias<'_>, Damaged> {
        let table = &self.bytes[self.aliases.clone()];
        let offset = Reader::at(table, place * ALIAS_ENTRY)?.word()?;
        let mut reader = Reader::at(self.data(), offset)?;
        Ok(Alias {
            kind: record::kind(reader.byte()?)?,
            architecture: record::architecture(reader.byte()?)?,
            target: reader.fingerprint()?,
            name: reader.text()?,
        })
    }
}

impl Alias<'_> {
    fn entry(&self) -> AliasEntry {
        AliasEntry {
            description: String::new(),
            target: self.target,
            name: self.name.to_owned(),
            kind: self.kind,
        }
    }
}

/// The first of `count` places for which `below` is false; it is true for all before it.
fn partition(count: usize, below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if below(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
