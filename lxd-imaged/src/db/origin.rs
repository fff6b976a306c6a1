//! Origins: where an image was copied from, and its place among its versions.

use jiff::Timestamp;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{Properties, Refresh};
use lxd_proto::time;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::change::{NewImage, insert, json, rewrite};
use super::load;
use crate::error::{IMAGE_NOT_FOUND, Result};

/// What is recorded about where an image came from; its server and alias are in the image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Project at the server.
    pub project: String,
    /// Armoured OpenPGP keys, one of which must have signed what it says; empty for none.
    pub keyring: String,
    /// As the origin gave them.
    pub properties: Properties,
    /// Shared by all versions of one image.
    pub lineage: String,
    /// When another version took its aliases; `None` while it is current.
    pub replaced_at: Option<Timestamp>,
    /// The version it was rolled back from.
    pub skipped: Option<Fingerprint>,
    /// How following the origin goes; `None` before the first check.
    pub refresh: Option<Refresh>,
}

/// One version takes the place of another, aliases and all.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// The version that loses its aliases.
    pub from: Fingerprint,
    /// Its origin from now on.
    pub from_origin: Origin,
    /// The version that gets them, as it is to be.
    pub to: NewImage,
}

/// Records the origin of an image, whether or not there was one.
pub(super) async fn write(
    db: &mut AnyConnection,
    fingerprint: &Fingerprint,
    origin: &Origin,
) -> Result<()> {
    let refresh = origin.refresh.as_ref();
    let micros = |time: Option<Timestamp>| time.map_or(0, Timestamp::as_microsecond);
    sqlx::query(
        "INSERT INTO origins (fingerprint, project, properties, lineage, replaced_at, skipped,
            checked_at, next_check_at, error, keyring)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (fingerprint) DO UPDATE SET
            project = excluded.project, properties = excluded.properties,
            lineage = excluded.lineage, replaced_at = excluded.replaced_at,
            skipped = excluded.skipped, checked_at = excluded.checked_at,
            next_check_at = excluded.next_check_at, error = excluded.error,
            keyring = excluded.keyring",
    )
    .bind(fingerprint.to_string())
    .bind(origin.project.clone())
    .bind(json(&origin.properties)?)
    .bind(origin.lineage.clone())
    .bind(micros(origin.replaced_at))
    .bind(origin.skipped.map_or_else(String::new, |skipped| skipped.to_string()))
    .bind(micros(refresh.map(|refresh| refresh.checked_at)))
    .bind(micros(refresh.map(|refresh| refresh.next_check_at)))
    .bind(refresh.map_or_else(String::new, |refresh| refresh.error.clone()))
    .bind(origin.keyring.clone())
    .execute(db)
    .await?;
    Ok(())
}

/// Records what checks found; images that have gone meanwhile are left out.
pub(super) async fn refreshed(
    db: &mut AnyConnection,
    checks: &[(Fingerprint, Refresh)],
) -> Result<()> {
    for (fingerprint, refresh) in checks {
        sqlx::query(
            "UPDATE origins SET checked_at = $1, next_check_at = $2, error = $3
             WHERE fingerprint = $4",
        )
        .bind(refresh.checked_at.as_microsecond())
        .bind(refresh.next_check_at.as_microsecond())
        .bind(refresh.error.clone())
        .bind(fingerprint.to_string())
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// Everything that makes one version the current one, in the caller's transaction.
pub(super) async fn replace(db: &mut AnyConnection, replacement: &Replacement) -> Result<()> {
    let Replacement { from, from_origin, to } = replacement;
    // Checked first: once a statement has run, the change can no longer fail alone.
    let gone = sqlx::query("SELECT 1 FROM images WHERE fingerprint = $1")
        .bind(from.to_string())
        .fetch_optional(&mut *db)
        .await?
        .is_none();
    if gone {
        return Err(IMAGE_NOT_FOUND);
    }
    if to.adopt {
        rewrite(db, to).await?;
    } else {
        insert(db, to).await?;
    }
    sqlx::query("UPDATE aliases SET fingerprint = $1 WHERE fingerprint = $2")
        .bind(to.image.fingerprint.to_string())
        .bind(from.to_string())
        .execute(&mut *db)
        .await?;
    let old = sqlx::query("SELECT lineage FROM origins WHERE fingerprint = $1")
        .bind(from.to_string())
        .fetch_optional(&mut *db)
        .await?;
    if let Some(old) = old {
        // Two lineages that meet are one from then on.
        sqlx::query("UPDATE origins SET lineage = $1 WHERE lineage = $2")
            .bind(from_origin.lineage.clone())
            .bind(old.try_get::<String, _>("lineage")?)
            .execute(&mut *db)
            .await?;
    }
    write(db, from, from_origin).await
}

/// All origins.
pub(super) async fn load(
    db: &mut AnyConnection,
) -> Result<Vec<(Fingerprint, Origin)>, sqlx::Error> {
    sqlx::query(
        "SELECT fingerprint, project, properties, lineage, replaced_at, skipped, checked_at,
            next_check_at, error, keyring FROM origins",
    )
    .fetch_all(db)
    .await?
    .iter()
    .map(origin)
    .collect()
}

fn origin(row: &AnyRow) -> Result<(Fingerprint, Origin), sqlx::Error> {
    let set = |column: &str| -> Result<Option<Timestamp>, sqlx::Error> {
        let time = load::time(row, column)?;
        Ok((time != Timestamp::UNIX_EPOCH).then_some(time))
    };
    let skipped: String = row.try_get("skipped")?;
    let refresh = match set("checked_at")? {
        None => None,
        Some(checked_at) => Some(Refresh {
            checked_at,
            next_check_at: set("next_check_at")?.unwrap_or_else(time::zero),
            error: row.try_get("error")?,
        }),
    };
    let origin = Origin {
        project: row.try_get("project")?,
        keyring: row.try_get("keyring")?,
        properties: load::json(row, "properties")?,
        lineage: row.try_get("lineage")?,
        replaced_at: set("replaced_at")?,
        skipped: if skipped.is_empty() { None } else { Some(load::parsed(row, "skipped")?) },
        refresh,
    };
    Ok((load::parsed(row, "fingerprint")?, origin))
}
