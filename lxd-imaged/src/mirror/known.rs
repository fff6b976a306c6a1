//! Which mirrors there are and what they keep, in memory. Only the database's writer changes it,
//! after each commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::mirror::MirrorName;
use parking_lot::RwLock;

use crate::db::{Member, MirrorChange, MirrorRecord};
use crate::error::{MIRROR_NOT_FOUND, Result};

/// The mirrors by name.
///
/// The lock is never held while somebody looks at a record: the writer comes here with the lock of
/// the catalog in its hands, and who looks may want that one.
#[derive(Debug, Default)]
pub struct Mirrors {
    records: RwLock<Records>,
}

type Records = BTreeMap<MirrorName, Arc<MirrorRecord>>;

/// What an image is to all mirrors together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// How many mirrors keep it.
    pub mirrors: usize,
    /// Whether a person has put it in or changed it, too.
    pub shared: bool,
    /// Whether one of them shows what it keeps to strangers.
    pub public: bool,
}

impl Mirrors {
    /// Takes over what the database holds.
    pub fn fill(&self, records: Vec<MirrorRecord>) {
        *self.records.write() =
            records.into_iter().map(|it| (it.name.clone(), Arc::new(it))).collect();
    }

    /// A change that is on disk.
    pub fn apply(&self, change: &MirrorChange) {
        let mut records = self.records.write();
        match change {
            MirrorChange::Create(record) => {
                records.insert(record.name.clone(), Arc::new((**record).clone()));
            }
            MirrorChange::Update { name, config, declared } => {
                if let Some(record) = of(&mut records, name) {
                    record.config.clone_from(config);
                    record.declared = *declared;
                }
            }
            MirrorChange::Delete(name) => drop(records.remove(name)),
            MirrorChange::Ran(name, run) => {
                if let Some(record) = of(&mut records, name) {
                    record.last_run = Some((**run).clone());
                }
            }
            MirrorChange::Take(taken) => {
                let fingerprint = taken.image.image.fingerprint;
                if let Some(record) = of(&mut records, &taken.mirror) {
                    record.members.insert(fingerprint, taken.member.clone());
                }
                for (alias, _) in &taken.image.aliases {
                    own(&mut records, &taken.mirror, alias.as_str(), fingerprint);
                }
            }
            MirrorChange::Leave(name, fingerprint) => {
                if let Some(record) = of(&mut records, name) {
                    record.members.remove(fingerprint);
                }
            }
            MirrorChange::Claim(fingerprint) => {
                for record in keepers(&mut records, fingerprint) {
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
                if let Some(record) = of(&mut records, name) {
                    for (alias, _) in aliases {
                        record.aliases.remove(alias.as_str());
                    }
                }
            }
        }
    }

    /// An image has been deleted.
    pub fn forget(&self, fingerprint: &Fingerprint) {
        for record in keepers(&mut self.records.write(), fingerprint) {
            record.members.remove(fingerprint);
        }
    }

    /// A person has set an alias or taken it away: no mirror has any more.
    pub fn disown(&self, alias: &str) {
        let mut records = self.records.write();
        for record in records.values_mut().filter(|record| record.aliases.contains_key(alias)) {
            Arc::make_mut(record).aliases.remove(alias);
        }
    }

    /// All, by name.
    pub fn all(&self) -> Vec<Arc<MirrorRecord>> {
        self.records.read().values().cloned().collect()
    }

    /// The one with this name, as it is now.
    pub fn get(&self, name: &MirrorName) -> Result<Arc<MirrorRecord>> {
        self.records.read().get(name).cloned().ok_or(MIRROR_NOT_FOUND)
    }

    /// What an image is to one mirror.
    pub fn member(&self, name: &MirrorName, fingerprint: &Fingerprint) -> Option<Member> {
        self.records.read().get(name)?.members.get(fingerprint).cloned()
    }

    /// What an image is to mirrors; `None` when no mirror keeps it.
    pub fn kept(&self, fingerprint: &Fingerprint) -> Option<Kept> {
        let records = self.records.read();
        let mut kept = Kept { mirrors: 0, shared: false, public: false };
        for record in records.values() {
            let Some(member) = record.members.get(fingerprint) else { continue };
            kept.mirrors += 1;
            kept.shared |= member.shared;
            kept.public |= record.config.public;
        }
        (kept.mirrors > 0).then_some(kept)
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

/// The record with this name, to be changed; who looks at the old one keeps that.
fn of<'a>(records: &'a mut Records, name: &MirrorName) -> Option<&'a mut MirrorRecord> {
    records.get_mut(name).map(Arc::make_mut)
}

/// The records of the mirrors that keep an image, to be changed.
fn keepers<'a>(
    records: &'a mut Records,
    fingerprint: &Fingerprint,
) -> impl Iterator<Item = &'a mut MirrorRecord> {
    let keeps = |record: &&mut Arc<MirrorRecord>| record.members.contains_key(fingerprint);
    records.values_mut().filter(keeps).map(Arc::make_mut)
}

/// An alias has been set by one mirror, and so by no other.
fn own(records: &mut Records, mirror: &MirrorName, alias: &str, target: Fingerprint) {
    for (name, record) in records {
        if name == mirror {
            Arc::make_mut(record).aliases.insert(alias.to_owned(), target);
        } else if record.aliases.contains_key(alias) {
            Arc::make_mut(record).aliases.remove(alias);
        }
    }
}
