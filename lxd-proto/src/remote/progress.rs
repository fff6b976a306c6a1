//! How far a transfer is: counted by who moves the bytes, read by who shows or relays it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A shared pair of counters; clones count together. Counting never blocks.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    done: AtomicU64,
    /// 0 while unknown.
    total: AtomicU64,
}

impl Progress {
    /// Says how many bytes there will be.
    pub fn set_total(&self, bytes: u64) {
        self.0.total.store(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that have moved.
    pub fn add(&self, bytes: usize) {
        self.0.done.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that have moved.
    pub fn done(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }

    /// Bytes there will be, if known.
    pub fn total(&self) -> Option<u64> {
        match self.0.total.load(Ordering::Relaxed) {
            0 => None,
            total => Some(total),
        }
    }
}
