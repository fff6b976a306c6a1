//! Signed documents, held against those without a signature.

use std::fs;

use super::{Checking, FaultKind};
use crate::document::Catalog;
use crate::publish::SIGNED_INDEX;
use crate::sign_tree;
use crate::signed::Keyring;

impl Checking<'_> {
    /// Holds signed documents against the others, if there are any or there should be.
    pub(super) fn signatures(&mut self, keyring: Option<&Keyring>, catalogs: &[(String, Catalog)]) {
        let plain = catalogs.iter().filter_map(|(path, _)| path.strip_suffix(".json"));
        let mut signed = plain.map(|stem| format!("{stem}.sjson"));
        let is_there = |path: &str| fs::symlink_metadata(self.root.join(path)).is_ok();
        let is_signed = is_there(SIGNED_INDEX) || signed.any(|path| is_there(&path));
        if keyring.is_none() && !is_signed {
            return;
        }
        match sign_tree::faults(self.root, keyring) {
            Ok(faults) => {
                for (path, reason) in faults {
                    self.fault(&path, FaultKind::Signature, reason);
                }
            }
            // Which is a fault of the document.
            Err(_) if self.unread => {}
            Err(error) => self.fault(SIGNED_INDEX, FaultKind::Signature, error),
        }
    }
}
