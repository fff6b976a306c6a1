//! `SimplestreamsRemote`: a simplestreams tree seen as any other image server.

use std::sync::Arc;

use async_trait::async_trait;
use lxd_proto::alias::AliasEntry;
use lxd_proto::filter::Filter;
use lxd_proto::fingerprint::Prefix;
use lxd_proto::image::Image;
use lxd_proto::net::Access;
use lxd_proto::remote::{Error, Fetch, Remote, RemoteSpec, Result, Secret, Sink, Want};

use crate::convert::ImageFiles;
use crate::listing::{Damaged, Listing, Matching};
use crate::transfer::{Source, Transfer};
use crate::tree::{self, Current, Need, Remembered, Tree};

/// A simplestreams server. Cheap to clone; making one opens no connection.
///
/// All that speak to one server as the same person share what is known of it.
#[derive(Debug, Clone)]
pub struct SimplestreamsRemote {
    spec: Arc<RemoteSpec>,
    tree: Arc<Tree>,
    access: Arc<Access>,
}

impl SimplestreamsRemote {
    /// The server that `spec` describes.
    ///
    /// # Errors
    /// When its address is not `https://`, or its certificate cannot be read.
    pub fn new(spec: RemoteSpec, access: &Access) -> Result<Self> {
        let tree = tree::tree(&spec, access)?;
        Ok(Self { spec: Arc::new(spec), tree, access: Arc::new(access.clone()) })
    }

    /// Looks something up in the current listing. What is not found is looked for once more
    /// after the server was asked for new catalogs.
    async fn look_up<T>(
        &self,
        remembered: Remembered,
        find: impl Fn(&Listing) -> Result<Option<T>, Damaged>,
    ) -> Result<Option<T>> {
        if let Some(found) = self.ask(Need::Catalogs, remembered, &find).await? {
            return Ok(Some(found));
        }
        self.ask(Need::Index, remembered, &find).await
    }

    /// Reads from a current listing; one that is damaged is fetched anew, once.
    async fn ask<T>(
        &self,
        need: Need,
        remembered: Remembered,
        read: impl Fn(&Listing) -> Result<T, Damaged>,
    ) -> Result<T> {
        let current = self.tree.current(need, remembered).await?;
        match read(&current.listing) {
            Ok(answer) => return Ok(answer),
            Err(damaged) => self.tree.forget(damaged).await,
        }
        let current = self.tree.current(need, remembered).await?;
        read(&current.listing).map_err(|damaged| Error::Decode {
            what: format!("the catalogs of {}", self.tree.name()),
            reason: damaged.to_string(),
        })
    }

    /// The files of an image, from the listing in hand where that knows it.
    async fn files(&self, image: &Image) -> Result<ImageFiles> {
        let known = |current: &Arc<Current>| current.listing.files(&image.fingerprint);
        if let Some(Ok(Some(files))) = self.tree.held().await.as_ref().map(known) {
            return Ok(files);
        }
        let files =
            self.look_up(Remembered::Counts, |listing| listing.files(&image.fingerprint)).await?;
        files.ok_or_else(|| Error::NotFound { reference: image.fingerprint.to_string() })
    }
}

#[async_trait]
impl Remote for SimplestreamsRemote {
    fn spec(&self) -> &RemoteSpec {
        &self.spec
    }

    async fn images(&self, filter: &Filter) -> Result<Vec<Image>> {
        self.ask(Need::Catalogs, Remembered::Counts, |listing| {
            let passes =
                |image: &Result<Image, Damaged>| image.as_ref().map_or(true, |i| filter.matches(i));
            listing.images().filter(passes).collect()
        })
        .await
    }

    async fn current_images(&self) -> Result<Vec<Image>> {
        self.ask(Need::Index, Remembered::DoesNot, |listing| listing.images().collect()).await
    }

    async fn image(&self, id: &Prefix, _secret: Option<&Secret>) -> Result<Image> {
        let matching = self.look_up(Remembered::Counts, |listing| match listing.matching(id)? {
            Matching::None => Ok(None),
            found => Ok(Some(found)),
        });
        match matching.await? {
            Some(Matching::One(image)) => Ok(*image),
            Some(Matching::Several(candidates)) => {
                Err(Error::Ambiguous { reference: id.to_string(), candidates })
            }
            Some(Matching::None) | None => Err(Error::NotFound { reference: id.to_string() }),
        }
    }

    async fn aliases(&self) -> Result<Vec<AliasEntry>> {
        self.ask(Need::Catalogs, Remembered::Counts, Listing::aliases).await
    }

    async fn alias(&self, name: &str, want: &Want) -> Result<AliasEntry> {
        let remembered = if want.fresh { Remembered::DoesNot } else { Remembered::Counts };
        let found = self.look_up(remembered, |listing| listing.alias(name, want)).await?;
        found.ok_or_else(|| Error::NotFound { reference: name.to_owned() })
    }

    async fn download(&self, image: &Image, request: &Fetch, sink: &mut dyn Sink) -> Result<()> {
        let transfer = async {
            let files = self.files(image).await?;
            let from = Source { tree: &self.tree, access: &self.access, request };
            Transfer { from, sink }.image(image.kind, &files).await
        };
        tokio::select! {
            biased;
            () = request.cancel.cancelled() => Err(Error::Cancelled),
            done = transfer => done,
        }
    }
}
