//! Bundles: what one of a mirror holds, and what is done when the images of one have been sent.

use std::collections::HashSet;
use std::sync::Arc;

use lxd_proto::alias::AliasName;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::Verified;
use lxd_proto::mirror::bundle::{BundledFile, BundledImage, FORMAT, Manifest, MirrorImportPost};
use lxd_proto::operation::{Operation, description};

use super::run::{Place, Run};
use super::{about, named, takes_bundles};
use crate::app::App;
use crate::catalog::Entry;
use crate::db::{BlobRow, Member, MirrorRecord};
use crate::error::Result;
use crate::ops::About;

/// What a bundle of a mirror holds now: its images that have passed their check.
pub fn manifest(app: &App, name: &str) -> Result<Manifest> {
    let record = app.catalog.mirrors.get(&named(name)?)?;
    let mut manifest = Manifest {
        format: FORMAT.to_owned(),
        mirror: record.name.clone(),
        keep: record.config.keep,
        created_at: app.clock.now(),
        images: Vec::new(),
        files: Vec::new(),
    };
    let mut known: HashSet<Fingerprint> = HashSet::new();
    for (fingerprint, member) in &record.members {
        let Some(entry) = app.catalog.get(fingerprint) else { continue };
        if entry.image.verified != Verified::Yes {
            continue;
        }
        for blob in entry.blobs() {
            if known.insert(blob.digest) {
                manifest.files.push(BundledFile { sha256: blob.digest, size: blob.size });
            }
        }
        manifest.images.push(bundled(&record, &entry, member));
    }
    Ok(manifest)
}

fn bundled(record: &MirrorRecord, entry: &Entry, member: &Member) -> BundledImage {
    let image = &entry.image;
    let ours = |name: &str| record.aliases.get(name) == Some(&image.fingerprint);
    let names = image.aliases.iter().filter(|alias| ours(&alias.name));
    BundledImage {
        fingerprint: image.fingerprint,
        product: member.product.clone(),
        serial: member.serial.clone(),
        kind: image.kind,
        architecture: image.architecture,
        properties: image.properties.clone(),
        aliases: names.filter_map(|it| AliasName::try_from(it.name.clone()).ok()).collect(),
        created_at: image.created_at,
        expires_at: image.expires_at,
        filename: image.filename.clone(),
        size: image.size,
        metadata: entry.head.digest,
        root: entry.rootfs.as_ref().map(|blob: &BlobRow| blob.digest),
    }
}

/// The images of a bundle have been sent, as far as they were sound: does the rest of a run, as an
/// operation. What has not arrived is told as failed.
pub fn import(app: &Arc<App>, name: &str, post: MirrorImportPost) -> Result<Operation> {
    let name = named(name)?;
    let config = app.catalog.mirrors.get(&name)?.config.clone();
    takes_bundles(&config)?;
    let place = Place::take(app, &name)?;
    let about = About { description: description::MIRROR_RUN, ..about(&name) };
    let task = app.clone();
    app.operations.spawn(about, move |context| {
        context.may_cancel(true);
        place.is(&context);
        async move {
            let run = Run { app: task, name, config, context };
            let outcome = run.arrived(&post.images).await;
            drop(place);
            outcome
        }
    })
}
