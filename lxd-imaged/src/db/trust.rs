//! Trusted certificates: the statements.

use lxd_proto::certificate::Certificate;
use lxd_proto::fingerprint::Fingerprint;
use sqlx::{AnyConnection, Row};

use super::change::{exists, json};
use super::load;
use crate::error::{CERTIFICATE_NOT_FOUND, Error, Result};

/// A change of the trust store.
#[derive(Debug, Clone)]
pub enum TrustChange {
    /// A new certificate.
    Add(Box<Certificate>),
    /// What is now known under a fingerprint, perhaps another certificate.
    Replace(Fingerprint, Box<Certificate>),
    /// Not trusted any more.
    Remove(Fingerprint),
}

const PRESENT: &str = "SELECT 1 FROM certificates WHERE fingerprint = $1";

impl TrustChange {
    pub(super) async fn apply(&self, db: &mut AnyConnection) -> Result<()> {
        match self {
            Self::Add(certificate) => add(db, certificate).await,
            Self::Replace(fingerprint, certificate) => {
                if !exists(db, PRESENT, &fingerprint.to_string()).await? {
                    return Err(CERTIFICATE_NOT_FOUND);
                }
                let taken = *fingerprint != certificate.fingerprint
                    && exists(db, PRESENT, &certificate.fingerprint.to_string()).await?;
                if taken {
                    return Err(Error::CertificateExists);
                }
                remove(db, fingerprint).await?;
                add(db, certificate).await
            }
            Self::Remove(fingerprint) => remove(db, fingerprint).await,
        }
    }
}

async fn add(db: &mut AnyConnection, certificate: &Certificate) -> Result<()> {
    if exists(db, PRESENT, &certificate.fingerprint.to_string()).await? {
        return Err(Error::CertificateExists);
    }
    sqlx::query(
        "INSERT INTO certificates (fingerprint, kind, name, restricted, projects, certificate)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(certificate.fingerprint.to_string())
    .bind(certificate.kind.clone())
    .bind(certificate.name.clone())
    .bind(i64::from(certificate.restricted))
    .bind(json(&certificate.projects)?)
    .bind(certificate.certificate.clone())
    .execute(db)
    .await?;
    Ok(())
}

async fn remove(db: &mut AnyConnection, fingerprint: &Fingerprint) -> Result<()> {
    let done = sqlx::query("DELETE FROM certificates WHERE fingerprint = $1")
        .bind(fingerprint.to_string())
        .execute(db)
        .await?;
    if done.rows_affected() == 0 { Err(CERTIFICATE_NOT_FOUND) } else { Ok(()) }
}

pub(super) async fn load(db: &mut AnyConnection) -> Result<Vec<Certificate>, sqlx::Error> {
    sqlx::query(
        "SELECT fingerprint, kind, name, restricted, projects, certificate FROM certificates",
    )
    .fetch_all(db)
    .await?
    .iter()
    .map(|row| {
        Ok(Certificate {
            name: row.try_get("name")?,
            kind: row.try_get("kind")?,
            restricted: load::flag(row, "restricted")?,
            projects: load::json(row, "projects")?,
            certificate: row.try_get("certificate")?,
            fingerprint: load::parsed(row, "fingerprint")?,
        })
    })
    .collect()
}
