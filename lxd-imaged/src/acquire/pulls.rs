//! Downloads: one at a time for each fingerprint, shared by everybody who wants that image.
//!
//! Whoever comes second joins and sees the same progress; when the last one has gone, the
//! download ends. What came stays in a partial file for the next one. Who joined a download from
//! another origin than their own does not share its failure: they go on from theirs.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::Image;
use lxd_proto::remote::{Progress, Remote, RemoteSpec, Secret};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::record::Arrived;
use super::sink::{self, Terms};
use crate::app::App;
use crate::error::{Error, Result};

/// How often a caller is told how far the download is.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// Every download that runs.
#[derive(Debug, Default)]
pub struct Pulls {
    running: Mutex<HashMap<Fingerprint, Arc<Pull>>>,
}

/// One download.
struct Pull {
    progress: Counters,
    cancel: CancellationToken,
    started: Instant,
    /// Counted under the lock of the table.
    callers: Mutex<usize>,
    /// Where it comes from, and by what right.
    way: Way,
    outcome: watch::Sender<Option<Outcome>>,
}

/// Where a download comes from, and the secret it is opened with.
type Way = (RemoteSpec, Option<Secret>);

/// How often a caller goes on elsewhere after downloads of others have failed.
const ELSEWHERE: usize = 8;

/// What a download counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    /// Bytes that are here, those of earlier tries included.
    pub(super) all: Progress,
    /// Bytes that came now.
    pub(super) fresh: Progress,
}

type Outcome = Result<Arc<Arrived>, Arc<Error>>;

impl fmt::Debug for Pull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pull").field("done", &self.progress.all.done()).finish_non_exhaustive()
    }
}

/// What a caller of a download wants of it meanwhile.
#[derive(Clone)]
pub struct Follow {
    /// The caller loses interest.
    pub cancel: CancellationToken,
    /// Told now and then how far it is.
    pub tell: Arc<dyn Fn(Transferred) + Send + Sync>,
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").finish_non_exhaustive()
    }
}

