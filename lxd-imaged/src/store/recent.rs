//! Blobs that were opened lately stay open: an image that many fetch is looked up once.

use std::collections::VecDeque;

use lxd_proto::fingerprint::Fingerprint;
use parking_lot::Mutex;

use super::blobs::OpenBlob;

/// Blobs that stay open.
const KEPT: usize = 32;

/// The blobs opened last.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: VecDeque<(Fingerprint, OpenBlob)>,
    /// Removals so far: a blob opened before one may be the one that is gone.
    removals: u64,
}

impl Recent {
    /// The blob, if it is still open; and what [`Recent::keep`] wants to know.
    pub(super) fn get(&self, digest: &Fingerprint) -> (Option<OpenBlob>, u64) {
        let state = self.0.lock();
        let found = state.open.iter().find(|(known, _)| known == digest);
        (found.map(|(_, blob)| blob.clone()), state.removals)
    }

    /// Keeps a blob that was opened when so many removals had been seen.
    pub(super) fn keep(&self, digest: Fingerprint, blob: &OpenBlob, removals: u64) {
        let mut state = self.0.lock();
        if state.removals != removals || state.open.iter().any(|(known, _)| *known == digest) {
            return;
        }
        if state.open.len() >= KEPT {
            state.open.pop_front();
        }
        state.open.push_back((digest, blob.clone()));
    }

    /// Closes a blob that is about to be removed, so that its space is freed.
    pub(super) fn forget(&self, digest: &Fingerprint) {
        let mut state = self.0.lock();
        state.removals += 1;
        state.open.retain(|(known, _)| known != digest);
    }
}
