//! Which images are versions of one product.

use std::collections::BTreeMap;

use lxd_proto::image::InstanceType;

use super::{Products, PublishedImage, PublishedProduct, architecture_name, serial, texts};

/// What an image without a name for its system is one of.
const NO_OS: &str = "image";
/// The variant of an image that names none: all products have one, or LXD sorts them at random.
pub(super) const NO_VARIANT: &str = "default";

pub(super) fn group(images: Vec<PublishedImage>) -> Products {
    let mut products = Products::default();
    let mut systems: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    let mut placed: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    for mut image in images {
        if !image.is_publishable() {
            continue;
        }
        image.aliases.retain(|alias| !alias.contains(','));
        let candidate = Candidate::new(image);
        match &candidate.image.place {
            Some(place) => placed.entry(place.product.clone()).or_default().push(candidate),
            None => systems.entry(system(&candidate.image)).or_default().push(candidate),
        }
    }
    for (name, candidates) in placed {
        products.add(name, candidates);
    }
    for (name, candidates) in systems {
        products.add_system(&name, candidates);
    }
    products
}

/// An image and what its version would be called if it were alone.
struct Candidate {
    serial: String,
    image: PublishedImage,
}

impl Candidate {
    fn new(image: PublishedImage) -> Self {
        let serial = match &image.place {
            Some(place) => place.serial.clone(),
            None => serial::of(&image.properties, image.created_at),
        };
        Self { serial, image }
    }

    fn has_name(&self) -> bool {
        !self.image.aliases.is_empty()
    }

    /// Sorts the newest last; who has a name is newer than who has none.
    fn age(&self) -> impl Ord + '_ {
        (&self.serial, self.has_name(), self.image.created_at, self.image.fingerprint)
    }

    fn is_version_of(&self, head: &Self, is_only_head: bool) -> bool {
        let related = match (&self.image.lineage, &head.image.lineage) {
            (Some(own), Some(other)) if own == other => true,
            _ => is_only_head,
        };
        related && self.serial <= head.serial
    }
}

impl Products {
    /// All images of one system.
    fn add_system(&mut self, name: &str, candidates: Vec<Candidate>) {
        let (mut heads, others): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(Candidate::has_name);
        heads.sort_by(|a, b| a.image.aliases.cmp(&b.image.aliases));
        let is_only_head = heads.len() == 1;
        let mut groups: Vec<Vec<Candidate>> = heads.into_iter().map(|head| vec![head]).collect();
        let mut rest = Vec::new();
        for other in others {
            let home = groups.iter_mut().find(|group| other.is_version_of(&group[0], is_only_head));
            match home {
                Some(group) => group.push(other),
                None => rest.push(other),
            }
        }
        let has_heads = !groups.is_empty();
        for group in groups {
            let first = group[0].image.aliases.iter().min();
            let suffix = first.filter(|_| !is_only_head);
            let name = suffix.map_or_else(|| name.to_owned(), |alias| format!("{name}:{alias}"));
            self.add(self.free(name), group);
        }
        if !rest.is_empty() {
            let name = if has_heads { self.free(format!("{name}:-")) } else { name.to_owned() };
            self.add(name, rest);
        }
    }

    fn free(&self, name: String) -> String {
        let mut name = texts::bounded(name);
        while self.products.contains_key(&name) {
            name.push('-');
        }
        name
    }

    fn add(&mut self, name: String, mut candidates: Vec<Candidate>) {
        candidates.sort_by(|a, b| a.age().cmp(&b.age()));
        let product = self.products.entry(texts::bounded(name)).or_default();
        let mut taken = BTreeMap::new();
        for candidate in candidates {
            product.add(candidate, &mut taken);
        }
        let newest = product.versions.values().next_back();
        let mut aliases: Vec<String> =
            newest.into_iter().flatten().flat_map(|image| image.aliases.iter().cloned()).collect();
        aliases.sort();
        aliases.dedup();
        product.aliases = aliases;
    }
}

impl PublishedProduct {
    /// Adds an image to the version of its serial, or to one of its own right behind it: clients
    /// pair every metadata file of a version with every root file. `taken` counts the versions that
    /// a serial has, so that thousands of images with one serial are not compared pair by pair.
    fn add(&mut self, candidate: Candidate, taken: &mut BTreeMap<String, usize>) {
        let Candidate { serial, image } = candidate;
        let taken = taken.entry(serial.clone()).or_default();
        // Only images with a place can share a version with others.
        let mut count = if image.place.is_some() { 0 } else { *taken };
        loop {
            let version = self.versions.entry(numbered(&serial, count)).or_default();
            count += 1;
            if fits(version, &image) {
                version.push(image);
                version.sort_by_key(|image| image.root.as_ref().map(|(root, _)| *root));
                *taken = count.max(*taken);
                return;
            }
        }
    }
}

/// The name of a build of which `number` older ones have the same serial: as text it sorts behind
/// theirs, and before every longer serial that begins as this one: no sign of one sorts before a plus.
pub(crate) fn numbered(serial: &str, number: usize) -> String {
    if number == 0 { serial.to_owned() } else { format!("{serial}+{number:05}") }
}

/// Whether an image can be one of a version: they share the metadata file, and differ in the kind
/// of their root file.
fn fits(version: &[PublishedImage], image: &PublishedImage) -> bool {
    let Some(own) = &image.root else { return version.is_empty() };
    version.iter().all(|other| {
        let Some(root) = &other.root else { return false };
        // Without a place they have names of their own.
        image.place.is_some() && other.metadata.sha256 == image.metadata.sha256 && root.0 != own.0
    })
}

/// `os:release:arch:variant`, and a mark for virtual machines: an alias has one for each kind.
pub(super) fn system(image: &PublishedImage) -> String {
    let facts = Facts::of(image);
    let mut name = [facts.os, facts.release, architecture_name(image.architecture), facts.variant]
        .map(plain)
        .join(":");
    if image.kind == InstanceType::VirtualMachine {
        name.push_str(":vm");
    }
    name
}

/// A word of a product's name.
fn plain(text: &str) -> String {
    let lower = text.trim().to_lowercase();
    lower.replace(|c: char| c.is_whitespace() || c.is_control() || c == ':', "-")
}

/// What every product tells about its system.
pub(super) struct Facts<'a> {
    pub(super) os: &'a str,
    pub(super) release: &'a str,
    pub(super) variant: &'a str,
}

impl<'a> Facts<'a> {
    /// What the properties say; an image that says nothing goes by its name.
    pub(super) fn of(image: &'a PublishedImage) -> Self {
        let property = |key: &str| {
            let value = image.properties.get(key).map(|value| value.trim());
            value.filter(|value| !value.is_empty())
        };
        let name = || image.aliases.iter().min().map(String::as_str);
        Self {
            os: property("os").unwrap_or(NO_OS),
            release: property("release")
                .or_else(|| property("version"))
                .or_else(name)
                .unwrap_or("unknown"),
            variant: property("variant").unwrap_or(NO_VARIANT),
        }
    }
}
