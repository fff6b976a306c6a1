//! Where an image comes from: what each file is, by its content, and its bytes.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use lxd_proto::client::{FilePart, UploadBody};
use lxd_proto::config::CompressionAlgorithm;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::{Checker, Compression, FileType, Limits, Role, pack_directory};
use lxd_proto::image::InstanceType;
use lxd_proto::remote::Progress;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::editor::blocking;
use crate::failure::{Failure, Outcome};
use crate::output::note;

/// What is read of a whole image to see that its metadata is sound.
const LOOK: u64 = 1 << 20;
/// A metadata tarball is searched for its metadata.yaml this far.
const SEARCH: u64 = 64 << 20;
const CHUNK: usize = 1 << 20;
/// So many things that are left out of an image are named.
const LEFT_OUT_SHOWN: usize = 5;

/// The files of an image.
#[derive(Debug)]
pub(super) enum Source {
    Unified(Input),
    Split { metadata: Input, rootfs: Input, kind: InstanceType },
}

/// One file, or a stream.
#[derive(Debug)]
pub(super) struct Input {
    /// For messages.
    shown: String,
    /// What the server records.
    filename: String,
    bytes: Bytes,
    file_type: Option<FileType>,
}

#[derive(Debug)]
enum Bytes {
    File {
        file: File,
        length: u64,
    },
    /// What was read ahead, and the rest.
    Stream {
        head: Vec<u8>,
        rest: File,
    },
}

impl Source {
    /// Opens the files and finds out what they are. A directory is packed.
    pub(super) async fn open(
        files: &[String],
        compression: Option<CompressionAlgorithm>,
    ) -> Outcome<Self> {
        let names = files.to_vec();
        blocking(move || match names.as_slice() {
            [dir] if Path::new(dir).is_dir() => pack(dir, compression),
            _ if compression.is_some() => {
                Err(Failure::usage("--compression is for importing a directory"))
            }
            [name] => unified(Input::open(name)?),
            [first, second] => {
                if first == "-" && second == "-" {
                    return Err(Failure::usage("standard input can only be one of the files"));
                }
                split(Input::open(first)?, Input::open(second)?)
            }
            _ => Err(Failure::usage("an image has one or two files")),
        })
        .await?
    }

    fn inputs(&self) -> Vec<&Input> {
        match self {
            Self::Unified(input) => vec![input],
            Self::Split { metadata, rootfs, .. } => vec![metadata, rootfs],
        }
    }

    /// Bytes altogether, when known.
    pub(super) fn size(&self) -> Option<u64> {
        self.inputs().into_iter().map(Input::length).sum()
    }

    /// The fingerprint; `None` when a stream is among the files.
    pub(super) async fn hash(&self, progress: &Progress) -> Outcome<Option<Fingerprint>> {
        let mut files = Vec::new();
        for input in self.inputs() {
            match &input.bytes {
                Bytes::File { file, .. } => {
                    let file = file.try_clone().map_err(|error| input.cannot("read", &error))?;
                    files.push((file, input.shown.clone()));
                }
                Bytes::Stream { .. } => return Ok(None),
            }
        }
        let progress = progress.clone();
        blocking(move || hash_files(files, &progress)).await?.map(Some)
    }

    /// The body of the upload.
    pub(super) fn into_body(self) -> UploadBody {
        match self {
            Self::Unified(input) => UploadBody::Unified(input.into_part()),
            Self::Split { metadata, rootfs, kind } => UploadBody::Split {
                metadata: metadata.into_part(),
                rootfs: rootfs.into_part(),
                kind,
            },
        }
    }
}

fn hash_files(files: Vec<(File, String)>, progress: &Progress) -> Outcome<Fingerprint> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    for (mut file, shown) in files {
        let cannot = |error: io::Error| Failure::new(format!("cannot read {shown}: {error}"));
        file.rewind().map_err(cannot)?;
        loop {
            let read = file.read(&mut buffer).map_err(cannot)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            progress.add(read);
        }
        file.rewind().map_err(cannot)?;
    }
    Ok(Fingerprint::from_bytes(hash.finalize().into()))
}

impl Input {
    fn open(name: &str) -> Outcome<Self> {
        let cannot = |error: &io::Error| {
            Failure::new(match error.kind() {
                io::ErrorKind::NotFound => format!("open {name}: no such file or directory"),
                _ => format!("open {name}: {error}"),
            })
        };
        if name == "-" {
            let stdin = io::stdin();
            let fd = std::os::fd::AsFd::as_fd(&stdin).try_clone_to_owned();
            let rest = File::from(fd.map_err(|error| cannot(&error))?);
            return Self::of_stream("standard input", String::new(), rest);
        }
        let file = File::open(name).map_err(|error| cannot(&error))?;
        let filename = Path::new(name).file_name().unwrap_or_default();
        let filename = filename.to_string_lossy().into_owned();
        let metadata = file.metadata().map_err(|error| cannot(&error))?;
        let kind = metadata.file_type();
        if kind.is_fifo() || kind.is_char_device() || kind.is_socket() {
            return Self::of_stream(name, filename, file);
        }
        if !kind.is_file() {
            return Err(Failure::new(format!("{name} is neither a file nor a stream")));
        }
        Self::of_file(name, filename, file)
    }

