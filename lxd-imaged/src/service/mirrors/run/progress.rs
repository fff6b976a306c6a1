//! How far a run is, as its operation shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::fetch::Job;
use crate::acquire::{Follow, Transferred};
use crate::ops::Context;
use crate::service::sources::numbers;

/// Key of the progress that clients show.
const PROGRESS: &str = "download_progress";
/// Time between two events about progress.
const TOLD_EVERY: Duration = Duration::from_millis(250);

/// How far a run is, over all its downloads.
pub(super) struct Progress {
    context: Context,
    images: usize,
    bytes: u64,
    images_done: AtomicUsize,
    bytes_done: AtomicU64,
    began: Instant,
    told: Mutex<Option<Instant>>,
}

impl Progress {
    pub(super) fn new(context: Context, todo: &[Job]) -> Arc<Self> {
        Arc::new(Self {
            context,
            images: todo.len(),
            bytes: todo.iter().map(|job| job.version.image.size).sum(),
            images_done: AtomicUsize::new(0),
            bytes_done: AtomicU64::new(0),
            began: Instant::now(),
            told: Mutex::new(None),
        })
    }

    /// Follows one download; its bytes are counted in what is returned too.
    pub(super) fn follow(self: &Arc<Self>, cancel: CancellationToken) -> (Follow, Arc<AtomicU64>) {
        let (progress, counted) = (self.clone(), Arc::new(AtomicU64::new(0)));
        let own = counted.clone();
        let tell = move |now: Transferred| {
            let before = own.swap(now.done, Ordering::Relaxed);
            progress.bytes_done.fetch_add(now.done.saturating_sub(before), Ordering::Relaxed);
            progress.tell();
        };
        (Follow { cancel, tell: Arc::new(tell) }, counted)
    }

    /// One version has come, or failed.
    pub(super) fn ended(&self, size: u64, counted: u64) {
        self.bytes_done.fetch_add(size.saturating_sub(counted), Ordering::Relaxed);
        self.images_done.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        {
            let mut told = self.told.lock();
            if told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
                return;
            }
            *told = Some(Instant::now());
        }
        let done = self.bytes_done.load(Ordering::Relaxed).min(self.bytes);
        let millis = self.began.elapsed().as_millis().max(1);
        let speed = u64::try_from(u128::from(done) * 1000 / millis).unwrap_or(u64::MAX);
        let now = Transferred { done, total: Some(self.bytes), speed };
        let images = self.images_done.load(Ordering::Relaxed);
        let text = format!("{images}/{} images, {}", self.images, now.text());
        self.context.transfer(PROGRESS, text, numbers(now));
    }
}
