//! Runs: what the plan says is fetched, then aliases move, then old versions go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use lxd_proto::alias::AliasName;
use lxd_proto::event::action;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{Image, Verified};
use lxd_proto::mirror::{
    MirrorAction, MirrorConfig, MirrorConflict, MirrorCounts, MirrorFault, MirrorItem, MirrorName,
    MirrorReport, MirrorRun, MirrorRunPost, RunOutcome,
};
use lxd_proto::operation::{Operation, description};
use lxd_proto::remote::Remote;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{about, named, remove_if_there, spec, tell};
use crate::acquire::mirrored::{self, Wanted};
use crate::acquire::pace::Pace;
use crate::acquire::{Follow, Transferred, by_itself, follow, origins};
use crate::app::App;
use crate::catalog::Entry;
use crate::db::{Change, Member, MirrorChange};
use crate::error::{Error, Result};
use crate::mirror::plan::{Held, Here, Owner, Plan, Version, plan};
use crate::ops::{About, Context, Failure, Metadata};

/// Key of the progress that clients show.
const PROGRESS: &str = "download_progress";
/// Time between two events about progress.
const TOLD_EVERY: Duration = Duration::from_millis(250);
/// Failures in a row, none of them a file's, after which a server counts as gone.
const GONE_AFTER: usize = 3;
/// Images that a server may have.
const MAX_IMAGES: usize = 200_000;

/// Begins a run, as an operation whose metadata has the report in the end, also when it failed.
///
/// # Errors
/// [`Error::MirrorRuns`] when one goes on; a dry run does not mind.
pub fn begin(app: &Arc<App>, name: &str, post: MirrorRunPost) -> Result<Operation> {
    let name = named(name)?;
    let config = app.catalog.mirrors.look(&name, |record| record.config.clone())?;
    if config.server.is_empty() {
        let text = format!("mirror \"{name}\" has no server: it is fed by bundles");
        return Err(Error::BadRequest(text));
    }
    let place = if post.dry_run { None } else { Some(Place::take(app, &name)?) };
    let about = About { description: description::MIRROR_RUN, ..about(&name) };
    let task = app.clone();
    app.operations.spawn(about, move |context| {
        context.may_cancel(true);
        if let Some(place) = &place {
            place.is(&context);
        }
        async move {
            let run = Run { app: task, name, config, context };
            let outcome = if place.is_some() { run.whole().await } else { run.dry().await };
            drop(place);
            outcome
        }
    })
}

/// The place of a run among those that go on; there is one for each mirror.
pub(super) struct Place {
    app: Arc<App>,
    name: MirrorName,
}

impl Place {
    pub(super) fn take(app: &Arc<App>, name: &MirrorName) -> Result<Self> {
        let mut running = app.mirror_runs.running.lock();
        if running.contains_key(name) {
            return Err(Error::MirrorRuns(name.to_string()));
        }
        running.insert(name.clone(), String::new());
        Ok(Self { app: app.clone(), name: name.clone() })
    }

    pub(super) fn is(&self, context: &Context) {
        self.app.mirror_runs.running.lock().insert(self.name.clone(), context.id());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.app.mirror_runs.running.lock().remove(&self.name);
    }
}

/// What the mirror keeps, and what binds each of it.
pub(super) fn held(app: &App, name: &MirrorName) -> Result<BTreeMap<Fingerprint, Held>> {
    let members = app.catalog.mirrors.look(name, |record| record.members.clone())?;
    let held = |(fingerprint, member): (Fingerprint, Member)| {
        let entry = app.catalog.get(&fingerprint)?;
        let bound = bound(app, &entry, member.shared);
        let whole = entry.image.verified == Verified::Yes;
        Some((fingerprint, Held { member, size: entry.image.size, whole, bound }))
    };
    Ok(members.into_iter().filter_map(held).collect())
}

/// Why an image may not be removed.
fn bound(app: &App, entry: &Entry, shared: bool) -> Option<String> {
    let fingerprint = &entry.image.fingerprint;
    if shared {
        return Some("a person has put it in too".into());
    }
    if app.catalog.instances.uses(fingerprint) {
        return Some("an instance uses it".into());
    }
    let theirs = |name: &str| !app.catalog.mirrors.any_has_set(name, fingerprint);
    let alias = entry.image.aliases.iter().find(|alias| theirs(&alias.name))?;
    Some(format!("a person has named it \"{}\"", alias.name))
}

/// A run.
pub(super) struct Run {
    pub(super) app: Arc<App>,
    pub(super) name: MirrorName,
    pub(super) config: MirrorConfig,
    pub(super) context: Context,
}

