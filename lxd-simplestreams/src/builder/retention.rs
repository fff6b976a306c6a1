//! Which versions of a tree stay.

use jiff::{SignedDuration, Timestamp};

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
    /// So many of each product, the newest.
    pub keep: Option<usize>,
    /// What is no older than so many days, by its serial.
    pub days: Option<u32>,
}

/// A version that no rule keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) product: String,
    pub(super) serial: String,
    pub(super) reason: String,
}

impl Retention {
    /// What goes.
    pub(super) fn dropped(&self, products: &Products, now: Timestamp) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        for (name, product) in products.products() {
            for (at, (serial, _)) in product.versions().enumerate() {
                let Some(reason) = self.reason(at, serial, now) else { continue };
                let (product, serial) = (name.to_owned(), serial.to_owned());
                dropped.push(Dropped { product, serial, reason });
            }
        }
        dropped
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
