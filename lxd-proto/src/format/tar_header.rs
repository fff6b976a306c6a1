//! The fields of a tar header block, and the records of a pax extended header.

use super::error::FormatError;

/// What tar data is called in an error.
pub(super) const TAR: &str = "tar archive";

/// Tar's unit: headers are one block, data is filled up to whole blocks.
pub(super) const BLOCK: usize = 512;

/// The longest path the kernel takes, without its final NUL.
pub(super) const MAX_PATH: usize = 4095;

/// The most extended attributes of one file.
const MAX_XATTRS: usize = 256;

/// A header block.
pub(super) struct Header<'a>(pub(super) &'a [u8; BLOCK]);

/// A point in time, as files have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Since 1970.
    pub seconds: i64,
    /// On top of the seconds, less than a billion.
    pub nanoseconds: u32,
}

/// What a file has besides its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permissions, with the bits for set-uid, set-gid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the content last changed.
    pub mtime: Timestamp,
    /// Names and values of the extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One fragment of a sparse file: where it belongs, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Its place in the file.
    pub offset: u64,
    /// How many bytes it has.
    pub len: u64,
}

pub(super) fn corrupt(reason: impl Into<String>) -> FormatError {
    FormatError::corrupt(TAR, reason)
}

impl Header<'_> {
    /// The magic of POSIX archives, whose names have a prefix field; GNU's has spaces in it.
    fn has_prefix(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    /// The sum of the block's bytes, its own field counted as spaces. Some old writers added
    /// signed bytes.
    pub(super) fn check_sum(&self) -> Result<(), FormatError> {
        let stored = number(&self.0[148..156]).ok();
        let mut unsigned = 8 * i64::from(b' ');
        let mut signed = unsigned;
        for byte in self.0[..148].iter().chain(&self.0[156..]) {
            unsigned += i64::from(*byte);
            signed += i64::from(byte.cast_signed());
        }
        if stored == Some(unsigned) || stored == Some(signed) {
            Ok(())
        } else {
            Err(corrupt("the checksum of a header is wrong"))
        }
    }

    /// Owner, permissions and times, where the extended header doesn't know better.
    pub(super) fn attributes(&self, pax: Pax, name: &[u8]) -> Result<Attributes, FormatError> {
        let owner = |value: Option<u64>, field: &[u8]| {
            let value = match value {
                Some(value) => value,
                None => u64::try_from(number(field)?).unwrap_or(u64::MAX),
            };
            // The last number means "no change" to the kernel.
            u32::try_from(value)
                .ok()
                .filter(|&id| id != u32::MAX)
                .ok_or_else(|| FormatError::entry(name, "has an owner that can't be one"))
        };
        let mode = number(&self.0[100..108])? & 0o7777;
        let mtime = match pax.mtime {
            Some(time) => time,
            None => Timestamp { seconds: number(&self.0[136..148])?, nanoseconds: 0 },
        };
        Ok(Attributes {
            mode: u32::try_from(mode).unwrap_or_default(),
            uid: owner(pax.uid, &self.0[108..116])?,
            gid: owner(pax.gid, &self.0[116..124])?,
            mtime,
            xattrs: pax.xattrs,
        })
    }

    /// The major and minor number of a device.
    pub(super) fn device(&self) -> Result<(u32, u32), FormatError> {
        let field = |field: &[u8]| {
            u32::try_from(number(field)?).map_err(|_| corrupt("a device has a wrong number"))
        };
        Ok((field(&self.0[329..337])?, field(&self.0[337..345])?))
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn size(&self) -> Result<u64, FormatError> {
        size(&self.0[124..136])
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let mut name = Vec::new();
        if self.has_prefix() && self.0[345] != 0 {
            name.extend_from_slice(until_nul(&self.0[345..500]));
            name.push(b'/');
        }
        name.extend_from_slice(until_nul(&self.0[..100]));
        name
    }

    pub(super) fn link(&self) -> Vec<u8> {
        until_nul(&self.0[157..257]).to_vec()
    }

    /// Of an old GNU sparse file: the size when unpacked.
    pub(super) fn sparse_size(&self) -> Result<u64, FormatError> {
        size(&self.0[483..495])
    }

    /// Of an old GNU sparse file: its first fragments, and whether a block with more follows.
    pub(super) fn sparse_map(&self) -> Result<(Vec<Fragment>, bool), FormatError> {
        Ok((fragments(&self.0[386..482])?, self.0[482] != 0))
    }
}

/// A block with more fragments of an old GNU sparse file, and whether yet another one follows.
pub(super) fn sparse_block(block: &[u8; BLOCK]) -> Result<(Vec<Fragment>, bool), FormatError> {
    Ok((fragments(&block[..504])?, block[504] != 0))
}

fn fragments(field: &[u8]) -> Result<Vec<Fragment>, FormatError> {
    field
        .chunks_exact(24)
        .take_while(|pair| pair[0] != 0)
        .map(|pair| Ok(Fragment { offset: size(&pair[..12])?, len: size(&pair[12..])? }))
        .collect()
}

/// The bytes before the first NUL.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn size(field: &[u8]) -> Result<u64, FormatError> {
    u64::try_from(number(field)?).map_err(|_| corrupt("a size is negative"))
}

