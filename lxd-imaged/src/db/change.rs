//! What can change, and the statements that do it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lxd_proto::alias::AliasName;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{Image, Refresh, Verified};
use serde::Serialize;
use sqlx::{AnyConnection, Row};

use super::instance::InstanceChange;
use super::load::BlobRow;
use super::mirror::{self, MirrorChange};
use super::origin::{self, Origin, Replacement};
use super::trust::TrustChange;
use super::withdrawn::{self, Withdrawal};
use crate::error::{ALIAS_NOT_FOUND, Error, IMAGE_NOT_FOUND, Result};

/// One change of the store, applied whole or not at all.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new image with its files and aliases.
    Insert(Box<NewImage>),
    /// Everything but the identity and the files of an image that is there already.
    Adopt(Box<NewImage>),
    /// One version takes the place of another.
    Replace(Box<Replacement>),
    /// New values for the editable part of an image.
    Edit(Box<Image>),
    /// What checks of origins found.
    Refreshed(Vec<(Fingerprint, Refresh)>),
    /// An instance was made from an image.
    Used(Fingerprint, Timestamp),
    /// What the deep check found.
    Verified(Fingerprint, Verified),
    /// An image goes, and its aliases with it.
    Delete(Fingerprint),
    /// The same for an image whose files are still served for a while.
    Withdraw(Box<Withdrawal>),
    /// These files, as far as they were withdrawn at that time or before, are served no longer.
    Forget(Vec<Fingerprint>, Timestamp),
    /// Something about one alias.
    Alias(AliasChange),
    /// Something about one trusted certificate.
    Trust(TrustChange),
    /// Something about one instance.
    Instance(InstanceChange),
    /// Something about one mirror.
    Mirror(MirrorChange),
    /// Configuration values; `None` goes back to the default.
    Config(BTreeMap<String, Option<String>>),
}

/// An image that is to be recorded.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// The object; its aliases are those below.
    pub image: Image,
    /// The unified file, or the metadata file.
    pub head: BlobRow,
    /// The root file system file of a split image.
    pub rootfs: Option<BlobRow>,
    /// Names to set together with it, described; an empty description keeps what is there.
    pub aliases: Vec<(AliasName, String)>,
    /// Whether these may be taken from other images.
    pub reuse: bool,
    /// Where it was copied from.
    pub origin: Option<Origin>,
    /// Whether the image is there already, and only its row changes.
    pub adopt: bool,
}

/// A change of one alias.
#[derive(Debug, Clone)]
pub enum AliasChange {
    /// A new one.
    Create {
        /// Its name.
        name: AliasName,
        /// The image it stands for.
        target: Fingerprint,
        /// Free text.
        description: String,
    },
    /// Another image or description for an existing one.
    Update {
        /// Its name.
        name: AliasName,
        /// The image it stands for.
        target: Fingerprint,
        /// Free text.
        description: String,
    },
    /// Another name.
    Rename {
        /// The old one.
        from: AliasName,
        /// The new one.
        to: AliasName,
    },
    /// Gone.
    Delete {
        /// Its name.
        name: AliasName,
    },
}

impl Change {
    /// The image that goes with it, whatever becomes of its files.
    pub fn deleted(&self) -> Option<&Fingerprint> {
        match self {
            Self::Delete(fingerprint) => Some(fingerprint),
            Self::Withdraw(withdrawal) => Some(&withdrawal.fingerprint),
            _ => None,
        }
    }

    /// Runs the statements inside the caller's transaction. A logical failure leaves no trace.
    pub(super) async fn apply(&self, db: &mut AnyConnection) -> Result<()> {
        match self {
            Self::Insert(new) => insert(db, new).await,
            Self::Adopt(new) => rewrite(db, new).await,
            Self::Replace(replacement) => origin::replace(db, replacement).await,
            Self::Edit(image) => edit(db, image).await,
            Self::Refreshed(checks) => origin::refreshed(db, checks).await,
            Self::Used(fingerprint, at) => {
                sqlx::query("UPDATE images SET last_used_at = $1 WHERE fingerprint = $2")
                    .bind(at.as_microsecond())
                    .bind(fingerprint.to_string())
                    .execute(db)
                    .await?;
                Ok(())
            }
            Self::Verified(fingerprint, verified) => {
                sqlx::query("UPDATE images SET verified = $1 WHERE fingerprint = $2")
                    .bind(verified.to_string())
                    .bind(fingerprint.to_string())
                    .execute(db)
                    .await?;
                Ok(())
            }
            Self::Delete(fingerprint) => delete(db, fingerprint).await,
            Self::Withdraw(withdrawal) => withdrawn::withdraw(db, withdrawal).await,
            Self::Forget(digests, before) => withdrawn::forget(db, digests, *before).await,
            Self::Alias(change) => change.apply(db).await,
            Self::Trust(change) => change.apply(db).await,
            Self::Instance(change) => change.apply(db).await,
            Self::Mirror(change) => change.apply(db).await,
            Self::Config(values) => config(db, values).await,
        }
    }
}

