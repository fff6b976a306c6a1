//! `file push`: files of this machine into an instance.

use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use futures_util::stream;
use lxd_proto::client::FileBody;
use lxd_proto::instance::file::{FileHeaders, FileKind};
use lxd_proto::remote::Progress;
use serde_json::json;
use tokio_util::io::ReaderStream;
use walkdir::WalkDir;

use super::{Place, join};
use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{async_stream, note};
use crate::progress::{Style, show};

/// Bytes handed to the connection at a time.
const CHUNK: usize = 256 << 10;
/// A file of so many bytes takes long enough to show how far it is.
const LARGE: u64 = 16 << 20;

/// Send files into an instance.
#[derive(Debug, Args)]
#[command(after_help = "\
Where the target ends with a slash, is a directory, or several files are sent, they go into it
under their own names. What --uid, --gid and --mode leave open is taken from the file itself.

Examples:
  lxd-cli file push motd web/etc/motd
  lxd-cli file push --recursive site web/srv/ --create-dirs
  tar -c . | lxd-cli file push - web/root/all.tar --mode 0600")]
pub(crate) struct Push {
    /// The files (\"-\" is standard input), and where they go
    #[arg(value_name = "FILE... [REMOTE:]NAME/PATH", num_args = 2.., required = true)]
    words: Vec<String>,
    /// Directories with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// Make the directories that are missing
    #[arg(short = 'p', long)]
    create_dirs: bool,
    /// The owner in the instance
    #[arg(long)]
    uid: Option<u32>,
    /// The group in the instance
    #[arg(long)]
    gid: Option<u32>,
    /// The permissions, octal
    #[arg(long, value_parser = octal)]
    mode: Option<u32>,
    #[command(flatten)]
    format: ResultFormat,
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text.trim_start_matches("0o"), 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("\"{text}\" is no mode; write it as in 0644"))
}

impl Push {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let Some((target, sources)) = self.words.split_last() else {
            return Err(Failure::usage("files and a target are needed"));
        };
        let place = Place::parse(context, target, "target")?;
        let into_directory = place.path.ends_with('/')
            || sources.len() > 1
            || (sources[0] != "-" && is_directory(&place).await?);
        let mut sent = Vec::new();
        for source in sources {
            let to = if into_directory {
                if source == "-" {
                    return Err(Failure::usage(
                        "standard input has no name of its own; name the file in the instance",
                    ));
                }
                join(&place.path, &local_name(Path::new(source))?)
            } else {
                place.path.clone()
            };
            self.one(context, &place, source, &to).await?;
            sent.push(format!("{}{to}", place.named.name));
        }
        self.format.done(&json!({ "pushed": sent }))
    }

    async fn one(&self, context: &Context, place: &Place, source: &str, to: &str) -> Outcome {
        if source == "-" {
            if self.create_dirs {
                self.make_parents(place, to).await?;
            }
            let stream = ReaderStream::with_capacity(async_stream(&io::stdin())?, CHUNK);
            return self.send(place, to, &self.headers(None, FileKind::File), None, stream).await;
        }
        let path = Path::new(source);
        let about = std::fs::metadata(path).map_err(|error| told(path, &error))?;
        if about.is_dir() && !self.recursive {
            return Err(Failure::usage(format!("{source} is a directory; --recursive sends it")));
        }
        if self.create_dirs {
            self.make_parents(place, to).await?;
        }
        if about.is_dir() {
            return self.tree(context, place, path, to).await;
        }
        self.file(context, place, path, &about, to).await
    }

    async fn tree(&self, context: &Context, place: &Place, root: &Path, to: &str) -> Outcome {
        // Parents come before what is in them; links are sent as links.
        for entry in WalkDir::new(root).sort_by_file_name() {
            let entry = entry.map_err(|error| Failure::new(error.to_string()))?;
            let path = entry.path();
            let below = path.strip_prefix(root).unwrap_or(path);
            let to = match below.to_str() {
                Some("") => to.to_owned(),
                Some(below) => join(to, below),
                None => return Err(not_text(path)),
            };
            let about =
                if entry.depth() == 0 { std::fs::metadata(path) } else { path.symlink_metadata() };
            let about = about.map_err(|error| told(path, &error))?;
            if about.is_dir() {
                self.directory(place, &to, Some(&about)).await?;
            } else if about.is_symlink() {
                let target = std::fs::read_link(path).map_err(|error| told(path, &error))?;
                let bytes = Bytes::copy_from_slice(target.as_os_str().as_bytes());
                let headers =
                    FileHeaders { mode: None, ..self.headers(Some(&about), FileKind::Symlink) };
                let length = Some(bytes.len() as u64);
                let body = stream::iter([Ok(bytes)]);
                self.send(place, &to, &headers, length, body).await?;
            } else if about.is_file() {
                self.file(context, place, path, &about, &to).await?;
            } else {
                note(&format!("{}: neither file, link nor directory; left out", path.display()));
            }
        }
        Ok(())
    }

    async fn file(
        &self,
        context: &Context,
        place: &Place,
        path: &Path,
        about: &Metadata,
        to: &str,
    ) -> Outcome {
        let file = tokio::fs::File::open(path).await.map_err(|error| told(path, &error))?;
        // What is no regular file (a pipe, say) has no length.
        let length = about.is_file().then_some(about.len());
        let progress = Progress::default();
        if let Some(length) = length {
            progress.set_total(length);
        }
        let style = if length.is_none_or(|length| length >= LARGE) {
            context.progress
        } else {
            Style::None
        };
        let label = format!("Pushing {} to {}{to}", path.display(), place.named.name);
        let shown = show(style, &label, &progress);
        let stream = counted(ReaderStream::with_capacity(file, CHUNK), progress);
        self.send(place, to, &self.headers(Some(about), FileKind::File), length, stream).await?;
        shown.done();
        Ok(())
    }

    async fn send<S>(
        &self,
        place: &Place,
        to: &str,
        headers: &FileHeaders,
        length: Option<u64>,
        body: S,
    ) -> Outcome
    where
        S: futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        match place.named.server.put_file(&place.named.name, to, headers, length, body).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() && !self.create_dirs => Err(place
                .failed(to, error)
                .await
                .hint("If its directory is missing, --create-dirs makes it.")),
            Err(error) => Err(place.failed(to, error).await),
        }
    }

    async fn directory(&self, place: &Place, path: &str, about: Option<&Metadata>) -> Outcome {
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Ok(());
        }
        let (server, name) = (&place.named.server, &place.named.name);
        match server.get_file(name, path).await {
            Ok(found) if matches!(found.body, FileBody::Directory(_)) => return Ok(()),
            // A link may lead to a directory.
            Ok(found) if matches!(found.body, FileBody::Symlink(_)) => return Ok(()),
            Ok(_) => {
                return Err(Failure::new(format!("{name}{path} exists and is no directory")));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(place.failed(path, error).await),
        }
        let headers = self.headers(about, FileKind::Directory);
        self.send(place, path, &headers, Some(0), stream::empty()).await
    }

    async fn make_parents(&self, place: &Place, path: &str) -> Outcome {
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1);
        for end in ends {
            self.directory(place, &path[..end], None).await?;
        }
        Ok(())
    }

    /// Owner and mode: as said, else as they are here.
    fn headers(&self, about: Option<&Metadata>, kind: FileKind) -> FileHeaders {
        let own = about.map(|about| (about.uid(), about.gid(), about.mode() & 0o7777));
        let mode = if kind == FileKind::File { self.mode } else { None };
        FileHeaders {
            uid: self.uid.or(own.map(|own| own.0)),
            gid: self.gid.or(own.map(|own| own.1)),
            mode: mode.or(own.map(|own| own.2)),
            kind,
            ..FileHeaders::default()
        }
    }
}