    fn of_file(shown: &str, filename: String, mut file: File) -> Outcome<Self> {
        let cannot = |error: io::Error| Failure::new(format!("cannot read {shown}: {error}"));
        let head = read_head(&mut file).map_err(cannot)?;
        file.rewind().map_err(cannot)?;
        let length = file.metadata().map_err(cannot)?.len();
        let bytes = Bytes::File { file, length };
        let file_type = FileType::detect(&head);
        Ok(Self { shown: shown.to_owned(), filename, bytes, file_type })
    }

    fn of_stream(shown: &str, filename: String, mut rest: File) -> Outcome<Self> {
        // Standard input that is a file can be read twice, like any other.
        if rest.metadata().is_ok_and(|metadata| metadata.is_file())
            && rest.stream_position().is_ok_and(|position| position == 0)
        {
            return Self::of_file(shown, filename, rest);
        }
        let head = read_head(&mut rest)
            .map_err(|error| Failure::new(format!("cannot read {shown}: {error}")))?;
        let file_type = FileType::detect(&head);
        let bytes = Bytes::Stream { head, rest };
        Ok(Self { shown: shown.to_owned(), filename, bytes, file_type })
    }

    const fn length(&self) -> Option<u64> {
        match self.bytes {
            Bytes::File { length, .. } => Some(length),
            Bytes::Stream { .. } => None,
        }
    }

    fn cannot(&self, what: &str, error: &dyn std::fmt::Display) -> Failure {
        Failure::new(format!("cannot {what} {}: {error}", self.shown))
    }

    fn known_type(&self) -> Outcome<FileType> {
        self.file_type.ok_or_else(|| {
            Failure::new(format!(
                "Unsupported compression: {} is no tarball, no squashfs file and no qcow2 disk",
                self.shown
            ))
        })
    }

    fn into_part(self) -> FilePart {
        let Self { filename, bytes, .. } = self;
        match bytes {
            Bytes::File { file, length } => FilePart {
                filename,
                length: Some(length),
                // No more than was hashed, whatever is appended meanwhile.
                reader: Box::pin(AsyncReadExt::take(tokio::fs::File::from_std(file), length)),
            },
            Bytes::Stream { head, rest } => FilePart {
                filename,
                length: None,
                reader: Box::pin(AsyncReadExt::chain(
                    Cursor::new(head),
                    tokio::fs::File::from_std(rest),
                )),
            },
        }
    }

    /// Whether a tarball begins like an image of one file.
    fn is_whole(&self) -> bool {
        self.look(Role::Unified, LOOK).is_ok_and(|found| found)
    }

    /// Reads the beginning of a tarball until its metadata is known, at most `limit` bytes.
    /// Says whether it was found.
    fn look(&self, role: Role, limit: u64) -> Outcome<bool> {
        let Bytes::File { file, .. } = &self.bytes else { return Ok(false) };
        let mut file = file.try_clone().map_err(|error| self.cannot("read", &error))?;
        let checker = Checker::new(role, Limits::default());
        let found = feed(checker, &mut file, limit);
        file.rewind().map_err(|error| self.cannot("read", &error))?;
        found.map_err(|error| self.cannot("import", &error))
    }
}

fn feed(
    mut checker: Checker,
    file: &mut File,
    limit: u64,
) -> Result<bool, Box<dyn std::error::Error>> {
    let mut buffer = vec![0; 64 * 1024];
    let mut left = limit;
    while left > 0 && checker.known().metadata.is_none() {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            // All of it was read: a short file is only looked at when it is known to be whole.
            return Ok(checker.finish(file)?.metadata.is_some());
        }
        checker.feed(&buffer[..read])?;
        left = left.saturating_sub(read as u64);
    }
    Ok(checker.known().metadata.is_some())
}

