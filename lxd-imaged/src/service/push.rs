//! Sending an image to another server that has announced it.

use std::sync::Arc;

use lxd_proto::client::{FilePart, LxdClient, UploadBody, UploadOptions};
use lxd_proto::event::action;
use lxd_proto::fingerprint::Prefix;
use lxd_proto::image::ImageExportPost;
use lxd_proto::operation::{Operation, description};
use lxd_proto::remote::{self, Progress, RemoteSpec, Secret};
use tokio::fs::File;

use super::images;
use crate::acquire::origins;
use crate::app::{App, Caller};
use crate::catalog::Entry;
use crate::error::{Error, IMAGE_NOT_FOUND, Result};
use crate::ops::About;

/// Connects to the target at once, then sends the files as an operation.
///
/// # Errors
/// [`Error::Origin`] when the target cannot be reached; what goes wrong later is told by the
/// operation.
pub async fn push(
    app: &Arc<App>,
    caller: &Caller,
    reference: &str,
    post: ImageExportPost,
) -> Result<Operation> {
    let entry = named(app, caller, reference)?;
    let spec = origins::spec(&post.target, "lxd", &post.certificate, &post.project)?;
    let target = LxdClient::new(spec.clone(), &origins::access_now(app))
        .map_err(|error| origins::failed(&spec, "Failed to connect", error))?;
    target.server().await.map_err(|error| origins::failed(&spec, "Failed to connect", error))?;
    let secret = Some(post.secret).filter(|secret| !secret.is_empty()).map(Secret::new);
    let about = About { description: description::IMAGE_DOWNLOAD, ..About::default() };
    let context = [("target", post.target.as_str())];
    images::tell(app, caller, action::IMAGE_RETRIEVED, &entry.image.fingerprint, &context);
    let task = app.clone();
    app.operations.spawn(about, move |context| async move {
        context.may_cancel(true);
        let cancel = context.cancelled();
        let sent = send(&task, &target, &spec, &entry, secret);
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled.into()),
            () = task.shutdown.cancelled() => Err(Error::ShuttingDown.into()),
            sent = sent => sent.map(|()| None).map_err(Into::into),
        }
    })
}

/// The image with this fingerprint, or its beginning, or an alias: LXD's client names a public
/// image so.
fn named(app: &App, caller: &Caller, reference: &str) -> Result<Arc<Entry>> {
    let by_prefix = reference.parse::<Prefix>().map_err(|_| IMAGE_NOT_FOUND);
    by_prefix.and_then(|prefix| images::get(app, caller, &prefix)).or_else(|error| {
        let alias = app.catalog.alias(caller.viewer, reference).map_err(|_| error)?;
        images::get(app, caller, &alias.target.into())
    })
}

async fn send(
    app: &App,
    target: &LxdClient,
    spec: &RemoteSpec,
    entry: &Entry,
    secret: Option<Secret>,
) -> Result<()> {
    let fingerprint = entry.image.fingerprint;
    let failed = |error| origins::failed(spec, "cannot push the image", error);
    let head = part(app, entry, false).await?;
    let body = match &entry.rootfs {
        None => UploadBody::Unified(head),
        Some(_) => UploadBody::Split {
            metadata: head,
            rootfs: part(app, entry, true).await?,
            kind: entry.image.kind,
        },
    };
    let options =
        UploadOptions { fingerprint: Some(fingerprint), secret, ..UploadOptions::default() };
    let operation = target.upload(body, &options, &Progress::default()).await.map_err(failed)?;
    let opens = operation.metadata.as_ref().and_then(|metadata| metadata.get("secret"));
    let opens = opens.and_then(|secret| secret.as_str()).map(|s| Secret::new(s.to_owned()));
    let ended = target.wait_with_secret(&operation.id, opens.as_ref()).await.map_err(failed)?;
    if ended.err.is_empty() && ended.status == lxd_proto::status::OperationStatus::Success {
        return Ok(());
    }
    Err(failed(remote::Error::Operation(Box::new(ended))))
}

/// One file of the image, read as it is sent.
async fn part(app: &App, entry: &Entry, rootfs: bool) -> Result<FilePart> {
    let fingerprint = entry.image.fingerprint;
    let (blob, filename) = match (&entry.rootfs, rootfs) {
        (Some(rootfs), true) => (rootfs, format!("{fingerprint}.rootfs")),
        _ => (&entry.head, fingerprint.to_string()),
    };
    let path = app.blobs.path(&blob.digest);
    let file = File::open(&path).await;
    let file = file.map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
    Ok(FilePart { filename, length: Some(blob.size), reader: Box::pin(file) })
}
