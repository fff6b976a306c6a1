//! What lies in a tree beside the files that its catalogs list.

use std::collections::BTreeMap;

use super::listed::Listed;
use super::{Checking, FaultKind};
use crate::builder::digest::Digests;
use crate::builder::disk;
use crate::builder::error::{Broken, Result};
use crate::builder::place::IMAGES;
use crate::builder::recognize::{Content, recognize};
use crate::builder::scan::{Walked, join, walk};
use crate::builder::state::State;
use crate::builder::sums::{self, SHA256SUMS};

impl Checking<'_> {
    /// What lies beside the listed files.
    pub(super) fn others(
        &mut self,
        listed: &Listed,
        hashes: &BTreeMap<String, Digests>,
        state: &State,
    ) -> Result<()> {
        let Walked { directories, broken, passed } = walk(self.root, IMAGES)?;
        self.report.warnings.extend(passed);
        for Broken { path, reason } in broken {
            self.fault(&path, FaultKind::Unreadable, reason);
        }
        for directory in directories {
            let is_listed = |name: &str| listed.files.contains_key(&join(&directory.path, name));
            let has_listed = directory.files.iter().any(|(name, _)| is_listed(name));
            for (name, _) in &directory.files {
                let path = join(&directory.path, name);
                if is_listed(name) || state.is_withdrawn(&path) {
                    continue;
                }
                if name == SHA256SUMS {
                    self.sums(&directory.path, hashes);
                    continue;
                }
                // Which one it is, the documents would have to tell.
                if self.unread {
                    continue;
                }
                match recognize(&self.root.join(&path)) {
                    Ok(Content::Other | Content::Bare) => {}
                    // A second metadata file for another family of clients.
                    Ok(Content::Metadata(_)) if has_listed => {}
                    Ok(_) => self.fault(&path, FaultKind::Orphan, "no catalog lists it"),
                    Err(error) => {
                        let reason = format!("no catalog lists it, and it is broken: {error}");
                        self.fault(&path, FaultKind::Orphan, reason);
                    }
                }
            }
        }
        Ok(())
    }

    fn sums(&mut self, directory: &str, hashes: &BTreeMap<String, Digests>) {
        let path = join(directory, SHA256SUMS);
        let text = match disk::read(&self.root.join(&path)) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => return self.fault(&path, FaultKind::Hash, error),
        };
        let sums = sums::parse(&text);
        let prefix = format!("{directory}/");
        for (file, digests) in hashes.range(prefix.clone()..) {
            let Some(name) = file.strip_prefix(&prefix) else { break };
            match sums.get(name) {
                Some(sum) if *sum != digests.sha256 => {
                    self.fault(&path, FaultKind::Hash, format!("{name} has another hash"));
                }
                // It may tell less, and more.
                _ => {}
            }
        }
    }
}
