//! `image export`: the files of an image, under their own names or ones that are given.

use std::fs::Permissions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use clap::Args;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::Image;
use lxd_proto::remote::{
    Error, Fetch, FileRole, IncomingFile, Progress, Sink, fetch as fetch_image,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::task::block_in_place;

use crate::command::flags::{ImageArg, ResultFormat};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Shape, emit, human_size, json, note};
use crate::progress::show;

/// Endings of image files, as servers name them.
const ENDINGS: &[&str] =
    &[".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2", ".tar.lzma", ".tar", ".squashfs", ".qcow2"];

/// Write an image into files.
#[derive(Debug, Args)]
#[command(after_help = "\
A unified image is one file, a split one is two. Without a target, or into a directory, they keep
the server's names: FINGERPRINT.tar.xz, or meta-FINGERPRINT.tar.xz and FINGERPRINT.squashfs. With
a name they are NAME.tar.xz, or NAME.tar.xz and NAME.rootfs.squashfs. \"-\" writes a unified image
to standard output. Files appear under their names when they are complete and checked.

Examples:
  lxd-cli image export debian/12
  lxd-cli image export debian/12 ./backup/
  lxd-cli image export debian/12 debian --force
  lxd-cli image export debian/12 - | ssh host lxd-cli image import -")]
pub(crate) struct Export {
    #[command(flatten)]
    image: ImageArg,
    /// A directory, the beginning of a file name, or "-"
    target: Option<String>,
    /// Overwrite files that exist
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    format: ResultFormat,
}

/// A file that was written.
#[derive(Debug, Serialize)]
struct Written {
    path: PathBuf,
    size: u64,
    sha256: String,
}

#[derive(Debug, Serialize)]
struct Report {
    fingerprint: Fingerprint,
    files: Vec<Written>,
}

impl Export {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let target = Target::parse(self.target.as_deref())?;
        let found = self.image.read(context).await?;
        let image = found.resolved.image;
        let to_stdout = target == Target::Stdout;
        let mut files = Files { target, force: self.force, image: &image, files: Vec::new() };
        let fetch = Fetch { progress: Progress::default(), ..Fetch::default() };
        fetch.progress.set_total(image.size);
        let shown = show(context.progress, "Exporting the image", &fetch.progress);
        fetch_image(&*found.server, &image, &fetch, &mut files).await.map_err(own_words)?;
        let written = files.complete()?;
        shown.done();
        let report = Report { fingerprint: image.fingerprint, files: written };
        self.tell(context, &report, to_stdout)
    }

    fn tell(&self, context: &Context, report: &Report, to_stdout: bool) -> Outcome {
        let text = |file: &Written| {
            let (path, size) = (file.path.display(), human_size(file.size));
            format!("{path}  {size} ({} bytes)  sha256 {}\n", file.size, file.sha256)
        };
        let lines: String = report.files.iter().map(text).collect();
        let text = format!("Image exported successfully!\n{lines}");
        if to_stdout {
            // Standard output is the image itself.
            match self.format.format.shape {
                Shape::Json | Shape::Yaml => note(json(report)?.trim_end()),
                _ if context.quiet => {}
                _ => note(text.trim_end()),
            }
            return Ok(());
        }
        if context.quiet && self.format.format.shape == Shape::Table {
            let paths: String =
                report.files.iter().map(|file| format!("{}\n", file.path.display())).collect();
            return emit(&paths);
        }
        self.format.print(report, &text)
    }
}

/// What the files below have refused says all by itself.
fn own_words(error: Error) -> Failure {
    match error {
        // The reader of a pipe has enough, as with every other tool.
        Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => Failure::silent(),
        Error::Io { source, .. } if source.kind() == io::ErrorKind::Other => {
            Failure::new(source.to_string())
        }
        error => error.into(),
    }
}

/// Where the files go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Directory(PathBuf),
    /// What the files' names begin with.
    Name(PathBuf),
    Stdout,
}