/// A version that is to be fetched.
struct Job {
    product: String,
    version: Version,
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
    /// What a run would do.
    async fn dry(&self) -> Result<Option<Metadata>, Failure> {
        let held = held(&self.app, &self.name)?;
        let (_, images) = self.asked().await?;
        let report = self
            .with_here(&held, |here| plan(&self.config, images, here).forecast(&self.config, here));
        Ok(Some(metadata(&report)?))
    }

    /// A run and what is recorded about it.
    async fn whole(&self) -> Result<Option<Metadata>, Failure> {
        self.recorded(async |report| self.execute(report).await).await
    }

    /// The rest of a run whose images have come another way: `images` are all there are.
    pub(super) async fn arrived(&self, images: Vec<Image>) -> Result<Option<Metadata>, Failure> {
        self.recorded(async |report| {
            let held_before = held(&self.app, &self.name)?;
            let plan = self.with_here(&held_before, |here| plan(&self.config, images, here));
            *report = plan.report();
            for (name, product) in &plan.products {
                for version in &product.wanted {
                    let item = self.adopt(name, version, &product.aliases).await?;
                    report.add(item);
                }
            }
            self.finish(&plan, report).await
        })
        .await
    }

    /// A version that should be here by now becomes the mirror's, unless it is already.
    async fn adopt(
        &self,
        product: &str,
        version: &Version,
        aliases: &[AliasName],
    ) -> Result<MirrorItem> {
        let missing = match version.action {
            MirrorAction::Present => None,
            MirrorAction::Adopt => {
                let wanted = self.wanted(product, version, aliases.to_vec());
                let follow = Follow::silently(self.context.cancelled());
                match mirrored::adopt(&self.app, &wanted, &follow).await {
                    Ok(()) => None,
                    Err(error) if error.is_cancelled() => return Err(error),
                    Err(error) => Some(follow::printable(&error.to_string())),
                }
            }
            _ => Some("it has not arrived".to_owned()),
        };
        Ok(match missing {
            None => version.item(product, version.action, String::new()),
            Some(reason) => version.item(product, MirrorAction::Fail, reason),
        })
    }

    fn wanted(&self, product: &str, version: &Version, aliases: Vec<AliasName>) -> Wanted {
        Wanted {
            mirror: self.name.clone(),
            image: version.image.clone(),
            product: product.to_owned(),
            serial: version.serial.clone(),
            aliases,
            public: self.config.public,
        }
    }

    async fn recorded(
        &self,
        work: impl AsyncFnOnce(&mut MirrorReport) -> Result<()>,
    ) -> Result<Option<Metadata>, Failure> {
        let started_at = self.app.clock.now();
        let mut run = MirrorRun {
            started_at,
            ended_at: None,
            outcome: RunOutcome::Running,
            counts: MirrorCounts::default(),
            errors: Vec::new(),
        };
        self.record(&run).await?;
        let mut report = MirrorReport::default();
        let outcome = work(&mut report).await;
        report.sort();
        run.outcome = match &outcome {
            Ok(()) if report.counts.failed + report.counts.skipped > 0 => RunOutcome::Partial,
            Ok(()) => RunOutcome::Success,
            Err(Error::ShuttingDown) => RunOutcome::Interrupted,
            Err(error) if error.is_cancelled() => RunOutcome::Cancelled,
            Err(_) => RunOutcome::Failed,
        };
        run.ended_at = Some(self.app.clock.now());
        run.counts = report.counts;
        run.errors = report.faults();
        if let Err(error) = &outcome {
            let fault = follow::printable(&error.to_string());
            run.errors.insert(
                0,
                MirrorFault {
                    product: String::new(),
                    serial: String::new(),
                    fingerprint: None,
                    error: fault,
                },
            );
        }
        let recorded = self.record(&run).await;
        let counts = run.counts;
        tracing::info!(
            mirror = %self.name, outcome = run.outcome.as_str(), downloaded = counts.downloaded,
            present = counts.present, removed = counts.removed, failed = counts.failed,
            "a mirror has run"
        );
        let context = [("outcome", run.outcome.as_str())];
        tell(&self.app, &by_itself(), action::MIRROR_RUN, &self.name, &context);
        let metadata = metadata(&report)?;
        match outcome.and(recorded) {
            Ok(()) => Ok(Some(metadata)),
            Err(error) => Err(Failure { error, metadata: Some(metadata) }),
        }
    }

    async fn record(&self, run: &MirrorRun) -> Result<()> {
        let change = MirrorChange::Ran(self.name.clone(), Box::new(run.clone()));
        self.app.db.commit(Change::Mirror(change)).await
    }

