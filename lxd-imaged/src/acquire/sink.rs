//! Bytes on their way in: into partial files, counted, hashed, checked behind the writer, and at
//! the end compared with what was announced.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lxd_proto::config;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::Role;
use lxd_proto::image::{Image, InstanceType};
use lxd_proto::remote::{self, Fetch, FileRole, IncomingFile, Remote, RemoteSpec, Secret, Sink};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::pulls::Counters;
use super::record::Arrived;
use super::{config_number, origins};
use crate::app::App;
use crate::error::{Error, Result};
use crate::service::placed;
use crate::store::checks::Wanted;
use crate::store::partial::Partials;
use crate::store::spool::{Spool, Spooled};

/// The largest image whose size nobody tells, in bytes, where no limit is configured.
const UNANNOUNCED: u64 = 64 << 30;

/// On what terms an image is fetched.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    /// For a private image of a server that does not trust us.
    pub(super) secret: Option<Secret>,
    /// How fast at most. Differences to older images are not used then: they come from outside of
    /// this limit.
    pub(super) pace: Option<Arc<Pace>>,
}

/// Fetches the files of an image and verifies them whole.
pub(super) async fn pull(
    app: &App,
    remote: &dyn Remote,
    image: &Image,
    terms: Terms,
    counters: Counters,
    cancel: CancellationToken,
) -> Result<Arrived> {
    let limit = size_limit(app, image.size)?;
    counters.all.set_total(image.size);
    let Terms { secret, pace } = terms;
    let bases = pace.is_none().then(|| super::bases(app));
    let request = Fetch { secret, progress: counters.fresh.clone(), cancel, bases };
    let mut again = app.partials.held(&image.fingerprint) > 0;
    loop {
        let mut sink = StoreSink::new(&app.partials, image.fingerprint, limit, counters.clone());
        sink.pace.clone_from(&pace);
        let sent = remote.download(image, &request, &mut sink).await;
        let received = match sent {
            Ok(()) => {
                let from = remote.spec();
                sink.finish(image.size).await.map_err(|error| no_image(from, image, error))
            }
            Err(error) => Err(if let Some(refused) = sink.refused.take() {
                no_image(remote.spec(), image, refused)
            } else {
                let what = format!("cannot fetch image {}", image.fingerprint.short());
                origins::failed(remote.spec(), &what, error)
            }),
        };
        match received {
            Ok(parts) => return Ok(Arrived::new(image.fingerprint, parts)),
            Err(error) => {
                if is_of_no_use(&error) {
                    app.partials.discard(&image.fingerprint);
                    // A machine may have gone down while the kept part was on its way to the disk.
                    if std::mem::take(&mut again) && is_other_bytes(&error) {
                        tracing::warn!(image = %image.fingerprint, %error, "a kept partial file was broken, fetching from the start");
                        continue;
                    }
                }
                return Err(error);
            }
        }
    }
}

/// What came is no image: says who sent it.
fn no_image(from: &RemoteSpec, image: &Image, error: Error) -> Error {
    match error {
        Error::Format(error) => {
            let what = format!("cannot fetch image {}", image.fingerprint.short());
            let sender = origins::redacted(&from.address);
            let reason = format!("no sound image came: {error}");
            origins::failed(from, &what, remote::Error::Decode { what: sender, reason })
        }
        other => other,
    }
}

/// Whether what came is worth nothing for another try, or takes space that others need.
fn is_of_no_use(error: &Error) -> bool {
    matches!(error, Error::NoSpace(_)) || is_other_bytes(error)
}

/// Whether what came is not what was asked for.
fn is_other_bytes(error: &Error) -> bool {
    match error {
        Error::Format(_) | Error::FingerprintMismatch { .. } | Error::BadRequest(_) => true,
        Error::Origin { source, .. } => matches!(
            **source,
            remote::Error::Mismatch { .. }
                | remote::Error::Changed { .. }
                | remote::Error::Size { .. }
                | remote::Error::Decode { .. }
        ),
        _ => false,
    }
}

/// How many bytes an image of this announced size may have.
fn size_limit(app: &App, announced: u64) -> Result<u64> {
    let most = u64::try_from(config_number(app, config::MAX_SIZE)).unwrap_or(0);
    if most > 0 && announced > most {
        return Err(Error::BadRequest(format!(
            "the image has {announced} bytes, more than {} allows ({most})",
            config::MAX_SIZE
        )));
    }
    Ok(match (announced, most) {
        (0, 0) => UNANNOUNCED,
        (0, most) => most,
        (announced, _) => announced,
    })
}

