//! What leaves the catalog, and what comes back into it. The files stay where they are for a while.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lxd_proto::fingerprint::Fingerprint;
use serde::Serialize;

use super::LocalTree;
use super::before::Before;
use super::deltas::parse_name;
use super::digest::Stamp;
use super::report::BuildReport;
use super::scan::{DeltaFile, Version, join};
use super::state::Withdrawal;

/// Something that leaves a tree or comes back, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// A directory or a file, from the root of the tree.
    pub path: String,
    /// Why it goes.
    pub reason: String,
}

impl LocalTree {
    /// Takes the versions out whose images are all in `gone`, and puts those back that are not any
    /// more.
    pub(super) fn settle(
        &mut self,
        versions: &mut Vec<Version>,
        deltas: &[DeltaFile],
        gone: &BTreeMap<Fingerprint, String>,
        before: &Before,
        now: Timestamp,
        report: &mut BuildReport,
    ) {
        for version in std::mem::take(versions) {
            let reasons = version.images.iter().map(|image| gone.get(&image.fingerprint));
            let reason = reasons.collect::<Option<Vec<_>>>().and_then(|all| all.first().copied());
            let known = self.state.withdrawal_of(&version.images);
            let Some(reason) = reason else {
                if let Some(known) = known {
                    let path = self.state.withdrawals.remove(known).path;
                    let reason = "it is one that stays again".to_owned();
                    report.restored.push(Removal { path, reason });
                }
                versions.push(version);
                continue;
            };
            let files = self.files_of(&version, deltas);
            if let Some(known) = known {
                // What was touched since is still what was withdrawn, by its hash.
                let withdrawal = &mut self.state.withdrawals[known];
                withdrawal.files.extend(files);
                if withdrawal.files.keys().any(|path| before.paths.contains(path)) {
                    // Somebody has put back an older catalog, whose readers know of it.
                    withdrawal.since = now;
                }
                continue;
            }
            let path = match version.files.first() {
                Some(first) if !version.is_alone => join(&version.directory, first),
                _ => version.directory.clone(),
            };
            report.withdrawn.push(Removal { path: path.clone(), reason: reason.clone() });
            self.state.withdrawals.push(Withdrawal {
                path,
                since: now,
                reason: reason.clone(),
                serial: version.coordinates.serial.clone(),
                product: version.coordinates.product(),
                images: version.images.iter().map(|it| (it.fingerprint, it.kind)).collect(),
                files,
            });
        }
        for image in versions.iter().flat_map(|version| &version.images) {
            self.state.old.remove(&image.fingerprint);
        }
        self.forget_withdrawals(versions);
    }

    /// Forgets what was published again in another way, and what somebody else has removed.
    fn forget_withdrawals(&mut self, published: &[Version]) {
        let images = published.iter().flat_map(|version| &version.images);
        let images: BTreeSet<Fingerprint> = images.map(|image| image.fingerprint).collect();
        let root = &self.root;
        self.state.withdrawals.retain(|withdrawal| {
            !withdrawal.images.keys().any(|image| images.contains(image))
                && withdrawal.current_files(root).next().is_some()
        });
    }

    /// The files that go with a version.
    fn files_of(&self, version: &Version, deltas: &[DeltaFile]) -> BTreeMap<String, Stamp> {
        let own = version.files.iter().map(|name| join(&version.directory, name));
        let is_own = |delta: &&DeltaFile| version.is_alone && delta.directory == version.directory;
        let deltas = deltas.iter().filter(is_own).map(|delta| delta.file.path.clone());
        let known = |path: String| Some((self.state.files.get(&path)?.stamp, path));
        own.chain(deltas).filter_map(known).map(|(stamp, path)| (path, stamp)).collect()
    }

    /// Notes the deltas in directories of published versions that start from what is not
    /// published; `used` are those that are published, or should be.
    pub(super) fn settle_deltas(
        &mut self,
        versions: &[Version],
        deltas: &[DeltaFile],
        used: &BTreeSet<String>,
        now: Timestamp,
        report: &mut BuildReport,
    ) {
        self.state.withdrawals.retain(|withdrawal| {
            let is_delta = withdrawal.images.is_empty();
            !(is_delta && withdrawal.files.keys().any(|path| used.contains(path)))
        });
        let homes: BTreeSet<&str> = versions.iter().map(|it| it.directory.as_str()).collect();
        for delta in deltas {
            let path = &delta.file.path;
            let Some((_, base)) = parse_name(&delta.name) else { continue };
            let is_idle = homes.contains(delta.directory.as_str()) && !used.contains(path);
            if !is_idle || self.state.is_withdrawn(path) {
                continue;
            }
            let Some(stamp) = self.state.files.get(path).map(|known| known.stamp) else { continue };
            let reason = format!("the version {base} that it starts from is not published");
            report.withdrawn.push(Removal { path: path.clone(), reason: reason.clone() });
            self.state.withdrawals.push(Withdrawal {
                path: path.clone(),
                since: now,
                reason,
                serial: String::new(),
                product: String::new(),
                images: BTreeMap::new(),
                files: BTreeMap::from([(path.clone(), stamp)]),
            });
        }
    }
}
