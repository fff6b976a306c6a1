//! Files inside instances: read, written and removed, running or not, and never outside of them.

use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use lxd_proto::event::action;
use lxd_proto::instance::InstanceName;
use tokio::io::AsyncWriteExt;

use super::{blocking, check_id, runtime, tell};
use crate::app::{App, Caller};
use crate::confined::{Owned, Root};
use crate::error::{Error, Result};

/// The longest path, in bytes.
const LONGEST_PATH: usize = 4096;

/// What a path inside an instance is.
#[derive(Debug)]
pub struct File {
    /// Owner, as the instance numbers it.
    pub uid: u32,
    /// Group, as the instance numbers it.
    pub gid: u32,
    /// Permissions.
    pub mode: u32,
    /// When it was changed.
    pub modified: Timestamp,
    /// What it is, and what is in it.
    pub kind: Kind,
}

/// What a path inside an instance holds.
#[derive(Debug)]
pub enum Kind {
    /// A file, open for reading, and its size in bytes.
    File(fs::File, u64),
    /// A link to this.
    Symlink(Vec<u8>),
    /// A directory with these names.
    Directory(Vec<String>),
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Owner, as the instance numbers it.
    pub uid: u32,
    /// Group, as the instance numbers it.
    pub gid: u32,
    /// Permissions; the usual ones when nothing is said.
    pub mode: Option<u32>,
    /// What it is to be.
    pub kind: WrittenKind,
}

/// What a written path is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrittenKind {
    /// A file with what follows, or what follows at its end.
    File {
        /// Instead of in place of what is there.
        append: bool,
    },
    /// A link to what follows.
    Symlink,
    /// A directory.
    Directory,
}

/// A path as requests spell it: always from the root of the instance.
fn inside(path: &str) -> Result<PathBuf> {
    if path.is_empty() || path.len() > LONGEST_PATH || path.contains('\0') {
        return Err(Error::BadRequest("missing path argument".into()));
    }
    Ok(Path::new("/").join(path.trim_start_matches('/')))
}

/// Does something with the root of an instance, which is mounted for it if need be.
///
/// A file that is opened stays usable: it is read and written without holding anybody up.
async fn with_root<T: Send + 'static>(
    app: &Arc<App>,
    name: &InstanceName,
    work: impl FnOnce(&Root, u32) -> Result<T> + Send + 'static,
) -> Result<T> {
    let _held = app.locks.hold(name).await;
    let record = app.catalog.instances.get(name)?;
    let stopped = runtime::is_stopped(app, name);
    let (task, name) = (app.clone(), name.clone());
    blocking(move || {
        let path = task.disks.mount(&name, &record.definition)?;
        let root = Root::of_instance(&path)?;
        let done = work(&root, task.disks.base());
        drop(root);
        if stopped && let Err(error) = task.disks.unmount(&name) {
            tracing::warn!(%error, "the root of a stopped instance stays mounted");
        }
        done
    })
    .await
}

/// Looks at a path, and opens it.
///
/// # Errors
/// There is no such path, or it is a device or a pipe.
pub async fn read(
    app: &Arc<App>,
    caller: &Caller,
    name: &InstanceName,
    path: &str,
) -> Result<File> {
    let path = inside(path)?;
    let file = with_root(app, name, move |root, base| {
        let found = root.metadata(&path)?;
        let kind = if found.is_symlink() {
            Kind::Symlink(root.read_link(&path)?.into_vec())
        } else if found.is_dir() {
            let names = root.read_dir(&path)?;
            Kind::Directory(names.iter().map(|n| n.to_string_lossy().into_owned()).collect())
        } else {
            Kind::File(root.open_file(&path)?, found.len())
        };
        Ok(described(&found, base, kind))
    })
    .await?;
    tell(app, Some(caller), action::INSTANCE_FILE_RETRIEVED, name, &[]);
    Ok(file)
}

