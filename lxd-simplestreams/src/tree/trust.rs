//! What a signed tree has to show: good signatures, none older than what was seen before, and
//! documents that belong together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde::{Deserialize, Serialize};

use crate::cache::{self, Key};
use crate::signed::{Keyring, Refused, Verified};

/// What the path of a signed document ends in.
pub(super) const EXTENSION: &str = ".sjson";
/// Documents of one tree whose times are remembered.
const MOST_SEEN: usize = 256;
/// Trees whose times are kept; the one that was not written for longest goes first.
const MAX_FILES: usize = 1024;
/// The largest file of times, in bytes.
const MAX_FILE: u64 = 2 << 20;

/// Whose signatures count, and what has been seen.
#[derive(Debug)]
pub(super) struct Trust {
    keyring: Keyring,
    /// Where times are kept; `None` keeps them in memory only.
    file: Option<PathBuf>,
    seen: Mutex<Seen>,
}

/// By path: when the newest document was signed that was ever taken from there, in seconds since
/// 1970.
type Seen = BTreeMap<String, i64>;

/// What the signature of a document says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// When it was made, in seconds since 1970.
    at: i64,
    /// When it or its key expires, if ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
    /// Which catalog the document says it is, and of when. Of an index only the time.
    #[serde(default)]
    itself: About,
}

/// Which catalog, and of when.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) content_id: String,
    /// As it is written.
    pub(super) updated: String,
}

impl Stamp {
    fn new(verified: &Verified) -> Self {
        Self {
            at: verified.signed_at.as_second(),
            until: verified.until.map(Timestamp::as_second),
            itself: About::default(),
        }
    }

    /// The same for a document that says this about itself.
    pub(super) fn of(self, itself: About) -> Self {
        Self { itself, ..self }
    }

    /// What the document says about itself.
    pub(super) fn into_itself(self) -> About {
        self.itself
    }

    /// Refuses a catalog that is not the one that the index means, or older than that.
    pub(super) fn matches(&self, listed: &About) -> Result<(), String> {
        let id = &self.itself.content_id;
        if *id != listed.content_id {
            return Err(format!(
                "it is the catalog of \"{}\", the index names \"{}\" there",
                id.escape_debug(),
                listed.content_id.escape_debug()
            ));
        }
        match (moment(&self.itself.updated), moment(&listed.updated)) {
            (Some(own), Some(wanted)) if own < wanted => Err(format!(
                "it is of {own}, older than the index says ({wanted}): they do not belong together"
            )),
            _ => Ok(()),
        }
    }

    fn lives(&self, now: Timestamp) -> Result<(), String> {
        match self.until.and_then(|until| Timestamp::from_second(until).ok()) {
            Some(until) if until <= now => {
                Err(format!("its signature or the key of it expired on {until}"))
            }
            _ => Ok(()),
        }
    }
}

/// A time as simplestreams documents write it; `None` for any other text.
fn moment(text: &str) -> Option<Timestamp> {
    let rfc3339 = || text.parse().ok();
    rfc2822::parse(text).ok().map(|time| time.timestamp()).or_else(rfc3339)
}

impl Trust {
    /// `address` is that of the tree, as the cache knows it.
    pub(super) fn new(keyring: Keyring, cache: Option<&Path>, address: Key) -> Self {
        let file = cache.map(|cache| cache.join(format!("{}.seen", address.hex())));
        Self { keyring, file, seen: Mutex::default() }
    }

    /// Checks a document. Needs time with a large one.
    pub(super) fn verify(&self, document: &[u8]) -> Result<(Vec<u8>, Stamp), Refused> {
        let verified = self.keyring.verify(document)?;
        let stamp = Stamp::new(&verified);
        Ok((verified.payload, stamp))
    }

    /// Refuses a document that is older than one that was seen at its path, or whose signature
    /// has expired since it was read.
    pub(super) fn admit(&self, path: &str, stamp: Option<&Stamp>) -> Result<(), String> {
        let Some(stamp) = stamp else { return Err("it is not signed".to_owned()) };
        stamp.lives(Timestamp::now())?;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get(path) {
            Some(newest) if stamp.at < *newest => {
                let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or_default();
                Err(format!(
                    "it was signed on {}, but a newer one of {} has been seen there before",
                    time(stamp.at),
                    time(*newest)
                ))
            }
            _ => Ok(()),
        }
    }

    /// Reads what this or another process has seen. Blocks.
    pub(super) fn recall(&self) {
        let Some(stored) = self.file.as_deref().and_then(read) else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        merge(&mut seen, stored);
    }

