//! Reused buffers: fresh ones cost a page fault every 4 KiB.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes that all transfers of one direction together hold in chunks, about.
const BUDGET: usize = 8 << 20;
/// The largest chunk: more gains nothing over a socket.
const LARGEST: usize = 256 << 10;
/// The smallest chunk, however many transfers there are.
const SMALLEST: usize = 32 << 10;
/// Idle buffers that are kept.
const KEPT: usize = 8;

/// Buffers for the transfers of one direction.
#[derive(Debug, Default)]
pub struct Buffers {
    idle: Mutex<Vec<Vec<u8>>>,
    transfers: AtomicUsize,
}

/// Counts a transfer as long as it lives; tells how large its chunks may be now.
#[derive(Debug)]
pub struct Transfer {
    buffers: Arc<Buffers>,
}

impl Buffers {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Begins a transfer.
    pub fn transfer(self: &Arc<Self>) -> Transfer {
        self.transfers.fetch_add(1, Ordering::Relaxed);
        Transfer { buffers: self.clone() }
    }

    fn take(&self, capacity: usize) -> Vec<u8> {
        let mut idle = self.idle.lock();
        match idle.iter().position(|buffer| buffer.capacity() >= capacity) {
            Some(index) => idle.swap_remove(index),
            None => Vec::with_capacity(capacity),
        }
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut idle = self.idle.lock();
        if idle.len() < KEPT && buffer.capacity() >= LARGEST {
            idle.push(buffer);
        }
    }
}

impl Transfer {
    /// Bytes that the next chunk should have.
    pub fn chunk_size(&self) -> usize {
        let transfers = self.buffers.transfers.load(Ordering::Relaxed).max(1);
        // A power of two, so that reads stay aligned to pages.
        let share = (BUDGET / transfers / 2).clamp(SMALLEST, LARGEST);
        1 << share.ilog2()
    }

    /// A buffer for a chunk of this size; old bytes may still be in it.
    pub fn buffer(&self) -> Vec<u8> {
        self.buffers.take(self.chunk_size())
    }

    /// Returns a buffer.
    pub fn give_back(&self, buffer: Vec<u8>) {
        self.buffers.give_back(buffer);
    }

    /// The buffer as [`Bytes`] that return it when the last of them is gone.
    pub fn share(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: Arc::downgrade(&self.buffers) })
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.buffers.transfers.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Lent {
    buffer: Vec<u8>,
    home: Weak<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.give_back(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_transfers_get_small_chunks_and_buffers_come_back() {
        let buffers = Buffers::new();
        let first = buffers.transfer();
        assert_eq!(first.chunk_size(), LARGEST);
        let many: Vec<_> = (0..400).map(|_| buffers.transfer()).collect();
        assert_eq!(first.chunk_size(), SMALLEST);
        drop(many);
        let mut buffer = first.buffer();
        buffer.extend_from_slice(b"abc");
        let shared = first.share(buffer);
        assert_eq!(&shared[..], b"abc");
        drop(shared);
        assert_eq!(buffers.idle.lock().len(), 1);
    }
}
