//! Files that have arrived, on their way to a row: what they make, moved into place, recorded or
//! given up. Uploads and downloads from other servers go this way alike.

use std::sync::Arc;

use jiff::Timestamp;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::FileType;
use lxd_proto::image::{InstanceType, Verified};
use lxd_proto::metadata::Metadata;
use lxd_proto::time;

use super::verify;
use crate::app::App;
use crate::db::BlobRow;
use crate::error::{Error, Result};
use crate::store::blobs::Hold;
use crate::store::checks::Check;
use crate::store::spool::Spooled;

/// Files in place that no row uses yet.
#[derive(Debug)]
pub struct Placed {
    /// The unified file, or the metadata file.
    pub head: BlobRow,
    /// The root file system file of a split image.
    pub rootfs: Option<BlobRow>,
    check: Option<Arc<Check>>,
    holds: Vec<Hold>,
}

impl Placed {
    /// Moves the files into place and makes that durable: bytes before rows.
    pub async fn new(app: &App, mut parts: Vec<Spooled>) -> Result<Self> {
        let check = parts.iter_mut().find_map(|part| part.pending.take());
        let mut rows = parts.iter().map(|part| BlobRow {
            digest: part.digest,
            size: part.size,
            extension: part.findings.file_type.extension().to_owned(),
        });
        let head = rows.next().ok_or_else(|| Error::Internal("an image without files".into()))?;
        let rootfs = rows.next();
        let mut placed = Self { head, rootfs, check, holds: Vec::with_capacity(parts.len()) };
        match placed.move_in(app, parts).await {
            Ok(()) => Ok(placed),
            Err(error) => {
                placed.give_up(app).await;
                Err(error)
            }
        }
    }

    async fn move_in(&mut self, app: &App, parts: Vec<Spooled>) -> Result<()> {
        for part in parts {
            self.holds.push(app.blobs.place(part).await?);
        }
        app.blobs.flush().await
    }

    /// A row uses the files now; a check that goes on is followed.
    pub fn recorded(self, app: &Arc<App>, fingerprint: Fingerprint) {
        if let Some(check) = self.check {
            verify::follow(app, fingerprint, check);
        }
        self.holds.into_iter().for_each(Hold::recorded);
    }

    /// Removes what no image came to use.
    pub async fn give_up(self, app: &App) {
        let digests: Vec<Fingerprint> =
            std::iter::once(&self.head).chain(&self.rootfs).map(|row| row.digest).collect();
        if let Some(check) = &self.check {
            check.abandon();
        }
        drop(self);
        for digest in digests {
            let catalog = app.catalog.clone();
            if let Err(error) = app.blobs.remove_unless(digest, move |d| catalog.uses(d)).await {
                tracing::warn!(%error, "a file of a refused image stays behind until the next start");
            }
        }
    }
}

/// What the files make: the archive of a unified image tells, the disk of a split one; `disk` when
/// whoever sent it calls the second file one.
pub fn kind(parts: &[Spooled], disk: bool) -> Result<InstanceType> {
    match parts {
        [unified] => {
            unified.findings.kind.ok_or_else(|| Error::BadRequest("Invalid instance type".into()))
        }
        [_, rootfs] => match (rootfs.findings.file_type, disk) {
            (FileType::Qcow2, _) => Ok(InstanceType::VirtualMachine),
            (_, false) => Ok(InstanceType::Container),
            (_, true) => Err(Error::BadRequest(
                "rootfs.img is not a qcow2 disk; a virtual machine needs one".into(),
            )),
        },
        _ => Err(Error::BadRequest("Invalid multipart image".into())),
    }
}

/// Bytes of all files.
pub fn size(parts: &[Spooled]) -> u64 {
    parts.iter().map(|part| part.size).sum()
}

/// What is known about the files by now.
pub fn verified(parts: &[Spooled]) -> Verified {
    let pending = parts.iter().any(|part| part.pending.is_some());
    if pending { Verified::Pending } else { Verified::Yes }
}

/// The metadata of the first file.
pub fn metadata(parts: &[Spooled]) -> Result<&Metadata> {
    let first = parts.first().and_then(|part| part.findings.metadata.as_ref());
    first.ok_or_else(|| Error::Internal("a check without metadata".into()))
}

/// When the image was made, by its metadata.
pub fn created_at(metadata: &Metadata) -> Result<Timestamp> {
    let seconds = metadata.creation_date;
    time::from_seconds(seconds).ok_or_else(|| {
        Error::BadRequest(format!("metadata.yaml has an impossible creation date: {seconds}"))
    })
}

/// When the image expires, by its metadata; LXD writes the epoch for never.
pub fn expires_at(metadata: &Metadata) -> Timestamp {
    time::from_seconds(metadata.expiry_date).unwrap_or_else(time::epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_go_cannot_read_makes_no_image() {
        let metadata = |created: i64, expires: i64| {
            let yaml =
                format!("architecture: x86_64\ncreation_date: {created}\nexpiry_date: {expires}\n");
            Metadata::parse(yaml.as_bytes()).unwrap()
        };
        let odd = metadata(-377_705_023_201, -377_705_023_201);
        assert!(created_at(&odd).unwrap_err().to_string().contains("impossible creation date"));
        assert_eq!(expires_at(&odd), time::epoch());
        let sound = metadata(1, 2);
        assert_eq!(created_at(&sound).unwrap().as_second(), 1);
        assert_eq!(expires_at(&sound).as_second(), 2);
    }
}
