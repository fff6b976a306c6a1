//! Images from other servers: found at their origin, fetched once for everybody, verified,
//! recorded, and kept current.
//!
//! | module | owns |
//! |---|---|
//! | [`origins`] | connections to servers: who we are, proxies, one client for all that ask at once |
//! | [`pulls`] | one download per fingerprint, shared by its callers |
//! | `sink` | bytes into partial files, counted, checked, compared with what was announced |
//! | `record` | from files to an image, or from an image that is here to what is wished |
//! | [`follow`] | asking origins for newer versions, and putting these in place |
//! | [`url`] | images behind the two headers of a web server |

pub mod follow;
pub mod origins;
pub mod pulls;
mod record;
mod sink;
pub mod url;

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use lxd_proto::alias::AliasName;
use lxd_proto::arch::Architecture;
use lxd_proto::config;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::image::{Image, InstanceType, Properties, UpdateSource};
use lxd_proto::remote::{self, Bases, DEFAULT_ALIAS, Remote, RemoteSpec, Secret, Want};

use crate::app::{App, Caller};
use crate::catalog::{Catalog, Entry, Viewer};
use crate::db::{Change, Origin};
use crate::error::{Error, Result};
use crate::store::blobs::Blobs;

pub use pulls::{Follow, Pulls, Transferred};

/// An image at another server.
#[derive(Debug, Clone)]
pub struct Source {
    /// The server.
    pub remote: RemoteSpec,
    /// An alias there, a fingerprint, or the beginning of one; empty for the default alias.
    pub reference: String,
    /// For a private image of a server that does not trust us.
    pub secret: Option<Secret>,
    /// What the image must make, if that matters.
    pub kind: Option<InstanceType>,
    /// What it must run on; `None` prefers what this machine is.
    pub architecture: Option<Architecture>,
    /// Whether only what the server says now counts: a check is no check by an old catalog.
    pub fresh: bool,
}

impl Source {
    /// The fingerprint, if the reference is a whole one.
    fn fingerprint(&self) -> Option<Fingerprint> {
        self.reference.parse().ok()
    }

    /// The alias, if the reference is no whole fingerprint.
    fn alias(&self) -> Option<&str> {
        match self.fingerprint() {
            Some(_) => None,
            None if self.reference.is_empty() => Some(DEFAULT_ALIAS),
            None => Some(&self.reference),
        }
    }

    fn want(&self) -> Want {
        Want { kind: self.kind, architecture: self.architecture, fresh: self.fresh }
    }
}

/// What an image is to be in our store.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Here for an instance only: it goes when it is not used.
    pub cached: bool,
    /// Shown to strangers. An image that is public already stays so.
    pub public: bool,
    /// Kept current, if it is named by an alias of its origin.
    pub auto_update: bool,
    /// Names for it, described.
    pub aliases: Vec<(AliasName, String)>,
    /// Whether these may be taken from other images.
    pub reuse: bool,
    /// Instead of the origin's.
    pub properties: Option<Properties>,
    /// Instead of the default one.
    pub profiles: Option<Vec<String>>,
    /// File name to record, instead of the origin's.
    pub filename: Option<String>,
    /// Instead of the origin's.
    pub expires_at: Option<Timestamp>,
    /// An instance is made from it now.
    pub used: bool,
}

/// What a reference led to at its origin.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Which image.
    pub(crate) fingerprint: Fingerprint,
    /// The alias it was found by; `None` when by fingerprint.
    pub(crate) alias: Option<String>,
    /// What the origin says about it, if it was asked.
    pub(crate) image: Option<Image>,
}

/// The image that an instance is to be made from, in our store, cached if it was not there.
///
/// By fingerprint an image that is here needs no request. By alias a copy that is kept current
/// is used at once; otherwise the origin is asked which image that is, and no byte is fetched of
/// one that is here. The image counts as used from now on.
///
/// # Errors
/// [`Error::Origin`] names the server and why it did not help; an ambiguous beginning of a
/// fingerprint is refused with the images it could mean.
pub async fn ensure(app: &Arc<App>, source: &Source, follow: &Follow) -> Result<Arc<Entry>> {
    let here = match source.fingerprint() {
        Some(fingerprint) => app.catalog.get(&fingerprint),
        None => preferred(app, source),
    };
    if let Some(entry) = here {
        return used(app, entry).await;
    }
    let remote = origins::connect(app, &source.remote)?;
    let found = asked(app, follow, find(&*remote, source)).await?;
    if let Some(entry) = app.catalog.get(&found.fingerprint) {
        return used(app, entry).await;
    }
    let auto_update = found.alias.is_some() && config_bool(app, config::AUTO_UPDATE_CACHED);
    let wish = Wish { cached: true, auto_update, used: true, ..Wish::default() };
    let (entry, _) = take(app, &remote, source, found, &wish, follow).await?;
    Ok(entry)
}

