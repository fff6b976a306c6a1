//! Which instances there are, in memory. Only the database's writer changes it, after each commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::instance::InstanceName;
use parking_lot::RwLock;

use crate::db::{InstanceChange, InstanceRecord};
use crate::error::{INSTANCE_NOT_FOUND, Result};

/// The instances by name.
#[derive(Debug, Default)]
pub struct Instances {
    records: RwLock<BTreeMap<InstanceName, Arc<InstanceRecord>>>,
}

impl Instances {
    /// Takes over what the database holds.
    pub fn fill(&self, records: Vec<InstanceRecord>) {
        let records = records.into_iter().map(|it| (it.name.clone(), Arc::new(it)));
        *self.records.write() = records.collect();
    }

    /// A change that is on disk.
    pub fn apply(&self, change: &InstanceChange) {
        let mut records = self.records.write();
        let mut edit = |name: &InstanceName, edit: &dyn Fn(&mut InstanceRecord)| {
            if let Some(record) = records.get_mut(name) {
                edit(Arc::make_mut(record));
            }
        };
        match change {
            InstanceChange::Create(record) => {
                records.insert(record.name.clone(), Arc::new((**record).clone()));
            }
            InstanceChange::Update(new) => edit(&new.name, &|record| {
                record.last_used_at = new.last_used_at;
                record.definition.clone_from(&new.definition);
            }),
            InstanceChange::Rename(from, to) => {
                if let Some(mut record) = records.remove(from) {
                    Arc::make_mut(&mut record).name = to.clone();
                    records.insert(to.clone(), record);
                }
            }
            InstanceChange::Delete(name) => drop(records.remove(name)),
            InstanceChange::Snapshot(instance, name, taken) => edit(instance, &|record| {
                record.snapshots.insert(name.clone(), (**taken).clone());
            }),
            InstanceChange::Expire(instance, name, at) => edit(instance, &|record| {
                if let Some(taken) = record.snapshots.get_mut(name) {
                    taken.expires_at = *at;
                }
            }),
            InstanceChange::RenameSnapshot(instance, from, to) => edit(instance, &|record| {
                if let Some(taken) = record.snapshots.remove(from) {
                    record.snapshots.insert(to.clone(), taken);
                }
            }),
            InstanceChange::DeleteSnapshot(instance, name) => edit(instance, &|record| {
                record.snapshots.remove(name);
            }),
        }
    }

    /// All, by name.
    pub fn all(&self) -> Vec<Arc<InstanceRecord>> {
        self.records.read().values().cloned().collect()
    }

    /// The one with this name.
    pub fn get(&self, name: &InstanceName) -> Result<Arc<InstanceRecord>> {
        self.records.read().get(name).cloned().ok_or(INSTANCE_NOT_FOUND)
    }

    /// Whether an instance or a snapshot lies on the tree of this image.
    pub fn uses(&self, image: &Fingerprint) -> bool {
        self.records.read().values().any(|record| {
            let snapshots = record.snapshots.values().map(|taken| &taken.definition);
            std::iter::once(&record.definition)
                .chain(snapshots)
                .any(|definition| definition.image.as_ref() == Some(image))
        })
    }
}
