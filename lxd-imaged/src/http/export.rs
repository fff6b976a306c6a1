//! `/1.0/images/FINGERPRINT/export`: the files of an image, whole or in ranges.
//!
//! A split image is multipart with a boundary that follows from its fingerprint: the body has a
//! known length and always the same bytes, so that it too can be fetched in ranges.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use lxd_proto::event::action;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::InstanceType;
use lxd_proto::routes::query;

use super::Daemon;
use super::extract::{self, Query};
use super::ranged::{Ranged, whole};
use super::reply::Reply;
use crate::app::{App, Caller};
use crate::catalog::Entry;
use crate::db::BlobRow;
use crate::error::{Error, Result};
use crate::service::{images, secrets};
use crate::store::blobs::{OpenBlob, Segment};
use crate::store::outbox::Outbox;

pub(super) async fn get(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
    outbox: Option<Extension<Arc<Outbox>>>,
    OriginalUri(uri): OriginalUri,
    method: Method,
    headers: HeaderMap,
) -> Reply {
    let export = async {
        let prefix = extract::prefix(&fingerprint)?;
        let secret = Query::of(&uri).get(query::SECRET).map(str::to_owned);
        let opened = secret.and_then(|secret| secrets::open(&app, &prefix, &secret));
        let (entry, transfer) = match opened {
            Some((entry, transfer)) => (entry, Some(transfer)),
            None => (images::get(&app, &caller, &prefix)?, None),
        };
        let body = body(&app, &entry).await?;
        if method == Method::GET && entry.rootfs.is_none() {
            images::tell(&app, &caller, action::IMAGE_RETRIEVED, &entry.image.fingerprint, &[]);
        }
        let response = body.respond(&app, &headers, outbox.map(|Extension(outbox)| outbox));
        Ok::<_, Error>(response.map(|body| match transfer {
            None => body,
            // The secret works as long as what it opened is on its way.
            Some(transfer) => Body::new(body.map_frame(move |frame| {
                let _ = &transfer;
                frame
            })),
        }))
    };
    match export.await {
        Ok(response) => Reply::Raw(response),
        Err(error) => error.into(),
    }
}

/// The files of an image as one body.
async fn body(app: &App, entry: &Entry) -> Result<Ranged> {
    let head = open(app, &entry.head).await?;
    let fingerprint = entry.image.fingerprint;
    let mut body = Ranged {
        segments: Vec::new(),
        etag: format!("\"{fingerprint}\""),
        content_type: "application/octet-stream".into(),
        disposition: None,
        modified: head.modified,
        // An image never changes under its fingerprint; but it may stop being public.
        cache_control: "private, no-cache",
    };
    match &entry.rootfs {
        None => {
            let name = format!("{fingerprint}{}", entry.head.extension);
            body.disposition = Some(format!("inline;filename={name}"));
            body.segments.push(whole(head));
        }
        Some(rootfs) => {
            let part = match entry.image.kind {
                InstanceType::Container => "rootfs",
                InstanceType::VirtualMachine => "rootfs.img",
            };
            let boundary = boundary(&fingerprint);
            let meta = format!("meta-{fingerprint}{}", entry.head.extension);
            let root = format!("{fingerprint}{}", rootfs.extension);
            body.content_type = format!("multipart/form-data; boundary={boundary}");
            body.segments = vec![
                inline(part_head("", &boundary, "metadata", &meta)),
                whole(head),
                inline(part_head("\r\n", &boundary, part, &root)),
                whole(open(app, rootfs).await?),
                inline(format!("\r\n--{boundary}--\r\n")),
            ];
        }
    }
    Ok(body)
}

/// Opens a blob that is what its record says, as far as can be seen without reading it.
pub(super) async fn open(app: &App, row: &BlobRow) -> Result<OpenBlob> {
    let lost = |how: &str| {
        Error::Internal(format!(
            "the blob {} {how}; import the same image again, or stop lxd-imaged and run its fsck",
            row.digest
        ))
    };
    let blob = app.blobs.get(&row.digest).await?.ok_or_else(|| lost("is missing"))?;
    if blob.has(row.size) { Ok(blob) } else { Err(lost("has not all its bytes")) }
}

fn inline(text: String) -> Segment {
    Segment::Inline(Bytes::from(text))
}

/// Cannot occur in a file by chance: it is the hash of the two files around it.
fn boundary(fingerprint: &Fingerprint) -> String {
    format!("lxd-imaged-{fingerprint}")[..70].to_owned()
}

fn part_head(before: &str, boundary: &str, name: &str, filename: &str) -> String {
    format!(
        "{before}--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
}
