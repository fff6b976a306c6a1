//! One change at a time for each instance.

use std::collections::HashMap;
use std::sync::Arc;

use lxd_proto::instance::InstanceName;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio_util::sync::CancellationToken;

/// Locks by the name of the instance, whether it exists or is to be made.
#[derive(Debug, Default)]
pub struct Locks {
    /// Cancelled when changes may begin.
    open: CancellationToken,
    held: Mutex<HashMap<InstanceName, Arc<tokio::sync::Mutex<()>>>>,
    /// Beside the instance, and after it: its snapshots can be read while it is changed.
    snapshots: Mutex<HashMap<InstanceName, Arc<RwLock<()>>>>,
}

impl Locks {
    /// Lets changes begin: what an earlier daemon left has been tidied.
    pub fn open(&self) {
        self.open.cancel();
    }

    /// Waits until nobody else changes the instance, and until [`Locks::open`] was called: tidying
    /// takes what is half made for garbage.
    pub async fn hold(&self, name: &InstanceName) -> OwnedMutexGuard<()> {
        self.open.cancelled().await;
        let lock = {
            let mut held = self.held.lock();
            // Those that nobody holds or waits for.
            held.retain(|_, lock| Arc::strong_count(lock) > 1);
            held.entry(name.clone()).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// Keeps the snapshots of an instance that the caller holds as they are. It may let go of the
    /// instance then.
    pub async fn read_snapshots(&self, name: &InstanceName) -> OwnedRwLockReadGuard<()> {
        self.of_snapshots(name).read_owned().await
    }

    /// Waits until nobody reads snapshots of an instance that the caller holds.
    pub async fn change_snapshots(&self, name: &InstanceName) -> OwnedRwLockWriteGuard<()> {
        self.of_snapshots(name).write_owned().await
    }

    fn of_snapshots(&self, name: &InstanceName) -> Arc<RwLock<()>> {
        let mut snapshots = self.snapshots.lock();
        snapshots.retain(|_, lock| Arc::strong_count(lock) > 1);
        snapshots.entry(name.clone()).or_default().clone()
    }

    /// Waits for two instances, in the order in which everybody does who needs two.
    pub async fn hold_both(
        &self,
        one: &InstanceName,
        other: &InstanceName,
    ) -> (OwnedMutexGuard<()>, Option<OwnedMutexGuard<()>>) {
        let (first, second) = if one < other { (one, other) } else { (other, one) };
        let first_held = self.hold(first).await;
        let second_held = if first == second { None } else { Some(self.hold(second).await) };
        (first_held, second_held)
    }
}
