//! Writing so that a reader, and a machine that loses its power, sees the old or the new.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::error::{Result, TreeError};

/// Of files that web servers hand out.
pub(super) const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// How files of a tree are opened: a link could lead out of it, and a pipe would never answer.
const PLAIN: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

/// Opens a regular file for reading; what has another kind is refused.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_with(OpenOptions::new().read(true), path)
}

/// The same with `options`.
pub(crate) fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let other = || io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
    let opened = options.custom_flags(PLAIN.bits().cast_signed()).open(path);
    let file = match opened {
        Err(error) if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => {
            let reason = format!("it is a link, and links are not followed ({error})");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        // A pipe that nobody reads, when it is opened for writing.
        Err(_) if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) => {
            return Err(other());
        }
        opened => opened?,
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(other()) }
}

/// Refuses a directory of ours that leads to another place: what is in it is written and removed.
pub(super) fn refuse_link(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_dir() => {
            let reason = "it is no directory, or only a link to one; remove it";
            Err(TreeError::io("use", path)(io::Error::other(reason)))
        }
        _ => Ok(()),
    }
}

/// The bytes of a regular file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Creates a file that nothing had this name before, readable for all.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).read(true).create_new(true).open(path)?;
    // Whatever the umask: others serve it.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    Ok(file)
}

/// Creates a directory with all that are above it, passable for all, and has their names last.
pub(super) fn create_directories(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_directories(parent)?;
    }
    let made = DirBuilder::new().mode(DIRECTORY_MODE).create(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            return Ok(());
        }
        made => made.map_err(TreeError::io("create", path))?,
    }
    fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
        .map_err(TreeError::io("set the permissions of", path))?;
    flush_directory(parent_of(path))
}

/// Puts `bytes` at `path` in one step. What is there with the same bytes stays untouched; says
/// whether it was not.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<bool> {
    if holds(path, bytes) {
        return Ok(false);
    }
    let directory = parent_of(path);
    create_directories(directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = directory.join(format!(".{name}.tmp"));
    let write = || {
        remove_if_there(&aside)?;
        let mut file = create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().map_err(TreeError::io("write", path))?;
    flush_directory(directory)?;
    Ok(true)
}

/// Whether the file is there and has these bytes.
pub(super) fn holds(path: &Path, bytes: &[u8]) -> bool {
    let same_size = fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_file() && found.len() == bytes.len() as u64);
    same_size && read(path).is_ok_and(|found| found == bytes)
}

/// Has the names in a directory last.
pub(super) fn flush_directory(path: &Path) -> Result<()> {
    let flush = || File::open(path)?.sync_all();
    flush().map_err(TreeError::io("flush the directory", path))
}

/// Removes a file that may be gone already; says whether it was there.
pub(super) fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The directory of a path.
pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
