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
use lxd_proto::format::Role;
use lxd_proto::image::{Image, Properties, Verified};
use lxd_proto::metadata::Metadata;
use lxd_proto::mirror::MirrorName;
use lxd_proto::operation::{Operation, description};
use lxd_proto::{profile, time};
use sha2::{Digest, Sha256};

use super::placed::{self, Placed};
use super::{aliases, images, mirrors, secrets, verify};
use crate::acquire::{self, Wish};
use crate::app::{App, Caller};
use crate::catalog::Entry;
use crate::db::{Change, NewImage};
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
    /// It was packed here just now, from an instance.
    pub made_here: bool,
    /// It becomes one of a mirror's.
    pub mirrored: Option<Mirrored>,
    /// What was asked for when the push of this image was announced; it wins over the rest.
    pub push: Option<Wish>,
}

/// An image that comes out of a mirror's bundle.
#[derive(Debug, Clone)]
pub struct Mirrored {
    /// Which mirror.
    pub mirror: MirrorName,
    /// When it was made, instead of what its metadata says.
    pub created_at: Option<Timestamp>,
    /// When it expires, instead of what its metadata says.
    pub expires_at: Option<Timestamp>,
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
            let (fingerprint, size) = self.record().await?;
            Ok(Some(image_metadata(&fingerprint, size)))
        })?;
        if pushed {
            // Whoever pushes need not be trusted, and wants to know how it ended.
            secrets::let_wait(&app, &mut operation)?;
        }
        Ok(operation)
    }

    /// Puts the files in place and records the image.
    ///
    /// # Errors
    /// Why the files were refused, or could not be kept; nothing stays behind.
    pub async fn record(mut self) -> Result<(Fingerprint, u64)> {
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
            return Err(if self.request.made_here {
                Error::ImageMade { fingerprint, size }
            } else {
                Error::ImageExists { fingerprint, size }
            });
        }
        let placed = Placed::new(&self.app, std::mem::take(&mut self.parts)).await?;
        match self.commit(image, &placed).await {
            Ok(()) => placed.recorded(&self.app, fingerprint),
            Err(error) => {
                placed.give_up(&self.app).await;
                return Err(error);
            }
        }
        Ok((fingerprint, size))
    }

    /// Puts files back that the image has lost, now that the same have come again.
    async fn heal(&mut self, entry: &Entry) -> Result<()> {
        let mut healed = Vec::new();
        let mut pending = None;
        for mut part in std::mem::take(&mut self.parts) {
            let lost = match entry.blobs().find(|row| row.digest == part.digest) {
                Some(row) => !self.app.blobs.is_whole(&row.digest, row.size).await?,
                None => false,
            };
            if lost {
                pending = pending.or_else(|| part.pending.take());
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

    /// Records the image and tells about it.
    async fn commit(&mut self, mut image: Image, placed: &Placed) -> Result<()> {
        let (fingerprint, kind) = (image.fingerprint, image.kind);
        let mut aliases: Vec<(AliasName, String)> =
            self.request.aliases.drain(..).map(|name| (name, String::new())).collect();
        if let Some(wish) = self.request.push.take() {
            acquire::apply(&self.app, &mut image, &wish);
            aliases.extend(wish.aliases);
        }
        let names: Vec<AliasName> = aliases.iter().map(|(name, _)| name.clone()).collect();
        let new = NewImage {
            image,
            head: placed.head.clone(),
            rootfs: placed.rootfs.clone(),
            aliases,
            reuse: self.request.reuse,
            origin: None,
            adopt: false,
        };
        let change = match self.request.mirrored.take() {
            Some(mirrored) => mirrors::arrived(&self.app, &self.caller, mirrored.mirror, new)?,
            None => Change::Insert(Box::new(new)),
        };
        let existed: Vec<bool> = names
            .iter()
            .map(|name| self.app.catalog.alias(self.caller.viewer, name.as_str()).is_ok())
            .collect();
        self.app.db.commit(change).await?;
        let context = [("type", kind.as_str())];
        images::tell(&self.app, &self.caller, action::IMAGE_CREATED, &fingerprint, &context);
        for (name, existed) in names.iter().zip(existed) {
            let action = if existed { action::ALIAS_UPDATED } else { action::ALIAS_CREATED };
            let target = fingerprint.to_string();
            aliases::tell(&self.app, &self.caller, action, name, &[("target", &target)]);
        }
        Ok(())
    }

    fn image(&mut self) -> Result<Image> {
        let metadata = placed::metadata(&self.parts)?;
        let now = images::stored(Timestamp::now());
        let created_at = if self.request.made_here { now } else { placed::created_at(metadata)? };
        let (expires_at, architecture) = (placed::expires_at(metadata), metadata.architecture);
        let given = std::mem::take(&mut self.request.properties);
        let (created_at, expires_at, properties) = match &self.request.mirrored {
            // A mirror has what its server says, and no more.
            Some(mirrored) => (
                mirrored.created_at.map_or(created_at, images::stored),
                mirrored.expires_at.map_or(expires_at, images::stored),
                given.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
            ),
            None => (created_at, expires_at, laid_over(metadata, given)),
        };
        let fingerprint = match (self.combined.take(), self.parts.as_slice()) {
            (Some(combined), [_, _]) => Fingerprint::from_bytes(combined.finalize().into()),
            (None, [unified]) => unified.digest,
            _ => return Err(Error::BadRequest("Invalid multipart image".into())),
        };
        if let Some(expected) = self.request.expected.filter(|expected| *expected != fingerprint) {
            return Err(Error::FingerprintMismatch { got: fingerprint, expected });
        }
        images::check_properties(&properties)?;
        Ok(Image {
            auto_update: false,
            properties,
            public: self.request.public,
            expires_at,
            profiles: vec![profile::DEFAULT.to_owned()],
            aliases: Vec::new(),
            architecture,
            cached: false,
            filename: std::mem::take(&mut self.request.filename),
            fingerprint,
            size: placed::size(&self.parts),
            update_source: None,
            kind: placed::kind(&self.parts, self.disk)?,
            created_at,
            last_used_at: time::zero(),
            uploaded_at: now,
            verified: placed::verified(&self.parts),
            refresh: None,
        })
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

fn laid_over(metadata: &Metadata, given: Properties) -> Properties {
    let mut properties = metadata.properties.clone();
    properties.extend(given);
    properties.retain(|_, value| !value.is_empty());
    properties
}
