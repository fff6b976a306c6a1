//! Files of public images that were deleted, and are still served for a while.

use jiff::Timestamp;
use lxd_proto::fingerprint::Fingerprint;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::change::{delete, number};
use super::load;
use crate::error::Result;

/// A file that no public image has any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithdrawnFile {
    /// SHA-256 of its bytes.
    pub digest: Fingerprint,
    /// What catalogs called it.
    pub name: String,
    /// The image that it left with.
    pub image: Fingerprint,
    /// Bytes.
    pub size: u64,
    /// When its image was deleted.
    pub withdrawn_at: Timestamp,
}

/// A public image goes, but not at once for those who know of its files.
#[derive(Debug, Clone)]
pub struct Withdrawal {
    /// The image.
    pub fingerprint: Fingerprint,
    /// Its files. They are noted only if strangers see the image at the time of the change.
    pub files: Vec<WithdrawnFile>,
}

/// Deletes the image and notes its files.
pub(super) async fn withdraw(db: &mut AnyConnection, withdrawal: &Withdrawal) -> Result<()> {
    let seen = sqlx::query(
        "SELECT 1 FROM images WHERE fingerprint = $1 AND public = 1 AND verified = 'yes'",
    )
    .bind(withdrawal.fingerprint.to_string())
    .fetch_optional(&mut *db)
    .await?
    .is_some();
    delete(db, &withdrawal.fingerprint).await?;
    if !seen {
        return Ok(());
    }
    for file in &withdrawal.files {
        sqlx::query(
            "INSERT INTO withdrawn_files (digest, name, image, size, withdrawn_at)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (digest, name, image) DO UPDATE SET withdrawn_at = excluded.withdrawn_at",
        )
        .bind(file.digest.to_string())
        .bind(file.name.clone())
        .bind(file.image.to_string())
        .bind(number(file.size))
        .bind(file.withdrawn_at.as_microsecond())
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// Forgets files that were withdrawn at that time or before, under whatever names.
pub(super) async fn forget(
    db: &mut AnyConnection,
    digests: &[Fingerprint],
    before: Timestamp,
) -> Result<()> {
    for digest in digests {
        sqlx::query("DELETE FROM withdrawn_files WHERE digest = $1 AND withdrawn_at <= $2")
            .bind(digest.to_string())
            .bind(before.as_microsecond())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// An image that was public and is private now: what is served for its sake is so no more.
pub(super) async fn forget_files_of(
    db: &mut AnyConnection,
    fingerprint: &Fingerprint,
) -> Result<()> {
    sqlx::query("DELETE FROM withdrawn_files WHERE image = $1")
        .bind(fingerprint.to_string())
        .execute(db)
        .await?;
    Ok(())
}

/// All of them.
pub(super) async fn load(db: &mut AnyConnection) -> Result<Vec<WithdrawnFile>, sqlx::Error> {
    sqlx::query("SELECT digest, name, image, size, withdrawn_at FROM withdrawn_files")
        .fetch_all(db)
        .await?
        .iter()
        .map(file)
        .collect()
}

fn file(row: &AnyRow) -> Result<WithdrawnFile, sqlx::Error> {
    Ok(WithdrawnFile {
        digest: load::parsed(row, "digest")?,
        name: row.try_get("name")?,
        image: load::parsed(row, "image")?,
        size: load::size(row, "size")?,
        withdrawn_at: load::time(row, "withdrawn_at")?,
    })
}