/// Takes an image from its origin once, as a person asked; tells whether it is new here.
///
/// # Errors
/// [`Error::Origin`] names the server and why it did not help.
pub async fn copy(
    app: &Arc<App>,
    source: &Source,
    wish: &Wish,
    follow: &Follow,
) -> Result<(Arc<Entry>, bool)> {
    if let Some(fingerprint) = source.fingerprint()
        && let Some(entry) = app.catalog.get(&fingerprint)
    {
        return Ok((record::adopt(app, &entry.image.fingerprint, wish, None).await?, false));
    }
    let remote = origins::connect(app, &source.remote)?;
    let found = asked(app, follow, find(&*remote, source)).await?;
    // Before gigabytes are fetched: a name that is taken fails the copy.
    record::check_aliases(app, &found.fingerprint, wish)?;
    take(app, &remote, source, found, wish, follow).await
}

/// Changes an image that is here to what is wished of it.
pub async fn adopt(app: &App, fingerprint: &Fingerprint, wish: &Wish) -> Result<Arc<Entry>> {
    record::adopt(app, fingerprint, wish, None).await
}

/// Lays what is wished over an image that is not recorded yet.
pub fn apply(app: &App, image: &mut Image, wish: &Wish) {
    record::apply(app, image, wish, None);
}

/// Files of our own that other servers may send differences to.
fn bases(app: &App) -> Arc<dyn Bases> {
    Arc::new(StoreBases { catalog: app.catalog.clone(), blobs: app.blobs.clone() })
}

struct StoreBases {
    catalog: Arc<Catalog>,
    blobs: Arc<Blobs>,
}

impl Bases for StoreBases {
    fn rootfs(&self, image: &Fingerprint) -> Option<PathBuf> {
        let entry = self.catalog.get(image)?;
        entry.rootfs.as_ref().map(|rootfs| self.blobs.path(&rootfs.digest))
    }
}

/// Fetches an image that was found, unless it is here, and makes it what is wished.
async fn take(
    app: &Arc<App>,
    remote: &Arc<dyn Remote>,
    source: &Source,
    found: Found,
    wish: &Wish,
    follow: &Follow,
) -> Result<(Arc<Entry>, bool)> {
    let origin = record::FoundAt {
        project: source.remote.project.clone(),
        keyring: source.remote.keyring.clone().unwrap_or_default(),
        source: found.alias.clone().map(|alias| update_source(&source.remote, alias)),
    };
    if app.catalog.get(&found.fingerprint).is_some() {
        let entry = record::adopt(app, &found.fingerprint, wish, Some(&origin)).await?;
        return Ok((entry, false));
    }
    let image = if let Some(image) = found.image {
        image
    } else {
        let secret = source.secret.as_ref();
        asked(app, follow, info(&**remote, &found.fingerprint, secret)).await?
    };
    let secret = source.secret.as_ref();
    let (joined, arrived) = pulls::fetch(app, remote, &image, secret, follow).await?;
    let described = record::Described { image, whole: true };
    let recorded = record::arrived(app, &arrived, &described, wish, Some(&origin)).await;
    let (entry, new) = recorded?;
    drop(joined);
    Ok((entry, new))
}

/// Waits for a server's answer as long as the caller and the daemon are interested.
async fn asked<T>(
    app: &App,
    follow: &Follow,
    question: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        () = follow.cancel.cancelled() => Err(Error::Cancelled),
        () = app.shutdown.cancelled() => Err(Error::ShuttingDown),
        answer = question => answer,
    }
}