/// Takes the files of an image into partial files.
pub(super) struct StoreSink {
    partials: Partials,
    fingerprint: Fingerprint,
    /// Bytes of all files together.
    limit: u64,
    received: u64,
    counters: Counters,
    /// How fast bytes are taken.
    pace: Option<Arc<Pace>>,
    spool: Option<(Spool, Role)>,
    done: Vec<Spooled>,
    combined: Option<Sha256>,
    /// The name of the second file says that it is a disk.
    disk: bool,
    /// Why the transfer was broken off, in our own words.
    pub(super) refused: Option<Error>,
}

impl StoreSink {
    pub(super) fn new(
        partials: &Partials,
        fingerprint: Fingerprint,
        limit: u64,
        counters: Counters,
    ) -> Self {
        Self {
            partials: partials.clone(),
            fingerprint,
            limit,
            received: 0,
            counters,
            pace: None,
            spool: None,
            done: Vec::new(),
            combined: None,
            disk: false,
            refused: None,
        }
    }

    async fn next(&mut self, file: &IncomingFile) -> Result<u64> {
        self.end_of_file().await?;
        let role = match (file.role, self.done.len()) {
            (FileRole::Unified, 0) => Role::Unified,
            (FileRole::Metadata, 0) => {
                self.combined = Some(Sha256::new());
                Role::Metadata
            }
            (FileRole::Rootfs(kind), 1) if self.combined.is_some() => {
                self.disk = kind == InstanceType::VirtualMachine;
                Role::Rootfs
            }
            _ => return Err(Error::BadRequest("the files come in a wrong order".into())),
        };
        let left = self.limit - self.received;
        if file.length.is_some_and(|length| length > left) {
            return Err(self.too_large());
        }
        let (spool, kept) =
            self.partials.begin(&self.fingerprint, role, file.length, self.combined.take()).await?;
        self.received += kept;
        self.counters.all.add(usize::try_from(kept).unwrap_or(usize::MAX));
        self.spool = Some((spool, role));
        if self.received > self.limit { Err(self.too_large()) } else { Ok(kept) }
    }

    async fn take(&mut self, bytes: Bytes) -> Result<()> {
        self.received += bytes.len() as u64;
        if self.received > self.limit {
            return Err(self.too_large());
        }
        if let Some(pace) = &self.pace {
            pace.pass(bytes.len()).await;
        }
        self.counters.all.add(bytes.len());
        match &mut self.spool {
            Some((spool, _)) => spool.write(bytes).await,
            None => Err(Error::BadRequest("bytes came before a file began".into())),
        }
    }

    async fn end_of_file(&mut self) -> Result<()> {
        let Some((spool, role)) = self.spool.take() else { return Ok(()) };
        let wanted = if role == Role::Metadata { Wanted::Whole } else { Wanted::Quick };
        let (spooled, combined) = spool.finish(wanted).await?;
        self.done.push(spooled);
        self.combined = combined;
        Ok(())
    }

    fn too_large(&self) -> Error {
        Error::BadRequest(format!(
            "more than the {} bytes that were announced for image {}",
            self.limit,
            self.fingerprint.short()
        ))
    }

    /// All files are here: their hash and size must be the announced ones.
    pub(super) async fn finish(mut self, announced: u64) -> Result<Vec<Spooled>> {
        self.end_of_file().await?;
        let got = match (self.combined.take(), self.done.as_slice()) {
            (Some(combined), [_, _]) => Fingerprint::from_bytes(combined.finalize().into()),
            (None, [unified]) => unified.digest,
            _ => return Err(Error::BadRequest("a file of the image is missing".into())),
        };
        if got != self.fingerprint {
            return Err(Error::FingerprintMismatch { got, expected: self.fingerprint });
        }
        placed::kind(&self.done, self.disk)?;
        let size = placed::size(&self.done);
        if announced > 0 && size != announced {
            return Err(Error::BadRequest(format!(
                "image {} has {size} bytes, but {announced} were announced",
                self.fingerprint.short()
            )));
        }
        Ok(self.done)
    }
}

#[async_trait]
impl Sink for StoreSink {
    async fn begin(&mut self, file: &IncomingFile) -> io::Result<u64> {
        let begun = self.next(file).await;
        begun.map_err(|error| self.break_off(error))
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let taken = self.take(bytes).await;
        taken.map_err(|error| self.break_off(error))
    }
}

impl StoreSink {
    /// Keeps our own error, which says more than one of input and output can.
    fn break_off(&mut self, error: Error) -> io::Error {
        let text = error.to_string();
        self.refused.get_or_insert(error);
        io::Error::other(text)
    }
}
