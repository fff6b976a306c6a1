//! From images to a catalog. What became of the images of one system is kept as long as these are
//! the same: one image more costs its own system and no other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use lxd_proto::fingerprint::Fingerprint;
use lxd_simplestreams::publish::{Products, PublishedImage, assemble, root_name};

use super::files;
use crate::catalog::Entry;

/// What was rendered last.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// The system of each image.
    systems: HashMap<Fingerprint, (Arc<Entry>, Arc<str>)>,
    parts: BTreeMap<Arc<str>, Part>,
    rendered: Option<Rendered>,
}

/// The images of one system and what became of them.
#[derive(Debug, Default)]
struct Part {
    entries: Vec<Arc<Entry>>,
    /// Products by name, as they stand in the document.
    products: Vec<(String, Bytes)>,
}

/// A catalog.
#[derive(Debug, Clone)]
pub(super) struct Rendered {
    pub(super) catalog: Bytes,
    /// Names of its products.
    pub(super) names: Arc<Vec<String>>,
}

impl Parts {
    /// Renders these images, of which those that are the same as before are the same objects; and
    /// tells whether that made another catalog.
    pub(super) fn render(
        &mut self,
        entries: Vec<Arc<Entry>>,
        updated: Timestamp,
    ) -> (Rendered, bool) {
        let mut systems = HashMap::with_capacity(entries.len());
        let mut parts: BTreeMap<Arc<str>, Part> = BTreeMap::new();
        for entry in entries {
            let fingerprint = entry.image.fingerprint;
            let known = self.systems.remove(&fingerprint);
            let system = match known.filter(|(known, _)| Arc::ptr_eq(known, &entry)) {
                Some((_, system)) => system,
                None => Arc::from(published(&entry).system()),
            };
            systems.insert(fingerprint, (entry.clone(), system.clone()));
            parts.entry(system).or_default().entries.push(entry);
        }
        let mut same = true;
        for (system, part) in &mut parts {
            let before = self.parts.remove(system);
            part.products = match before {
                Some(before) if before.is_of(&part.entries) => before.products,
                before => {
                    let products = part.render();
                    let before = before.filter(|before| before.products == products);
                    same &= before.is_some();
                    before.map_or(products, |before| before.products)
                }
            };
        }
        same &= self.parts.is_empty();
        let before = self.rendered.take().filter(|_| same);
        *self = Self { systems, parts, rendered: None };
        let is_new = before.is_none();
        let rendered = before.unwrap_or_else(|| self.assemble(updated));
        self.rendered = Some(rendered.clone());
        (rendered, is_new)
    }

    fn assemble(&mut self, updated: Timestamp) -> Rendered {
        let products = self.parts.values().flat_map(|part| &part.products);
        let products = products.map(|(name, json)| (name.as_str(), &json[..]));
        let assembled = assemble(products, updated);
        let catalog = Bytes::from(assembled.catalog);
        // The pieces are kept where they are now, so that they are there once.
        let pieces = self.parts.values_mut().flat_map(|part| &mut part.products);
        for ((_, json), place) in pieces.zip(assembled.places) {
            *json = catalog.slice(place);
        }
        Rendered { catalog, names: Arc::new(assembled.names) }
    }
}

impl Part {
    fn is_of(&self, entries: &[Arc<Entry>]) -> bool {
        let same = |(a, b): (&Arc<Entry>, &Arc<Entry>)| Arc::ptr_eq(a, b);
        self.entries.len() == entries.len() && self.entries.iter().zip(entries).all(same)
    }

    fn render(&self) -> Vec<(String, Bytes)> {
        let images = self.entries.iter().map(|entry| published(entry)).collect();
        let products = Products::group(images);
        products.products().map(|(name, it)| (name.to_owned(), it.to_json().into())).collect()
    }
}

fn published(entry: &Entry) -> PublishedImage {
    let (name, head) = files::head(entry);
    let root = files::root(entry);
    let image = &entry.image;
    PublishedImage {
        fingerprint: image.fingerprint,
        kind: image.kind,
        architecture: image.architecture,
        properties: image.properties.clone(),
        aliases: image.aliases.iter().map(|alias| alias.name.clone()).collect(),
        created_at: image.created_at,
        expires_at: image.expires_at,
        metadata: files::published(name, head),
        root: root.map(|(kind, blob)| (kind, files::published(root_name(kind), blob))),
        deltas: Vec::new(),
        lineage: entry.origin.as_ref().map(|origin| origin.lineage.clone()),
        place: None,
    }
}
