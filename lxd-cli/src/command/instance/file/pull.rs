//! `file pull`: files of an instance onto this machine.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use clap::Args;
use lxd_proto::client::{FileBody, FileReader, InstanceFile};
use lxd_proto::remote::Progress;
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{Place, base_name, join};
use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::async_stream;
use crate::progress::{Style, show};

/// Links that are followed one after the other.
const MOST_LINKS: usize = 16;
/// Directories that may be inside each other.
const DEEPEST: usize = 128;
/// A file of so many bytes takes long enough to show how far it is.
const LARGE: u64 = 16 << 20;

/// Fetch files from an instance.
#[derive(Debug, Args)]
#[command(after_help = "\
Where the target is a directory, ends with a slash, or several files are fetched, they go into it
under their own names. A link is followed; with --recursive it stays a link.

Examples:
  lxd-cli file pull web/etc/motd .
  lxd-cli file pull web/var/log/syslog - | less
  lxd-cli file pull --recursive web/srv backup/ --create-dirs")]
pub(crate) struct Pull {
    /// The files, and where they go (\"-\" is standard output)
    #[arg(value_name = "[REMOTE:]NAME/PATH... TARGET", num_args = 2.., required = true)]
    words: Vec<String>,
    /// Directories with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// Make the directories that are missing
    #[arg(short = 'p', long)]
    create_dirs: bool,
    #[command(flatten)]
    format: ResultFormat,
}

impl Pull {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let Some((target, sources)) = self.words.split_last() else {
            return Err(Failure::usage("files and a target are needed"));
        };
        let parse = |word: &String| Place::parse(context, word, "source");
        let places: Vec<_> = sources.iter().map(parse).collect::<Outcome<_>>()?;
        if target == "-" {
            for place in &places {
                self.to_stdout(place).await?;
            }
            return Ok(());
        }
        let path = Path::new(target);
        let into_directory = target.ends_with('/') || places.len() > 1 || path.is_dir();
        let directory = if into_directory { Some(path) } else { path.parent() };
        if self.create_dirs
            && let Some(directory) = directory
        {
            std::fs::create_dir_all(directory).map_err(|error| told(directory, &error))?;
        }
        let mut pulled = Vec::new();
        for place in &places {
            let to = if into_directory {
                path.join(checked_name(base_name(&place.path))?)
            } else {
                path.to_owned()
            };
            self.one(context, place, &to).await?;
            pulled.push(to.display().to_string());
        }
        self.format.done(&json!({ "pulled": pulled }))
    }

    async fn to_stdout(&self, place: &Place) -> Outcome {
        let mut out = async_stream(&io::stdout())?;
        match followed(place).await?.body {
            FileBody::File(reader) => match copy(reader, &mut out, &Progress::default()).await {
                Err(failure) if failure.error.contains("Broken pipe") => Err(Failure::silent()),
                done => done,
            },
            _ => Err(Failure::usage(format!("{} is a directory", place.shown()))),
        }
    }

    async fn one(&self, context: &Context, place: &Place, to: &Path) -> Outcome {
        if !self.recursive {
            let found = followed(place).await?;
            let FileBody::File(_) = found.body else {
                return Err(Failure::usage("Can't pull a directory without --recursive"));
            };
            return write(context, place, &place.path, found, to).await;
        }
        // No recursion of ours: what the server tells must not decide how much stack we use.
        let mut waiting = vec![(place.path.clone(), to.to_owned(), 0)];
        while let Some((path, to, depth)) = waiting.pop() {
            let found = get(place, &path).await?;
            let FileBody::Directory(names) = &found.body else {
                write(context, place, &path, found, &to).await?;
                continue;
            };
            if depth >= DEEPEST {
                return Err(Failure::new(format!(
                    "{path} is more than {DEEPEST} directories deep"
                )));
            }
            make_directory(&to, found.headers.mode)?;
            for name in names {
                waiting.push((join(&path, name), to.join(checked_name(name)?), depth + 1));
            }
        }
        Ok(())
    }
}

async fn get(place: &Place, path: &str) -> Outcome<InstanceFile> {
    match place.named.server.get_file(&place.named.name, path).await {
        Ok(found) => Ok(found),
        Err(error) => Err(place.failed(path, error).await),
    }
}

