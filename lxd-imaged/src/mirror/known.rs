//! Which mirrors there are and what they keep, in memory. Only the database's writer changes it,
//! after each commit.

use std::collections::BTreeMap;

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::mirror::MirrorName;
use parking_lot::RwLock;

use crate::db::{Member, MirrorChange, MirrorRecord};
use crate::error::{MIRROR_NOT_FOUND, Result};

/// The mirrors by name.
#[derive(Debug, Default)]
pub struct Mirrors {
    records: RwLock<BTreeMap<MirrorName, MirrorRecord>>,
}

/// What an image is to all mirrors together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// How many mirrors keep it.
    pub mirrors: usize,
    /// Whether a person has put it in too.
    pub shared: bool,
}

impl Mirrors {
    /// Takes over what the database holds.
    pub fn fill(&self, records: Vec<MirrorRecord>) {
        *self.records.write() = records.into_iter().map(|it| (it.name.clone(), it)).collect();
    }

    /// A change that is on disk.
    pub fn apply(&self, change: &MirrorChange) {
        let mut records = self.records.write();
        match change {
            MirrorChange::Create(record) => {
                records.insert(record.name.clone(), (**record).clone());
            }
            MirrorChange::Update { name, config, declared } => {
                if let Some(record) = records.get_mut(name) {
                    record.config.clone_from(config);
                    record.declared = *declared;
                }
            }
            MirrorChange::Delete(name) => drop(records.remove(name)),
            MirrorChange::Ran(name, run) => {
                if let Some(record) = records.get_mut(name) {
                    record.last_run = Some((**run).clone());
                }
            }
            MirrorChange::Take(taken) => {
                let fingerprint = taken.image.image.fingerprint;
                if let Some(record) = records.get_mut(&taken.mirror) {
                    record.members.insert(fingerprint, taken.member.clone());
                }
                for (alias, _) in &taken.image.aliases {
                    own(&mut records, &taken.mirror, alias.as_str(), fingerprint);
                }
            }
            MirrorChange::Leave(name, fingerprint) => {
                if let Some(record) = records.get_mut(name) {
                    record.members.remove(fingerprint);
                }
            }
            MirrorChange::Claim(fingerprint) => {
                for record in records.values_mut() {
                    if let Some(member) = record.members.get_mut(fingerprint) {
                        member.shared = true;
                    }
                }
            }
            MirrorChange::Point(name, aliases) => {
                for (alias, target) in aliases {
                    own(&mut records, name, alias.as_str(), *target);
                }
            }
            MirrorChange::Unset(name, aliases) => {
                if let Some(record) = records.get_mut(name) {
                    for (alias, _) in aliases {
                        record.aliases.remove(alias.as_str());
                    }
                }
            }
        }
    }

    /// An image has been deleted.
    pub fn forget(&self, fingerprint: &Fingerprint) {
        for record in self.records.write().values_mut() {
            record.members.remove(fingerprint);
        }
    }

    /// Looks at all, by name.
    pub fn each(&self, mut look: impl FnMut(&MirrorRecord)) {
        self.records.read().values().for_each(&mut look);
    }

    /// Looks at the one with this name.
    pub fn look<T>(&self, name: &MirrorName, look: impl FnOnce(&MirrorRecord) -> T) -> Result<T> {
        self.records.read().get(name).map(look).ok_or(MIRROR_NOT_FOUND)
    }

    /// What an image is to one mirror.
    pub fn member(&self, name: &MirrorName, fingerprint: &Fingerprint) -> Option<Member> {
        self.records.read().get(name)?.members.get(fingerprint).cloned()
    }

    /// What an image is to mirrors; `None` when no mirror keeps it.
    pub fn kept(&self, fingerprint: &Fingerprint) -> Option<Kept> {
        let records = self.records.read();
        let mut members = records.values().filter_map(|record| record.members.get(fingerprint));
        let first = members.next()?;
        let start = Kept { mirrors: 1, shared: first.shared };
        Some(members.fold(start, |kept, member| Kept {
            mirrors: kept.mirrors + 1,
            shared: kept.shared || member.shared,
        }))
    }

    /// Whether this mirror has pointed the alias at this image.
    pub fn has_set(&self, name: &MirrorName, alias: &str, target: &Fingerprint) -> bool {
        let records = self.records.read();
        records.get(name).is_some_and(|record| record.aliases.get(alias) == Some(target))
    }

    /// Whether any mirror has pointed the alias at this image.
    pub fn any_has_set(&self, alias: &str, target: &Fingerprint) -> bool {
        let records = self.records.read();
        records.values().any(|record| record.aliases.get(alias) == Some(target))
    }
}

/// An alias has been set by one mirror, and so by no other.
fn own(
    records: &mut BTreeMap<MirrorName, MirrorRecord>,
    mirror: &MirrorName,
    alias: &str,
    target: Fingerprint,
) {
    for (name, record) in records {
        if name == mirror {
            record.aliases.insert(alias.to_owned(), target);
        } else {
            record.aliases.remove(alias);
        }
    }
}
