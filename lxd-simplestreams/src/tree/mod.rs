//! One tree on a web server: its documents, asked for no more than needed, as one listing.

mod documents;
mod failure;
mod provenance;
mod shared;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use lxd_proto::net::{Access, Http};
use lxd_proto::remote::{Error, Result};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::cache::{CacheFile, Key};
use crate::convert::{self, Listed};
use crate::listing::{self, Damaged, Listing, Rules};
use crate::path::TreePath;
use failure::{Failure, copy, no_tree};
use provenance::{Known, Provenance};
use trust::Trust;

pub(crate) use shared::tree;

/// Catalogs of one tree.
const MAX_CATALOGS: usize = 64;
/// Catalogs that are asked for at once.
const AT_ONCE: usize = 4;
/// What was asked for less than this ago is not asked for again: questions come in bursts.
/// Short enough that nobody who has just published something misses it.
const FRESH: Duration = Duration::from_millis(250);

/// How sure the caller needs to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// All known catalogs are current.
    Catalogs,
    /// So is the list of catalogs.
    Index,
}

/// Whether what a server said before it went away will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remembered {
    /// Better than nothing.
    Counts,
    /// Only what it says now.
    DoesNot,
}

/// A tree. Clones of the `Arc` it lives in share its listing and its connections.
#[derive(Debug)]
pub(crate) struct Tree {
    http: Http,
    root: Url,
    key: Key,
    cache: CacheFile,
    rules: Rules,
    /// Whose signatures count; `None` for a tree that nobody has to have signed.
    trust: Option<Arc<Trust>>,
    /// Held while the server is asked: whoever comes meanwhile gets the same answer.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    loaded: bool,
    current: Option<Arc<Current>>,
    catalogs_checked: Option<Instant>,
    index_checked: Option<Instant>,
    /// When and how the last question failed, if it did.
    failed: Option<(Instant, Arc<Error>)>,
    /// Whether `current` may be shown although the last question failed.
    usable: bool,
}

/// A listing and where it is from.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) listing: Listing,
    provenance: Provenance,
}

/// What the server says about a catalog.
enum Answer {
    /// It is the one that we have; perhaps under a new version.
    Same(Known),
    /// It is another one.
    New(Known, Vec<Listed>),
}

impl Tree {
    fn new(
        address: &Url,
        certificate: &str,
        access: &Access,
        key: Key,
        trust: Option<Trust>,
    ) -> Result<Self> {
        Ok(Self {
            http: Http::new(access, certificate)?,
            root: address.clone(),
            key,
            cache: CacheFile::new(access.cache.as_deref(), key),
            rules: Rules::for_address(address.as_str()),
            trust: trust.map(Arc::new),
            state: Mutex::default(),
        })
    }