impl Target {
    fn parse(target: Option<&str>) -> Outcome<Self> {
        let Some(target) = target else { return Ok(Self::Directory(PathBuf::new())) };
        if target == "-" {
            if io::stdout().is_terminal() {
                return Err(Failure::new("an image is not written to a terminal")
                    .hint("Send standard output to a file or a program."));
            }
            return Ok(Self::Stdout);
        }
        let path = PathBuf::from(target);
        if path.is_dir() {
            return Ok(Self::Directory(path));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if target.ends_with('/') || parent.is_some_and(|parent| !parent.is_dir()) {
            return Err(Failure::new(format!("open {target}: no such file or directory"))
                .hint("Create the directory first."));
        }
        Ok(Self::Name(path))
    }

    /// The path of a file; `None` for standard output.
    fn path(&self, file: &IncomingFile, fingerprint: &Fingerprint) -> Option<PathBuf> {
        let given = &file.filename;
        match self {
            Self::Stdout => None,
            Self::Directory(dir) if !given.is_empty() => Some(dir.join(given)),
            Self::Directory(dir) => Some(dir.join(match file.role {
                FileRole::Unified => fingerprint.to_string(),
                FileRole::Metadata => format!("meta-{fingerprint}"),
                FileRole::Rootfs(_) => format!("{fingerprint}.rootfs"),
            })),
            Self::Name(path) => {
                let mut name = path.file_name().unwrap_or_default().to_os_string();
                let ending = ending(given);
                if matches!(file.role, FileRole::Rootfs(_)) {
                    name.push(".rootfs");
                }
                // A name that was given with its ending keeps it.
                if !name.to_string_lossy().ends_with(ending) {
                    name.push(ending);
                }
                Some(path.with_file_name(name))
            }
        }
    }
}

/// The ending of a server's file name.
fn ending(name: &str) -> &str {
    let known = ENDINGS.iter().find(|ending| name.ends_with(**ending));
    known.copied().unwrap_or_else(|| name.find('.').map_or("", |dot| &name[dot..]))
}

/// The files as they come. What is not completed is removed again.
#[derive(Debug)]
struct Files<'a> {
    target: Target,
    force: bool,
    image: &'a Image,
    files: Vec<Open>,
}

/// A file being written, under a name that nothing else has until it is complete.
#[derive(Debug)]
struct Open {
    path: PathBuf,
    /// `None` for standard output. The file goes when this does.
    file: Option<NamedTempFile>,
    /// `None` where the fingerprint is the hash.
    hash: Option<Sha256>,
    size: u64,
}

#[async_trait]
impl Sink for Files<'_> {
    async fn begin(&mut self, file: &IncomingFile) -> io::Result<u64> {
        let hash = (file.role != FileRole::Unified).then(Sha256::new);
        let Some(path) = self.target.path(file, &self.image.fingerprint) else {
            if file.role != FileRole::Unified {
                return Err(io::Error::other(
                    "a split image has two files, which cannot both go to standard output; \
                     name a directory",
                ));
            }
            self.files.push(Open { path: PathBuf::from("-"), file: None, hash, size: 0 });
            return Ok(0);
        };
        if !self.force && path.symlink_metadata().is_ok() {
            return Err(io::Error::other(exists(&path)));
        }
        let file = block_in_place(|| unnamed(&path))
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        self.files.push(Open { path, file: Some(file), hash, size: 0 });
        Ok(0)
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let Some(open) = self.files.last_mut() else { return Ok(()) };
        open.size += bytes.len() as u64;
        block_in_place(|| {
            if let Some(hash) = &mut open.hash {
                hash.update(&bytes);
            }
            match &mut open.file {
                Some(file) => file
                    .write_all(&bytes)
                    .map_err(|error| io::Error::other(format!("{}: {error}", open.path.display()))),
                None => io::stdout().lock().write_all(&bytes),
            }
        })
    }
}

