//! Uploads: one or two files become an image.
//!
//! While the body arrives, [`Upload`] spools and checks it; when it has ended,
//! [`Upload::into_operation`] puts the files in place and records the image. A refusal does not
//! cut the body short: clients read their answer only after they have sent everything.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use lxd_proto::alias::AliasName;
use lxd_proto::event::action;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::{FileType, Findings, Role};
use lxd_proto::image::{Image, InstanceType, Properties, Verified};
use lxd_proto::metadata::Metadata;
use lxd_proto::operation::{Operation, description};
use lxd_proto::{profile, time};
use sha2::{Digest, Sha256};

use super::{aliases, images, secrets, verify};
use crate::acquire::{self, Wish};
use crate::app::{App, Caller};
use crate::catalog::Entry;
use crate::db::{BlobRow, Change, NewImage};
use crate::error::{Error, Result};
use crate::ops::{About, image_metadata};
use crate::store::blobs::Hold;
use crate::store::checks::Wanted;
use crate::store::spool::Spooled;

/// How long a client may send nothing before its upload is given up.
pub const SILENCE: Duration = Duration::from_mins(2);
/// Bytes of a refused body that are read and thrown away, so that the client sees the reason.
const DRAIN_LIMIT: u64 = 64 << 30;

/// What a client says about the image it sends.
#[derive(Debug, Default)]
pub struct Request {
    /// Shown to strangers.
    pub public: bool,
    /// File name to record.
    pub filename: String,
    /// Laid over the image's own.
    pub properties: Properties,
    /// What the bytes must hash to.
    pub expected: Option<Fingerprint>,
    /// Names to set together with the image.
    pub aliases: Vec<AliasName>,
    /// Whether these may be taken from other images.
    pub reuse: bool,
    /// Answer only after the deep check.
    pub verify: bool,
    /// What was asked for when the push of this image was announced; it wins over the rest.
    pub push: Option<Wish>,
}

/// An image that is being received.
#[derive(Debug)]
pub struct Upload {
    app: Arc<App>,
    caller: Caller,
    request: Request,
    parts: Vec<Spooled>,
    /// The hash over all parts so far, once there is a first one of several.
    combined: Option<Sha256>,
    /// The name of the second part says that it is a disk.
    disk: bool,
    refused: Option<Error>,
}

impl Upload {
    /// Nothing received yet.
    pub fn new(app: Arc<App>, caller: Caller, request: Request) -> Self {
        Self { app, caller, request, parts: Vec::new(), combined: None, disk: false, refused: None }
    }

    /// Receives a unified image of `length` bytes, if that is known.
    ///
    /// An error here means that the client has gone; everything else is told by the operation.
    pub async fn unified<S>(&mut self, body: S, length: Option<u64>) -> Result<()>
    where
        S: Stream<Item = Result<Bytes>> + Unpin,
    {
        let wanted = if self.request.verify { Wanted::Whole } else { Wanted::Quick };
        self.part(Role::Unified, wanted, body, length).await
    }

    /// Receives the metadata file of a split image.
    pub async fn metadata<S>(&mut self, body: S) -> Result<()>
    where
        S: Stream<Item = Result<Bytes>> + Unpin,
    {
        self.combined = Some(Sha256::new());
        self.part(Role::Metadata, Wanted::Whole, body, None).await
    }

    /// Receives the root file system of a split image; `disk` when its name says that it is one.
    pub async fn rootfs<S>(&mut self, body: S, filename: String, disk: bool) -> Result<()>
    where
        S: Stream<Item = Result<Bytes>> + Unpin,
    {
        self.disk = disk;
        if !filename.is_empty() {
            self.request.filename = filename;
        }
        let wanted = if self.request.verify { Wanted::Whole } else { Wanted::Quick };
        self.part(Role::Rootfs, wanted, body, None).await
    }

    /// The body is not what it should be; the operation will say so.
    pub fn refuse(&mut self, error: Error) {
        self.refused.get_or_insert(error);
    }

