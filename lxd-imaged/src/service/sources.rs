//! New images that come from another server or a URL, or are announced by one that will push.

use std::sync::Arc;

use lxd_proto::alias::{AliasName, ImageAlias};
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{ImageSource, ImagesPost, InstanceType, Properties};
use lxd_proto::operation::{Operation, description};
use lxd_proto::remote::Secret;
use lxd_proto::time;
use serde_json::{Value, json};

use super::{images, instances, secrets};
use crate::acquire::{self, Follow, Source, Transferred, Wish, follow, origins, url};
use crate::app::{App, Caller};
use crate::catalog::Entry;
use crate::error::{Error, IMAGE_NOT_FOUND, Result};
use crate::ops::{About, Context, image_metadata};

/// Key of the progress that LXD's client shows.
const PROGRESS: &str = "download_progress";
/// The longest alias of another server, in bytes.
const LONGEST_NAME: usize = 255;
/// Aliases that one request may set.
const MOST_ALIASES: usize = 256;

/// Begins what `post` asks for, as an operation.
///
/// # Errors
/// [`Error::InvalidImagesJson`] and [`Error::BadRequest`] for what makes no sense; what goes
/// wrong later is told by the operation.
pub fn create(app: &Arc<App>, caller: &Caller, mut post: ImagesPost) -> Result<Operation> {
    let source = post
        .source
        .take()
        .ok_or_else(|| Error::BadRequest("the request names no source".into()))?;
    match (source.mode.as_str(), source.kind.as_str()) {
        ("push", _) => expect(app, &source, post),
        (_, "image") => pull(app, &source, post),
        (_, "url") => web(app, source.url, post),
        (_, "instance" | "container" | "virtual-machine" | "snapshot") => {
            instances::publish(app, caller, ImagesPost { source: Some(source), ..post })
        }
        _ => Err(Error::InvalidImagesJson),
    }
}

fn pull(app: &Arc<App>, given: &ImageSource, post: ImagesPost) -> Result<Operation> {
    let reference = match (given.alias.as_str(), given.fingerprint.as_str()) {
        ("", "") => {
            let text = "must specify one of alias or fingerprint for init from image";
            return Err(Error::BadRequest(text.into()));
        }
        // Some clients put an alias here.
        ("", fingerprint) => fingerprint,
        (alias, _) => alias,
    };
    let remote = origins::spec(&given.server, &given.protocol, &given.certificate, &given.project)?;
    let remote = origins::signed(remote, &given.keyring)?;
    let kind = match given.image_type.as_str() {
        "" => None,
        text => Some(
            text.parse::<InstanceType>().map_err(|error| Error::BadRequest(error.to_string()))?,
        ),
    };
    let secret = Some(given.secret.clone()).filter(|secret| !secret.is_empty()).map(Secret::new);
    let reference = reference.to_owned();
    let source = Source { remote, reference, secret, kind, architecture: None, fresh: false };
    let wish = wish(post)?;
    run(app, |app, follow| async move { acquire::copy(&app, &source, &wish, &follow).await })
}

fn web(app: &Arc<App>, address: String, post: ImagesPost) -> Result<Operation> {
    if address.is_empty() {
        return Err(Error::BadRequest("Missing URL".into()));
    }
    origins::https(&address)?;
    let wish = Wish { auto_update: false, ..wish(post)? };
    run(app, |app, follow| async move { url::import(&app, &address, &wish, &follow).await })
}

/// The operation around `work`: cancellable, with progress.
fn run<W, F>(app: &Arc<App>, work: W) -> Result<Operation>
where
    W: FnOnce(Arc<App>, Follow) -> F,
    F: Future<Output = Result<(Arc<Entry>, bool)>> + Send + 'static,
{
    let about = About { description: description::IMAGE_DOWNLOAD, ..About::default() };
    let task = app.clone();
    app.operations.spawn(about, move |context| {
        let work = work(task, shown(context));
        async move {
            let (entry, _) = work.await?;
            Ok(Some(image_metadata(&entry.image.fingerprint, entry.image.size)))
        }
    })
}

/// A download as its operation shows it. It can be cancelled from now on.
pub fn shown(context: Context) -> Follow {
    context.may_cancel(true);
    let cancel = context.cancelled();
    let tell = move |now: Transferred| context.transfer(PROGRESS, now.text(), numbers(now));
    Follow { cancel, tell: Arc::new(tell) }
}

/// The numbers behind the text, as strings: LXD's client expects no others.
pub(super) fn numbers(now: Transferred) -> Value {
    json!({
        "stage": "download",
        "percent": now.percent().unwrap_or_default().to_string(),
        "speed": now.speed.to_string(),
        "processed": now.done.to_string(),
        "total": now.total.unwrap_or_default().to_string(),
    })
}

/// Expects another server to push the image: a token operation holds the secret for that.
fn expect(app: &Arc<App>, given: &ImageSource, post: ImagesPost) -> Result<Operation> {
    // LXD's client names a public image by its alias here.
    if given.fingerprint.is_empty() || given.fingerprint.len() > LONGEST_NAME {
        return Err(Error::BadRequest("a push needs the fingerprint of the image".into()));
    }
    secrets::expect_push(app, &given.fingerprint, wish(post)?)
}

/// What the request wants the image to be.
pub fn wish(post: ImagesPost) -> Result<Wish> {
    if let Some(properties) = &post.properties {
        images::check_properties(properties)?;
    }
    let profiles = post.profiles.map(|all| images::known_profiles(Some(all))).transpose()?;
    Ok(Wish {
        public: post.public,
        auto_update: post.auto_update,
        aliases: aliases(post.aliases)?,
        // LXD's client sends an empty object when it has nothing to say.
        properties: post.properties.filter(|properties: &Properties| !properties.is_empty()),
        profiles,
        filename: Some(post.filename).filter(|name| !name.is_empty()),
        expires_at: Some(post.expires_at).filter(|time| *time != time::zero()),
        ..Wish::default()
    })
}

fn aliases(given: Vec<ImageAlias>) -> Result<Vec<(AliasName, String)>> {
    if given.len() > MOST_ALIASES {
        return Err(Error::BadRequest(format!("more than {MOST_ALIASES} aliases at once")));
    }
    let name = |alias: ImageAlias| {
        let name = alias.name.try_into();
        let name = name.map_err(|error| Error::BadRequest(format!("invalid alias: {error}")));
        Ok((name?, alias.description))
    };
    given.into_iter().map(name).collect()
}

/// Asks the origin of an image for a newer version, as an operation.
pub fn refresh(app: &Arc<App>, fingerprint: &Fingerprint) -> Result<Operation> {
    if app.catalog.get(fingerprint).is_none() {
        return Err(IMAGE_NOT_FOUND);
    }
    let about = About::image(description::IMAGE_REFRESH, fingerprint);
    let about = About { resources: None, ..about };
    let (task, fingerprint) = (app.clone(), *fingerprint);
    app.operations.spawn(about, move |context| {
        let follow = shown(context);
        async move {
            let refreshed = follow::refresh(&task, &fingerprint, &follow).await?;
            let result = [("refreshed".to_owned(), Value::from(refreshed))];
            Ok(Some(result.into_iter().collect()))
        }
    })
}