pub(super) async fn insert(db: &mut AnyConnection, new: &NewImage) -> Result<()> {
    let image = &new.image;
    // Checked first: once a statement has run, the change can no longer fail alone.
    if exists(db, "SELECT 1 FROM images WHERE fingerprint = $1", &image.fingerprint.to_string())
        .await?
    {
        return Err(Error::ImageExists { fingerprint: image.fingerprint, size: image.size });
    }
    free_aliases(db, new).await?;
    for blob in std::iter::once(&new.head).chain(&new.rootfs) {
        sqlx::query(
            "INSERT INTO blobs (digest, size, extension) VALUES ($1, $2, $3)
             ON CONFLICT (digest) DO NOTHING",
        )
        .bind(blob.digest.to_string())
        .bind(number(blob.size))
        .bind(blob.extension.clone())
        .execute(&mut *db)
        .await?;
    }
    sqlx::query(
        "INSERT INTO images (fingerprint, kind, architecture, filename, size, public, auto_update,
            cached, created_at, expires_at, last_used_at, uploaded_at, properties, profiles,
            source, verified, head, rootfs)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
    )
    .bind(image.fingerprint.to_string())
    .bind(image.kind.to_string())
    .bind(image.architecture.to_string())
    .bind(image.filename.clone())
    .bind(number(image.size))
    .bind(i64::from(image.public))
    .bind(i64::from(image.auto_update))
    .bind(i64::from(image.cached))
    .bind(image.created_at.as_microsecond())
    .bind(image.expires_at.as_microsecond())
    .bind(image.last_used_at.as_microsecond())
    .bind(image.uploaded_at.as_microsecond())
    .bind(json(&image.properties)?)
    .bind(json(&image.profiles)?)
    .bind(image.update_source.as_ref().map_or_else(|| Ok(String::new()), json)?)
    .bind(image.verified.to_string())
    .bind(new.head.digest.to_string())
    .bind(new.rootfs.as_ref().map_or_else(String::new, |blob| blob.digest.to_string()))
    .execute(&mut *db)
    .await?;
    if !image.public {
        // Nobody is to get a private image by what it was before.
        withdrawn::forget_files_of(db, &image.fingerprint).await?;
    }
    company(db, new).await
}

/// Refuses when one of the aliases belongs to another image and must not be taken.
async fn free_aliases(db: &mut AnyConnection, new: &NewImage) -> Result<()> {
    if new.reuse {
        return Ok(());
    }
    for (name, _) in &new.aliases {
        let taken = sqlx::query("SELECT 1 FROM aliases WHERE name = $1 AND fingerprint <> $2")
            .bind(name.to_string())
            .bind(new.image.fingerprint.to_string())
            .fetch_optional(&mut *db)
            .await?;
        if taken.is_some() {
            return Err(Error::AliasExists(name.to_string()));
        }
    }
    Ok(())
}

/// What is recorded beside the row of an image: its aliases and its origin.
async fn company(db: &mut AnyConnection, new: &NewImage) -> Result<()> {
    for (name, description) in &new.aliases {
        point(db, name, &new.image.fingerprint, description).await?;
    }
    match &new.origin {
        Some(origin) => origin::write(db, &new.image.fingerprint, origin).await,
        None => Ok(()),
    }
}

/// New values for the row of an image that is there; identity and files stay.
pub(super) async fn rewrite(db: &mut AnyConnection, new: &NewImage) -> Result<()> {
    let image = &new.image;
    image_exists(db, &image.fingerprint).await?;
    free_aliases(db, new).await?;
    make_private(db, image).await?;
    sqlx::query(
        "UPDATE images SET public = $1, auto_update = $2, cached = $3, expires_at = $4,
            last_used_at = $5, properties = $6, profiles = $7, filename = $8, source = $9
         WHERE fingerprint = $10",
    )
    .bind(i64::from(image.public))
    .bind(i64::from(image.auto_update))
    .bind(i64::from(image.cached))
    .bind(image.expires_at.as_microsecond())
    .bind(image.last_used_at.as_microsecond())
    .bind(json(&image.properties)?)
    .bind(json(&image.profiles)?)
    .bind(image.filename.clone())
    .bind(image.update_source.as_ref().map_or_else(|| Ok(String::new()), json)?)
    .bind(image.fingerprint.to_string())
    .execute(&mut *db)
    .await?;
    company(db, new).await
}

/// Sets an alias whether or not it exists; an empty description keeps what is there.
pub(super) async fn point(
    db: &mut AnyConnection,
    name: &AliasName,
    target: &Fingerprint,
    description: &str,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO aliases (name, fingerprint, description) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET fingerprint = excluded.fingerprint,
            description = CASE WHEN excluded.description = '' THEN aliases.description
                ELSE excluded.description END",
    )
    .bind(name.to_string())
    .bind(target.to_string())
    .bind(description.to_owned())
    .execute(db)
    .await?;
    Ok(())
}

/// What goes with an image that is public in the database and is not to be so any more.
async fn make_private(db: &mut AnyConnection, image: &Image) -> Result<()> {
    let statement = "SELECT 1 FROM images WHERE fingerprint = $1 AND public = 1";
    if !image.public && exists(db, statement, &image.fingerprint.to_string()).await? {
        withdrawn::forget_files_of(db, &image.fingerprint).await?;
    }
    Ok(())
}