/// What stands at the end of links.
async fn followed(place: &Place) -> Outcome<InstanceFile> {
    let mut path = place.path.clone();
    for _ in 0..MOST_LINKS {
        let found = get(place, &path).await?;
        let FileBody::Symlink(target) = &found.body else { return Ok(found) };
        let target = String::from_utf8_lossy(target);
        path = match path.rsplit_once('/') {
            Some((directory, _)) if !target.starts_with('/') => join(directory, &target),
            _ => target.into_owned(),
        };
    }
    Err(Failure::new(format!("{}: too many links one after the other", place.shown())))
}

/// Writes what was found under a new name first, so that nothing is ever half there, and nothing
/// is written through a link.
async fn write(
    context: &Context,
    place: &Place,
    path: &str,
    found: InstanceFile,
    to: &Path,
) -> Outcome {
    let directory = match to.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let reader = match found.body {
        FileBody::File(reader) => reader,
        FileBody::Symlink(target) => {
            let target = Path::new(OsStr::from_bytes(&target));
            return match std::fs::remove_file(to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(told(to, &error)),
                _ => symlink(target, to).map_err(|error| told(to, &error)),
            };
        }
        FileBody::Directory(_) => return Err(Failure::new(format!("{path} is a directory"))),
    };
    let progress = Progress::default();
    if let Some(length) = reader.length() {
        progress.set_total(length);
    }
    let large = reader.length().is_none_or(|length| length >= LARGE);
    let style = if large { context.progress } else { Style::None };
    let label = format!("Pulling {}{path}", place.named.name);
    let shown = show(style, &label, &progress);
    let partial = tempfile::Builder::new()
        .prefix(".lxd-cli-")
        .tempfile_in(directory)
        .map_err(|error| told(directory, &error))?;
    let clone = partial.as_file().try_clone().map_err(|error| told(to, &error))?;
    copy(reader, &mut tokio::fs::File::from_std(clone), &progress).await?;
    // Setuid of a stranger's file is nothing to bring onto this machine.
    let mode = found.headers.mode.unwrap_or(0o644) & 0o777;
    partial
        .as_file()
        .set_permissions(std::fs::Permissions::from_mode(mode))
        .map_err(|error| told(to, &error))?;
    partial.persist(to).map_err(|error| told(to, &error.error))?;
    shown.done();
    Ok(())
}

async fn copy(
    mut reader: Box<FileReader>,
    to: &mut (impl AsyncWrite + Unpin),
    progress: &Progress,
) -> Outcome {
    while let Some(bytes) = reader.next().await? {
        progress.add(bytes.len());
        to.write_all(&bytes)
            .await
            .map_err(|error| Failure::new(format!("cannot write the file: {error}")))?;
    }
    to.flush().await.map_err(|error| Failure::new(format!("cannot write the file: {error}")))
}

fn make_directory(path: &Path, mode: Option<u32>) -> Outcome {
    match std::fs::create_dir(path) {
        Ok(()) => {
            // We must be able to write into it.
            let mode = mode.unwrap_or(0o755) & 0o777 | 0o700;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
                .map_err(|error| told(path, &error))
        }
        // Never through a link: it may be one that came a moment ago.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if path.symlink_metadata().map_err(|error| told(path, &error))?.is_dir() {
                return Ok(());
            }
            Err(Failure::new(format!("{} is no directory", path.display())))
        }
        Err(error) => Err(told(path, &error)),
    }
}

/// A name that a server tells, as one component of a local path.
fn checked_name(name: &str) -> Outcome<PathBuf> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(Failure::new(format!("\"{name}\" is no name for a file here")));
    }
    Ok(PathBuf::from(name))
}

fn told(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_servers_stay_below_the_target() {
        for wrong in ["", ".", "..", "a/b", "/etc", "a\0"] {
            assert!(checked_name(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(checked_name("..a").unwrap(), Path::new("..a"));
    }

    #[test]
    fn a_directory_is_never_made_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        symlink("/tmp", &link).unwrap();
        assert!(make_directory(&link, None).is_err());
        let made = dir.path().join("made");
        make_directory(&made, Some(0o4550)).unwrap();
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o7777, 0o750);
        make_directory(&made, None).unwrap();
    }
}
