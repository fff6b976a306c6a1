//! What strangers see as a whole, and the files that they may fetch.

use std::sync::Arc;

use jiff::Timestamp;
use lxd_proto::fingerprint::Fingerprint;
use tokio::sync::watch;

use super::{Catalog, Contents, Entry, Viewer};
use crate::db::{Withdrawal, WithdrawnFile};

impl Catalog {
    /// The generation of what strangers see: another number after each change of it.
    pub fn generation(&self) -> u64 {
        self.contents.read().generation
    }

    /// Follows [`Self::generation`].
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// All that strangers see, replaced versions included, and its generation.
    pub fn published(&self) -> (u64, Vec<Arc<Entry>>) {
        let contents = self.contents.read();
        let seen = |entry: &&Arc<Entry>| Viewer::Stranger.sees(&entry.image);
        (contents.generation, contents.images.values().filter(seen).cloned().collect())
    }

    /// An image that strangers see, has the blob among its files and is what is `wanted`.
    pub fn publisher(
        &self,
        digest: &Fingerprint,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Option<Arc<Entry>> {
        let contents = self.contents.read();
        let mut users = contents.users.get(digest)?.iter().filter_map(|it| contents.images.get(it));
        users.find(|entry| Viewer::Stranger.sees(&entry.image) && wanted(entry)).cloned()
    }

    /// The file that a deleted image published under this name.
    pub fn withdrawn(&self, digest: &Fingerprint, name: &str) -> Option<WithdrawnFile> {
        let contents = self.contents.read();
        let named = contents.withdrawn.get(digest)?.iter().filter(|file| file.name == name);
        named.max_by_key(|file| file.withdrawn_at).cloned()
    }

    /// All files of deleted images that are still kept.
    pub fn all_withdrawn(&self) -> Vec<WithdrawnFile> {
        self.contents.read().withdrawn.values().flatten().cloned().collect()
    }
}

impl Contents {
    /// An image came, went or changed: if strangers see it, what they see is another now.
    pub(super) fn note(&mut self, entry: &Entry) {
        if Viewer::Stranger.sees(&entry.image) {
            self.generation += 1;
        }
    }

    /// Keeps files, each once under each name.
    pub(super) fn keep(&mut self, files: impl IntoIterator<Item = WithdrawnFile>) {
        for file in files {
            let kept = self.withdrawn.entry(file.digest).or_default();
            kept.retain(|known| (&known.name, known.image) != (&file.name, file.image));
            kept.push(file);
        }
    }

    /// The image goes; its files stay for a while if strangers saw it.
    pub(super) fn withdraw(&mut self, withdrawal: &Withdrawal) {
        let entry = self.images.get(&withdrawal.fingerprint);
        let seen = entry.is_some_and(|entry| Viewer::Stranger.sees(&entry.image));
        self.remove(&withdrawal.fingerprint);
        if seen {
            self.keep(withdrawal.files.iter().cloned());
        }
    }

    /// Forgets what is served for the sake of an image that was deleted once, and is here as a
    /// private one.
    pub(super) fn forget_files_of(&mut self, entry: &Entry) {
        for blob in entry.blobs() {
            self.retain_withdrawn(&blob.digest, |file| file.image != entry.image.fingerprint);
        }
    }

    fn retain_withdrawn(&mut self, digest: &Fingerprint, keep: impl Fn(&WithdrawnFile) -> bool) {
        if let Some(kept) = self.withdrawn.get_mut(digest) {
            kept.retain(keep);
            if kept.is_empty() {
                self.withdrawn.remove(digest);
            }
        }
    }

    /// Forgets files that were withdrawn at that time or before.
    pub(super) fn forget(
        &mut self,
        digests: impl IntoIterator<Item = Fingerprint>,
        before: Timestamp,
    ) {
        for digest in digests {
            self.retain_withdrawn(&digest, |file| file.withdrawn_at > before);
        }
    }
}
