//! Partial files: what has come of an image that another server sends, kept under the expected
//! fingerprint until the rest comes, also over a restart.
//!
//! Nothing is known about what lies here but its length: whoever goes on with it hashes it again.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::Role;
use sha2::{Digest, Sha256};

use super::spool::{Spool, SpoolPath, Spools, Writer, reserve};
use crate::error::{Error, Result};

/// Bytes read at a time while a kept part is hashed again.
const READ: usize = 256 << 10;
/// How long a partial file waits for the rest.
pub const KEPT: Duration = Duration::from_hours(24);

/// The partial files of all images.
#[derive(Debug, Clone)]
pub struct Partials {
    directory: PathBuf,
    spools: Spools,
}

/// What became of old partial files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Files removed.
    pub removed: usize,
    /// Files left.
    pub left: usize,
}

impl Partials {
    /// Files lie in `directory`, which must be on the file system of the blobs.
    pub fn new(directory: PathBuf, spools: Spools) -> Self {
        Self { directory, spools }
    }

    /// Begins, or goes on with, the file that plays `role` in an image. Space for `length` bytes
    /// is reserved if that is known. `combined` is the hash of the parts before this one.
    ///
    /// Returns the spool and how many bytes it has already. Only one pull at a time may work on
    /// an image. Dropping the spool keeps what came.
    pub async fn begin(
        &self,
        fingerprint: &Fingerprint,
        role: Role,
        length: Option<u64>,
        combined: Option<Sha256>,
    ) -> Result<(Spool, u64)> {
        let path = self.path(fingerprint, role);
        let (opened, path, combined) = tokio::task::spawn_blocking(move || {
            let mut combined = combined;
            let opened = go_on(&path, length, combined.as_mut());
            (opened, path, combined)
        })
        .await
        .map_err(|error| Error::Internal(error.to_string()))?;
        let writer = opened?;
        let kept = writer.written;
        Ok((self.spools.spool(role, SpoolPath::new(path, true), writer, combined), kept))
    }

    /// Throws away what there is of an image.
    pub fn discard(&self, fingerprint: &Fingerprint) {
        for role in [Role::Unified, Role::Metadata, Role::Rootfs] {
            let path = self.path(fingerprint, role);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove a partial file");
            }
        }
    }

    /// Bytes that are there of an image.
    pub fn held(&self, fingerprint: &Fingerprint) -> u64 {
        [Role::Unified, Role::Metadata, Role::Rootfs]
            .iter()
            .filter_map(|role| fs::metadata(self.path(fingerprint, *role)).ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    /// Removes files that nobody wrote to for a day before `now`, except of images that `busy`
    /// says are being fetched.
    pub fn expire(
        &self,
        now: SystemTime,
        busy: impl Fn(&Fingerprint) -> bool,
    ) -> io::Result<Expired> {
        let mut expired = Expired::default();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let digits = name.split('.').next().unwrap_or_default();
            let fetched = digits.parse().is_ok_and(|fingerprint| busy(&fingerprint));
            let age = entry.metadata()?.modified()?;
            let old = now.duration_since(age).is_ok_and(|age| age >= KEPT);
            if old && !fetched {
                fs::remove_file(entry.path())?;
                expired.removed += 1;
            } else {
                expired.left += 1;
            }
        }
        Ok(expired)
    }

    fn path(&self, fingerprint: &Fingerprint, role: Role) -> PathBuf {
        let what = match role {
            Role::Unified => "unified",
            Role::Metadata => "metadata",
            Role::Rootfs => "rootfs",
        };
        self.directory.join(format!("{fingerprint}.{what}"))
    }
}

