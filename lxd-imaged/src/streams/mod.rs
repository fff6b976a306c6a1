//! The daemon as a simplestreams server: its public images as an index and a catalog.
//!
//! Both documents are rendered from one snapshot of what strangers see, and kept until that
//! changes. Who asks never gets less than what was committed before the question: a rendering that
//! is too old is made anew, once for all who wait for it.

mod document;
pub mod files;
mod once;
mod render;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use jiff::Timestamp;
use lxd_simplestreams::publish::{Signed, index_of};
use parking_lot::Mutex;

pub use document::Document;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::error::{Error, Result};
use once::Once;
use render::{Parts, Rendered};

/// Makes a signed twin of a document.
pub type Signer = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>> + Send + Sync>;

/// The documents, as they are now.
pub struct Streams {
    catalog: Arc<Catalog>,
    clock: Clock,
    /// No document of an earlier daemon is younger.
    started: Timestamp,
    current: Mutex<Current>,
    /// Held while the documents are rendered.
    parts: Arc<tokio::sync::Mutex<Parts>>,
}

#[derive(Default)]
struct Current {
    rendering: Option<Arc<Rendering>>,
    signer: Option<Signer>,
    /// Grows with each new signer.
    signers: u64,
}

/// The documents of one generation of what strangers see.
pub struct Rendering {
    generation: u64,
    signers: u64,
    /// When the content last changed, as the documents say it.
    updated: Timestamp,
    index: Arc<Document>,
    catalog: Arc<Document>,
    signed: Option<SignedTwins>,
    read: AtomicBool,
}

struct SignedTwins {
    signer: Signer,
    /// The text of the signed index.
    text: Bytes,
    index: Once<Arc<Document>>,
    catalog: Once<Arc<Document>>,
}

impl Streams {
    /// The documents over a catalog of images.
    pub fn new(catalog: Arc<Catalog>, clock: Clock) -> Arc<Self> {
        let started = clock.now();
        Arc::new(Self { catalog, clock, started, current: Mutex::default(), parts: Arc::default() })
    }

    /// Sets what signs the signed twins from now on; without a signer there are none.
    pub fn set_signer(&self, signer: Option<Signer>) {
        let mut current = self.current.lock();
        current.signer = signer;
        current.signers += 1;
    }

    /// The documents, not older than what was committed before the call.
    ///
    /// # Errors
    /// Only when the daemon ends.
    pub async fn current(self: &Arc<Self>) -> Result<Arc<Rendering>> {
        let rendering = self.rendered().await?;
        rendering.read.store(true, Ordering::Relaxed);
        Ok(rendering)
    }

    /// Renders after each change, for who asks next, as long as somebody reads what is rendered.
    pub async fn keep_ready(self: Arc<Self>) {
        let mut generations = self.catalog.follow();
        while generations.changed().await.is_ok() {
            let held = self.current.lock().rendering.clone();
            let wanted = held.is_some_and(|held| held.read.load(Ordering::Relaxed));
            if wanted && self.rendered().await.is_err() {
                return;
            }
        }
    }

    async fn rendered(self: &Arc<Self>) -> Result<Arc<Rendering>> {
        let wanted = self.catalog.generation();
        if let Some(rendering) = self.fresh(wanted) {
            return Ok(rendering);
        }
        let mut parts = self.parts.clone().lock_owned().await;
        if let Some(rendering) = self.fresh(wanted) {
            return Ok(rendering);
        }
        let streams = self.clone();
        // It is finished also when who asked has gone: the next one must not begin before.
        let rendered = tokio::task::spawn_blocking(move || streams.render(&mut parts));
        rendered.await.map_err(|error| Error::Internal(error.to_string()))
    }

    fn fresh(&self, wanted: u64) -> Option<Arc<Rendering>> {
        let current = self.current.lock();
        let fresh = |it: &&Arc<Rendering>| it.generation >= wanted && it.signers == current.signers;
        current.rendering.as_ref().filter(fresh).cloned()
    }

    /// Renders the snapshot of now, and puts it in place.
    fn render(&self, parts: &mut Parts) -> Arc<Rendering> {
        let (signer, signers, before) = {
            let current = self.current.lock();
            (current.signer.clone(), current.signers, current.rendering.clone())
        };
        let before = before.as_deref();
        let (generation, entries) = self.catalog.published();
        let now = self.clock.now();
        // A clock that was set back does not make a catalog look older than the one before.
        let now = before.map_or(now, |before| before.updated.max(now));
        let (Rendered { catalog, names }, is_new) = parts.render(entries, now);
        let same = before.filter(|_| !is_new);
        let updated = same.map_or(now, |before| before.updated);
        let signed = signer.map(|signer| SignedTwins {
            signer,
            text: index_of(names.to_vec(), updated, Signed::Yes).into(),
            index: Once::default(),
            catalog: Once::default(),
        });
        let (index, catalog) = if let Some(before) = same {
            (before.index.clone(), before.catalog.clone())
        } else {
            let after = before.map_or(self.started, |before| before.updated);
            let document = |bytes| Arc::new(Document::new(bytes, updated, after));
            (document(index_of(names.to_vec(), updated, Signed::No).into()), document(catalog))
        };
        let read = AtomicBool::new(false);
        let rendering =
            Arc::new(Rendering { generation, signers, updated, index, catalog, signed, read });
        self.current.lock().rendering = Some(rendering.clone());
        rendering
    }
}

impl Rendering {
    /// The index.
    pub fn index(&self) -> &Arc<Document> {
        &self.index
    }

    /// The catalog.
    pub fn catalog(&self) -> &Arc<Document> {
        &self.catalog
    }

    /// The signed index; `None` when nobody signs.
    ///
    /// # Errors
    /// Those of the signer.
    pub async fn signed_index(&self) -> Result<Option<Arc<Document>>> {
        let Some(signed) = &self.signed else { return Ok(None) };
        signed.twin(&signed.index, signed.text.clone(), &self.index).await.map(Some)
    }

    /// The signed catalog; `None` when nobody signs.
    ///
    /// # Errors
    /// Those of the signer.
    pub async fn signed_catalog(&self) -> Result<Option<Arc<Document>>> {
        let Some(signed) = &self.signed else { return Ok(None) };
        // An index is never signed later than a catalog that it names: clients would take that
        // catalog for an old one.
        self.signed_index().await?;
        signed.twin(&signed.catalog, self.catalog.bytes().clone(), &self.catalog).await.map(Some)
    }
}

impl SignedTwins {
    async fn twin(
        &self,
        made: &Once<Arc<Document>>,
        text: Bytes,
        of: &Arc<Document>,
    ) -> Result<Arc<Document>> {
        let (signer, of) = (self.signer.clone(), of.clone());
        made.get(move || Ok(Arc::new(of.twin(signer(&text)?.into())))).await
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rendering = self.current.lock().rendering.clone();
        f.debug_struct("Streams").field("rendering", &rendering).finish_non_exhaustive()
    }
}

impl fmt::Debug for Rendering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendering")
            .field("generation", &self.generation)
            .field("updated", &self.updated)
            .field("bytes", &self.catalog.bytes().len())
            .field("signed", &self.signed.is_some())
            .finish_non_exhaustive()
    }
}