/// A header's number: octal digits, or big-endian binary marked by the top bit.
fn number(field: &[u8]) -> Result<i64, FormatError> {
    let bad = || corrupt("a number in a header can't be read");
    let (&first, rest) = field.split_first().ok_or_else(bad)?;
    if first & 0x80 != 0 {
        // The bit below the mark is the sign.
        let start = if first & 0x40 != 0 { -1_i64 } else { 0 };
        let top = (start << 6) | i64::from(first & 0x3f);
        return rest.iter().try_fold(top, |value, &byte| {
            value.checked_mul(256).map(|value| value | i64::from(byte)).ok_or_else(bad)
        });
    }
    let is_filler = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_filler(byte)).unwrap_or(field.len());
    let digits = field[start..]
        .iter()
        .position(is_filler)
        .map_or(&field[start..], |len| &field[start..start + len]);
    if !field[start + digits.len()..].iter().all(is_filler) {
        return Err(bad());
    }
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => {
            value.checked_mul(8).map(|value| value + i64::from(digit - b'0')).ok_or_else(bad)
        }
        _ => Err(bad()),
    })
}

/// What a pax extended header says about the next entry, as far as it matters here.
#[derive(Default, Debug)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<PaxSparse>,
}

/// A sparse file as GNU tar writes it into pax archives.
#[derive(Default, Debug)]
pub(super) struct PaxSparse {
    /// Format 1.0: the map is at the start of the data.
    pub(super) map_in_data: bool,
    pub(super) name: Option<Vec<u8>>,
    /// The size when unpacked.
    pub(super) size: Option<u64>,
    /// Formats 0.0 and 0.1: the map.
    pub(super) map: Vec<Fragment>,
}

impl Pax {
    /// Reads the records of an extended header.
    pub(super) fn parse(mut records: &[u8]) -> Result<Self, FormatError> {
        let mut pax = Self::default();
        while !records.is_empty() {
            let record = Record::split_off(&mut records)?;
            pax.set(record.key, record.value)?;
        }
        Ok(pax)
    }

    /// Whether a global header, which speaks for every later entry, would change one of them.
    pub(super) fn is_harmless(&self) -> bool {
        self.path.is_none() && self.link.is_none() && self.size.is_none() && self.sparse.is_none()
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), FormatError> {
        match key {
            b"path" => once(&mut self.path, path(value)?),
            b"linkpath" => once(&mut self.link, path(value)?),
            b"size" => once(&mut self.size, decimal(value)?),
            b"uid" => once(&mut self.uid, decimal(value)?),
            b"gid" => once(&mut self.gid, decimal(value)?),
            b"mtime" => once(&mut self.mtime, timestamp(value)?),
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().set(key, value)?;
                } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name, value)?;
                }
                Ok(())
            }
        }
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), FormatError> {
        if name.is_empty() || name.contains(&0) {
            return Err(corrupt("an extended attribute has no usable name"));
        }
        if self.xattrs.iter().any(|(other, _)| other == name) {
            return Err(corrupt("an extended header has one attribute twice"));
        }
        if self.xattrs.len() >= MAX_XATTRS {
            return Err(corrupt("a file has too many extended attributes"));
        }
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

impl PaxSparse {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), FormatError> {
        match key {
            b"major" => match decimal(value)? {
                major @ (0 | 1) => self.map_in_data = major == 1,
                _ => return Err(corrupt("a sparse file is in a format not known here")),
            },
            b"name" => once(&mut self.name, path(value)?)?,
            b"size" | b"realsize" => once(&mut self.size, decimal(value)?)?,
            b"offset" => self.map.push(Fragment { offset: decimal(value)?, len: 0 }),
            b"numbytes" => match self.map.last_mut() {
                Some(fragment) => fragment.len = decimal(value)?,
                None => return Err(corrupt("the map of a sparse file is wrong")),
            },
            b"map" => {
                let numbers: Vec<u64> =
                    value.split(|&byte| byte == b',').map(decimal).collect::<Result<_, _>>()?;
                if !numbers.len().is_multiple_of(2) {
                    return Err(corrupt("the map of a sparse file is wrong"));
                }
                self.map =
                    numbers.chunks(2).map(|n| Fragment { offset: n[0], len: n[1] }).collect();
            }
            _ => {}
        }
        Ok(())
    }
}

