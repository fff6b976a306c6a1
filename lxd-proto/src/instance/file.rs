//! Files of an instance: the headers that say owner, mode and kind of what is read and written.

use std::fmt;
use std::str::FromStr;

/// Header names without their prefix (`X-LXD-`), lower case.
pub mod header {
    /// Uid inside the instance, decimal.
    pub const UID: &str = "uid";
    /// Gid inside the instance, decimal.
    pub const GID: &str = "gid";
    /// Permissions, octal with a leading zero.
    pub const MODE: &str = "mode";
    /// `file`, `symlink` or `directory`.
    pub const TYPE: &str = "type";
    /// `overwrite` or `append`.
    pub const WRITE: &str = "write";
    /// When the content last changed, for people.
    pub const MODIFIED: &str = "modified";
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FileKind {
    /// A regular file.
    #[default]
    File,
    /// A symbolic link; its content is its target.
    Symlink,
    /// A directory; its content is a list of names.
    Directory,
}

impl FileKind {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Symlink => "symlink",
            Self::Directory => "directory",
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is written over a file that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FileWrite {
    /// It is replaced.
    #[default]
    Overwrite,
    /// The content goes to its end.
    Append,
}

impl FileWrite {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overwrite => "overwrite",
            Self::Append => "append",
        }
    }
}

/// Owner, mode and kind, as headers say them. What is `None` is left to the server: root, and
/// the mode that such a thing usually has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileHeaders {
    /// Uid inside the instance.
    pub uid: Option<u32>,
    /// Gid inside the instance.
    pub gid: Option<u32>,
    /// Permissions with setuid, setgid and sticky: at most `0o7777`.
    pub mode: Option<u32>,
    /// What it is.
    pub kind: FileKind,
    /// How it is written.
    pub write: FileWrite,
}

/// A header says what cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Bad file {header}: \"{value}\"")]
pub struct InvalidHeader {
    header: &'static str,
    value: String,
}

impl FileHeaders {
    /// Reads the headers; `get` returns the value of a header by its name without prefix.
    ///
    /// # Errors
    /// [`InvalidHeader`] for the first that makes no sense.
    pub fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, InvalidHeader> {
        let get = |name| get(name).filter(|value| !value.is_empty());
        let invalid =
            |header, value: &str| InvalidHeader { header, value: value.chars().take(64).collect() };
        let number = |name| match get(name) {
            None => Ok(None),
            Some(value) => value.parse().map(Some).map_err(|_| invalid(name, value)),
        };
        let mode = match get(header::MODE) {
            None => None,
            Some(value) => Some(mode(value).ok_or_else(|| invalid(header::MODE, value))?),
        };
        let kind = match get(header::TYPE) {
            None | Some("file") => FileKind::File,
            Some("symlink") => FileKind::Symlink,
            Some("directory") => FileKind::Directory,
            Some(other) => return Err(invalid(header::TYPE, other)),
        };
        let write = match get(header::WRITE) {
            None | Some("overwrite") => FileWrite::Overwrite,
            Some("append") => FileWrite::Append,
            Some(other) => return Err(invalid(header::WRITE, other)),
        };
        Ok(Self { uid: number(header::UID)?, gid: number(header::GID)?, mode, kind, write })
    }

    /// The headers of a reply or a request, names without prefix; `write` is not among them.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![(header::TYPE, self.kind.as_str().to_owned())];
        let numbers = [(header::UID, self.uid), (header::GID, self.gid)];
        pairs.extend(numbers.iter().filter_map(|(name, n)| n.map(|n| (*name, n.to_string()))));
        pairs.extend(self.mode.map(|mode| (header::MODE, format!("0{mode:03o}"))));
        pairs
    }
}

/// A mode as Go reads a number: octal after `0` or `0o`, else decimal.
fn mode(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0o").or_else(|| text.strip_prefix('0')) {
        Some("") => ("0", 8),
        Some(octal) => (octal, 8),
        None => (text, 10),
    };
    let digits_only = digits.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(digits, radix).ok().filter(|_| digits_only)?;
    (mode <= 0o7777).then_some(mode)
}

impl FromStr for FileKind {
    type Err = InvalidHeader;

    fn from_str(text: &str) -> Result<Self, InvalidHeader> {
        FileHeaders::read(|name| (name == header::TYPE).then_some(text)).map(|read| read.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_written() {
        let headers = FileHeaders {
            uid: Some(1000),
            gid: Some(0),
            mode: Some(0o4755),
            kind: FileKind::File,
            write: FileWrite::Overwrite,
        };
        let pairs = headers.pairs();
        // Always with a leading zero: Go reads a number without one as decimal.
        assert!(pairs.contains(&("mode", "04755".into())));
        let back = FileHeaders::read(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
        });
        assert_eq!(back, Ok(headers));
        assert_eq!(FileHeaders::read(|_| None), Ok(FileHeaders::default()));
        assert_eq!(FileHeaders::read(|_| Some("")), Ok(FileHeaders::default()));
    }

    #[test]
    fn modes_are_read_as_go_does() {
        for (text, number) in [("0644", 0o644), ("0o755", 0o755), ("420", 0o644), ("0", 0)] {
            assert_eq!(mode(text), Some(number), "{text}");
        }
        for text in ["", "0x1f", "-1", "+0644", "0899", "rw", "010000"] {
            assert_eq!(mode(text), None, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (name, value) in
            [("uid", "-1"), ("gid", "root"), ("mode", "9z"), ("type", "fifo"), ("write", "maybe")]
        {
            let error = FileHeaders::read(|asked| (asked == name).then_some(value)).unwrap_err();
            assert_eq!(error.to_string(), format!("Bad file {name}: \"{value}\""));
        }
    }
}
