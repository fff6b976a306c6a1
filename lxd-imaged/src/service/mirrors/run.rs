//! Runs: what the plan says is fetched, then aliases move, then old versions go.

mod fetch;
mod finish;
mod progress;

use std::collections::BTreeMap;
use std::sync::Arc;

use lxd_proto::alias::AliasName;
use lxd_proto::event::action;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{Image, Verified};
use lxd_proto::mirror::bundle::BundledImage;
use lxd_proto::mirror::{
    MirrorAction, MirrorConfig, MirrorCounts, MirrorFault, MirrorItem, MirrorName, MirrorReport,
    MirrorRun, MirrorRunPost, RunOutcome,
};
use lxd_proto::operation::{Operation, description};
use lxd_proto::remote::Remote;

use super::{about, named, spec, tell};
use crate::acquire::mirrored::{self, Wanted};
use crate::acquire::{Follow, by_itself, follow, origins};
use crate::app::App;
use crate::catalog::Entry;
use crate::db::{Change, Member, MirrorChange};
use crate::error::{Error, Result};
use crate::mirror::plan::{Held, Here, Owner, Version, plan};
use crate::ops::{About, Context, Failure, Metadata};

/// Images that a server may have.
const MAX_IMAGES: usize = 200_000;

/// Begins a run, as an operation whose metadata has the report in the end, also when it failed.
///
/// # Errors
/// [`Error::MirrorRuns`] when one goes on; a dry run does not mind.
pub fn begin(app: &Arc<App>, name: &str, post: MirrorRunPost) -> Result<Operation> {
    let name = named(name)?;
    let config = app.catalog.mirrors.get(&name)?.config.clone();
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
    let members = app.catalog.mirrors.get(name)?.members.clone();
    let held = |(fingerprint, member): (Fingerprint, Member)| {
        let entry = app.catalog.get(&fingerprint)?;
        let bound = bound(app, &entry, member.shared);
        let whole = entry.image.verified == Verified::Yes;
        Some((fingerprint, Held { member, size: entry.image.size, whole, bound }))
    };
    Ok(members.into_iter().filter_map(held).collect())
}

/// Why an image may not be removed.
pub(super) fn bound(app: &App, entry: &Entry, shared: bool) -> Option<String> {
    let fingerprint = &entry.image.fingerprint;
    if shared {
        return Some("a person has put it in or changed it".into());
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

    /// The rest of a run whose images have come in a bundle. What is newer here than in the bundle
    /// stays, and so do its names: an old bundle takes nothing away.
    pub(super) async fn arrived(
        &self,
        bundled: &[BundledImage],
    ) -> Result<Option<Metadata>, Failure> {
        self.recorded(async |report| {
            let held_before = held(&self.app, &self.name)?;
            let images = self.with_newer(bundled, &held_before);
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

    /// The images of a bundle together with those that are here and newer. These have the names then.
    fn with_newer(
        &self,
        bundled: &[BundledImage],
        held: &BTreeMap<Fingerprint, Held>,
    ) -> Vec<Image> {
        let mut newest: BTreeMap<&str, &str> = BTreeMap::new();
        for image in bundled {
            let serial = newest.entry(&image.product).or_default();
            *serial = (*serial).max(&image.serial);
        }
        let mut images: Vec<Image> = bundled.iter().map(BundledImage::described).collect();
        let mut older: BTreeMap<&str, Vec<(&str, Image)>> = BTreeMap::new();
        for (fingerprint, held) in held {
            let Member { product, serial, .. } = &held.member;
            let is_newer = newest.get(&**product).is_some_and(|newest| serial.as_str() > *newest);
            if let Some(entry) = self.app.catalog.get(fingerprint).filter(|_| is_newer) {
                let image = Image { aliases: Vec::new(), ..entry.image.clone() };
                older.entry(product).or_default().push((serial, image));
            }
        }
        for (product, mut here) in older {
            let mut aliases = Vec::new();
            for (image, bundled) in images.iter_mut().zip(bundled) {
                if bundled.product == product {
                    aliases.append(&mut image.aliases);
                }
            }
            here.sort_by(|a, b| b.0.cmp(a.0));
            if let Some((_, newest)) = here.first_mut() {
                newest.aliases = aliases;
            }
            images.extend(here.into_iter().map(|(_, image)| image));
        }
        images
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
}

fn metadata(report: &MirrorReport) -> Result<Metadata> {
    let report =
        serde_json::to_value(report).map_err(|error| Error::Internal(error.to_string()))?;
    Ok([("report".to_owned(), report)].into_iter().collect())
}
