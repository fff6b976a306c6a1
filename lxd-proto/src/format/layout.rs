//! What may be where in an image: the rules that tarballs and squashfs files share.

use super::error::{FormatError, quoted};
use super::tar_header::MAX_PATH;
use crate::image::InstanceType;
use crate::metadata::Metadata;

/// What a file is to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The whole image in one file: `metadata.yaml`, `templates/`, and `rootfs/` or `rootfs.img`.
    Unified,
    /// The metadata part of a split image: `metadata.yaml` and `templates/`.
    Metadata,
    /// The root file system, or the disk, of a split image.
    Rootfs,
}

/// Bounds on what an image may hold. Each is checked while the file streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most names in an archive, directories that are only part of a name counted in.
    /// A name costs up to 18 bytes of memory while an archive is checked.
    pub entries: u64,
    /// The most bytes of unpacked file data, and the largest disk of a virtual machine.
    pub unpacked: u64,
    /// How many times larger than the file its data may be, beyond `ratio_floor`.
    pub ratio: u64,
    /// How many bytes any file may unpack to, however small it is.
    pub ratio_floor: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 1_500_000, unpacked: 1 << 40, ratio: 250, ratio_floor: 512 << 20 }
    }
}

impl Limits {
    /// Checks how much `read` bytes of a file have unpacked to.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] or [`FormatError::Bomb`].
    pub fn check_unpacked(&self, read: u64, unpacked: u64) -> Result<(), FormatError> {
        if unpacked > self.unpacked {
            return Err(FormatError::TooLarge { limit: self.unpacked });
        }
        if unpacked > self.ratio_floor && unpacked / self.ratio > read {
            return Err(FormatError::Bomb { ratio: self.ratio });
        }
        Ok(())
    }

    /// Checks a number of names.
    pub(super) fn check_entries(&self, entries: u64) -> Result<(), FormatError> {
        if entries > self.entries {
            return Err(FormatError::TooManyEntries { limit: self.entries });
        }
        Ok(())
    }
}

/// The place of an entry in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The root of the archive itself.
    Root,
    /// `metadata.yaml`.
    Metadata,
    /// `templates` or something in it.
    Templates,
    /// `rootfs` itself.
    Rootfs,
    /// Something in the root file system.
    InRootfs,
    /// `rootfs.img`.
    Disk,
}

/// What an entry is, as far as the rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    File,
    Directory,
    /// Links, devices, fifos and sockets.
    Other,
}

impl Role {
    /// The place of a normalised path; refuses what has none.
    pub(super) fn place(self, path: &[u8]) -> Result<Place, FormatError> {
        if path.is_empty() {
            return Ok(Place::Root);
        }
        if self == Self::Rootfs {
            return Ok(Place::InRootfs);
        }
        let (top, below) = match path.iter().position(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], true),
            None => (path, false),
        };
        match (top, below) {
            (b"metadata.yaml", false) => Ok(Place::Metadata),
            (b"templates", _) => Ok(Place::Templates),
            (b"rootfs", _) | (b"rootfs.img", false) if self == Self::Metadata => {
                Err(FormatError::NotMetadata { found: "a whole image with a root in it" })
            }
            (b"rootfs", false) => Ok(Place::Rootfs),
            (b"rootfs", true) => Ok(Place::InRootfs),
            (b"rootfs.img", false) => Ok(Place::Disk),
            _ if self == Self::Metadata => Err(FormatError::entry(
                path,
                "doesn't belong there: only metadata.yaml and templates/ do",
            )),
            _ => Err(FormatError::entry(
                path,
                "doesn't belong there: only metadata.yaml, templates/, rootfs/ and rootfs.img do",
            )),
        }
    }
}

impl Place {
    /// Checks that something of this shape and size may be here.
    pub(super) fn admit(self, path: &[u8], shape: Shape, size: u64) -> Result<(), FormatError> {
        let refuse = |reason| Err(FormatError::entry(path, reason));
        match (self, shape) {
            (Self::Metadata, Shape::File) if size > Metadata::MAX_BYTES as u64 => {
                refuse("is larger than 1 MiB")
            }
            (Self::Metadata | Self::Disk, Shape::File)
            | (Self::Templates, Shape::File | Shape::Directory)
            | (Self::Root | Self::Rootfs, Shape::Directory)
            | (Self::InRootfs, _) => Ok(()),
            (Self::Metadata | Self::Disk, _) => refuse("must be a regular file"),
            (Self::Templates, _) => refuse("must be a regular file or a directory"),
            (Self::Root | Self::Rootfs, _) => refuse("must be a directory"),
        }
    }
}