    /// Ends what the operation's end or the daemon's ends.
    async fn unless_ended<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let cancel = self.context.cancelled();
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            () = self.app.shutdown.cancelled() => Err(Error::ShuttingDown),
            done = work => done,
        }
    }

    /// All images of the server, asked once.
    async fn asked(&self) -> Result<(Arc<dyn Remote>, Vec<Image>)> {
        let remote = origins::connect(&self.app, &spec(&self.config)?)?;
        let images = self.unless_ended(async {
            let images = remote.current_images().await;
            images.map_err(|error| {
                origins::failed(remote.spec(), "cannot list the images of the server", error)
            })
        });
        let images = images.await?;
        if images.len() > MAX_IMAGES {
            return Err(Error::BadRequest(format!(
                "the server lists {} images; a mirror looks at {MAX_IMAGES} at most",
                images.len()
            )));
        }
        Ok((remote, images))
    }

    fn with_here<T>(
        &self,
        held: &BTreeMap<Fingerprint, Held>,
        look: impl FnOnce(&Here<'_>) -> T,
    ) -> T {
        let stored = |fingerprint: &Fingerprint| self.app.catalog.get(fingerprint).is_some();
        let owner = |alias: &AliasName| self.owner(alias.as_str());
        look(&Here { held, stored: &stored, owner: &owner })
    }

    /// Whose an alias is.
    fn owner(&self, alias: &str) -> Owner {
        let Some(target) = self.app.catalog.target(alias) else { return Owner::Nobody };
        let mirrors = &self.app.catalog.mirrors;
        if mirrors.has_set(&self.name, alias, &target) {
            Owner::Mirror
        } else if mirrors.any_has_set(alias, &target) {
            Owner::Other(format!("another mirror has pointed it at {}", target.short()))
        } else {
            Owner::Other(format!("a person has pointed it at {}", target.short()))
        }
    }

    async fn execute(&self, report: &mut MirrorReport) -> Result<()> {
        let turn = self.unless_ended(async {
            let turn = self.app.mirror_runs.turns.acquire().await;
            turn.map_err(|_| Error::ShuttingDown)
        });
        let _turn = turn.await?;
        let held_before = held(&self.app, &self.name)?;
        let (remote, images) = self.asked().await?;
        let plan = self.with_here(&held_before, |here| plan(&self.config, images, here));
        *report = plan.report();
        self.fetch(&remote, &plan, report).await?;
        self.finish(&plan, report).await
    }

    /// Fetches what is not here, the newest version of every product first.
    async fn fetch(
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
            Err(error) if self.context.cancelled().is_cancelled() || error.is_cancelled() => {
                Err(Error::Cancelled)
            }
            Err(Error::ShuttingDown) => Err(Error::ShuttingDown),
            Err(error) => {
                let reason = follow::printable(&error.to_string());
                tracing::warn!(mirror = %self.name, product, serial = version.serial, reason, "a version could not be mirrored");
                brake.after(&error);
                Ok(version.item(&product, MirrorAction::Fail, reason))
            }
        }
    }

    /// Aliases to the newest versions that are here; then what is not needed goes.
    async fn finish(&self, plan: &Plan, report: &mut MirrorReport) -> Result<()> {
        let held_now = held(&self.app, &self.name)?;
        for (leader, aliases) in plan.leaders(&held_now) {
            self.point(leader, aliases, &held_now, report).await?;
        }
        self.unset(plan, &held_now).await?;
        self.show(&held_now).await?;
        // What a person has done meanwhile counts.
        let held_now = held(&self.app, &self.name)?;
        for mut item in plan.retire(&self.config, &held_now) {
            if item.action == MirrorAction::Remove
                && let Err(error) = self.remove(&item.fingerprint).await
            {
                if matches!(error, Error::ShuttingDown) {
                    return Err(error);
                }
                item.action = MirrorAction::Fail;
                item.reason =
                    format!("cannot be removed: {}", follow::printable(&error.to_string()));
            }
            report.add(item);
        }
        Ok(())
    }

    /// Points aliases at the image that should have them; those of others are told.
    async fn point(
        &self,
        leader: Fingerprint,
        aliases: &[AliasName],
        held: &BTreeMap<Fingerprint, Held>,
        report: &mut MirrorReport,
    ) -> Result<()> {
        let mut free = Vec::new();
        let mut refused = Vec::new();
        for alias in aliases {
            let target = self.app.catalog.target(alias.as_str());
            match self.owner(alias.as_str()) {
                Owner::Other(reason) => refused.push((alias.clone(), reason)),
                Owner::Mirror if target == Some(leader) => {}
                Owner::Mirror | Owner::Nobody => free.push((alias.clone(), leader)),
            }
        }
        if !free.is_empty() {
            let point = |aliases| Change::Mirror(MirrorChange::Point(self.name.clone(), aliases));
            match self.app.db.commit(point(free.clone())).await {
                Ok(()) | Err(Error::NotFound(_)) => {}
                // Somebody has taken one of them in this moment: the others come one by one.
                Err(Error::AliasExists(_)) => {
                    for one in free {
                        match self.app.db.commit(point(vec![one.clone()])).await {
                            Ok(()) | Err(Error::NotFound(_)) => {}
                            Err(Error::AliasExists(_)) => {
                                refused.push((one.0, "a person has just taken it".to_owned()));
                            }
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let product = held.get(&leader).map(|held| held.member.product.clone());
        let product = product.unwrap_or_default();
        for (alias, reason) in refused {
            report.conflict(MirrorConflict { alias, product: product.clone(), reason });
        }
        Ok(())
    }

    /// Takes aliases away that the mirror has set and the server does not have any more.
    async fn unset(&self, plan: &Plan, held: &BTreeMap<Fingerprint, Held>) -> Result<()> {
        let set = self.app.catalog.mirrors.look(&self.name, |record| record.aliases.clone())?;
        let gone = |(alias, target): (String, Fingerprint)| {
            let product = &held.get(&target)?.member.product;
            let ours = self.app.catalog.target(&alias) == Some(target);
            let dropped = ours && plan.drops(&alias, product);
            dropped.then(|| AliasName::try_from(alias).ok().map(|alias| (alias, target)))?
        };
        let gone: Vec<_> = set.into_iter().filter_map(gone).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let change = MirrorChange::Unset(self.name.clone(), gone);
        self.app.db.commit(Change::Mirror(change)).await
    }

    /// Makes what is the mirror's alone as public as the mirror is.
    async fn show(&self, held: &BTreeMap<Fingerprint, Held>) -> Result<()> {
        for (fingerprint, held) in held {
            let alone =
                || self.app.catalog.mirrors.kept(fingerprint).is_some_and(|it| it.mirrors == 1);
            if held.member.shared || !alone() {
                continue;
            }
            let _one_at_a_time = self.app.edits.lock().await;
            let Some(entry) = self.app.catalog.get(fingerprint) else { continue };
            if entry.image.public != self.config.public {
                let image = Image { public: self.config.public, ..entry.image.clone() };
                self.app.db.commit(Change::Edit(Box::new(image))).await?;
            }
        }
        Ok(())
    }

    /// Removes an image, or only the mirror's share in it when another mirror keeps it too.
    async fn remove(&self, fingerprint: &Fingerprint) -> Result<()> {
        let others = self.app.catalog.mirrors.kept(fingerprint).is_some_and(|it| it.mirrors > 1);
        if others {
            let change = MirrorChange::Leave(self.name.clone(), *fingerprint);
            return self.app.db.commit(Change::Mirror(change)).await;
        }
        remove_if_there(&self.app, &by_itself(), fingerprint).await.map(drop)
    }
}

impl Brake {
    /// Stops what has no hope after this failure.
    fn after(&self, error: &Error) {
        let reason = match error {
            Error::Shared(error) => return self.after(error),
            Error::NoSpace(_) => "there is no space left".to_owned(),
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

fn metadata(report: &MirrorReport) -> Result<Metadata> {
    let report =
        serde_json::to_value(report).map_err(|error| Error::Internal(error.to_string()))?;
    Ok([("report".to_owned(), report)].into_iter().collect())
}

/// How far a run is, over all its downloads.
struct Progress {
    context: Context,
    images: usize,
    bytes: u64,
    images_done: AtomicUsize,
    bytes_done: AtomicU64,
    began: Instant,
    told: Mutex<Option<Instant>>,
}

impl Progress {
    fn new(context: Context, todo: &[Job]) -> Arc<Self> {
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
    fn follow(self: &Arc<Self>, cancel: CancellationToken) -> (Follow, Arc<AtomicU64>) {
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
    fn ended(&self, size: u64, counted: u64) {
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

/// The numbers behind the text, as strings: LXD's client expects no others.
fn numbers(now: Transferred) -> Value {
    json!({
        "stage": "download",
        "percent": now.percent().unwrap_or_default().to_string(),
        "speed": now.speed.to_string(),
        "processed": now.done.to_string(),
        "total": now.total.unwrap_or_default().to_string(),
    })
}
