//! Which product and which name each version has in the catalog: what has a name keeps it.
//!
//! Several builds can have one serial, such as the minute they were made in. The first one that is
//! published has the serial as its name, and those that come later have numbers behind it: clients
//! keep names, deltas have them in theirs, and the newest has to sort last.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lxd_proto::fingerprint::Fingerprint;

use super::scan::{Version, join};
use super::state::Known;
use crate::publish::{Products, PublishedImage, numbered};
use crate::root::RootKind;

/// Gives versions their names, in their coordinates and their images. `has` tells the names that
/// images have; `files` is what is known of files, by path.
pub(super) fn assign<'a>(
    versions: &mut [Version],
    has: impl Fn(&Fingerprint) -> Option<&'a str>,
    files: &BTreeMap<String, Known>,
) {
    let mut builds: BTreeMap<(String, String), Vec<&mut Version>> = BTreeMap::new();
    for version in versions {
        let (serial, _) = split(&version.coordinates.serial);
        let key = (version.coordinates.product(), serial.to_owned());
        builds.entry(key).or_default().push(version);
    }
    for ((_, serial), mut versions) in builds {
        let name = |version: &Version| {
            let mut names = version.images.iter().filter_map(|image| has(&image.fingerprint));
            // The place where it lies was numbered when it came.
            let is_placed = version.directory == version.coordinates.directory();
            let own = || split(&version.coordinates.serial).1.or(is_placed.then_some(0));
            names.find_map(|name| number(&serial, name)).or_else(own)
        };
        // What has a name first, then by age.
        versions.sort_by_cached_key(|version| {
            let number = name(version);
            (number.is_none(), number, age(version, files))
        });
        let mut taken = Taken::default();
        for version in versions {
            let number = taken.find(version, name(version));
            version.coordinates.serial = numbered(&serial, number);
            for image in &mut version.images {
                image.place = Some(version.coordinates.place());
            }
        }
    }
}

/// Products of what was found. An image with a name that the newest of its product does not have is
/// a product of its own: the name leads to no other image.
pub(super) fn group(versions: &[Version]) -> Products {
    let mut newest: BTreeMap<String, &str> = BTreeMap::new();
    for version in versions {
        let serial = version.coordinates.serial.as_str();
        let entry = newest.entry(version.coordinates.product()).or_insert(serial);
        *entry = (*entry).max(serial);
    }
    let is_newest = |version: &&Version| {
        newest.get(&version.coordinates.product()) == Some(&version.coordinates.serial.as_str())
    };
    let mut usual: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for version in versions.iter().filter(is_newest) {
        let names = usual.entry(version.coordinates.product()).or_default();
        names.extend(version.images.iter().flat_map(|image| &image.aliases).map(String::as_str));
    }
    let none = BTreeSet::new();
    let mut images: Vec<PublishedImage> = Vec::new();
    for version in versions {
        let product = version.coordinates.product();
        let is_newest = is_newest(&version);
        let usual = usual.get(&product).unwrap_or(&none);
        for image in &version.images {
            let mut image = image.clone();
            let own =
                image.aliases.iter().filter(|alias| !usual.contains(alias.as_str())).min().cloned();
            if let (Some(own), false, Some(place)) = (own, is_newest, &mut image.place) {
                place.product = format!("{product}:{own}");
                image.aliases.retain(|alias| !usual.contains(alias.as_str()));
            }
            images.push(image);
        }
    }
    Products::group(images)
}

/// The name of the build after the one with this name.
pub(super) fn next(name: &str) -> String {
    let (serial, number) = split(name);
    numbered(serial, number.unwrap_or(0) + 1)
}

/// The serial in a name, and the number behind it.
fn split(name: &str) -> (&str, Option<usize>) {
    let numbered =
        name.split_once('+').and_then(|(serial, _)| Some((serial, number(serial, name)?)));
    numbered.map_or((name, None), |(serial, number)| (serial, Some(number)))
}

/// The number that a name has behind `serial`; `None` when it is another serial's name.
fn number(serial: &str, name: &str) -> Option<usize> {
    let rest = name.strip_prefix(serial)?;
    if rest.is_empty() {
        return Some(0);
    }
    let number = rest.strip_prefix('+')?.parse().ok()?;
    (numbered(serial, number) == name).then_some(number)
}

/// Sorts the newest last: by the date of the image, then of its file, which is when it came.
fn age(version: &Version, files: &BTreeMap<String, Known>) -> (Option<Timestamp>, i128, String) {
    let created = version.images.iter().map(|image| image.created_at).max();
    let paths = version.files.iter().map(|name| join(&version.directory, name));
    let came = paths.filter_map(|path| Some(files.get(&path)?.stamp.modified())).max();
    (created, came.unwrap_or_default(), version.directory.clone())
}

/// The numbers that are in use: by which metadata, and with which root files.
#[derive(Default)]
struct Taken(BTreeMap<usize, (Fingerprint, BTreeSet<RootKind>)>);

impl Taken {
    fn find(&mut self, version: &Version, wanted: Option<usize>) -> usize {
        let metadata = version.images.first().map(|image| image.metadata.sha256);
        let roots = version.images.iter().map(|image| Some(image.root.as_ref()?.0));
        let roots: Option<BTreeSet<RootKind>> = roots.collect();
        // A container and a machine of one build may lie apart, and are one version all the same.
        let fits = |(of, has): &(Fingerprint, BTreeSet<RootKind>)| {
            let differ = roots.as_ref().is_some_and(|roots| roots.is_disjoint(has));
            !has.is_empty() && metadata == Some(*of) && differ
        };
        let free = |number: &usize| self.0.get(number).is_none_or(fits);
        let shared = || self.0.iter().find(|(_, use_)| fits(use_)).map(|(number, _)| *number);
        let next = || self.0.last_key_value().map_or(0, |(last, _)| last + 1);
        let number = wanted.filter(free).or_else(shared).unwrap_or_else(next);
        if let Some(metadata) = metadata {
            let entry = self.0.entry(number).or_insert_with(|| (metadata, BTreeSet::new()));
            entry.1.extend(roots.unwrap_or_default());
        }
        number
    }
}
