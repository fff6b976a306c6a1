//! Images from instances and snapshots: packed, compressed, hashed and stored in one pass.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use lxd_proto::config::{self, CompressionAlgorithm};
use lxd_proto::format::{Compression, Compressor};
use lxd_proto::image::ImagesPost;
use lxd_proto::instance::{InstanceName, SnapshotName};
use lxd_proto::metadata::Metadata;
use lxd_proto::operation::{Operation, description};
use lxd_proto::remote::Progress;
use lxd_proto::time;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{blocking, runtime};
use crate::app::{App, Caller};
use crate::db::Definition;
use crate::directory::Directory;
use crate::disks::Owner;
use crate::error::{Error, INSTANCE_NOT_FOUND, Result};
use crate::ops::{About, Context, image_metadata};
use crate::rootfs;
use crate::service::sources;
use crate::service::upload::{Request, Upload};

/// Key of the progress that LXD's client shows.
const PACK: &str = "create_image_from_container_pack_progress";
/// Time between two reports of progress.
const REPORT: Duration = Duration::from_millis(250);
/// Bytes that the packer hands over at a time.
const PIECE: usize = 256 << 10;
/// Pieces that wait for the disk before the packer does.
const AHEAD: usize = 8;

/// Makes an image of an instance or a snapshot, as an operation.
///
/// # Errors
/// An instance that is not there, and what makes no sense; the rest is told by the operation.
pub fn publish(app: &Arc<App>, caller: &Caller, post: ImagesPost) -> Result<Operation> {
    let source = post.source.clone().unwrap_or_default();
    let (name, snapshot) = named(&source.kind, &source.name)?;
    app.catalog.instances.get(&name)?;
    let form = form(app, &post.compression_algorithm)?;
    let wish = sources::wish(post.clone())?;
    let about = About { description: description::IMAGE_DOWNLOAD, ..About::default() };
    let (task, caller) = (app.clone(), caller.clone());
    app.operations.spawn(about, async move |context| {
        let held = task.locks.hold(&name).await;
        let record = task.catalog.instances.get(&name)?;
        let (owner, definition) = match &snapshot {
            None => {
                if !runtime::is_stopped(&task, &name) {
                    let text = "Cannot export a running instance as an image";
                    return Err(Error::BadRequest(text.into()).into());
                }
                (Owner::Instance(name.clone()), record.definition.clone())
            }
            Some(snapshot) => {
                let taken = record.snapshots.get(snapshot);
                let taken = taken.ok_or(crate::error::SNAPSHOT_NOT_FOUND)?;
                (Owner::Snapshot(name.clone(), snapshot.clone()), taken.definition.clone())
            }
        };
        let request = Request {
            public: wish.public,
            filename: wish.filename.clone().unwrap_or_default(),
            aliases: wish.aliases.iter().map(|(alias, _)| alias.clone()).collect(),
            made_here: true,
            ..Request::default()
        };
        let metadata = metadata(&task, &definition, &post)?;
        let packer = Packer {
            app: task.clone(),
            owner,
            definition,
            metadata,
            form,
            progress: Progress::default(),
            cancel: context.cancelled(),
        };
        let upload = Upload::new(task.clone(), caller, request);
        // What a snapshot holds is not touched by what its instance does.
        let (_snapshots, _held) = if snapshot.is_some() {
            let snapshots = task.locks.read_snapshots(&name).await;
            drop(held);
            (Some(snapshots), None)
        } else {
            (None, Some(held))
        };
        let (fingerprint, size) = packer.into_image(upload, &context).await?;
        Ok(Some(image_metadata(&fingerprint, size)))
    })
}

/// Which instance or snapshot a request means.
fn named(kind: &str, name: &str) -> Result<(InstanceName, Option<SnapshotName>)> {
    let no_instance = |_| INSTANCE_NOT_FOUND;
    match (kind, name.split_once('/')) {
        (_, _) if name.is_empty() => Err(Error::BadRequest("No source provided".into())),
        ("snapshot", Some((instance, snapshot))) => {
            let snapshot = snapshot.parse().map_err(|_| crate::error::SNAPSHOT_NOT_FOUND)?;
            Ok((instance.parse().map_err(no_instance)?, Some(snapshot)))
        }
        ("snapshot", None) => Err(Error::BadRequest("Not a snapshot".into())),
        (_, Some(_)) => Err(Error::BadRequest("This is a snapshot".into())),
        (_, None) => Ok((name.parse().map_err(no_instance)?, None)),
    }
}

/// The form of the new image: as asked, as configured, or compressed with gzip.
fn form(app: &App, asked: &str) -> Result<Form> {
    let configured = app.catalog.config().remove(config::COMPRESSION_ALGORITHM);
    let text = match (asked, configured.as_deref()) {
        ("", None | Some("")) => "gzip",
        ("", Some(configured)) => configured,
        (asked, _) => asked,
    };
    let algorithm: CompressionAlgorithm =
        text.parse().map_err(|error| Error::BadRequest(format!("{error}")))?;
    Ok(Compression::of(&algorithm)
        .map_or(Form::Squashfs, |(compression, level)| Form::Tarball(compression, level)))
}