async fn is_directory(place: &Place) -> Outcome<bool> {
    match place.named.server.get_file(&place.named.name, &place.path).await {
        Ok(found) => Ok(matches!(found.body, FileBody::Directory(_))),
        Err(error) if error.is_not_found() && !error.to_string().contains("nstance") => Ok(false),
        Err(error) => Err(place.failed(&place.path, error).await),
    }
}

fn counted(
    stream: ReaderStream<tokio::fs::File>,
    progress: Progress,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static {
    use futures_util::StreamExt;
    stream.inspect(move |chunk| {
        if let Ok(bytes) = chunk {
            progress.add(bytes.len());
        }
    })
}

/// The name of a local file, also of `.` and `..`.
fn local_name(path: &Path) -> Outcome<String> {
    let whole: PathBuf = match path.file_name() {
        Some(_) => path.to_owned(),
        None => path.canonicalize().map_err(|error| told(path, &error))?,
    };
    let name = whole.file_name().unwrap_or_default();
    name.to_str().map(str::to_owned).ok_or_else(|| not_text(path))
}

fn not_text(path: &Path) -> Failure {
    Failure::new(format!("{}: its name is not UTF-8 and cannot be sent", path.display()))
}

fn told(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        assert_eq!(octal("644"), Ok(0o644));
        assert_eq!(octal("0o4755"), Ok(0o4755));
        for wrong in ["", "9", "rw-", "17777"] {
            assert!(octal(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_the_last_part() {
        assert_eq!(local_name(Path::new("a/b.txt")).unwrap(), "b.txt");
        assert_eq!(local_name(Path::new("dir/")).unwrap(), "dir");
        let here = std::env::current_dir().unwrap();
        let here = here.canonicalize().unwrap();
        assert_eq!(
            local_name(Path::new(".")).unwrap(),
            here.file_name().unwrap().to_str().unwrap()
        );
        assert_eq!(
            (join("/", "a"), join("/x/", "a"), join("/x", "a")),
            ("/a".into(), "/x/a".into(), "/x/a".into())
        );
    }
}
