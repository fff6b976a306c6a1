//! A catalog in pieces, for a server whose images change one by one: what has not changed is not
//! written anew.

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::Timestamp;

use super::document::{self, Signed};
use super::{PublishedImage, PublishedProduct, group};

/// A catalog that was put together.
#[derive(Debug)]
pub struct Assembled {
    /// The document.
    pub catalog: Vec<u8>,
    /// Names of its products, in its order.
    pub names: Vec<String>,
    /// Where the pieces are in it, in the order in which they were given.
    pub places: Vec<Range<usize>>,
}

impl PublishedImage {
    /// What it shares with all images that have a say in its product. Images of different systems
    /// can be grouped apart.
    pub fn system(&self) -> String {
        match &self.place {
            Some(place) => place.product.clone(),
            None => group::system(self),
        }
    }
}

impl PublishedProduct {
    /// It as a piece for [`assemble`].
    pub fn to_json(&self) -> Vec<u8> {
        document::product(self).map_or_else(|| b"{}".to_vec(), |product| document::json(&product))
    }
}

/// Puts a catalog together from products, each with its name and its piece. The second of two
/// equal names gets a mark.
pub fn assemble<'a>(
    products: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    updated: Timestamp,
) -> Assembled {
    let mut sorted = BTreeMap::new();
    for (index, (name, piece)) in products.into_iter().enumerate() {
        let mut name = name.to_owned();
        while sorted.contains_key(&name) {
            name.push('-');
        }
        sorted.insert(name, (index, piece));
    }
    let mut catalog = document::json(&document::catalog_with(BTreeMap::new(), updated));
    // Both objects are still open.
    catalog.truncate(catalog.len().saturating_sub(b"}}".len()));
    let length: usize = sorted.iter().map(|(name, (_, piece))| name.len() + piece.len() + 4).sum();
    catalog.reserve(length + b"}}".len());
    let mut places = vec![0..0; sorted.len()];
    let mut names = Vec::with_capacity(sorted.len());
    for (name, (index, piece)) in sorted {
        if !names.is_empty() {
            catalog.push(b',');
        }
        catalog.extend_from_slice(&document::json(&name));
        catalog.push(b':');
        let start = catalog.len();
        catalog.extend_from_slice(piece);
        if let Some(place) = places.get_mut(index) {
            *place = start..catalog.len();
        }
        names.push(name);
    }
    catalog.extend_from_slice(b"}}");
    Assembled { catalog, names, places }
}

/// The index of a catalog with these products.
pub fn index_of(names: Vec<String>, updated: Timestamp, signed: Signed) -> Vec<u8> {
    document::index(names, updated, signed)
}