/// The metadata of the new image: that of the instance's image, with what the request replaces.
fn metadata(app: &App, definition: &Definition, post: &ImagesPost) -> Result<Metadata> {
    let mut metadata = match &definition.image {
        Some(image) => {
            let path = app.disks.tree(image).join("metadata.yaml");
            let yaml = fs::read(&path)
                .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
            Metadata::parse(&yaml).map_err(|error| Error::BadRequest(error.to_string()))?
        }
        None => Metadata {
            architecture: definition.architecture,
            creation_date: app.clock.now().as_second(),
            expiry_date: 0,
            properties: [].into(),
            templates: [].into(),
        },
    };
    if let Some(properties) = &post.properties {
        metadata.properties.clone_from(properties);
    }
    metadata.expiry_date = match post.expires_at {
        unset if unset == time::zero() => 0,
        at => at.as_second(),
    };
    Ok(metadata)
}

/// What file the image becomes.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// A tarball, compressed at a level.
    Tarball(Compression, Option<u32>),
    /// A squashfs file.
    Squashfs,
}

struct Packer {
    app: Arc<App>,
    owner: Owner,
    definition: Definition,
    metadata: Metadata,
    form: Form,
    progress: Progress,
    cancel: CancellationToken,
}

impl Packer {
    /// Packs on a thread of its own; what comes out is stored like an upload.
    async fn into_image(
        self,
        mut upload: Upload,
        context: &Context,
    ) -> Result<(lxd_proto::fingerprint::Fingerprint, u64)> {
        context.may_cancel(true);
        let (pieces, packed) = mpsc::channel(AHEAD);
        let progress = self.progress.clone();
        let packing = blocking(move || self.pack(pieces));
        let body = stream::unfold(packed, async |mut packed| {
            let piece: Result<Bytes> = packed.recv().await?;
            Some((piece, packed))
        });
        let storing = async move {
            let body = std::pin::pin!(body);
            upload.unified(body, None).await.map(|()| upload)
        };
        let stored = async {
            let (packed, stored) = tokio::join!(packing, storing);
            // Why it could not be packed comes before that it could not be stored.
            packed.and(stored)
        };
        tokio::pin!(stored);
        let started = Instant::now();
        let mut reports = tokio::time::interval(REPORT);
        let upload = loop {
            tokio::select! {
                upload = &mut stored => break upload?,
                _ = reports.tick() => report(context, &progress, started),
            }
        };
        upload.record().await
    }

    fn pack(self, pieces: mpsc::Sender<Result<Bytes>>) -> Result<()> {
        let packed = self.pack_into(&pieces);
        if packed.is_err() {
            // A body that breaks off makes no image.
            let broken = Error::Upload("the instance could not be packed".into());
            let _ = pieces.blocking_send(Err(broken));
        }
        packed
    }

    fn pack_into(&self, pieces: &mpsc::Sender<Result<Bytes>>) -> Result<()> {
        let tree = self.definition.image.as_ref().map(|image| self.app.disks.tree(image));
        let templates: PathBuf = tree.map_or_else(PathBuf::new, |tree| tree.join("templates"));
        let yaml = self.metadata.to_yaml().map_err(|error| Error::Internal(error.to_string()))?;
        let view = self.app.disks.view(&self.owner, &self.definition)?;
        let trouble = |error: io::Error| Error::io("cannot write the new image", error);
        let mut out = Pieces { pieces: pieces.clone(), buffer: BytesMut::with_capacity(PIECE) };
        let (root, base) = (view.root(), self.app.disks.base());
        let (yaml, progress, cancel) = (yaml.as_bytes(), &self.progress, &self.cancel);
        let packed = match self.form {
            Form::Tarball(compression, level) => (|| {
                let mut out = Compressor::new(compression, level, out).map_err(trouble)?;
                rootfs::pack(yaml, &templates, root, base, &mut out, progress, cancel)?;
                out.finish().map_err(trouble)?.flush().map_err(trouble)
            })(),
            Form::Squashfs => (|| {
                // squashfs is no stream: it is made aside, and then stored like any file.
                let spool = Directory::new(&self.app.root).spool();
                let aside = spool.join(format!("{}.squashfs", Uuid::new_v4()));
                rootfs::pack_squashfs(yaml, &templates, root, base, &aside, progress, cancel)?;
                let opened = File::open(&aside);
                fs::remove_file(&aside).map_err(trouble)?;
                let mut file = opened.map_err(trouble)?;
                io::copy(&mut file, &mut out).and_then(|_| out.flush()).map_err(trouble)
            })(),
        };
        drop(view);
        if let Owner::Instance(name) = &self.owner {
            self.app.disks.unmount(name)?;
        }
        packed
    }
}

/// Hands pieces of the archive to whoever stores them.
struct Pieces {
    pieces: mpsc::Sender<Result<Bytes>>,
    buffer: BytesMut,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = self.buffer.split().freeze();
        let sent = self.pieces.blocking_send(Ok(piece));
        sent.map_err(|_| io::Error::other("the store takes no more of it"))
    }
}

fn report(context: &Context, progress: &Progress, started: Instant) {
    let done = progress.done();
    if done == 0 {
        return;
    }
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    let speed = done.saturating_mul(1000) / millis;
    let megabytes = |bytes: u64| {
        let (whole, hundredths) = (bytes / 1_000_000, bytes % 1_000_000 / 10_000);
        format!("{whole}.{hundredths:02}MB")
    };
    // How much there is shows only at the end.
    let text = format!("Image pack: {} ({}/s)", megabytes(done), megabytes(speed));
    let numbers = json!({
        "stage": "create_image_from_container_pack",
        "processed": done.to_string(),
        "speed": speed.to_string(),
    });
    context.transfer(PACK, text, numbers);
}
