//! The hash over all parts of an image, beside the hash of the part that is being written.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// Bytes after which a part is worth a thread of its own.
const WORTH_A_THREAD: u64 = 4 << 20;
/// Chunks that may wait for the thread.
const QUEUE: usize = 4;

/// How many parts may be hashed beside their writer, which is as many as there are cores: an
/// upload that stalls keeps its thread.
#[derive(Debug, Clone)]
pub(super) struct Hashers(Arc<Semaphore>);

impl Default for Hashers {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(cores.max(2))))
    }
}

/// A running hash.
pub(super) struct Combined {
    place: Place,
    hashed: u64,
    hashers: Hashers,
}

enum Place {
    Here(Sha256),
    Beside(mpsc::Sender<Bytes>, JoinHandle<Sha256>),
    /// A thread has died.
    Lost,
}

impl Combined {
    pub(super) fn new(hash: Sha256, hashers: Hashers) -> Self {
        Self { place: Place::Here(hash), hashed: 0, hashers }
    }

    /// Hashes `chunk`, here or beside.
    pub(super) async fn update(&mut self, chunk: &Bytes) -> Result<()> {
        self.hashed += chunk.len() as u64;
        if self.hashed >= WORTH_A_THREAD {
            self.move_out();
        }
        match &mut self.place {
            Place::Here(hash) => hash.update(chunk),
            Place::Beside(queue, _) => queue.send(chunk.clone()).await.map_err(|_| lost())?,
            Place::Lost => return Err(lost()),
        }
        Ok(())
    }

    /// Gives the hash a thread, if one is free.
    fn move_out(&mut self) {
        if !matches!(self.place, Place::Here(_)) {
            return;
        }
        let Ok(permit) = self.hashers.0.clone().try_acquire_owned() else { return };
        if let Place::Here(hash) = std::mem::replace(&mut self.place, Place::Lost) {
            let (queue, chunks) = mpsc::channel(QUEUE);
            let thread = tokio::task::spawn_blocking(move || hash_all(hash, chunks, permit));
            self.place = Place::Beside(queue, thread);
        }
    }

    /// The hash over everything.
    pub(super) async fn finish(self) -> Result<Sha256> {
        match self.place {
            Place::Here(hash) => Ok(hash),
            Place::Beside(queue, thread) => {
                drop(queue);
                thread.await.map_err(|error| Error::Internal(error.to_string()))
            }
            Place::Lost => Err(lost()),
        }
    }
}

fn hash_all(
    mut hash: Sha256,
    mut chunks: mpsc::Receiver<Bytes>,
    _permit: OwnedSemaphorePermit,
) -> Sha256 {
    while let Some(chunk) = chunks.blocking_recv() {
        hash.update(&chunk);
    }
    hash
}

fn lost() -> Error {
    Error::Internal("the hash over the parts was lost".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hash_is_the_same_here_and_beside() {
        let hashers = Hashers(Arc::new(Semaphore::new(1)));
        let chunk = Bytes::from(vec![7; 1 << 20]);
        let mut beside = Combined::new(Sha256::new(), hashers.clone());
        let mut here = Combined::new(Sha256::new(), hashers);
        let mut expected = Sha256::new();
        for _ in 0..9 {
            beside.update(&chunk).await.unwrap();
            here.update(&chunk).await.unwrap();
            expected.update(&chunk);
        }
        assert!(matches!(beside.place, Place::Beside(..)), "the first one has a thread");
        assert!(matches!(here.place, Place::Here(_)), "there is no second one");
        let expected = expected.finalize();
        for combined in [beside, here] {
            assert_eq!(combined.finish().await.unwrap().finalize(), expected);
        }
    }
}
