//! Images that come into a tree from another server: fetched, verified, and with their names.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use lxd_proto::filter::Filter;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::Image;
use lxd_proto::remote::{Error, Fetch, FileRole, IncomingFile, Remote, Sink, fetch};
use tokio::io::AsyncWriteExt;

use super::LocalTree;
use super::disk;
use super::error::{Broken, Result, TreeError};
use super::intake::{Inventory, Means, Source, incoming};
use super::report::TakenReport;
use super::state::Borrowed;
use super::withdraw::Removal;
use crate::publish::{architecture_name, serial_of};

impl LocalTree {
    /// Fetches the public images of `remote` (called `name`) that the tree does not have, and
    /// takes over which names images have there. Blocking work is done on other threads.
    ///
    /// # Errors
    /// When the server cannot be asked or `request` is cancelled. An image that cannot be
    /// fetched is in the report.
    pub async fn fetch(
        self,
        remote: &dyn Remote,
        name: &str,
        request: &Fetch,
        keep: Option<usize>,
    ) -> Result<(Self, TakenReport)> {
        let mut images = remote.images(&Filter::default()).await?;
        images.retain(|image| image.public);
        // The newest first: with a number to keep the older ones need not come at all.
        // Those of one serial come in their order, since that numbers them.
        let serial = |image: &Image| serial_of(&image.properties, image.created_at);
        images.sort_by_cached_key(|image| {
            (std::cmp::Reverse(serial(image)), image.created_at, image.fingerprint)
        });
        let (mut tree, inventory) = self.elsewhere(Self::inventory).await?;
        let mut inventory = inventory?;
        // Before any comes: what has a name of its own is not an old version of another image.
        tree.borrow_names(name, &images);
        let gone = tree.gone(name, &images, &inventory);
        let mut report = TakenReport { gone, ..TakenReport::default() };
        let missing = |image: &&Image| {
            let image = &image.fingerprint;
            !inventory.has(image) && !inventory.knows_as_old(image, keep, &tree.state)
        };
        request.progress.set_total(images.iter().filter(missing).map(|image| image.size).sum());
        for image in &images {
            if inventory.has(&image.fingerprint) {
                report.present += 1;
                continue;
            }
            if inventory.knows_as_old(&image.fingerprint, keep, &tree.state) {
                report.older += 1;
                continue;
            }
            let directory = incoming(&tree.root).join(image.fingerprint.to_string());
            disk::create_directories(&directory)?;
            let mut files = Files { directory: directory.clone(), image, current: None };
            let fetched = match fetch(remote, image, request, &mut files).await {
                Ok(()) => files.end().await.map_err(Error::io("cannot store the image")),
                Err(error) => Err(error),
            };
            match fetched {
                Ok(()) => {}
                Err(error @ Error::Cancelled) => return Err(error.into()),
                Err(error) => {
                    report.broken.push(Broken::new(called(name, image), error));
                    continue;
                }
            }
            let (shown, hints) = (called(name, image), hints(image));
            let done = tree
                .elsewhere(move |tree| {
                    let source = Source {
                        directory: &directory,
                        shown: &shown,
                        means: Means::Link,
                        hints: &hints,
                        keep,
                    };
                    let taken = tree.take_from(&source, &mut inventory);
                    // Nothing depends on it: the next program clears what stays.
                    let _ = std::fs::remove_dir_all(&directory);
                    (taken, inventory)
                })
                .await?;
            let taken;
            (tree, (taken, inventory)) = done;
            report.add(taken?);
            if inventory.has(&image.fingerprint) {
                tree.state.origins.insert(image.fingerprint, name.to_owned());
            }
        }
        let (tree, stored) = tree.elsewhere(|tree| tree.state.store(&tree.root)).await?;
        stored.map(|()| (tree, report))
    }

    /// Images of the tree that came from a server and are not among its public `images` any more.
    fn gone(&mut self, source: &str, images: &[Image], inventory: &Inventory) -> Vec<Removal> {
        self.state.origins.retain(|image, _| inventory.has(image));
        let public: BTreeSet<&Fingerprint> =
            images.iter().map(|image| &image.fingerprint).collect();
        let is_gone = |image: &Fingerprint| {
            let is_own = self.state.origins.get(image).is_some_and(|origin| origin == source);
            is_own && !public.contains(image) && !self.state.is_out(image)
        };
        let gone = inventory.images().filter(|(image, _)| is_gone(image));
        gone.map(|(image, directory)| Removal {
            path: directory.to_owned(),
            reason: format!("{source}: has no public image {image} any more"),
        })
        .collect()
    }

    /// Notes which names the images of a server have there now.
    fn borrow_names(&mut self, source: &str, images: &[Image]) {
        self.state.aliases.retain(|_, borrowed| borrowed.source != source);
        for image in images {
            // Clients make these by themselves.
            let long = format!("/{}", architecture_name(image.architecture));
            let names = image.aliases.iter().map(|alias| &alias.name);
            for name in names.filter(|name| !name.ends_with(&long) && !name.contains(',')) {
                let borrowed =
                    Borrowed { fingerprint: image.fingerprint, source: source.to_owned() };
                self.state.aliases.entry(name.clone()).or_insert(borrowed);
            }
        }
    }

    /// Does blocking work on a thread of its own.
    async fn elsewhere<T: Send + 'static>(
        mut self,
        work: impl FnOnce(&mut Self) -> T + Send + 'static,
    ) -> Result<(Self, T)> {
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut self);
            (self, result)
        });
        done.await.map_err(|_| TreeError::Task)
    }
}

fn called(remote: &str, image: &Image) -> String {
    format!("{remote}:{}", image.fingerprint)
}

fn hints(image: &Image) -> BTreeMap<Fingerprint, lxd_proto::image::Properties> {
    let mut properties = image.properties.clone();
    if let Some(name) = image.aliases.iter().map(|alias| &alias.name).min() {
        properties.entry("version".to_owned()).or_insert_with(|| name.clone());
    }
    BTreeMap::from([(image.fingerprint, properties)])
}

/// Stores the files of an image as exports are named.
struct Files<'a> {
    directory: PathBuf,
    image: &'a Image,
    current: Option<tokio::fs::File>,
}

impl Files<'_> {
    async fn end(&mut self) -> io::Result<()> {
        match self.current.take() {
            Some(mut file) => file.flush().await,
            None => Ok(()),
        }
    }

    fn path(&self, role: FileRole) -> PathBuf {
        let fingerprint = self.image.fingerprint;
        Path::new(&self.directory).join(match role {
            FileRole::Unified => fingerprint.to_string(),
            FileRole::Metadata => format!("meta-{fingerprint}"),
            FileRole::Rootfs(_) => format!("{fingerprint}.rootfs"),
        })
    }
}

#[async_trait]
impl Sink for Files<'_> {
    async fn begin(&mut self, file: &IncomingFile) -> io::Result<u64> {
        self.end().await?;
        let file = disk::create(&self.path(file.role))?;
        self.current = Some(tokio::fs::File::from_std(file));
        Ok(0)
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        match &mut self.current {
            Some(file) => file.write_all(&bytes).await,
            None => Ok(()),
        }
    }
}