impl Follow {
    /// A caller that waits in silence until `cancel`.
    pub fn silently(cancel: CancellationToken) -> Self {
        Self { cancel, tell: Arc::new(|_| ()) }
    }
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transferred {
    /// Bytes that are here, those of earlier tries included.
    pub done: u64,
    /// Bytes there will be, if known.
    pub total: Option<u64>,
    /// Bytes in a second, on average.
    pub speed: u64,
}

/// A caller's share in a download; the last one to go ends it.
#[derive(Debug)]
pub struct Joined {
    app: Arc<App>,
    fingerprint: Fingerprint,
    pull: Arc<Pull>,
}

/// Joins the download of `image` or begins it, and waits for its files; whoever has them records
/// them before they let go of the share.
pub(super) async fn fetch(
    app: &Arc<App>,
    remote: &Arc<dyn Remote>,
    image: &Image,
    secret: Option<&Secret>,
    pace: Option<&Arc<Pace>>,
    follow: &Follow,
) -> Result<(Joined, Arc<Arrived>)> {
    let way = (remote.spec().clone(), secret.cloned());
    let mut tries = 0;
    loop {
        let (task, remote, image) = (app.clone(), remote.clone(), image.clone());
        let terms = Terms { secret: secret.cloned(), pace: pace.cloned() };
        let joined = join(app, image.fingerprint, &way, move |counters, cancel| async move {
            sink::pull(&task, &*remote, &image, terms, counters, cancel).await
        })
        .await?;
        tries += 1;
        match joined.wait(follow).await {
            Ok(arrived) => return Ok((joined, arrived)),
            Err(Error::Shared(error))
                if joined.pull.way != way && tries < ELSEWHERE && is_the_others(&error) =>
            {
                tracing::info!(image = %joined.fingerprint, %error, "a download from elsewhere has failed, going on from our own origin");
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether another server, not this machine, is why a download failed.
fn is_the_others(error: &Error) -> bool {
    matches!(
        error,
        Error::Origin { .. }
            | Error::Format(_)
            | Error::FingerprintMismatch { .. }
            | Error::BadRequest(_)
    )
}

/// Joins the download of an image, or begins it as `work` does.
async fn join<W, F>(app: &Arc<App>, fingerprint: Fingerprint, way: &Way, work: W) -> Result<Joined>
where
    W: FnOnce(Counters, CancellationToken) -> F,
    F: Future<Output = Result<Arrived>> + Send + 'static,
{
    let mut work = Some(work);
    loop {
        let mut ending = {
            let mut running = app.pulls.running.lock();
            match running.get(&fingerprint) {
                None => {
                    let work = work.take().ok_or_else(|| Error::Internal("begun twice".into()))?;
                    let pull = start(app, fingerprint, way.clone(), work)?;
                    running.insert(fingerprint, pull.clone());
                    return Ok(Joined { app: app.clone(), fingerprint, pull });
                }
                Some(pull) => {
                    let mut callers = pull.callers.lock();
                    if *callers > 0 {
                        *callers += 1;
                        let pull = pull.clone();
                        drop(callers);
                        return Ok(Joined { app: app.clone(), fingerprint, pull });
                    }
                    pull.outcome.subscribe()
                }
            }
        };
        // Everybody has left it: it still writes to the file that the next one goes on with.
        let _ = ending.wait_for(Option::is_some).await;
        tokio::task::yield_now().await;
    }
}

fn start<W, F>(app: &Arc<App>, fingerprint: Fingerprint, way: Way, work: W) -> Result<Arc<Pull>>
where
    W: FnOnce(Counters, CancellationToken) -> F,
    F: Future<Output = Result<Arrived>> + Send + 'static,
{
    if app.shutdown.is_cancelled() {
        return Err(Error::ShuttingDown);
    }
    let pull = Arc::new(Pull {
        progress: Counters::default(),
        cancel: app.shutdown.child_token(),
        started: Instant::now(),
        callers: Mutex::new(1),
        way,
        outcome: watch::Sender::new(None),
    });
    let work = work(pull.progress.clone(), pull.cancel.clone());
    let (app, task) = (app.clone(), pull.clone());
    tokio::spawn(async move {
        // What it holds open is closed when it is cancelled, not when it next looks.
        let outcome = tokio::select! {
            biased;
            done = work => done,
            () = task.cancel.cancelled() => Err(Error::Cancelled),
        };
        let outcome = match outcome {
            Err(Error::Cancelled) if app.shutdown.is_cancelled() => Err(Error::ShuttingDown),
            other => other,
        };
        let mut running = app.pulls.running.lock();
        // Nobody joins what has failed.
        if outcome.is_err() || *task.callers.lock() == 0 {
            running.remove(&fingerprint);
        }
        task.outcome.send_replace(Some(outcome.map(Arc::new).map_err(Arc::new)));
    });
    Ok(pull)
}

impl Joined {
    /// Waits for the files, telling the caller how far they are.
    pub(super) async fn wait(&self, follow: &Follow) -> Result<Arc<Arrived>> {
        let mut outcome = self.pull.outcome.subscribe();
        let mut told = None;
        let mut ticks = tokio::time::interval(TOLD_EVERY);
        loop {
            tokio::select! {
                biased;
                () = follow.cancel.cancelled() => return Err(Error::Cancelled),
                ended = outcome.wait_for(Option::is_some) => {
                    let outcome = ended.map_or(None, |outcome| outcome.clone());
                    return match outcome {
                        Some(outcome) => outcome.map_err(Error::Shared),
                        None => Err(Error::Internal("a download was lost".into())),
                    };
                }
                _ = ticks.tick() => {
                    let now = self.pull.transferred();
                    if now.done > 0 && told != Some(now.done) {
                        told = Some(now.done);
                        (follow.tell)(now);
                    }
                }
            }
        }
    }
}

impl Pull {
    fn transferred(&self) -> Transferred {
        let millis = self.started.elapsed().as_millis().max(1);
        let speed = u128::from(self.progress.fresh.done()) * 1000 / millis;
        Transferred {
            done: self.progress.all.done(),
            total: self.progress.all.total(),
            speed: u64::try_from(speed).unwrap_or(u64::MAX),
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut running = self.app.pulls.running.lock();
        let mut callers = self.pull.callers.lock();
        *callers -= 1;
        if *callers > 0 {
            return;
        }
        if self.pull.outcome.borrow().is_some() {
            // After a failure another download may have its place already.
            if running.get(&self.fingerprint).is_some_and(|it| Arc::ptr_eq(it, &self.pull)) {
                running.remove(&self.fingerprint);
            }
        } else {
            // It leaves the table when it has ended.
            self.pull.cancel.cancel();
        }
    }
}

impl Pulls {
    /// Whether the image is being fetched.
    pub fn is_running(&self, fingerprint: &Fingerprint) -> bool {
        self.running.lock().contains_key(fingerprint)
    }
}

impl Transferred {
    /// The text that LXD's client shows: `42% (17.20MB/s)`, or bytes where the size is unknown.
    pub fn text(&self) -> String {
        let speed = human(self.speed);
        match self.percent() {
            Some(percent) => format!("{percent}% ({speed}/s)"),
            None => format!("{} ({speed}/s)", human(self.done)),
        }
    }

    /// Hundredths that are here, 100 at most.
    pub fn percent(&self) -> Option<u64> {
        let total = self.total.filter(|total| *total > 0)?;
        Some((self.done.saturating_mul(100) / total).min(100))
    }
}

/// Decimal units with two digits, as LXD writes them.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let mut hundredths = u128::from(bytes) * 100;
    let mut unit = 0;
    hundredths /= 1000;
    while hundredths >= 100_000 && unit + 1 < UNITS.len() {
        hundredths /= 1000;
        unit += 1;
    }
    format!("{}.{:02}{}", hundredths / 100, hundredths % 100, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_as_lxds() {
        let text = |done, total, speed| Transferred { done, total, speed }.text();
        assert_eq!(text(42, Some(100), 17_200_000), "42% (17.20MB/s)");
        assert_eq!(text(200, Some(100), 999), "100% (999B/s)");
        assert_eq!(text(1_234_567, None, 1_000), "1.23MB (1.00kB/s)");
        assert_eq!(human(999_999), "999.99kB");
        assert_eq!(human(73_910_000_000), "73.91GB");
    }
}