/// Opens the file and hashes what it holds.
fn go_on(path: &Path, length: Option<u64>, combined: Option<&mut Sha256>) -> Result<Writer> {
    let failed = |error| Error::io(format!("cannot open {}", path.display()), error);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let mut kept = file.metadata().map_err(failed)?.len();
    if length.is_some_and(|length| kept > length) {
        // More than there should be: it is of something else.
        file.set_len(0).map_err(failed)?;
        kept = 0;
    }
    if let Some(missing) = length.map(|length| length - kept).filter(|missing| *missing > 0) {
        reserve(&file, kept, missing)?;
    }
    let mut writer =
        Writer { file: Arc::new(file), hash: Sha256::new(), written: 0, written_back: kept };
    hash(&mut writer, combined, kept)
        .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
    Ok(writer)
}

/// Takes the first `kept` bytes of the file for written.
fn hash(writer: &mut Writer, mut combined: Option<&mut Sha256>, kept: u64) -> io::Result<()> {
    let file: &File = &writer.file;
    let mut buffer = vec![0; READ];
    while writer.written < kept {
        let wanted = usize::try_from(kept - writer.written).unwrap_or(READ).min(READ);
        file.read_exact_at(&mut buffer[..wanted], writer.written)?;
        writer.hash.update(&buffer[..wanted]);
        if let Some(combined) = combined.as_deref_mut() {
            combined.update(&buffer[..wanted]);
        }
        writer.written += wanted as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::checks::{CheckPool, Wanted};

    const FINGERPRINT: [u8; 32] = [7; 32];

    fn partials(directory: &Path) -> Partials {
        let checks = CheckPool::new(1).unwrap();
        Partials::new(directory.to_owned(), Spools::new(directory.to_owned(), checks))
    }

    #[tokio::test]
    async fn a_file_goes_on_where_it_broke_off_and_hashes_to_the_whole() {
        let temp = tempfile::tempdir().unwrap();
        let fingerprint = Fingerprint::from_bytes(FINGERPRINT);
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        let metadata = b"architecture: x86_64\ncreation_date: 1\n";
        header.set_size(metadata.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "metadata.yaml", &metadata[..]).unwrap();
        let bytes = archive.into_inner().unwrap();
        for (from, to) in [(0, 100), (100, 700), (700, bytes.len())] {
            // A new daemon each time.
            let partials = partials(temp.path());
            let length = Some(bytes.len() as u64);
            let before = Some(Sha256::new());
            let (mut spool, kept) =
                partials.begin(&fingerprint, Role::Metadata, length, before).await.unwrap();
            assert_eq!(kept, from as u64);
            assert_eq!(partials.held(&fingerprint), from as u64);
            spool.write(Bytes::copy_from_slice(&bytes[from..to])).await.unwrap();
            if to == bytes.len() {
                let (spooled, combined) = spool.finish(Wanted::Whole).await.unwrap();
                let expected = Fingerprint::from_bytes(Sha256::digest(&bytes).into());
                assert_eq!(spooled.digest, expected);
                assert_eq!(Fingerprint::from_bytes(combined.unwrap().finalize().into()), expected);
            }
        }
    }

    #[tokio::test]
    async fn what_nobody_goes_on_with_goes_after_a_day() {
        let temp = tempfile::tempdir().unwrap();
        let partials = partials(temp.path());
        let (old, busy) = (Fingerprint::from_bytes([1; 32]), Fingerprint::from_bytes([2; 32]));
        for fingerprint in [&old, &busy] {
            let (mut spool, _) =
                partials.begin(fingerprint, Role::Unified, None, None).await.unwrap();
            spool.write(Bytes::from_static(b"abc")).await.unwrap();
        }
        let now = SystemTime::now();
        assert_eq!(partials.expire(now, |_| false).unwrap(), Expired { removed: 0, left: 2 });
        let tomorrow = now + KEPT + Duration::from_secs(1);
        let expired = partials.expire(tomorrow, |fingerprint| *fingerprint == busy).unwrap();
        assert_eq!(expired, Expired { removed: 1, left: 1 });
        assert_eq!((partials.held(&old), partials.held(&busy)), (0, 3));
    }
}
