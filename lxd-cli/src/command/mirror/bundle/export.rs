//! `mirror export`: streams a mirror into one file, which gets its name when it is complete.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use clap::Args;
use lxd_proto::client::LxdClient;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::mirror::bundle::{BundledImage, Manifest, entry_name, manifest_name};
use lxd_proto::remote::{Error, Fetch, IncomingFile, Progress, Remote, Sink};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWriteExt, BufWriter};

use super::archive::{end, header, padding};
use crate::command::flags::ResultFormat;
use crate::command::image::export::{exists, name, unnamed};
use crate::command::mirror::MirrorArg;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::human_size;
use crate::progress::show;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 20;

/// Write a mirror into one file.
#[derive(Debug, Args)]
#[command(after_help = "\
The file holds the images with their properties and names, and what proves that they are whole. It
is for a machine that cannot reach the mirror's source: `mirror import` takes it in there.

Examples:
  lxd-cli mirror export debian debian.bundle
  lxd-cli mirror export backup:debian /media/usb/debian.bundle --force")]
pub(crate) struct Export {
    #[command(flatten)]
    mirror: MirrorArg,
    /// The file to write
    file: PathBuf,
    /// Overwrite the file if it exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    format: ResultFormat,
}

impl Export {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        if !self.force && self.file.exists() {
            return Err(Failure::new(exists(&self.file)));
        }
        let (server, mirror) = self.mirror.open(context)?;
        let manifest = server.mirror_manifest(&mirror).await?;
        manifest.check().map_err(|error| Failure::new(error.to_string()))?;
        if manifest.images.is_empty() {
            return Err(Failure::new(format!("mirror {mirror} has no images yet"))
                .hint(format!("`lxd-cli mirror run {}` fetches them.", self.mirror.mirror)));
        }
        let failed = |error: io::Error| {
            Failure::new(format!("cannot write {}: {error}", self.file.display()))
        };
        let partial = unnamed(&self.file).map_err(failed)?;
        let file = tokio::fs::File::from_std(partial.reopen().map_err(failed)?);
        let progress = Progress::default();
        progress.set_total(manifest.files.iter().map(|file| file.size).sum());
        let shown = show(context.progress, &format!("Exporting mirror {mirror}"), &progress);
        let mut writer = Writer { file: BufWriter::with_capacity(BUFFER, file), size: 0 };
        write(&server, &manifest, &mut writer, &progress).await?;
        writer.end().await.map_err(failed)?;
        let size = writer.size;
        drop(writer);
        name(partial, &self.file, self.force)?;
        shown.done();
        let images = manifest.images.len();
        let text = format!("{images} images in {}, {}\n", self.file.display(), human_size(size));
        let result = json!({ "path": self.file, "size": size, "images": images });
        if context.quiet { self.format.done(&result) } else { self.format.print(&result, &text) }
    }
}

/// All entries: the manifest, then each file once.
async fn write(
    server: &LxdClient,
    manifest: &Manifest,
    writer: &mut Writer,
    progress: &Progress,
) -> Outcome {
    let text = serde_json::to_vec(manifest).map_err(|error| Failure::new(error.to_string()))?;
    let local = |error: io::Error| Failure::new(format!("cannot write the bundle: {error}"));
    let name = manifest_name(&Fingerprint::from_bytes(Sha256::digest(&text).into()));
    writer.header(&name, text.len() as u64).await.map_err(local)?;
    writer.bytes(&text).await.map_err(local)?;
    writer.bytes(padding(text.len() as u64)).await.map_err(local)?;
    let sizes: HashMap<Fingerprint, u64> =
        manifest.files.iter().map(|file| (file.sha256, file.size)).collect();
    let mut written = HashSet::new();
    for image in &manifest.images {
        if image.files().all(|file| written.contains(&file)) {
            continue;
        }
        let mut sink = ImageSink {
            writer: &mut *writer,
            progress,
            files: files(image, &sizes),
            place: 0,
            current: None,
            written: &mut written,
        };
        let fetched = server.download(&image.described(), &Fetch::default(), &mut sink).await;
        let ended = match fetched {
            Ok(()) => sink.end().await.map_err(local_error),
            Err(error) => Err(error),
        };
        ended.map_err(|error| {
            let text = format!("cannot export image {}: {error}", image.fingerprint.short());
            Failure::new(text).hint("Nothing was written under the file's name; try again.")
        })?;
    }
    Ok(())
}

fn local_error(source: io::Error) -> Error {
    Error::Io { what: "the bundle".to_owned(), source }
}

fn files(image: &BundledImage, sizes: &HashMap<Fingerprint, u64>) -> Vec<(Fingerprint, u64)> {
    image.files().map(|file| (file, sizes.get(&file).copied().unwrap_or_default())).collect()
}

/// The archive as it grows.
struct Writer {
    file: BufWriter<tokio::fs::File>,
    size: u64,
}

impl Writer {
    async fn header(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.bytes(&header(name, size)?).await
    }

    async fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).await
    }

    /// The end mark, and everything on the disk.
    async fn end(&mut self) -> io::Result<()> {
        self.bytes(&end()).await?;
        self.file.flush().await?;
        self.file.get_ref().sync_all().await
    }
}

/// Takes the files of one image into the archive, those that are not in it yet.
struct ImageSink<'a> {
    writer: &'a mut Writer,
    progress: &'a Progress,
    /// As the manifest tells them.
    files: Vec<(Fingerprint, u64)>,
    place: usize,
    current: Option<Current>,
    written: &'a mut HashSet<Fingerprint>,
}

struct Current {
    expected: (Fingerprint, u64),
    hash: Sha256,
    received: u64,
    /// Whether it is in the archive already.
    known: bool,
}

impl ImageSink<'_> {
    /// The current file is complete: it must be what the manifest says.
    async fn end_of_file(&mut self) -> io::Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let (sha256, size) = current.expected;
        let got = Fingerprint::from_bytes(current.hash.finalize().into());
        if got != sha256 || current.received != size {
            return Err(io::Error::other(format!(
                "the server has sent another file than {sha256}"
            )));
        }
        if !current.known {
            self.writer.bytes(padding(size)).await?;
            self.written.insert(sha256);
        }
        Ok(())
    }

    async fn end(mut self) -> io::Result<()> {
        self.end_of_file().await?;
        if self.place == self.files.len() {
            return Ok(());
        }
        Err(io::Error::other("the server has not sent all files"))
    }
}

#[async_trait]
impl Sink for ImageSink<'_> {
    async fn begin(&mut self, file: &IncomingFile) -> io::Result<u64> {
        self.end_of_file().await?;
        let expected = self.files.get(self.place).copied();
        let expected =
            expected.ok_or_else(|| io::Error::other("the server sends too many files"))?;
        self.place += 1;
        if file.length.is_some_and(|length| length != expected.1) {
            return Err(io::Error::other("a file has another length than the server has told"));
        }
        let known = self.written.contains(&expected.0);
        if !known {
            self.writer.header(&entry_name(&expected.0), expected.1).await?;
        }
        self.current = Some(Current { expected, hash: Sha256::new(), received: 0, known });
        Ok(0)
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let current = self.current.as_mut().ok_or_else(|| io::Error::other("no file began"))?;
        current.received += bytes.len() as u64;
        if current.received > current.expected.1 {
            return Err(io::Error::other("a file is longer than the server has told"));
        }
        current.hash.update(&bytes);
        if !current.known {
            self.progress.add(bytes.len());
            self.writer.bytes(&bytes).await?;
        }
        Ok(())
    }
}
