//! Copying by pull: the target downloads from the source.

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{ImageSource, ImagesPost};

use super::parties::{Source, Target};
use super::transfer::{Job, Wish, wait};
use crate::command::image::fetching::{classified, result};
use crate::context::Context;
use crate::failure::{Cause, Failure, Outcome};

/// Lets the target download the image.
pub(super) async fn pull(job: &Job<'_>, target: &Target) -> Outcome<Fingerprint> {
    let fingerprint = job.image.fingerprint;
    // An alias can be followed later on; but a private image is opened by a secret, which is
    // made for this one image.
    let (reference, secret) = if job.is_private() {
        let secret = job.source.remote.secret(&fingerprint).await?;
        (fingerprint.to_string(), secret.map(|secret| secret.expose().to_owned()))
    } else {
        (job.alias.clone().unwrap_or_else(|| fingerprint.to_string()), None)
    };
    let source = ImageSource {
        fingerprint: reference,
        secret: secret.unwrap_or_default(),
        image_type: job.wish.kind_word(),
        ..common(job.source)
    };
    let size = Some(job.image.size).filter(|size| *size > 0);
    let post = job.wish.request();
    run(job.context, job.source, target, post, source, (Some(fingerprint), size)).await
}

/// Lets the target download what it finds under a name.
pub(super) async fn by_name(
    context: &Context,
    source: &Source,
    target: &Target,
    wish: &Wish,
    name: &str,
) -> Outcome<Fingerprint> {
    let described = ImageSource {
        fingerprint: name.to_owned(),
        image_type: wish.kind_word(),
        ..common(source)
    };
    run(context, source, target, wish.request(), described, (None, None)).await
}

fn common(source: &Source) -> ImageSource {
    ImageSource {
        kind: "image".to_owned(),
        mode: "pull".to_owned(),
        protocol: source.spec().protocol.as_str().to_owned(),
        certificate: source.certificate(),
        project: source.project(),
        keyring: source.keyring(),
        ..ImageSource::default()
    }
}

/// Tries the source's addresses until the target reaches one.
async fn run(
    context: &Context,
    source: &Source,
    target: &Target,
    post: ImagesPost,
    described: ImageSource,
    (fingerprint, size): (Option<Fingerprint>, Option<u64>),
) -> Outcome<Fingerprint> {
    target.must_check(source)?;
    let mut refused: Option<Failure> = None;
    for url in source.urls()? {
        let described = ImageSource { server: url, ..described.clone() };
        let post = ImagesPost { source: Some(described), ..post.clone() };
        let operation = target.server.create_image_from(&post).await.map_err(classified)?;
        match wait(context, &target.server, operation, size).await {
            Ok(operation) => return result(&operation, fingerprint),
            Err(failure) if failure.cause == Cause::Unreachable => {
                refused.get_or_insert(failure);
            }
            Err(failure) => return Err(failure),
        }
    }
    Err(refused.unwrap_or_else(|| Failure::new("the source has no address")))
}
