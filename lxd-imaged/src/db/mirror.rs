//! Mirrors: the statements.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lxd_proto::alias::AliasName;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::mirror::{MirrorConfig, MirrorName, MirrorRun};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::change::{NewImage, exists, image_exists, insert, json, point, rewrite};
use super::load;
use crate::error::{Error, MIRROR_NOT_FOUND, Result};

/// A mirror as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct MirrorRecord {
    /// Its name.
    pub name: MirrorName,
    /// What a person has decided.
    pub config: MirrorConfig,
    /// Whether it stands in the file of mirrors.
    pub declared: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its last run.
    pub last_run: Option<MirrorRun>,
    /// The images that it keeps.
    pub members: BTreeMap<Fingerprint, Member>,
    /// The aliases that it has set, and the images it has pointed them at.
    pub aliases: BTreeMap<String, Fingerprint>,
}

/// What an image is to a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its product.
    pub product: String,
    /// Which version of that.
    pub serial: String,
    /// Whether a person has put it in too.
    pub shared: bool,
}

/// An image becomes one of a mirror's.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Which mirror.
    pub mirror: MirrorName,
    /// What the image is to it.
    pub member: Member,
    /// The image as it is to be; its aliases are set if they are free or the mirror's own.
    pub image: NewImage,
}

/// A change of mirrors.
#[derive(Debug, Clone)]
pub enum MirrorChange {
    /// A new one, without images.
    Create(Box<MirrorRecord>),
    /// Another configuration.
    Update {
        /// Which.
        name: MirrorName,
        /// What is decided now.
        config: Box<MirrorConfig>,
        /// Whether it stands in the file of mirrors.
        declared: bool,
    },
    /// Gone; its images stay.
    Delete(MirrorName),
    /// How a run goes.
    Ran(MirrorName, Box<MirrorRun>),
    /// An image becomes one of its.
    Take(Box<Membership>),
    /// An image is none of its any more.
    Leave(MirrorName, Fingerprint),
    /// A person has put the image in too.
    Claim(Fingerprint),
    /// Aliases lead to other images of it.
    Point(MirrorName, Vec<(AliasName, Fingerprint)>),
    /// Aliases that it has set go, unless they lead elsewhere by now.
    Unset(MirrorName, Vec<(AliasName, Fingerprint)>),
}

const PRESENT: &str = "SELECT 1 FROM mirrors WHERE name = $1";

impl MirrorChange {
    pub(super) async fn apply(&self, db: &mut AnyConnection) -> Result<()> {
        match self {
            Self::Create(record) => create(db, record).await,
            Self::Update { name, config, declared } => {
                let done =
                    sqlx::query("UPDATE mirrors SET config = $1, declared = $2 WHERE name = $3")
                        .bind(json(config)?)
                        .bind(i64::from(*declared))
                        .bind(name.to_string())
                        .execute(db)
                        .await?;
                if done.rows_affected() == 0 { Err(MIRROR_NOT_FOUND) } else { Ok(()) }
            }
            Self::Delete(name) => {
                let done = sqlx::query("DELETE FROM mirrors WHERE name = $1")
                    .bind(name.to_string())
                    .execute(db)
                    .await?;
                if done.rows_affected() == 0 { Err(MIRROR_NOT_FOUND) } else { Ok(()) }
            }
            Self::Ran(name, run) => {
                sqlx::query("UPDATE mirrors SET last_run = $1 WHERE name = $2")
                    .bind(json(run)?)
                    .bind(name.to_string())
                    .execute(db)
                    .await?;
                Ok(())
            }
            Self::Take(membership) => take(db, membership).await,
            Self::Leave(name, fingerprint) => {
                sqlx::query("DELETE FROM mirror_images WHERE mirror = $1 AND fingerprint = $2")
                    .bind(name.to_string())
                    .bind(fingerprint.to_string())
                    .execute(db)
                    .await?;
                Ok(())
            }
            Self::Claim(fingerprint) => {
                sqlx::query("UPDATE mirror_images SET shared = 1 WHERE fingerprint = $1")
                    .bind(fingerprint.to_string())
                    .execute(db)
                    .await?;
                Ok(())
            }
            Self::Point(name, aliases) => {
                // Checked first: once a statement has run, the change can no longer fail alone.
                for (alias, target) in aliases {
                    image_exists(db, target).await?;
                    free(db, name, alias).await?;
                }
                for (alias, target) in aliases {
                    point(db, alias, target, "").await?;
                    own(db, name, alias, target).await?;
                }
                Ok(())
            }
            Self::Unset(name, aliases) => {
                for (alias, target) in aliases {
                    sqlx::query("DELETE FROM aliases WHERE name = $1 AND fingerprint = $2")
                        .bind(alias.to_string())
                        .bind(target.to_string())
                        .execute(&mut *db)
                        .await?;
                    sqlx::query("DELETE FROM mirror_aliases WHERE name = $1 AND mirror = $2")
                        .bind(alias.to_string())
                        .bind(name.to_string())
                        .execute(&mut *db)
                        .await?;
                }
                Ok(())
            }
        }
    }
}