/// The parts of an image that were found so far.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) metadata: Option<Metadata>,
    pub(super) kind: Option<InstanceType>,
}

impl Parts {
    /// Notes a part that says what the image makes.
    pub(super) fn found(&mut self, kind: InstanceType) -> Result<(), FormatError> {
        match self.kind.replace(kind) {
            Some(other) if other != kind => Err(FormatError::TwoRoots),
            _ => Ok(()),
        }
    }

    /// Checks that all parts were found that a file of this role must have.
    pub(super) fn complete(&self, role: Role) -> Result<(), FormatError> {
        if role != Role::Rootfs && self.metadata.is_none() {
            return Err(FormatError::MissingMetadata);
        }
        if role != Role::Metadata && self.kind.is_none() {
            return Err(FormatError::InvalidInstanceType);
        }
        Ok(())
    }
}

/// Writes the normal form of an entry's name to `path`: no leading `./`, no double or final
/// slash; empty for the root itself.
///
/// # Errors
/// [`FormatError::LeavesRoot`] for absolute names and those with `..`; names that no file system
/// takes.
pub(super) fn normalise(name: &[u8], path: &mut Vec<u8>) -> Result<(), FormatError> {
    const MAX_COMPONENT: usize = 255;
    path.clear();
    if name.is_empty() {
        return Err(FormatError::entry(name, "has an empty name"));
    }
    if name.starts_with(b"/") {
        return Err(FormatError::LeavesRoot { entry: quoted(name) });
    }
    if name.contains(&0) {
        return Err(FormatError::entry(name, "has a NUL in its name"));
    }
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(FormatError::LeavesRoot { entry: quoted(name) }),
            _ if component.len() > MAX_COMPONENT => {
                return Err(FormatError::entry(name, "has a part longer than 255 bytes"));
            }
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    if path.len() > MAX_PATH {
        return Err(FormatError::entry(name, "has a name longer than 4095 bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(name: &str) -> Result<String, String> {
        let mut path = b"old".to_vec();
        normalise(name.as_bytes(), &mut path).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(path).unwrap())
    }

    #[test]
    fn names_get_one_form() {
        for (name, path) in [
            ("a", "a"),
            ("./a/b", "a/b"),
            ("./", ""),
            (".", ""),
            ("a//b/", "a/b"),
            ("a/./b", "a/b"),
            ("..a/b..", "..a/b.."),
        ] {
            assert_eq!(normal(name).as_deref(), Ok(path));
        }
        for name in ["../x", "/etc", "a/../b", "..", "./..", "a/.."] {
            let error = normal(name).unwrap_err();
            assert_eq!(error, format!("the archive leaves its root: entry {name:?}"));
        }
        let long = "x".repeat(256);
        let deep = "xx/".repeat(1400);
        for name in ["", "a\0b", &long, &deep] {
            assert!(normal(name).is_err(), "{name:?}");
        }
        assert!(normal(&"x".repeat(255)).is_ok());
    }

    #[test]
    fn only_known_names_have_a_place() {
        let place = |role: Role, path: &str| role.place(path.as_bytes()).ok();
        assert_eq!(place(Role::Unified, "rootfs/etc/passwd"), Some(Place::InRootfs));
        assert_eq!(place(Role::Unified, "rootfs.img"), Some(Place::Disk));
        assert_eq!(place(Role::Metadata, "templates/a"), Some(Place::Templates));
        for name in ["backup.yaml", "exec-output", "rootfs.img/x", "metadata.yaml/x", "ROOTFS"] {
            assert_eq!(place(Role::Unified, name), None, "{name}");
            assert_eq!(place(Role::Metadata, name), None, "{name}");
            assert_eq!(place(Role::Rootfs, name), Some(Place::InRootfs));
        }
        assert_eq!(place(Role::Metadata, "rootfs"), None);
        assert_eq!(place(Role::Metadata, "rootfs.img"), None);
    }

    #[test]
    fn bombs_are_told_from_large_images() {
        let limits = Limits::default();
        assert!(limits.check_unpacked(1, 512 << 20).is_ok());
        assert!(limits.check_unpacked(1 << 20, (512 << 20) + 1).is_err());
        assert!(limits.check_unpacked(5 << 20, 1 << 30).is_ok());
        assert!(limits.check_unpacked(1 << 40, (1 << 40) + 1).is_err());
    }
}
