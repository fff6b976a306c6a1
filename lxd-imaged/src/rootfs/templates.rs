//! Files of an instance that are made from its image's templates.
//!
//! Everything here is chosen by whoever made the image: which files, from what, and what already
//! stands in their way. So sources are read only below the image's directory of templates, and
//! targets are written only below the instance's root, where links mean what they mean inside.

use std::fmt;
use std::fs::Metadata as FileMetadata;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use lxd_proto::metadata::{Metadata, Template};

use crate::confined::{self, Owned, Root};
use crate::template::{self, Context};

/// The most files that are made on one occasion.
pub const MAX_FILES: usize = 200;
/// The most bytes that are written on one occasion.
pub const MAX_BYTES: usize = 16 << 20;
/// How long the files of one occasion may take to be made.
pub const MAX_TIME: Duration = Duration::from_secs(20);

/// The mode of a new file.
const FILE_MODE: u32 = 0o644;
/// The mode of the directories above it.
const DIRECTORY_MODE: u32 = 0o755;

/// An occasion on which files are made from templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The instance is made from an image.
    Create,
    /// The instance is made from another one.
    Copy,
    /// The instance starts.
    Start,
    /// The instance gets another name; only old images name it.
    Rename,
}

impl Trigger {
    const ALL: [Self; 4] = [Self::Create, Self::Copy, Self::Start, Self::Rename];

    /// The word for it in `metadata.yaml` and in `volatile.apply_template`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Copy => "copy",
            Self::Start => "start",
            Self::Rename => "rename",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no [`Trigger`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown occasion {0:?}; known are create, copy, start and rename")]
pub struct UnknownTrigger(String);

impl FromStr for Trigger {
    type Err = UnknownTrigger;

    fn from_str(word: &str) -> Result<Self, UnknownTrigger> {
        let found = Self::ALL.into_iter().find(|trigger| trigger.as_str() == word);
        found.ok_or_else(|| UnknownTrigger(shown(word).to_owned()))
    }
}

/// Why the files of an instance can't be made from its templates. What is in the way comes from the
/// image, or was put there inside the instance.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory of templates or the root is no directory, or a link.
    #[error("{} must be a directory, and no link", path.display())]
    NoDirectory {
        /// Which.
        path: PathBuf,
    },
    /// The template can't be read.
    #[error("the template {template:?} can't be read: {source}")]
    Source {
        /// Its name below the image's `templates/`.
        template: String,
        /// Why.
        source: confined::Error,
    },
    /// The template can't be read to its end.
    #[error("the template {template:?} can't be read: {source}")]
    Read {
        /// Its name below the image's `templates/`.
        template: String,
        /// Why; `InvalidData` when it is no UTF-8.
        source: io::Error,
    },
    /// The template can't be rendered.
    #[error("the template {template:?} for {target:?} can't be used: {source}")]
    Render {
        /// Its name below the image's `templates/`.
        template: String,
        /// The file to make.
        target: String,
        /// Why, and where in the template.
        source: template::Error,
    },
    /// The path of a file to make names no file inside of the instance.
    #[error("a template is for {target:?}, which names no file of the instance")]
    Target {
        /// As the metadata has it.
        target: String,
    },
    /// The file can't be made.
    #[error("{target:?} of the instance can't be made from its template: {source}")]
    Make {
        /// The file.
        target: String,
        /// Why.
        source: confined::Error,
    },
    /// The file can't be written.
    #[error("{target:?} of the instance can't be written: {source}")]
    Write {
        /// The file.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// More files, bytes or time than any image needs.
    #[error("the image's templates go over a limit: {0}")]
    Limit(&'static str),
}

/// Makes the files that the image has a template for on this occasion, and tells how many. `base`
/// is the id of the instance's root on this machine: new files and directories are its own. A file
/// that is there keeps its owner and permissions, and stays as it is when the template says
/// `create_only`. Of `context` the trigger, the path and the properties are set here.
///
/// A template that can't be rendered leaves its file as it was; files of templates before it are
/// made.
///
/// # Errors
/// See [`Error`]. No file outside of `rootfs` is written, none outside of `templates` is read,
/// whatever the image and the instance are made of.
pub fn apply(
    metadata: &Metadata,
    templates: &Path,
    rootfs: &Path,
    trigger: Trigger,
    context: &Context,
    base: u32,
) -> Result<usize, Error> {
    let chosen = chosen(metadata, trigger);
    if chosen.is_empty() {
        return Ok(0);
    }
    if chosen.len() > MAX_FILES {
        return Err(Error::Limit("on one occasion, 200 files may be made"));
    }
    let mut maker = Maker {
        sources: Root::open(no_link(templates)?).map_err(|_| no_directory(templates))?,
        root: Root::of_instance(no_link(rootfs)?).map_err(|_| no_directory(rootfs))?,
        context: Context { trigger: trigger.to_string(), ..context.clone() },
        base,
        bytes: 0,
        deadline: Instant::now() + MAX_TIME,
    };
    let mut made = 0;
    for (target, template) in chosen {
        made += usize::from(maker.make(target, template)?);
    }
    Ok(made)
}

/// The files for an occasion. Words in `when` that are unknown here mean no occasion.
fn chosen(metadata: &Metadata, trigger: Trigger) -> Vec<(&str, &Template)> {
    let templates = metadata.templates.iter().map(|(target, template)| (target.as_str(), template));
    templates.filter(|(_, template)| template.when.iter().any(|w| w == trigger.as_str())).collect()
}

/// The path of a directory of ours, if it is one. What is in it is a stranger's; it is not.
fn no_link(path: &Path) -> Result<&Path, Error> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(path),
        _ => Err(no_directory(path)),
    }
}

fn no_directory(path: &Path) -> Error {
    Error::NoDirectory { path: path.to_owned() }
}

/// A name that a stranger chose, cut to what an error can show.
fn shown(name: &str) -> &str {
    name.char_indices().nth(200).map_or(name, |(end, _)| &name[..end])
}

struct Maker {
    sources: Root,
    root: Root,
    context: Context,
    base: u32,
    bytes: usize,
    deadline: Instant,
}

impl Maker {
    /// Makes one file; false when it stays as it is.
    fn make(&mut self, target: &str, template: &Template) -> Result<bool, Error> {
        if Instant::now() > self.deadline {
            return Err(Error::Limit("on one occasion, making files may take 20 seconds"));
        }
        let path = inside(target)?;
        let failed = |source| Error::Make { target: shown(target).to_owned(), source };
        let there = existing(self.root.metadata(path)).map_err(failed)?;
        if there.is_some() && template.create_only {
            return Ok(false);
        }
        let text = self.render(target, template)?;
        self.bytes += text.len();
        if self.bytes > MAX_BYTES {
            return Err(Error::Limit("on one occasion, 16 MiB may be written"));
        }
        if there.is_none() {
            let directory = path.parent().unwrap_or(Path::new("/"));
            self.root.create_dir_all(directory, self.owned(DIRECTORY_MODE)).map_err(failed)?;
        }
        // A link to a file is that file, one to nothing becomes a new file where it leads.
        let before = existing(self.root.target_metadata(path)).map_err(failed)?;
        let owned = before.map_or(self.owned(FILE_MODE), |before| Owned {
            uid: before.uid(),
            gid: before.gid(),
            mode: before.permissions().mode() & 0o7777,
        });
        let mut file = self.root.create_file(path, owned).map_err(failed)?;
        file.write_all(text.as_bytes())
            .map_err(|source| Error::Write { target: shown(target).to_owned(), source })?;
        Ok(true)
    }