async fn edit(db: &mut AnyConnection, image: &Image) -> Result<()> {
    make_private(db, image).await?;
    let done = sqlx::query(
        "UPDATE images SET public = $1, auto_update = $2, expires_at = $3, properties = $4,
            profiles = $5 WHERE fingerprint = $6",
    )
    .bind(i64::from(image.public))
    .bind(i64::from(image.auto_update))
    .bind(image.expires_at.as_microsecond())
    .bind(json(&image.properties)?)
    .bind(json(&image.profiles)?)
    .bind(image.fingerprint.to_string())
    .execute(db)
    .await?;
    if done.rows_affected() == 0 { Err(IMAGE_NOT_FOUND) } else { Ok(()) }
}

pub(super) async fn delete(db: &mut AnyConnection, fingerprint: &Fingerprint) -> Result<()> {
    let row = sqlx::query("SELECT head, rootfs FROM images WHERE fingerprint = $1")
        .bind(fingerprint.to_string())
        .fetch_optional(&mut *db)
        .await?
        .ok_or(IMAGE_NOT_FOUND)?;
    sqlx::query("DELETE FROM images WHERE fingerprint = $1")
        .bind(fingerprint.to_string())
        .execute(&mut *db)
        .await?;
    for column in ["head", "rootfs"] {
        sqlx::query(
            "DELETE FROM blobs WHERE digest = $1 AND NOT EXISTS
                (SELECT 1 FROM images WHERE head = $1 OR rootfs = $1)",
        )
        .bind(row.try_get::<String, _>(column)?)
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

async fn config(db: &mut AnyConnection, values: &BTreeMap<String, Option<String>>) -> Result<()> {
    for (name, value) in values {
        let query = match value {
            None => sqlx::query("DELETE FROM config WHERE name = $1").bind(name.clone()),
            Some(value) => sqlx::query(
                "INSERT INTO config (name, value) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )
            .bind(name.clone())
            .bind(value.clone()),
        };
        query.execute(&mut *db).await?;
    }
    Ok(())
}

impl AliasChange {
    /// The names that are set or taken away: whatever mirrors have made of them before.
    pub fn names(&self) -> impl Iterator<Item = &AliasName> {
        let (one, other) = match self {
            Self::Create { name, .. } | Self::Update { name, .. } | Self::Delete { name } => {
                (name, None)
            }
            Self::Rename { from, to } => (from, Some(to)),
        };
        std::iter::once(one).chain(other)
    }

    async fn apply(&self, db: &mut AnyConnection) -> Result<()> {
        self.change(&mut *db).await?;
        for name in self.names() {
            mirror::disown(&mut *db, name).await?;
        }
        Ok(())
    }

    async fn change(&self, db: &mut AnyConnection) -> Result<()> {
        match self {
            Self::Create { name, target, description } => {
                if exists(db, "SELECT 1 FROM aliases WHERE name = $1", name.as_str()).await? {
                    return Err(Error::AliasExists(name.to_string()));
                }
                image_exists(db, target).await?;
                point(db, name, target, description).await
            }
            Self::Update { name, target, description } => {
                image_exists(db, target).await?;
                let done = sqlx::query(
                    "UPDATE aliases SET fingerprint = $1, description = $2 WHERE name = $3",
                )
                .bind(target.to_string())
                .bind(description.clone())
                .bind(name.to_string())
                .execute(db)
                .await?;
                if done.rows_affected() == 0 { Err(ALIAS_NOT_FOUND) } else { Ok(()) }
            }
            Self::Rename { from, to } => {
                if exists(db, "SELECT 1 FROM aliases WHERE name = $1", to.as_str()).await? {
                    return Err(Error::AliasExists(to.to_string()));
                }
                let done = sqlx::query("UPDATE aliases SET name = $1 WHERE name = $2")
                    .bind(to.to_string())
                    .bind(from.to_string())
                    .execute(db)
                    .await?;
                if done.rows_affected() == 0 { Err(ALIAS_NOT_FOUND) } else { Ok(()) }
            }
            Self::Delete { name } => {
                let done = sqlx::query("DELETE FROM aliases WHERE name = $1")
                    .bind(name.to_string())
                    .execute(db)
                    .await?;
                if done.rows_affected() == 0 { Err(ALIAS_NOT_FOUND) } else { Ok(()) }
            }
        }
    }
}

pub(super) async fn image_exists(db: &mut AnyConnection, fingerprint: &Fingerprint) -> Result<()> {
    let found =
        exists(db, "SELECT 1 FROM images WHERE fingerprint = $1", &fingerprint.to_string()).await?;
    if found { Ok(()) } else { Err(IMAGE_NOT_FOUND) }
}

pub(super) async fn exists(
    db: &mut AnyConnection,
    statement: &'static str,
    key: &str,
) -> Result<bool> {
    Ok(sqlx::query(statement).bind(key.to_owned()).fetch_optional(db).await?.is_some())
}

pub(super) fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Internal(error.to_string()))
}

/// Sizes fit: no file has more than 2^63 bytes.
pub(super) fn number(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
