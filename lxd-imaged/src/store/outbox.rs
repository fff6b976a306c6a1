//! Sending ranges of files without bringing their bytes into the process.
//!
//! An HTTP body is made of byte slices. Where a connection can have the kernel copy from a file to
//! its socket, the body consists of *stand-ins*: slices of the right length whose bytes nobody
//! reads. The connection's writer recognises a stand-in by its address and sends the next bytes of
//! the file range that was queued with it.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes of one stand-in at most.
pub const LONGEST: u64 = 1 << 20;

/// The slice all stand-ins are cut from: zeroed memory that is never touched, so it costs nothing.
static STAND_IN: LazyLock<Bytes> =
    LazyLock::new(|| Bytes::from(vec![0; usize::try_from(LONGEST).unwrap_or(0)]));

/// File ranges that one connection is about to send, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<VecDeque<(Arc<File>, Range<u64>)>>,
}

impl Outbox {
    /// Nothing to send yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Queues a range of at most [`LONGEST`] bytes; the stand-in must be written to this
    /// connection, in the order of the calls.
    pub fn queue(&self, file: Arc<File>, range: Range<u64>) -> Bytes {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let stand_in = STAND_IN.slice(..length.min(STAND_IN.len()));
        self.waiting.lock().push_back((file, range));
        stand_in
    }

    /// Whether `slice` is (the rest of) a stand-in.
    pub fn stands_in(slice: &[u8]) -> bool {
        STAND_IN.as_ptr_range().contains(&slice.as_ptr())
    }

    /// The file and the position that the first bytes not yet sent come from.
    pub fn next(&self) -> Option<(Arc<File>, u64)> {
        let waiting = self.waiting.lock();
        waiting.front().map(|(file, range)| (file.clone(), range.start))
    }

    /// `count` bytes of the next range have been sent.
    pub fn sent(&self, count: u64) {
        let mut waiting = self.waiting.lock();
        if let Some((_, range)) = waiting.front_mut() {
            range.start += count;
            if range.is_empty() {
                waiting.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_is_known_by_its_address_and_sent_piece_by_piece() {
        let outbox = Outbox::new();
        let file = Arc::new(tempfile::tempfile().unwrap());
        let stand_in = outbox.queue(file.clone(), 100..300);
        assert_eq!(stand_in.len(), 200);
        assert!(Outbox::stands_in(&stand_in) && Outbox::stands_in(&stand_in[150..]));
        assert!(!Outbox::stands_in(&[0; 200]));
        outbox.sent(50);
        assert_eq!(outbox.next().unwrap().1, 150);
        outbox.sent(150);
        assert!(outbox.next().is_none());
    }
}
