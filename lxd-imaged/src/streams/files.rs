//! The files of an image as a simplestreams server has them: by what they hash to, under names
//! that follow from what they are.

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::FileType;
use lxd_proto::image::InstanceType;
use lxd_proto::routes;
use lxd_simplestreams::RootKind;
use lxd_simplestreams::publish::{PublishedFile, metadata_name, root_name};

use crate::catalog::Entry;
use crate::db::BlobRow;

/// The metadata of a split image, or all of a unified one, with its name.
pub fn head(entry: &Entry) -> (&'static str, &BlobRow) {
    (metadata_name(entry.rootfs.is_none()), &entry.head)
}

/// The root file of a split image, and what it is.
pub(super) fn root(entry: &Entry) -> Option<(RootKind, &BlobRow)> {
    let root = entry.rootfs.as_ref()?;
    let kind = match entry.image.kind {
        InstanceType::VirtualMachine => RootKind::DiskKvm,
        InstanceType::Container if root.extension == FileType::Squashfs.extension() => {
            RootKind::Squashfs
        }
        InstanceType::Container => RootKind::Tarball,
    };
    Some((kind, root))
}

/// The files of an image with their names.
pub fn all(entry: &Entry) -> impl Iterator<Item = (&'static str, &BlobRow)> {
    std::iter::once(head(entry)).chain(root(entry).map(|(kind, blob)| (root_name(kind), blob)))
}

/// Whether an image has this file under this name.
pub fn has(entry: &Entry, digest: &Fingerprint, name: &str) -> bool {
    all(entry).any(|(known, blob)| known == name && blob.digest == *digest)
}

/// A file as catalogs name it.
pub(super) fn published(name: &str, blob: &BlobRow) -> PublishedFile {
    let path = routes::STREAMS_FILE.url(&[&blob.digest.to_string(), name]);
    // Paths of a tree are told from its root on.
    let path = path.trim_start_matches('/').to_owned();
    PublishedFile { path, size: blob.size, sha256: blob.digest }
}
