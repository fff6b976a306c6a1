//! What is not here is fetched: a few at once, never faster than allowed, and no more from a server
//! that has gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, stream};
use lxd_proto::alias::AliasName;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::mirror::{MirrorAction, MirrorItem, MirrorReport};
use lxd_proto::remote::Remote;
use parking_lot::Mutex;

use super::Run;
use super::progress::Progress;
use crate::acquire::follow;
use crate::acquire::mirrored;
use crate::acquire::pace::Pace;
use crate::error::{Error, Result};
use crate::mirror::plan::{Plan, Version};

/// Failures in a row, none of them a file's, after which a server counts as gone.
const GONE_AFTER: usize = 3;

/// With less than so many bytes a disk counts as full.
const ROOM: u64 = 64 << 20;

/// A version that is to be fetched.
pub(super) struct Job {
    product: String,
    pub(super) version: Version,
    /// Of the newest version of the product that is here.
    aliases: Vec<AliasName>,
    /// Versions that get them rather than this one.
    newer: Vec<Fingerprint>,
}

/// What ends a run before everything was tried.
#[derive(Default)]
struct Brake {
    /// Why the rest is not tried.
    reason: Mutex<Option<String>>,
    /// Failures of the server in a row.
    failures: AtomicUsize,
}

impl Run {
    /// Fetches what is not here, the newest version of every product first.
    pub(super) async fn fetch(
        &self,
        remote: &Arc<dyn Remote>,
        plan: &Plan,
        report: &mut MirrorReport,
    ) -> Result<()> {
        let mut todo = Vec::new();
        for (name, product) in &plan.products {
            let mut newer = Vec::new();
            for version in &product.wanted {
                if version.action == MirrorAction::Present {
                    report.add(version.item(name, version.action, String::new()));
                } else {
                    todo.push(Job {
                        product: name.clone(),
                        version: version.clone(),
                        aliases: product.aliases.clone(),
                        newer: newer.clone(),
                    });
                }
                newer.push(version.image.fingerprint);
            }
        }
        // Stable: products stay in order.
        todo.sort_by_key(|job| job.newer.len());
        let progress = Progress::new(self.context.clone(), &todo);
        let brake = Brake::default();
        let pace = Pace::new(self.config.bandwidth).map(Arc::new);
        let parallel = usize::try_from(self.config.parallel).unwrap_or(1).max(1);
        let mut running = stream::iter(todo)
            .map(|job| self.version(remote, job, &brake, pace.as_ref(), &progress))
            .buffer_unordered(parallel);
        while let Some(item) = running.next().await {
            report.add(item?);
        }
        Ok(())
    }

    /// One version; its failure is a line of the report.
    async fn version(
        &self,
        remote: &Arc<dyn Remote>,
        job: Job,
        brake: &Brake,
        pace: Option<&Arc<Pace>>,
        progress: &Arc<Progress>,
    ) -> Result<MirrorItem> {
        let slot = self.unless_ended(async {
            let slot = self.app.mirror_runs.downloads.acquire().await;
            slot.map_err(|_| Error::ShuttingDown)
        });
        let _slot = slot.await?;
        let Job { product, version, aliases, newer } = job;
        let stopped = brake.reason.lock().clone();
        if let Some(reason) = stopped {
            return Ok(version.item(&product, MirrorAction::Skip, reason));
        }
        let is_here = |it: &Fingerprint| self.app.catalog.mirrors.member(&self.name, it).is_some();
        // A newer one that was faster keeps the names.
        let named = !newer.iter().any(is_here);
        let aliases = if named { aliases } else { Vec::new() };
        let wanted = self.wanted(&product, &version, aliases);
        let (follow, counted) = progress.follow(self.context.cancelled());
        // It ends by itself when it is to: not between a file that is in place and its row.
        let taken = mirrored::take(&self.app, remote, &wanted, pace, &follow).await;
        progress.ended(version.image.size, counted.load(Ordering::Relaxed));
        match taken {
            Ok(()) => {
                brake.failures.store(0, Ordering::Relaxed);
                Ok(version.item(&product, version.action, String::new()))
            }
            Err(_) if self.app.shutdown.is_cancelled() => Err(Error::ShuttingDown),
            Err(error) if self.context.cancelled().is_cancelled() || error.is_cancelled() => {
                Err(Error::Cancelled)
            }
            Err(error) => {
                let reason = follow::printable(&error.to_string());
                tracing::warn!(mirror = %self.name, product, serial = version.serial, reason, "a version could not be mirrored");
                brake.after(&error, self.is_full(version.image.size));
                Ok(version.item(&product, MirrorAction::Fail, reason))
            }
        }
    }
}

impl Run {
    /// Whether there is no room for others either when there was none for so many bytes. A server
    /// may say of an image that it is larger than any disk.
    fn is_full(&self, size: u64) -> bool {
        let free = self.app.blobs.free();
        free.is_none_or(|free| free < ROOM || size <= free)
    }
}

impl Brake {
    /// Stops what has no hope after this failure.
    fn after(&self, error: &Error, is_full: bool) {
        let reason = match error {
            Error::Shared(error) => return self.after(error, is_full),
            Error::NoSpace(_) if is_full => "there is no space left".to_owned(),
            Error::NotFound(_) => "the mirror is gone".to_owned(),
            error if follow::is_down(error) => {
                if self.failures.fetch_add(1, Ordering::Relaxed) + 1 < GONE_AFTER {
                    return;
                }
                "the server does not answer any more".to_owned()
            }
            _ => {
                self.failures.store(0, Ordering::Relaxed);
                return;
            }
        };
        self.reason.lock().get_or_insert(reason);
    }
}
