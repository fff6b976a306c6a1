//! Copying by push: the source uploads to the target.

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{ImageExportPost, ImageSource, ImagesPost};

use super::parties::Target;
use super::transfer::{Job, wait};
use crate::command::image::fetching::classified;
use crate::failure::{Cause, Failure, Outcome};

/// Lets the source upload the image.
pub(super) async fn push(job: &Job<'_>, target: &Target) -> Outcome<Fingerprint> {
    let Some(server) = &job.source.server else {
        let name = &job.source.name;
        return Err(Failure::new(format!("{name}: takes no orders from this client"))
            .hint("Only an LXD server that trusts this client can push; use another --mode."));
    };
    let urls = target.urls()?;
    let fingerprint = job.image.fingerprint;
    let post = ImagesPost {
        properties: Some(job.image.properties.clone()),
        expires_at: job.image.expires_at,
        source: Some(ImageSource {
            mode: "push".to_owned(),
            fingerprint: fingerprint.to_string(),
            ..ImageSource::default()
        }),
        ..job.wish.request()
    };
    // The target expects the image from now on, from whoever has this secret.
    let expected = target.server.create_image_from(&post).await.map_err(classified)?;
    let metadata = expected.metadata.as_ref();
    let secret = metadata.and_then(|metadata| metadata.get("secret")?.as_str().map(str::to_owned));
    let secret = secret.ok_or_else(|| {
        Failure::new(format!("{}: wants no image to be pushed to it", target.name))
    })?;
    let order = ImageExportPost {
        secret,
        certificate: target.certificate(),
        project: target.project(),
        profiles: job.wish.profiles.clone(),
        ..ImageExportPost::default()
    };
    let mut done: Outcome<Fingerprint> = Err(Failure::new("the target has no address"));
    for url in urls {
        let order = ImageExportPost { target: url, ..order.clone() };
        done = async {
            let operation = server.export_to(&fingerprint, &order).await.map_err(classified)?;
            wait(job.context, server, operation, Some(job.image.size)).await?;
            Ok(fingerprint)
        }
        .await;
        if !matches!(&done, Err(failure) if failure.cause == Cause::Unreachable) {
            break;
        }
    }
    // Used or not, nobody shall upload with it any more; a server of ours has ended it by itself.
    let _ = target.server.cancel_operation(&expected.id).await;
    let fingerprint = done?;
    job.complete(target, fingerprint).await?;
    Ok(fingerprint)
}