impl Files<'_> {
    /// Gives the files their names.
    fn complete(mut self) -> Outcome<Vec<Written>> {
        let mut written = Vec::new();
        for open in std::mem::take(&mut self.files) {
            if let Some(file) = open.file {
                name(file, &open.path, self.force)?;
            }
            let sha256 = match open.hash {
                Some(hash) => hex::encode(hash.finalize()),
                None => self.image.fingerprint.to_string(),
            };
            written.push(Written { path: open.path, size: open.size, sha256 });
        }
        Ok(written)
    }
}

pub(crate) fn exists(path: &Path) -> String {
    format!("{} exists already; use --force to overwrite it", path.display())
}

/// A file beside `path` whose name is nobody's, with the permissions of any new file.
pub(crate) fn unnamed(path: &Path) -> io::Result<NamedTempFile> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    tempfile::Builder::new()
        .prefix(".export-")
        .suffix(".part")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir.unwrap_or(Path::new(".")))
}

/// Gives a complete file its name; what has appeared under it meanwhile stays, unless `force`.
pub(crate) fn name(file: NamedTempFile, path: &Path, force: bool) -> Outcome {
    let cannot = |error: io::Error| {
        Failure::new(format!("cannot name the file {}: {error}", path.display()))
    };
    let file = match (force, file.persist_noclobber(path)) {
        (_, Ok(_)) => return Ok(()),
        (false, Err(error)) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Failure::new(exists(path)));
        }
        // Not every file system can do it without replacing.
        (_, Err(error)) => error.file,
    };
    file.persist(path).map(drop).map_err(|error| cannot(error.error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lxd_proto::image::InstanceType;

    fn check(target: &Target, role: FileRole, filename: &str, expected: &str) {
        let fingerprint = Fingerprint::from_bytes([0xab; 32]);
        let file = IncomingFile { role, filename: filename.into(), length: None };
        let path = target.path(&file, &fingerprint).unwrap();
        let short = path.display().to_string().replace(&fingerprint.to_string(), "FP");
        assert_eq!(short, expected);
    }

    #[test]
    fn files_are_named_as_documented() {
        let fp = Fingerprint::from_bytes([0xab; 32]);
        let rootfs = FileRole::Rootfs(InstanceType::Container);
        let here = Target::Directory(PathBuf::new());
        check(&here, FileRole::Unified, &format!("{fp}.tar.xz"), "FP.tar.xz");
        check(&here, FileRole::Metadata, &format!("meta-{fp}.tar.xz"), "meta-FP.tar.xz");
        check(&here, rootfs, &format!("{fp}.squashfs"), "FP.squashfs");
        check(&here, rootfs, "", "FP.rootfs");
        let dir = Target::Directory("d".into());
        check(&dir, FileRole::Metadata, "", "d/meta-FP");
        let name = Target::Name("d/my".into());
        check(&name, FileRole::Unified, &format!("{fp}.tar.xz"), "d/my.tar.xz");
        check(&name, FileRole::Metadata, &format!("meta-{fp}.tar.gz"), "d/my.tar.gz");
        check(&name, rootfs, &format!("{fp}.squashfs"), "d/my.rootfs.squashfs");
        check(&name, rootfs, "", "d/my.rootfs");
        let full = Target::Name("my.tar.xz".into());
        check(&full, FileRole::Unified, "x.tar.xz", "my.tar.xz");
        assert_eq!(ending("my.image.v1.tar.gz"), ".tar.gz");
        assert_eq!(ending("lxd.bin"), ".bin");
    }

    #[test]
    fn a_missing_directory_is_noticed_before_anything_is_sent() {
        assert!(Target::parse(Some("no/such/dir/x")).is_err());
        assert!(Target::parse(Some("nodir/")).is_err());
        assert_eq!(Target::parse(Some("x")).unwrap(), Target::Name("x".into()));
        assert_eq!(Target::parse(None).unwrap(), Target::Directory(PathBuf::new()));
    }
}