    fn owned(&self, mode: u32) -> Owned {
        Owned { uid: self.base, gid: self.base, mode }
    }

    fn render(&mut self, target: &str, template: &Template) -> Result<String, Error> {
        let source = self.read(&template.template)?;
        target.clone_into(&mut self.context.path);
        self.context.properties.clone_from(&template.properties);
        template::render(&source, &self.context).map_err(|source| Error::Render {
            template: shown(&template.template).to_owned(),
            target: shown(target).to_owned(),
            source,
        })
    }

    /// The text of a template.
    fn read(&self, name: &str) -> Result<String, Error> {
        let template = || shown(name).to_owned();
        let file = self
            .sources
            .open_file(Path::new(name))
            .map_err(|source| Error::Source { template: template(), source })?;
        let failed = |source| Error::Read { template: template(), source };
        let most = u64::try_from(template::MAX_SOURCE).unwrap_or(u64::MAX);
        if file.metadata().map_err(failed)?.len() > most {
            return Err(failed(io::Error::other("it may have 1 MiB")));
        }
        let mut text = String::new();
        // It is not ours: it may grow.
        file.take(most).read_to_string(&mut text).map_err(failed)?;
        Ok(text)
    }
}

/// The path of a file to make. `..` has no place in it: it would mean something else to each who
/// reads it.
fn inside(target: &str) -> Result<&Path, Error> {
    let path = Path::new(target);
    let strange = path.components().any(|part| part == Component::ParentDir);
    if strange || path.file_name().is_none() || target.ends_with('/') || target.contains('\0') {
        return Err(Error::Target { target: shown(target).to_owned() });
    }
    Ok(path)
}

/// What is there, if anything.
fn existing(
    found: Result<FileMetadata, confined::Error>,
) -> Result<Option<FileMetadata>, confined::Error> {
    match found {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