    /// Remembers documents that were taken: nothing older is taken from then on. Blocks.
    pub(super) fn remember<'a>(&self, taken: impl Iterator<Item = (&'a str, &'a Stamp)>) {
        let now: Seen = taken.map(|(path, stamp)| (path.to_owned(), stamp.at)).collect();
        let stored = self.file.as_deref().and_then(read).unwrap_or_default();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        merge(&mut seen, stored.clone());
        merge(&mut seen, now.clone());
        if seen.len() > MOST_SEEN {
            seen.retain(|path, _| now.contains_key(path));
        }
        let Some(file) = self.file.as_deref().filter(|_| *seen != stored) else { return };
        if let Err(error) = write(file, &seen) {
            tracing::warn!(
                path = %file.display(), %error,
                "cannot remember how new a signed catalog is; an older one could be taken next time"
            );
        }
    }
}

/// Keeps the newer time of each.
fn merge(seen: &mut Seen, other: Seen) {
    for (path, at) in other {
        let newest = seen.entry(path).or_insert(at);
        *newest = at.max(*newest);
    }
}

fn read(file: &Path) -> Option<Seen> {
    let length = std::fs::symlink_metadata(file).ok().filter(std::fs::Metadata::is_file)?.len();
    if length > MAX_FILE {
        return None;
    }
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

fn write(file: &Path, seen: &Seen) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(seen)?;
    cache::write(file, &bytes)?;
    cache::prune(file, MAX_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(at: i64, content_id: &str, updated: &str) -> Stamp {
        let itself = About { content_id: content_id.into(), updated: updated.into() };
        Stamp { at, until: None, itself }
    }

    #[test]
    fn a_catalog_is_the_one_that_the_index_means_and_no_older_one() {
        let listed = |content_id: &str, updated: &str| About {
            content_id: content_id.into(),
            updated: updated.into(),
        };
        let day = |day: u8| format!("Sat, {day:02} Jan 2026 07:00:00 +0000");
        for (own, wanted, fits) in [
            (day(10), day(10), true),
            (day(10), day(17), false),
            (day(17), day(10), true),
            ("2026-01-10T07:00:00Z".into(), day(10), true),
            ("2026-01-09T07:00:00Z".into(), "2026-01-10T07:00:00+00:00".into(), false),
            ("20260109".into(), day(10), true),
            (String::new(), day(10), true),
        ] {
            let verdict = stamp(1, "images", &own).matches(&listed("images", &wanted));
            assert_eq!(verdict.is_ok(), fits, "{own} {wanted}: {verdict:?}");
        }
        let error = stamp(1, "daily", &day(10)).matches(&listed("images", &day(10))).unwrap_err();
        assert!(error.contains("\"daily\"") && error.contains("\"images\""), "{error}");
    }

    #[test]
    fn nothing_older_is_taken_by_any_process() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache");
        let new = || {
            let (_, keyring) = crate::signed::tests::ed25519();
            Trust::new(keyring, Some(&cache), Key::of(&["https://a"]))
        };
        let trust = new();
        trust.admit("a.sjson", Some(&stamp(5, "", ""))).unwrap();
        trust.remember([("a.sjson", &stamp(5, "", ""))].into_iter());
        trust.admit("a.sjson", Some(&stamp(5, "", ""))).unwrap();
        trust.admit("b.sjson", Some(&stamp(1, "", ""))).unwrap();

        let other = new();
        other.recall();
        let error = other.admit("a.sjson", Some(&stamp(4, "", ""))).unwrap_err();
        assert!(error.contains("newer one of 1970-01-01T00:00:05Z"), "{error}");
        // What another process has seen is not forgotten by one that has seen less.
        new().remember([("a.sjson", &stamp(3, "", ""))].into_iter());
        let last = new();
        last.recall();
        assert!(last.admit("a.sjson", Some(&stamp(4, "", ""))).is_err());
        assert!(last.admit("a.sjson", None).is_err());
    }

    #[test]
    fn a_signature_that_has_expired_does_not_count_any_more() {
        let (_, keyring) = crate::signed::tests::ed25519();
        let trust = Trust::new(keyring, None, Key::of(&[]));
        let old = Stamp { until: Some(100), ..stamp(5, "", "") };
        let error = trust.admit("a.sjson", Some(&old)).unwrap_err();
        assert!(error.contains("expired on 1970"), "{error}");
    }
}
