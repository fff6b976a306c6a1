//! The order of images, which decides who wins an alias: a total one, unlike LXD's.

use std::cmp::Ordering;

use lxd_proto::image::Image;

use crate::root::RootKind;

/// How two images of a tree compare: by `os`, `release`, `variant`, `serial` (newest first),
/// `architecture`, kind of root file, fingerprint. Who lacks a property comes last.
pub(crate) fn compare(one: &Image, other: &Image) -> Ordering {
    let ascending = |key| missing_last(property(one, key), property(other, key));
    let newest_first = || {
        let (one, other) = (property(one, "serial"), property(other, "serial"));
        match (one, other) {
            (Some(one), Some(other)) => other.cmp(one),
            _ => missing_last(one, other),
        }
    };
    ascending("os")
        .then_with(|| ascending("release"))
        .then_with(|| ascending("variant"))
        .then_with(newest_first)
        .then_with(|| ascending("architecture"))
        .then_with(|| rank(one).cmp(&rank(other)))
        .then_with(|| one.fingerprint.cmp(&other.fingerprint))
}

fn property<'a>(image: &'a Image, key: &str) -> Option<&'a str> {
    image.properties.get(key).map(String::as_str)
}

fn missing_last(one: Option<&str>, other: Option<&str>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => one.cmp(other),
        (one, other) => one.is_none().cmp(&other.is_none()),
    }
}

/// Which root files are preferred; whatever is not one of a split image counts as the first.
fn rank(image: &Image) -> Option<RootKind> {
    property(image, "type").and_then(RootKind::from_ftype).filter(|r| *r > RootKind::Squashfs)
}