/// Asks the origin which image the reference means.
pub(crate) async fn find(remote: &dyn Remote, source: &Source) -> Result<Found> {
    let by_fingerprint =
        |image: Image| Found { fingerprint: image.fingerprint, alias: None, image: Some(image) };
    if let Some(fingerprint) = source.fingerprint() {
        let image = info(remote, &fingerprint, source.secret.as_ref()).await?;
        return Ok(by_fingerprint(image));
    }
    let alias = source.alias().unwrap_or(DEFAULT_ALIAS);
    // A secret opens one image, which has no alias that we may see.
    if source.secret.is_none() {
        match remote.alias(alias, &source.want()).await {
            Ok(entry) => {
                let alias = Some(alias.to_owned());
                return Ok(Found { fingerprint: entry.target, alias, image: None });
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(no_info(remote, error)),
        }
    }
    let missing = || {
        let reference = alias.to_owned();
        no_info(remote, remote::Error::NotFound { reference })
    };
    let prefix: Prefix = alias.parse().map_err(|_| missing())?;
    match remote.image(&prefix, source.secret.as_ref()).await {
        Ok(image) if prefix.matches(&image.fingerprint) => Ok(by_fingerprint(image)),
        Ok(_) => Err(missing()),
        // Tells the candidates when there are several.
        Err(error) if !error.is_not_found() && source.secret.is_none() => {
            let again = remote::resolve(remote, alias, &source.want(), None).await;
            Err(no_info(remote, again.err().unwrap_or(error)))
        }
        Err(error) => Err(no_info(remote, error)),
    }
}

/// What the origin says about one image, which must be that one.
async fn info(
    remote: &dyn Remote,
    fingerprint: &Fingerprint,
    secret: Option<&Secret>,
) -> Result<Image> {
    let image = remote.image(&Prefix::from(*fingerprint), secret).await;
    let image = image.map_err(|error| no_info(remote, error))?;
    if image.fingerprint == *fingerprint {
        Ok(image)
    } else {
        let error = remote::Error::Mismatch { expected: *fingerprint, got: image.fingerprint };
        Err(no_info(remote, error))
    }
}

fn no_info(remote: &dyn Remote, error: remote::Error) -> Error {
    origins::failed(remote.spec(), "Failed getting remote image info", error)
}

/// The copy that is kept current from this alias, if there is one and it is really kept current.
fn preferred(app: &App, source: &Source) -> Option<Arc<Entry>> {
    let alias = source.alias().filter(|_| source.secret.is_none())?;
    follow::interval(app)?;
    let wanted = update_source(&source.remote, alias.to_owned());
    let is_origin = |origin: &Origin| {
        let keyring = source.remote.keyring.as_deref();
        origin.project == source.remote.project
            && keyring.is_none_or(|keyring| keyring == origin.keyring)
    };
    let architectures = source.architecture.map(|wanted| vec![wanted]).or_else(|| {
        let host = Architecture::host()?;
        Some(std::iter::once(host).chain(host.personalities().iter().copied()).collect())
    });
    app.catalog
        .images(Viewer::Trusted, None)
        .into_iter()
        .filter(|entry| {
            let image = &entry.image;
            image.auto_update
                && image.update_source.as_ref().is_some_and(|source| same(source, &wanted))
                && entry.origin.as_ref().is_some_and(is_origin)
                && source.kind.is_none_or(|kind| kind == image.kind)
                && architectures.as_ref().is_none_or(|all| all.contains(&image.architecture))
        })
        .max_by_key(|entry| entry.image.created_at)
}

/// Whether both mean the same alias of the same server.
fn same(a: &UpdateSource, b: &UpdateSource) -> bool {
    a.server == b.server && a.protocol == b.protocol && a.alias == b.alias
}

/// How an image row records where it came from.
fn update_source(remote: &RemoteSpec, alias: String) -> UpdateSource {
    UpdateSource {
        alias,
        certificate: remote.certificate.clone(),
        protocol: remote.protocol.as_str().to_owned(),
        server: remote.address.clone(),
        image_type: String::new(),
    }
}

async fn used(app: &App, entry: Arc<Entry>) -> Result<Arc<Entry>> {
    let fingerprint = entry.image.fingerprint;
    app.db.commit(Change::Used(fingerprint, app.clock.now())).await?;
    Ok(app.catalog.get(&fingerprint).unwrap_or(entry))
}

/// A configuration value as a whole number; its default when it is none.
pub(crate) fn config_number(app: &App, key: &str) -> i64 {
    let default = || config::lookup(key).and_then(|key| key.default.parse().ok());
    let set = app.catalog.config().get(key).and_then(|text| text.parse().ok());
    set.or_else(default).unwrap_or_default()
}

/// A configuration value as yes or no; its default when it is neither.
fn config_bool(app: &App, key: &str) -> bool {
    let default = || config::lookup(key).and_then(|key| config::parse_bool(key.default));
    let set = app.catalog.config().get(key).and_then(|text| config::parse_bool(text));
    set.or_else(default).unwrap_or_default()
}

/// Who events about what the daemon does by itself name.
pub(crate) fn by_itself() -> Caller {
    let requestor = lxd_proto::event::Requestor {
        username: String::new(),
        protocol: "internal".to_owned(),
        address: String::new(),
    };
    Caller { viewer: Viewer::Trusted, requestor }
}
