//! Which versions of a tree stay.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::InstanceType;

use crate::convert::serial_date;
use crate::publish::Products;

/// How long files stay that no catalog lists any more: clients keep catalogs for an hour, and
/// longer while a server is in trouble.
pub const GRACE: SignedDuration = SignedDuration::from_hours(48);
/// How many versions of a product stay when nobody says.
pub const KEEP: usize = 3;

/// Rules that keep versions. One that any of them keeps stays, as does the newest of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// So many of each product and kind (container, virtual machine), the newest.
    pub keep: Option<usize>,
    /// What is no older than so many days, by its serial.
    pub days: Option<u32>,
}

impl Retention {
    /// The newest so many.
    pub(super) const fn newest(keep: usize) -> Self {
        Self { keep: Some(keep), days: None }
    }

    /// Why the version goes that has `newer` newer ones; `None` when it stays.
    fn reason(&self, newer: usize, serial: &str, now: Timestamp) -> Option<String> {
        let count = self.keep.is_some_and(|keep| newer < keep);
        let young = self.days.zip(serial_date(serial)).is_some_and(|(days, date)| {
            now.duration_since(date) <= SignedDuration::from_hours(i64::from(days) * 24)
        });
        if newer == 0 || count || young || (self.keep, self.days) == (None, None) {
            return None;
        }
        let versions = if newer == 1 { "version" } else { "versions" };
        let mut reason = format!("it has {newer} newer {versions}");
        if let Some(keep) = self.keep {
            reason.push_str(&format!(", the newest {} are kept", keep.max(1)));
        }
        if let Some(days) = self.days {
            reason.push_str(&format!(", it is older than {days} days"));
        }
        Some(reason)
    }
}

/// The images that are not published, each with the reason; `is_out` tells those that are not now.
///
/// Containers and virtual machines are counted apart, since no client can use one for the other. A
/// version goes as a whole, when no rule keeps any of its kinds. Without rules it all stays as it
/// is, except that the newest comes back where nothing of its product is left.
pub(super) fn dropped(
    rules: Option<&Retention>,
    products: &Products,
    is_out: impl Fn(&Fingerprint) -> bool,
    now: Timestamp,
) -> BTreeMap<Fingerprint, String> {
    let mut dropped = BTreeMap::new();
    for (name, product) in products.products() {
        let all = || product.versions().flat_map(|(_, images)| images);
        let published = all().filter(|image| !is_out(&image.fingerprint)).map(|image| image.kind);
        let published: BTreeSet<InstanceType> = published.collect();
        let mut newer: BTreeMap<InstanceType, usize> = BTreeMap::new();
        for (serial, images) in product.versions() {
            let kinds: BTreeSet<InstanceType> = images.iter().map(|image| image.kind).collect();
            let is_out = images.iter().all(|image| is_out(&image.fingerprint));
            let reason = |kind: &InstanceType| {
                let newer = newer.get(kind).copied().unwrap_or_default();
                match rules {
                    Some(rules) => rules.reason(newer, serial, now),
                    None => (is_out && (newer > 0 || published.contains(kind)))
                        .then(|| "it was withdrawn".to_owned()),
                }
            };
            let reasons: Option<Vec<String>> = kinds.iter().map(reason).collect();
            if let Some(reason) = reasons.and_then(|reasons| reasons.into_iter().next()) {
                let reason = format!("{name} {serial}: {reason}");
                dropped.extend(images.iter().map(|image| (image.fingerprint, reason.clone())));
            }
            for kind in kinds {
                *newer.entry(kind).or_default() += 1;
            }
        }
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_any_rule_keeps_stays() {
        let now = "2026-11-24T12:00:00Z".parse().unwrap();
        for (keep, days, newer, serial, goes) in [
            (Some(2), None, 1, "20200101", false),
            (Some(2), None, 2, "20261124", true),
            (Some(0), None, 0, "20200101", false),
            (Some(0), None, 1, "20261124", true),
            (None, Some(3), 0, "20200101", false),
            (None, Some(3), 9, "20261122", false),
            (None, Some(3), 1, "20261120", true),
            (Some(2), Some(3), 1, "20261120", false),
            (Some(2), Some(3), 5, "20261123", false),
            (Some(2), Some(3), 5, "20261120", true),
            (None, None, 99, "20200101", false),
        ] {
            let reason = Retention { keep, days }.reason(newer, serial, now);
            assert_eq!(reason.is_some(), goes, "{keep:?} {days:?} {newer} {serial}: {reason:?}");
        }
    }
}
