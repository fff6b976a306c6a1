//! Reading the whole store, once, at start.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use futures_util::TryStreamExt;
use jiff::Timestamp;
use lxd_proto::alias::{AliasEntry, AliasName};
use lxd_proto::certificate::Certificate;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::Image;
use serde::de::DeserializeOwned;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::change::NewImage;
use super::instance::{self, InstanceRecord};
use super::mirror::{self, MirrorRecord};
use super::origin;
use super::trust;
use super::withdrawn::{self, WithdrawnFile};

/// A file of the store, as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRow {
    /// SHA-256 of its bytes.
    pub digest: Fingerprint,
    /// Bytes.
    pub size: u64,
    /// What a file of its format is called, with the dot: `.tar.xz`.
    pub extension: String,
}

/// Everything the database holds.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Images with their files; `aliases` and `reuse` are empty.
    pub images: Vec<NewImage>,
    /// Aliases.
    pub aliases: Vec<AliasEntry>,
    /// Instances with their snapshots.
    pub instances: Vec<InstanceRecord>,
    /// Files of deleted public images that are still kept.
    pub withdrawn: Vec<WithdrawnFile>,
    /// Mirrors with what they keep.
    pub mirrors: Vec<MirrorRecord>,
    /// The rest.
    pub settings: Settings,
}

/// What is needed before the first request can be answered.
#[derive(Debug, Default)]
pub struct Settings {
    /// Trusted clients.
    pub certificates: Vec<Certificate>,
    /// Configuration that differs from its defaults.
    pub config: BTreeMap<String, String>,
}

pub(super) async fn snapshot(db: &mut AnyConnection) -> Result<Snapshot, sqlx::Error> {
    let mut blobs = HashMap::new();
    let mut rows = sqlx::query("SELECT digest, size, extension FROM blobs").fetch(&mut *db);
    while let Some(row) = rows.try_next().await? {
        let blob = blob(&row)?;
        blobs.insert(blob.digest, blob);
    }
    drop(rows);
    let mut origins: BTreeMap<_, _> = origin::load(&mut *db).await?.into_iter().collect();
    let mut images = Vec::with_capacity(blobs.len());
    let mut rows = sqlx::query(
        "SELECT fingerprint, kind, architecture, filename, size, public, auto_update, cached,
            created_at, expires_at, last_used_at, uploaded_at, properties, profiles, source,
            verified, head, rootfs FROM images",
    )
    .fetch(&mut *db);
    while let Some(row) = rows.try_next().await? {
        let mut new = image(&row, &blobs)?;
        new.origin = origins.remove(&new.image.fingerprint);
        new.image.refresh = new.origin.as_ref().and_then(|origin| origin.refresh.clone());
        images.push(new);
    }
    drop(rows);
    let mut aliases = Vec::new();
    let mut rows =
        sqlx::query("SELECT name, fingerprint, description FROM aliases").fetch(&mut *db);
    while let Some(row) = rows.try_next().await? {
        aliases.push(alias(&row)?);
    }
    drop(rows);
    let instances = instance::load(&mut *db).await?;
    let withdrawn = withdrawn::load(&mut *db).await?;
    let mirrors = mirror::load(&mut *db).await?;
    let settings = settings(db).await?;
    Ok(Snapshot { images, aliases, instances, withdrawn, mirrors, settings })
}

/// What is configured and who is trusted; far less than the rest, and needed first.
pub(super) async fn settings(db: &mut AnyConnection) -> Result<Settings, sqlx::Error> {
    let rows = sqlx::query("SELECT name, value FROM config").fetch_all(&mut *db).await?;
    let config = rows
        .iter()
        .map(|row| Ok((row.try_get("name")?, row.try_get("value")?)))
        .collect::<Result<_, sqlx::Error>>()?;
    Ok(Settings { config, certificates: trust::load(db).await? })
}

fn blob(row: &AnyRow) -> Result<BlobRow, sqlx::Error> {
    Ok(BlobRow {
        digest: parsed(row, "digest")?,
        size: size(row, "size")?,
        extension: row.try_get("extension")?,
    })
}

fn image(row: &AnyRow, blobs: &HashMap<Fingerprint, BlobRow>) -> Result<NewImage, sqlx::Error> {
    let file = |column: &str| -> Result<Option<BlobRow>, sqlx::Error> {
        let digest: String = row.try_get(column)?;
        if digest.is_empty() {
            return Ok(None);
        }
        let digest = digest.parse().map_err(|error| broken(column, &error))?;
        match blobs.get(&digest) {
            Some(blob) => Ok(Some(blob.clone())),
            None => Err(broken(column, &format!("no blob {digest}"))),
        }
    };
    let source: String = row.try_get("source")?;
    let image = Image {
        fingerprint: parsed(row, "fingerprint")?,
        kind: parsed(row, "kind")?,
        architecture: parsed(row, "architecture")?,
        filename: row.try_get("filename")?,
        size: size(row, "size")?,
        public: flag(row, "public")?,
        auto_update: flag(row, "auto_update")?,
        cached: flag(row, "cached")?,
        created_at: time(row, "created_at")?,
        expires_at: time(row, "expires_at")?,
        last_used_at: time(row, "last_used_at")?,
        uploaded_at: time(row, "uploaded_at")?,
        properties: json(row, "properties")?,
        profiles: json(row, "profiles")?,
        update_source: if source.is_empty() { None } else { Some(json(row, "source")?) },
        verified: parsed(row, "verified")?,
        refresh: None,
        aliases: Vec::new(),
    };
    let head = file("head")?.ok_or_else(|| broken("head", &"empty"))?;
    Ok(NewImage {
        image,
        head,
        rootfs: file("rootfs")?,
        aliases: Vec::new(),
        reuse: false,
        origin: None,
        adopt: false,
    })
}

fn alias(row: &AnyRow) -> Result<AliasEntry, sqlx::Error> {
    let name: AliasName = parsed(row, "name")?;
    Ok(AliasEntry {
        name: name.into(),
        target: parsed(row, "fingerprint")?,
        description: row.try_get("description")?,
        // The catalog knows the image.
        kind: lxd_proto::image::InstanceType::default(),
    })
}

pub(super) fn flag(row: &AnyRow, column: &str) -> Result<bool, sqlx::Error> {
    Ok(row.try_get::<i64, _>(column)? != 0)
}

pub(super) fn size(row: &AnyRow, column: &str) -> Result<u64, sqlx::Error> {
    let size: i64 = row.try_get(column)?;
    size.try_into().map_err(|error| broken(column, &error))
}

pub(super) fn time(row: &AnyRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_microsecond(row.try_get(column)?).map_err(|error| broken(column, &error))
}

pub(super) fn parsed<T>(row: &AnyRow, column: &str) -> Result<T, sqlx::Error>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    let text: String = row.try_get(column)?;
    text.parse().map_err(|error| broken(column, &error))
}

pub(super) fn json<T: DeserializeOwned>(row: &AnyRow, column: &str) -> Result<T, sqlx::Error> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|error| broken(column, &error))
}

fn broken(column: &str, reason: &dyn std::fmt::Display) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: reason.to_string().into() }
}
