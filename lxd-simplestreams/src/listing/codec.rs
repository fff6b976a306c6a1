//! Numbers and texts as bytes: what a listing is made of, on disk and in memory.

use lxd_proto::fingerprint::Fingerprint;

/// The bytes of a listing are not what a listing is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored list of images is damaged")]
pub struct Damaged;

/// Appends to a listing.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    /// A number in 4 bytes; what does not fit is clamped, and the listing refused as too large.
    pub(super) fn word(&mut self, value: usize) {
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn long(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn signed(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn fingerprint(&mut self, value: &Fingerprint) {
        self.0.extend_from_slice(value.as_bytes());
    }

    pub(super) fn text(&mut self, value: &str) {
        self.word(value.len());
        self.0.extend_from_slice(value.as_bytes());
    }
}

/// Reads a listing from some place on; never beyond its end.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn at(bytes: &'a [u8], offset: usize) -> Result<Self, Damaged> {
        bytes.get(offset..).map(Self).ok_or(Damaged)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Damaged> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(Damaged)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (head, tail) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Damaged> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn word(&mut self) -> Result<usize, Damaged> {
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| Damaged)
    }

    pub(super) fn long(&mut self) -> Result<u64, Damaged> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn signed(&mut self) -> Result<i64, Damaged> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn fingerprint(&mut self) -> Result<Fingerprint, Damaged> {
        self.array().map(Fingerprint::from_bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Damaged> {
        let length = self.word()?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| Damaged)
    }
}