async fn create(db: &mut AnyConnection, record: &MirrorRecord) -> Result<()> {
    if exists(db, PRESENT, record.name.as_str()).await? {
        return Err(Error::MirrorExists(record.name.to_string()));
    }
    sqlx::query(
        "INSERT INTO mirrors (name, config, declared, created_at, last_run)
         VALUES ($1, $2, $3, $4, '')",
    )
    .bind(record.name.to_string())
    .bind(json(&record.config)?)
    .bind(i64::from(record.declared))
    .bind(record.created_at.as_microsecond())
    .execute(db)
    .await?;
    Ok(())
}

async fn take(db: &mut AnyConnection, membership: &Membership) -> Result<()> {
    let Membership { mirror, member, image: new } = membership;
    if !exists(db, PRESENT, mirror.as_str()).await? {
        return Err(MIRROR_NOT_FOUND);
    }
    for (alias, _) in &new.aliases {
        free(db, mirror, alias).await?;
    }
    if new.adopt {
        rewrite(db, new).await?;
    } else {
        insert(db, new).await?;
    }
    let fingerprint = &new.image.fingerprint;
    sqlx::query(
        "INSERT INTO mirror_images (mirror, fingerprint, product, serial, shared)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (mirror, fingerprint) DO UPDATE SET product = excluded.product,
            serial = excluded.serial, shared = excluded.shared",
    )
    .bind(mirror.to_string())
    .bind(fingerprint.to_string())
    .bind(member.product.clone())
    .bind(member.serial.clone())
    .bind(i64::from(member.shared))
    .execute(&mut *db)
    .await?;
    for (alias, _) in &new.aliases {
        own(db, mirror, alias, fingerprint).await?;
    }
    Ok(())
}

/// Refuses an alias that somebody else has.
async fn free(db: &mut AnyConnection, mirror: &MirrorName, alias: &AliasName) -> Result<()> {
    let taken = sqlx::query(
        "SELECT 1 FROM aliases WHERE name = $1 AND NOT EXISTS (SELECT 1 FROM mirror_aliases
            WHERE mirror_aliases.name = aliases.name
            AND mirror_aliases.fingerprint = aliases.fingerprint AND mirror = $2)",
    )
    .bind(alias.to_string())
    .bind(mirror.to_string())
    .fetch_optional(db)
    .await?;
    if taken.is_some() { Err(Error::AliasExists(alias.to_string())) } else { Ok(()) }
}

/// A person decides about an alias: no mirror has it any more.
pub(super) async fn disown(db: &mut AnyConnection, alias: &AliasName) -> Result<()> {
    sqlx::query("DELETE FROM mirror_aliases WHERE name = $1")
        .bind(alias.to_string())
        .execute(db)
        .await?;
    Ok(())
}

/// Records that the mirror has set an alias.
async fn own(
    db: &mut AnyConnection,
    mirror: &MirrorName,
    alias: &AliasName,
    target: &Fingerprint,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO mirror_aliases (name, mirror, fingerprint) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET mirror = excluded.mirror,
            fingerprint = excluded.fingerprint",
    )
    .bind(alias.to_string())
    .bind(mirror.to_string())
    .bind(target.to_string())
    .execute(db)
    .await?;
    Ok(())
}

/// All mirrors with what they keep.
pub(super) async fn load(db: &mut AnyConnection) -> Result<Vec<MirrorRecord>, sqlx::Error> {
    let rows = sqlx::query("SELECT name, config, declared, created_at, last_run FROM mirrors")
        .fetch_all(&mut *db)
        .await?;
    let mut records = rows
        .iter()
        .map(|row| record(row).map(|record| (record.name.clone(), record)))
        .collect::<Result<BTreeMap<_, _>, sqlx::Error>>()?;
    let rows =
        sqlx::query("SELECT mirror, fingerprint, product, serial, shared FROM mirror_images")
            .fetch_all(&mut *db)
            .await?;
    for row in &rows {
        let name: MirrorName = load::parsed(row, "mirror")?;
        let Some(record) = records.get_mut(&name) else { continue };
        let member = Member {
            product: row.try_get("product")?,
            serial: row.try_get("serial")?,
            shared: load::flag(row, "shared")?,
        };
        record.members.insert(load::parsed(row, "fingerprint")?, member);
    }
    let rows = sqlx::query("SELECT name, mirror, fingerprint FROM mirror_aliases")
        .fetch_all(&mut *db)
        .await?;
    for row in &rows {
        let name: MirrorName = load::parsed(row, "mirror")?;
        if let Some(record) = records.get_mut(&name) {
            record.aliases.insert(row.try_get("name")?, load::parsed(row, "fingerprint")?);
        }
    }
    Ok(records.into_values().collect())
}

fn record(row: &AnyRow) -> Result<MirrorRecord, sqlx::Error> {
    let last_run: String = row.try_get("last_run")?;
    Ok(MirrorRecord {
        name: load::parsed(row, "name")?,
        config: load::json(row, "config")?,
        declared: load::flag(row, "declared")?,
        created_at: load::time(row, "created_at")?,
        last_run: if last_run.is_empty() { None } else { Some(load::json(row, "last_run")?) },
        members: BTreeMap::new(),
        aliases: BTreeMap::new(),
    })
}