    /// The way to the server.
    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// Where a file of the tree is.
    pub(crate) fn url(&self, path: &TreePath) -> Url {
        let mut url = self.root.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.as_str().split('/'));
        }
        url
    }

    /// What messages call the tree: its address without user and password.
    pub(crate) fn name(&self) -> String {
        let mut url = self.root.clone();
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        url.to_string()
    }

    /// The listing in hand, whatever its age.
    pub(crate) async fn held(&self) -> Option<Arc<Current>> {
        self.state.lock().await.current.clone()
    }

    /// The listing of now; an older one, where that counts, when the server fails in passing.
    pub(crate) async fn current(&self, need: Need, remembered: Remembered) -> Result<Arc<Current>> {
        let arrived = Instant::now();
        let mut state = self.state.lock().await;
        if !state.loaded {
            state.current = self.load().await;
            state.loaded = true;
        }
        // A failure was for all who waited meanwhile: fifty callers do not wait for a dead server
        // one by one.
        let answered = state.failed.as_ref().is_some_and(|(when, _)| *when >= arrived);
        if answered || (state.current.is_some() && state.is_fresh(need)) {
            return state.answer(remembered);
        }
        let known = state.current.clone();
        let index = need == Need::Index
            || known.as_ref().is_none_or(|known| known.provenance.index_is_due());
        let answer = match self.refresh(known.clone(), index).await {
            // The catalog has moved.
            Err(failure) if !index && failure.error.is_not_found() => {
                self.refresh(known.clone(), true).await
            }
            answer => answer,
        };
        match answer {
            Ok(current) => state.set(current, index),
            Err(failure) => {
                // Only what passes is waited for with an old listing in hand.
                let usable = known.filter(|known| failure.passing && self.vouched(known));
                if let (Some(known), Remembered::Counts) = (&usable, remembered) {
                    tracing::warn!(
                        server = self.name(), unchanged_s = known.provenance.age().as_secs(),
                        error = %failure.error,
                        "the server does not answer properly; its images are shown as last seen"
                    );
                }
                state.fail(no_tree(failure.error, &self.name()), usable.is_some());
            }
        }
        state.answer(remembered)
    }

    /// Forgets a listing that turned out to be damaged.
    pub(crate) async fn forget(&self, damaged: Damaged) {
        tracing::warn!(server = self.name(), error = %damaged, "asking the server again");
        let mut state = self.state.lock().await;
        *state = State { loaded: true, ..State::default() };
        let cache = self.cache.clone();
        blocking(move || cache.remove()).await;
    }

    async fn load(&self) -> Option<Arc<Current>> {
        let (cache, key) = (self.cache.clone(), self.key);
        let loaded = blocking(move || {
            let listing = cache.load()?;
            let provenance = Provenance::read(listing.header(), key)?;
            Some(Current { listing, provenance })
        });
        loaded.await.flatten().map(Arc::new)
    }

    /// Asks the server for its catalogs, and for the list of them when `index` says so.
    async fn refresh(
        &self,
        known: Option<Arc<Current>>,
        index: bool,
    ) -> Result<Arc<Current>, Failure> {
        if let Some(trust) = self.trust.clone() {
            blocking(move || trust.recall()).await;
        }
        let provenance = known.as_ref().map(|known| &known.provenance);
        let mut next = match provenance {
            // One whose signature has expired may have been signed anew.
            Some(provenance) if !index && self.admits_index(provenance) => provenance.clone(),
            _ => self.index(provenance).await?,
        };
        let old = provenance.map_or(&[][..], |provenance| &provenance.catalogs);
        let answers: Vec<Answer> = stream::iter(next.catalogs.clone())
            .map(|wanted| {
                let known = old.iter().find(|known| known.path == wanted.path).cloned();
                self.catalog(wanted, known)
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        next.catalogs = answers.iter().map(|answer| answer.known().clone()).collect();
        self.remember(&next).await;
        if let Some(known) = known.as_ref().filter(|known| known.provenance.is_same(&next)) {
            return Ok(Arc::clone(known));
        }
        next.touch();
        let (cache, rules) = (self.cache.clone(), self.rules);
        let built = blocking(move || {
            let listing = build(known.as_deref(), &next, answers, rules)?;
            cache.store(&listing);
            Ok(Arc::new(Current { listing, provenance: next }))
        });
        match built.await {
            Some(Ok(current)) => Ok(current),
            Some(Err(reason)) => Err(self.undecodable(self.index_path(), reason)),
            None => {
                Err(self.undecodable(self.index_path(), "reading it was interrupted".to_owned()))
            }
        }
    }

    /// Nothing older than these documents is taken from now on.
    async fn remember(&self, taken: &Provenance) {
        let Some(trust) = self.trust.clone() else { return };
        let taken: Vec<Known> = taken.documents().cloned().collect();
        blocking(move || {
            let stamps =
                taken.iter().filter_map(|known| Some((known.path.as_str(), known.stamp.as_ref()?)));
            trust.remember(stamps);
        })
        .await;
    }

    fn admits_index(&self, known: &Provenance) -> bool {
        self.admit(self.index_path(), known.index.stamp.as_ref()).is_ok()
    }

    /// Whether what is known has been signed in a way that still counts.
    fn vouched(&self, known: &Current) -> bool {
        known
            .provenance
            .documents()
            .all(|known| self.admit(&known.path, known.stamp.as_ref()).is_ok())
    }
}

impl State {
    fn is_fresh(&self, need: Need) -> bool {
        let checked = match need {
            Need::Catalogs => self.catalogs_checked,
            Need::Index => self.index_checked,
        };
        checked.is_some_and(|checked| checked.elapsed() < FRESH)
    }

    fn set(&mut self, current: Arc<Current>, index: bool) {
        self.current = Some(current);
        self.failed = None;
        self.usable = true;
        let now = Some(Instant::now());
        self.catalogs_checked = now;
        if index {
            self.index_checked = now;
        }
    }

    /// Nobody who has just failed is asked again at once, about the index either.
    fn fail(&mut self, error: Error, usable: bool) {
        let now = Instant::now();
        self.failed = Some((now, Arc::new(error)));
        self.usable = usable;
        if usable {
            self.catalogs_checked = Some(now);
            self.index_checked = Some(now);
        }
    }

    /// How the last question ended, for another caller.
    fn answer(&self, remembered: Remembered) -> Result<Arc<Current>> {
        match (&self.current, &self.failed) {
            (Some(current), Some(_)) if self.usable && remembered == Remembered::Counts => {
                Ok(Arc::clone(current))
            }
            (_, Some((_, error))) => Err(copy(error)),
            (Some(current), None) => Ok(Arc::clone(current)),
            (None, None) => Err(Error::Unsupported("nobody was asked".to_owned())),
        }
    }
}

impl Answer {
    fn known(&self) -> &Known {
        match self {
            Self::Same(known) | Self::New(known, _) => known,
        }
    }
}

/// The listing of what the answers say, with what was known about catalogs that are the same.
fn build(
    known: Option<&Current>,
    next: &Provenance,
    answers: Vec<Answer>,
    rules: Rules,
) -> Result<Listing, String> {
    let header = next.to_bytes();
    let same = answers.iter().all(|answer| matches!(answer, Answer::Same(_)));
    let too_large = |error: listing::TooLarge| error.to_string();
    if let Some(known) = known
        && same
        && known.provenance.has_same_catalogs(next)
    {
        return known.listing.with_header(&header).map_err(too_large);
    }
    let mut found = Vec::new();
    for (number, answer) in (0_u16..).zip(answers) {
        match (answer, known) {
            (Answer::New(_, images), _) => {
                found.extend(images.into_iter().map(|listed| (number, listed)));
            }
            (Answer::Same(same), Some(known)) => {
                let Some(old) = known.provenance.number(&same.path) else { continue };
                for listed in known.listing.listed() {
                    let (catalog, listed) = listed.map_err(|error| error.to_string())?;
                    if catalog == old {
                        found.push((number, listed));
                    }
                }
            }
            (Answer::Same(_), None) => {}
        }
    }
    if found.len() > convert::MAX_IMAGES {
        return Err(format!("its catalogs have more than {} images", convert::MAX_IMAGES));
    }
    listing::build(&header, found, rules).map_err(too_large)
}

/// Runs what needs time or waits for a disk where it holds up nobody; `None` if it panics.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// The SHA-256 of a document, in hex.
fn sha256(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}
