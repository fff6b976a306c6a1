//! Instances and snapshots: what is recorded of them, and the statements.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use lxd_proto::arch::Architecture;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::instance::{Devices, InstanceName, SnapshotName};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::change::{exists, json};
use super::load;
use crate::error::{Error, INSTANCE_NOT_FOUND, Result, SNAPSHOT_NOT_FOUND};

/// How the root file system of an instance is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// What differs from the image's tree.
    Overlay,
    /// All of it.
    Plain,
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overlay => "overlay",
            Self::Plain => "plain",
        })
    }
}

impl FromStr for Disk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "overlay" => Ok(Self::Overlay),
            "plain" => Ok(Self::Plain),
            other => Err(format!("no kind of disk: {other}")),
        }
    }
}

/// What an instance and its snapshots have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The image it was made from.
    pub image: Option<Fingerprint>,
    /// How its root is kept.
    pub disk: Disk,
    /// What it runs on.
    pub architecture: Architecture,
    /// Deleted when it stops.
    pub ephemeral: bool,
    /// Free text.
    pub description: String,
    /// Its own configuration, without that of profiles.
    pub config: BTreeMap<String, String>,
    /// Its own devices, without those of profiles.
    pub devices: Devices,
    /// Names of profiles.
    pub profiles: Vec<String>,
}

/// An instance as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRecord {
    /// Its name.
    pub name: InstanceName,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last started; the epoch when it never was.
    pub last_used_at: Timestamp,
    /// What it is.
    pub definition: Definition,
    /// By name.
    pub snapshots: BTreeMap<SnapshotName, SnapshotRecord>,
}

/// A snapshot as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// When it was taken.
    pub created_at: Timestamp,
    /// When it may go; zero for never.
    pub expires_at: Timestamp,
    /// What the instance was.
    pub definition: Definition,
}

/// A change of one instance.
#[derive(Debug, Clone)]
pub enum InstanceChange {
    /// A new one; its snapshots are recorded with it.
    Create(Box<InstanceRecord>),
    /// Everything but name, snapshots and the time of creation.
    Update(Box<InstanceRecord>),
    /// Another name.
    Rename(InstanceName, InstanceName),
    /// Gone, and its snapshots with it.
    Delete(InstanceName),
    /// A new snapshot.
    Snapshot(InstanceName, SnapshotName, Box<SnapshotRecord>),
    /// Another time to go for a snapshot.
    Expire(InstanceName, SnapshotName, Timestamp),
    /// Another name for a snapshot.
    RenameSnapshot(InstanceName, SnapshotName, SnapshotName),
    /// A snapshot goes.
    DeleteSnapshot(InstanceName, SnapshotName),
}

const PRESENT: &str = "SELECT 1 FROM instances WHERE name = $1";

impl InstanceChange {
    pub(super) async fn apply(&self, db: &mut AnyConnection) -> Result<()> {
        match self {
            Self::Create(record) => create(db, record).await,
            Self::Update(record) => update(db, record).await,
            Self::Rename(from, to) => {
                free(db, to).await?;
                let renamed = sqlx::query("UPDATE instances SET name = $1 WHERE name = $2")
                    .bind(to.to_string())
                    .bind(from.to_string())
                    .execute(db)
                    .await?;
                found(renamed.rows_affected(), INSTANCE_NOT_FOUND)
            }
            Self::Delete(name) => {
                let deleted = sqlx::query("DELETE FROM instances WHERE name = $1")
                    .bind(name.to_string())
                    .execute(db)
                    .await?;
                found(deleted.rows_affected(), INSTANCE_NOT_FOUND)
            }
            Self::Snapshot(instance, name, record) => {
                if !exists(db, PRESENT, instance.as_str()).await? {
                    return Err(INSTANCE_NOT_FOUND);
                }
                free_snapshot(db, instance, name).await?;
                snapshot(db, instance, name, record).await
            }
            Self::Expire(instance, name, at) => {
                let done = sqlx::query(
                    "UPDATE snapshots SET expires_at = $1 WHERE instance = $2 AND name = $3",
                )
                .bind(at.as_microsecond())
                .bind(instance.to_string())
                .bind(name.to_string())
                .execute(db)
                .await?;
                found(done.rows_affected(), SNAPSHOT_NOT_FOUND)
            }
            Self::RenameSnapshot(instance, from, to) => {
                free_snapshot(db, instance, to).await?;
                let renamed =
                    sqlx::query("UPDATE snapshots SET name = $1 WHERE instance = $2 AND name = $3")
                        .bind(to.to_string())
                        .bind(instance.to_string())
                        .bind(from.to_string())
                        .execute(db)
                        .await?;
                found(renamed.rows_affected(), SNAPSHOT_NOT_FOUND)
            }
            Self::DeleteSnapshot(instance, name) => {
                let deleted =
                    sqlx::query("DELETE FROM snapshots WHERE instance = $1 AND name = $2")
                        .bind(instance.to_string())
                        .bind(name.to_string())
                        .execute(db)
                        .await?;
                found(deleted.rows_affected(), SNAPSHOT_NOT_FOUND)
            }
        }
    }
}

fn found(rows: u64, otherwise: Error) -> Result<()> {
    if rows == 0 { Err(otherwise) } else { Ok(()) }
}

async fn free(db: &mut AnyConnection, name: &InstanceName) -> Result<()> {
    let taken = exists(db, PRESENT, name.as_str()).await?;
    if taken { Err(Error::InstanceExists) } else { Ok(()) }
}