/// Sets a value that readers would disagree about if it came twice.
fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), FormatError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(corrupt("an extended header has one key twice")),
    }
}

fn path(value: &[u8]) -> Result<Vec<u8>, FormatError> {
    if value.contains(&0) {
        return Err(corrupt("a name in an extended header has a NUL"));
    }
    if value.len() > MAX_PATH {
        return Err(corrupt("a name in an extended header is longer than 4095 bytes"));
    }
    Ok(value.to_vec())
}

/// One record of an extended header, `LENGTH KEY=VALUE\n`.
struct Record<'a> {
    key: &'a [u8],
    value: &'a [u8],
}

impl<'a> Record<'a> {
    /// Takes the first record off the others.
    fn split_off(records: &mut &'a [u8]) -> Result<Self, FormatError> {
        let bad = || corrupt("an extended header can't be read");
        let space = records.iter().take(20).position(|&byte| byte == b' ').ok_or_else(bad)?;
        let len = usize::try_from(decimal(&records[..space])?).map_err(|_| bad())?;
        let body = records.get(space + 1..len).ok_or_else(bad)?;
        let body = body.strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = body.iter().position(|&byte| byte == b'=').ok_or_else(bad)?;
        *records = &records[len..];
        Ok(Self { key: &body[..equals], value: &body[equals + 1..] })
    }
}

/// A time: seconds, perhaps negative, perhaps with a fraction.
fn timestamp(value: &[u8]) -> Result<Timestamp, FormatError> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(value) => (true, value),
        None => (false, value),
    };
    let point = value.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&value[..point], &value[point + 1..]),
        None => (value, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?)
        .map_err(|_| corrupt("a time in an extended header is out of range"))?;
    let mut digits = [b'0'; 9];
    for (digit, &given) in digits.iter_mut().zip(fraction) {
        *digit = given;
    }
    let nanoseconds = u32::try_from(decimal(&digits)?).unwrap_or_default();
    Ok(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// A number in decimal digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Result<u64, FormatError> {
    let bad = || corrupt("a number in an extended header can't be read");
    if digits.is_empty() {
        return Err(bad());
    }
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(digit - b'0')))
            .ok_or_else(bad),
        _ => Err(bad()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        let cases: [(&[u8], Option<i64>); 14] = [
            (b"0000644\0", Some(0o644)),
            (b"    644 ", Some(0o644)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"\x80\0\0\0\0\0\0\0\x02\0\0\0", Some(2 << 24)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x90\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"06\x0044 \0\0", None),
            (b"0x1f\0\0\0\0", None),
        ];
        for (field, value) in cases {
            assert_eq!(number(field).ok(), value, "{field:?}");
        }
    }

    #[test]
    fn pax_records_are_read_strictly() {
        let pax = Pax::parse(b"12 path=a/b\n17 linkpath=../c\n13 size=1234\n5 x=\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(pax.link.as_deref(), Some(&b"../c"[..]));
        assert_eq!(pax.size, Some(1234));
        assert!(!pax.is_harmless());
        assert!(Pax::parse(b"13 comment=ab\n").unwrap_err().to_string().contains("can't be read"));
        for bad in [
            &b"12 path=a/c"[..],
            b"11 path=a/b\n",
            b"99 path=a/b\n",
            b"path=a/b\n",
            b"0 \n",
            b"-1 a=b\n",
            b"99999999999999999999999 a=b\n",
            b"6 xx\n",
            b"11 path=a\0b\n",
            b"12 path=a/b\n12 path=a/b\n",
            b"11 size=-1\n",
            b"12 size=0x1\n",
            b"28 size=99999999999999999999\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