    /// Reads and throws away the rest of a refused body.
    pub async fn drain<S>(&mut self, mut body: S) -> Result<()>
    where
        S: Stream<Item = Result<Bytes>> + Unpin,
    {
        let mut left = DRAIN_LIMIT;
        while let Some(bytes) = next(&mut body).await? {
            left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
                Error::Upload("the image was refused, and too much of it kept coming".into())
            })?;
        }
        Ok(())
    }

    async fn part<S>(
        &mut self,
        role: Role,
        wanted: Wanted,
        mut body: S,
        length: Option<u64>,
    ) -> Result<()>
    where
        S: Stream<Item = Result<Bytes>> + Unpin,
    {
        if self.refused.is_some() {
            return self.drain(body).await;
        }
        let combined = self.combined.take();
        let mut spool = match self.app.spools.begin(role, length, combined) {
            Ok(spool) => spool,
            Err(error) => {
                self.refuse(error);
                return self.drain(body).await;
            }
        };
        while let Some(bytes) = next(&mut body).await? {
            if let Err(error) = spool.write(bytes).await {
                // The space is free again before the rest is thrown away.
                drop(spool);
                self.refuse(error);
                return self.drain(body).await;
            }
        }
        match spool.finish(wanted).await {
            Ok((spooled, combined)) => {
                self.parts.push(spooled);
                self.combined = combined;
            }
            Err(error) => self.refuse(error),
        }
        Ok(())
    }

    /// Records the image, as an operation.
    pub fn into_operation(self) -> Result<Operation> {
        let app = self.app.clone();
        let pushed = self.request.push.is_some();
        let about = About { description: description::IMAGE_DOWNLOAD, ..About::default() };
        let mut operation = app.operations.spawn(about, async move |_| {
            let pending: Vec<_> =
                self.parts.iter().filter_map(|part| part.pending.clone()).collect();
            let recorded = self.record().await;
            if recorded.is_err() {
                // Their files are gone for everybody but them.
                pending.iter().for_each(|check| check.abandon());
            }
            let (fingerprint, size) = recorded?;
            Ok(Some(image_metadata(&fingerprint, size)))
        })?;
        if pushed {
            // Whoever pushes need not be trusted, and wants to know how it ended.
            secrets::let_wait(&app, &mut operation)?;
        }
        Ok(operation)
    }

    async fn record(mut self) -> Result<(Fingerprint, u64)> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        let image = self.image()?;
        let (fingerprint, size) = (image.fingerprint, image.size);
        if let Some(entry) = self.app.catalog.get(&fingerprint) {
            self.heal(&entry).await?;
            if let Some(wish) = &self.request.push {
                acquire::adopt(&self.app, &fingerprint, wish).await?;
                return Ok((fingerprint, size));
            }
            return Err(Error::ImageExists { fingerprint, size });
        }
        let rows: Vec<BlobRow> = self.parts.iter().map(row).collect();
        let pending = self.parts.iter().find_map(|part| part.pending.clone());
        let result = self.commit(image, &rows).await;
        if let Err(error) = result {
            self.give_up(&rows).await;
            return Err(error);
        }
        if let Some(check) = pending {
            verify::follow(&self.app, fingerprint, check);
        }
        Ok((fingerprint, size))
    }

    /// Puts files back that the image has lost, now that the same have come again.
    async fn heal(&mut self, entry: &Entry) -> Result<()> {
        let mut healed = Vec::new();
        let mut pending = None;
        for part in std::mem::take(&mut self.parts) {
            let lost = match entry.blobs().find(|row| row.digest == part.digest) {
                Some(row) => !self.app.blobs.is_whole(&row.digest, row.size).await?,
                None => false,
            };
            if lost {
                pending = pending.or_else(|| part.pending.clone());
                healed.push(self.app.blobs.place(part).await?);
            }
        }
        if healed.is_empty() {
            return Ok(());
        }
        self.app.blobs.flush().await?;
        healed.into_iter().for_each(Hold::recorded);
        let fingerprint = entry.image.fingerprint;
        tracing::warn!(image = %fingerprint, "a lost file of an image was put back by an import");
        match pending {
            Some(check) => verify::follow(&self.app, fingerprint, check),
            None => self.app.db.commit(Change::Verified(fingerprint, Verified::Yes)).await?,
        }
        Ok(())
    }

    /// Bytes before rows: the files are in place and flushed when the row is written.
    async fn commit(&mut self, image: Image, rows: &[BlobRow]) -> Result<()> {
        let (fingerprint, kind) = (image.fingerprint, image.kind);
        let mut holds = Vec::new();
        for part in std::mem::take(&mut self.parts) {
            holds.push(self.app.blobs.place(part).await?);
        }
        self.app.blobs.flush().await?;
        let [head, rest @ ..] = rows else {
            return Err(Error::Internal("an image without files".into()));
        };
        let mut image = image;
        let mut aliases: Vec<(AliasName, String)> =
            self.request.aliases.drain(..).map(|name| (name, String::new())).collect();
        if let Some(wish) = self.request.push.take() {
            acquire::apply(&self.app, &mut image, &wish);
            aliases.extend(wish.aliases);
        }
        let names: Vec<AliasName> = aliases.iter().map(|(name, _)| name.clone()).collect();
        let new = NewImage {
            image,
            head: head.clone(),
            rootfs: rest.first().cloned(),
            aliases,
            reuse: self.request.reuse,
            origin: None,
            adopt: false,
        };
        let existed: Vec<bool> = names
            .iter()
            .map(|name| self.app.catalog.alias(self.caller.viewer, name.as_str()).is_ok())
            .collect();
        self.app.db.commit(Change::Insert(Box::new(new))).await?;
        holds.into_iter().for_each(Hold::recorded);
        let context = [("type", kind.as_str())];
        images::tell(&self.app, &self.caller, action::IMAGE_CREATED, &fingerprint, &context);
        for (name, existed) in names.iter().zip(existed) {
            let action = if existed { action::ALIAS_UPDATED } else { action::ALIAS_CREATED };
            let target = fingerprint.to_string();
            aliases::tell(&self.app, &self.caller, action, name, &[("target", &target)]);
        }
        Ok(())
    }

    /// Removes files that no image came to use.
    async fn give_up(&self, rows: &[BlobRow]) {
        for row in rows {
            let catalog = self.app.catalog.clone();
            let removed = self.app.blobs.remove_unless(row.digest, move |d| catalog.uses(d)).await;
            if let Err(error) = removed {
                tracing::warn!(%error, "a file of a refused image stays behind until the next start");
            }
        }
    }

    fn image(&mut self) -> Result<Image> {
        let metadata = self.parts.first().and_then(|part| part.findings.metadata.clone());
        let metadata =
            metadata.ok_or_else(|| Error::Internal("a check without metadata".into()))?;
        let fingerprint = match (self.combined.take(), self.parts.as_slice()) {
            (Some(combined), [_, _]) => Fingerprint::from_bytes(combined.finalize().into()),
            (None, [unified]) => unified.digest,
            _ => return Err(Error::BadRequest("Invalid multipart image".into())),
        };
        if let Some(expected) = self.request.expected.filter(|expected| *expected != fingerprint) {
            return Err(Error::FingerprintMismatch { got: fingerprint, expected });
        }
        let pending = self.parts.iter().any(|part| part.pending.is_some());
        let properties = laid_over(&metadata, std::mem::take(&mut self.request.properties));
        images::check_properties(&properties)?;
        Ok(Image {
            auto_update: false,
            properties,
            public: self.request.public,
            expires_at: expiry(&metadata),
            profiles: vec![profile::DEFAULT.to_owned()],
            aliases: Vec::new(),
            architecture: metadata.architecture,
            cached: false,
            filename: std::mem::take(&mut self.request.filename),
            fingerprint,
            size: self.parts.iter().map(|part| part.size).sum(),
            update_source: None,
            kind: self.kind()?,
            created_at: seconds(metadata.creation_date, "creation date")?,
            last_used_at: time::zero(),
            uploaded_at: images::stored(Timestamp::now()),
            verified: if pending { Verified::Pending } else { Verified::Yes },
            refresh: None,
        })
    }

    /// What the image makes: the archive of a unified one tells, the disk of a split one.
    fn kind(&self) -> Result<InstanceType> {
        match self.parts.as_slice() {
            [unified] => unified
                .findings
                .kind
                .ok_or_else(|| Error::BadRequest("Invalid instance type".into())),
            [_, rootfs] => match (rootfs.findings.file_type, self.disk) {
                (FileType::Qcow2, _) => Ok(InstanceType::VirtualMachine),
                (_, false) => Ok(InstanceType::Container),
                (_, true) => Err(Error::BadRequest(
                    "rootfs.img is not a qcow2 disk; a virtual machine needs one".into(),
                )),
            },
            _ => Err(Error::BadRequest("Invalid multipart image".into())),
        }
    }
}