fn read_head(file: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.take(FileType::DETECT_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn unified(input: Input) -> Outcome<Source> {
    match input.known_type()? {
        FileType::Qcow2 => Err(Failure::usage(format!(
            "{} is a disk; a virtual-machine image needs its metadata tarball too",
            input.shown
        ))),
        FileType::Squashfs => Ok(Source::Unified(input)),
        FileType::Tar(_) => {
            // Only a first look: metadata at the end of a tarball is the server's business.
            input.look(Role::Unified, LOOK)?;
            Ok(Source::Unified(input))
        }
    }
}

/// Finds out which of two files is the metadata.
fn split(first: Input, second: Input) -> Outcome<Source> {
    let (first_type, second_type) = (first.known_type()?, second.known_type()?);
    let (metadata, rootfs) = match (first_type, second_type) {
        (FileType::Tar(_), FileType::Squashfs | FileType::Qcow2) => (first, second),
        (FileType::Squashfs | FileType::Qcow2, FileType::Tar(_)) => (second, first),
        (FileType::Tar(_), FileType::Tar(_)) => two_tarballs(first, second)?,
        _ => {
            return Err(Failure::new(format!(
                "neither {} nor {} is a metadata tarball",
                first.shown, second.shown
            )));
        }
    };
    if metadata.length().is_none() {
        return Err(Failure::usage(format!(
            "{} is the metadata, which must be a file; only the root file system may be a stream",
            metadata.shown
        )));
    }
    if !metadata.look(Role::Metadata, SEARCH)? {
        return Err(missing(&metadata));
    }
    if matches!(rootfs.file_type, Some(FileType::Tar(_))) {
        // Only a tarball that holds nothing else passes for metadata.
        if rootfs.look(Role::Metadata, LOOK).is_ok_and(|found| found) {
            return Err(Failure::new(format!(
                "both {} and {} are metadata: there is no root file system",
                metadata.shown, rootfs.shown
            )));
        }
        if rootfs.is_whole() {
            return Err(whole(&rootfs));
        }
    }
    let kind = match rootfs.file_type {
        Some(FileType::Qcow2) => InstanceType::VirtualMachine,
        _ => InstanceType::Container,
    };
    Ok(Source::Split { metadata, rootfs, kind })
}

/// The smaller one is looked into first; a stream is taken for the root file system.
fn two_tarballs(first: Input, second: Input) -> Outcome<(Input, Input)> {
    match (first.length(), second.length()) {
        (None, _) => return Ok((second, first)),
        (_, None) => return Ok((first, second)),
        _ => {}
    }
    let first_is_smaller = first.length() <= second.length();
    let (small, large) = if first_is_smaller { (first, second) } else { (second, first) };
    // What is wrong with a file that is not the metadata does not matter here.
    if small.look(Role::Metadata, SEARCH).is_ok_and(|found| found) {
        Ok((small, large))
    } else if large.look(Role::Metadata, SEARCH).is_ok_and(|found| found) {
        Ok((large, small))
    } else {
        Err(match (small.is_whole(), large.is_whole()) {
            (true, true) => {
                Failure::new(format!("{} and {} are whole images", small.shown, large.shown))
                    .hint("Import them one at a time.")
            }
            (true, false) => whole(&small),
            (false, true) => whole(&large),
            (false, false) => missing(&small).hint(format!("Neither has {}.", large.shown)),
        })
    }
}

fn whole(input: &Input) -> Failure {
    Failure::new(format!("{} is a whole image by itself", input.shown))
        .hint("Import it without the other file.")
}

fn missing(input: &Input) -> Failure {
    Failure::new(format!(
        "Metadata tarball is missing metadata.yaml: there is none in {}",
        input.shown
    ))
}

/// Packs a directory into a temporary file, the same bytes for the same content.
fn pack(dir: &str, compression: Option<CompressionAlgorithm>) -> Outcome<Source> {
    let compression = compression.unwrap_or(CompressionAlgorithm::Zstd(None));
    let (compression, level, ending) = match compression {
        CompressionAlgorithm::None => (Compression::None, None, "tar"),
        CompressionAlgorithm::Gzip(level) => (Compression::Gzip, level, "tar.gz"),
        CompressionAlgorithm::Bzip2(level) => (Compression::Bzip2, level, "tar.bz2"),
        CompressionAlgorithm::Xz(level) => (Compression::Xz, level, "tar.xz"),
        CompressionAlgorithm::Lzma(level) => (Compression::Lzma, level, "tar.lzma"),
        CompressionAlgorithm::Zstd(level) => (Compression::Zstd, level, "tar.zst"),
        CompressionAlgorithm::Squashfs => {
            return Err(Failure::usage("--compression: a directory is packed as a tarball")
                .hint("Make a squashfs file with mksquashfs and import that."));
        }
    };
    let path = std::path::absolute(dir)
        .map_err(|error| Failure::new(format!("cannot read {dir}: {error}")))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut file = tempfile::tempfile()
        .map_err(|error| Failure::new(format!("cannot make a temporary file: {error}")))?;
    let left_out = pack_directory(&path, compression, level.map(u32::from), &mut file)
        .map_err(|error| Failure::new(format!("cannot pack {dir}: {error}")))?;
    for path in left_out.iter().take(LEFT_OUT_SHOWN) {
        note(&format!("Note: {} is left out: it belongs in no image.", path.display()));
    }
    if let Some(more @ 1..) = left_out.len().checked_sub(LEFT_OUT_SHOWN) {
        note(&format!("Note: {more} more are left out."));
    }
    Ok(Source::Unified(Input::of_file(dir, format!("{name}.{ending}"), file)?))
}