fn described(found: &Metadata, base: u32, kind: Kind) -> File {
    File {
        uid: found.uid().saturating_sub(base),
        gid: found.gid().saturating_sub(base),
        mode: found.mode() & 0o7777,
        modified: Timestamp::from_second(found.mtime()).unwrap_or_default(),
        kind,
    }
}

/// Writes a path. What `body` gives is its content, or where a link leads.
///
/// # Errors
/// Its directory is not there, or it is something that cannot be written.
pub async fn write<S>(
    app: &Arc<App>,
    caller: &Caller,
    name: &InstanceName,
    path: &str,
    written: Written,
    mut body: S,
) -> Result<()>
where
    S: Stream<Item = Result<Bytes>> + Unpin,
{
    let path = inside(path)?;
    check_id(app, "user", written.uid)?;
    check_id(app, "group", written.gid)?;
    let owned = move |base: u32, usual: u32| Owned {
        uid: base.saturating_add(written.uid),
        gid: base.saturating_add(written.gid),
        mode: written.mode.unwrap_or(usual) & 0o7777,
    };
    match written.kind {
        WrittenKind::Directory => {
            with_root(app, name, move |root, base| {
                Ok(root.create_dir_all(&path, owned(base, 0o755))?)
            })
            .await?;
        }
        WrittenKind::Symlink => {
            let mut target = Vec::new();
            while let Some(bytes) = body.next().await.transpose()? {
                if target.len() + bytes.len() > LONGEST_PATH {
                    let text = "the target of the link is too long";
                    return Err(Error::BadRequest(text.into()));
                }
                target.extend_from_slice(&bytes);
            }
            with_root(app, name, move |root, base| {
                let target = std::ffi::OsStr::from_bytes(&target);
                let owner = owned(base, 0o777);
                Ok(root.symlink(target, &path, owner.uid, owner.gid)?)
            })
            .await?;
        }
        WrittenKind::File { append } => {
            let file = with_root(app, name, move |root, base| {
                if append {
                    match root.append_file(&path) {
                        Ok(file) => return Ok(file),
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(root.create_file(&path, owned(base, 0o644))?)
            })
            .await?;
            let trouble = |error| Error::io("cannot write the file", error);
            let mut file = tokio::fs::File::from_std(file);
            while let Some(bytes) = body.next().await.transpose()? {
                file.write_all(&bytes).await.map_err(trouble)?;
            }
            file.flush().await.map_err(trouble)?;
        }
    }
    tell(app, Some(caller), action::INSTANCE_FILE_PUSHED, name, &[]);
    Ok(())
}

/// Removes a file, a link or an empty directory.
///
/// # Errors
/// There is no such path, or the directory is not empty.
pub async fn remove(
    app: &Arc<App>,
    caller: &Caller,
    name: &InstanceName,
    path: &str,
) -> Result<()> {
    let path = inside(path)?;
    with_root(app, name, move |root, _| Ok(root.remove(&path)?)).await?;
    tell(app, Some(caller), action::INSTANCE_FILE_DELETED, name, &[]);
    Ok(())
}

/// What an instance has written on its console.
///
/// # Errors
/// There is no such instance, or its log cannot be read.
pub async fn console(app: &Arc<App>, name: &InstanceName) -> Result<Vec<u8>> {
    app.catalog.instances.get(name)?;
    let (runtime, name) = (app.runtime.clone(), runtime::named(name)?);
    blocking(move || Ok(runtime.console_log(&name)?)).await
}

/// Empties the console log of an instance.
///
/// # Errors
/// There is no such instance, or its log cannot be changed.
pub async fn clear_console(app: &Arc<App>, name: &InstanceName) -> Result<()> {
    app.catalog.instances.get(name)?;
    let (runtime, name) = (app.runtime.clone(), runtime::named(name)?);
    blocking(move || Ok(runtime.clear_console_log(&name)?)).await
}