/// The next bytes of a body; a client that goes silent is given up.
async fn next<S>(body: &mut S) -> Result<Option<Bytes>>
where
    S: Stream<Item = Result<Bytes>> + Unpin,
{
    match tokio::time::timeout(SILENCE, body.next()).await {
        Ok(item) => item.transpose(),
        Err(_) => Err(Error::Upload(format!("nothing came for {} s", SILENCE.as_secs()))),
    }
}

fn row(part: &Spooled) -> BlobRow {
    let Findings { file_type, .. } = &part.findings;
    BlobRow { digest: part.digest, size: part.size, extension: file_type.extension().to_owned() }
}

fn laid_over(metadata: &Metadata, given: Properties) -> Properties {
    let mut properties = metadata.properties.clone();
    properties.extend(given);
    properties.retain(|_, value| !value.is_empty());
    properties
}

/// When the image expires; LXD writes the epoch for never.
fn expiry(metadata: &Metadata) -> Timestamp {
    seconds(metadata.expiry_date, "expiry date").unwrap_or_else(|_| time::epoch())
}

fn seconds(seconds: i64, what: &str) -> Result<Timestamp> {
    time::from_seconds(seconds).ok_or_else(|| {
        Error::BadRequest(format!("metadata.yaml has an impossible {what}: {seconds}"))
    })
}