async fn free_snapshot(
    db: &mut AnyConnection,
    instance: &InstanceName,
    name: &SnapshotName,
) -> Result<()> {
    let taken = sqlx::query("SELECT 1 FROM snapshots WHERE instance = $1 AND name = $2")
        .bind(instance.to_string())
        .bind(name.to_string())
        .fetch_optional(db)
        .await?;
    if taken.is_some() { Err(Error::SnapshotExists(name.to_string())) } else { Ok(()) }
}

async fn create(db: &mut AnyConnection, record: &InstanceRecord) -> Result<()> {
    free(db, &record.name).await?;
    let definition = &record.definition;
    sqlx::query(
        "INSERT INTO instances (name, image, disk, architecture, created_at, last_used_at,
            ephemeral, description, config, devices, profiles)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(record.name.to_string())
    .bind(image(definition))
    .bind(definition.disk.to_string())
    .bind(definition.architecture.to_string())
    .bind(record.created_at.as_microsecond())
    .bind(record.last_used_at.as_microsecond())
    .bind(i64::from(definition.ephemeral))
    .bind(definition.description.clone())
    .bind(json(&definition.config)?)
    .bind(json(&definition.devices)?)
    .bind(json(&definition.profiles)?)
    .execute(&mut *db)
    .await?;
    for (name, taken) in &record.snapshots {
        snapshot(db, &record.name, name, taken).await?;
    }
    Ok(())
}

async fn update(db: &mut AnyConnection, record: &InstanceRecord) -> Result<()> {
    let definition = &record.definition;
    let updated = sqlx::query(
        "UPDATE instances SET image = $1, disk = $2, architecture = $3, last_used_at = $4,
            ephemeral = $5, description = $6, config = $7, devices = $8, profiles = $9
         WHERE name = $10",
    )
    .bind(image(definition))
    .bind(definition.disk.to_string())
    .bind(definition.architecture.to_string())
    .bind(record.last_used_at.as_microsecond())
    .bind(i64::from(definition.ephemeral))
    .bind(definition.description.clone())
    .bind(json(&definition.config)?)
    .bind(json(&definition.devices)?)
    .bind(json(&definition.profiles)?)
    .bind(record.name.to_string())
    .execute(db)
    .await?;
    found(updated.rows_affected(), INSTANCE_NOT_FOUND)
}

async fn snapshot(
    db: &mut AnyConnection,
    instance: &InstanceName,
    name: &SnapshotName,
    record: &SnapshotRecord,
) -> Result<()> {
    let definition = &record.definition;
    sqlx::query(
        "INSERT INTO snapshots (instance, name, image, disk, architecture, created_at,
            expires_at, ephemeral, description, config, devices, profiles)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(instance.to_string())
    .bind(name.to_string())
    .bind(image(definition))
    .bind(definition.disk.to_string())
    .bind(definition.architecture.to_string())
    .bind(record.created_at.as_microsecond())
    .bind(record.expires_at.as_microsecond())
    .bind(i64::from(definition.ephemeral))
    .bind(definition.description.clone())
    .bind(json(&definition.config)?)
    .bind(json(&definition.devices)?)
    .bind(json(&definition.profiles)?)
    .execute(db)
    .await?;
    Ok(())
}

fn image(definition: &Definition) -> String {
    definition.image.map_or_else(String::new, |image| image.to_string())
}

/// All instances with their snapshots.
pub(super) async fn load(db: &mut AnyConnection) -> Result<Vec<InstanceRecord>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT name, image, disk, architecture, created_at, last_used_at, ephemeral,
            description, config, devices, profiles FROM instances",
    )
    .fetch_all(&mut *db)
    .await?;
    let mut instances = BTreeMap::new();
    for row in &rows {
        let record = InstanceRecord {
            name: load::parsed(row, "name")?,
            created_at: load::time(row, "created_at")?,
            last_used_at: load::time(row, "last_used_at")?,
            definition: definition(row)?,
            snapshots: BTreeMap::new(),
        };
        instances.insert(record.name.to_string(), record);
    }
    let rows = sqlx::query(
        "SELECT instance, name, image, disk, architecture, created_at, expires_at, ephemeral,
            description, config, devices, profiles FROM snapshots",
    )
    .fetch_all(&mut *db)
    .await?;
    for row in &rows {
        let record = SnapshotRecord {
            created_at: load::time(row, "created_at")?,
            expires_at: load::time(row, "expires_at")?,
            definition: definition(row)?,
        };
        let instance: String = row.try_get("instance")?;
        if let Some(instance) = instances.get_mut(&instance) {
            instance.snapshots.insert(load::parsed(row, "name")?, record);
        }
    }
    Ok(instances.into_values().collect())
}

fn definition(row: &AnyRow) -> Result<Definition, sqlx::Error> {
    let image: String = row.try_get("image")?;
    Ok(Definition {
        image: if image.is_empty() { None } else { Some(load::parsed(row, "image")?) },
        disk: load::parsed(row, "disk")?,
        architecture: load::parsed(row, "architecture")?,
        ephemeral: load::flag(row, "ephemeral")?,
        description: row.try_get("description")?,
        config: load::json(row, "config")?,
        devices: load::json(row, "devices")?,
        profiles: load::json(row, "profiles")?,
    })
}
