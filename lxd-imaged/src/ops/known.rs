//! The operations that can be asked for: all that run, and those that ended a moment ago.

use std::collections::{HashMap, VecDeque};

use crate::error::{Error, Result};

/// Operations that may run at once.
const MOST_RUNNING: usize = 10_000;
/// Ended ones that are kept for who asks how they ended; beyond that the first to end go early.
const MOST_ENDED: usize = 20_000;

/// Operations by id.
#[derive(Debug)]
pub(super) struct Known<T> {
    all: HashMap<String, T>,
    /// Ids of those that have ended, in that order.
    ended: VecDeque<String>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { all: HashMap::new(), ended: VecDeque::new() }
    }
}

impl<T> Known<T> {
    /// Takes a new one that runs.
    pub(super) fn insert(&mut self, id: String, entry: T) -> Result<()> {
        if self.all.len() - self.ended.len() >= MOST_RUNNING {
            return Err(Error::TooMany("operations"));
        }
        self.all.insert(id, entry);
        Ok(())
    }

    /// It has ended, which its caller says once.
    pub(super) fn end(&mut self, id: &str) {
        if self.all.contains_key(id) {
            self.ended.push_back(id.to_owned());
        }
        if self.ended.len() > MOST_ENDED
            && let Some(first) = self.ended.pop_front()
        {
            self.all.remove(&first);
        }
    }

    /// Nobody needs an ended one any more.
    pub(super) fn forget(&mut self, id: &str) {
        // It is among the first: all are kept for the same time.
        if let Some(at) = self.ended.iter().position(|ended| ended == id) {
            self.ended.remove(at);
            self.all.remove(id);
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&T> {
        self.all.get(id)
    }

    pub(super) fn values(&self) -> impl ExactSizeIterator<Item = &T> {
        self.all.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_keeps_nobody_from_beginning() {
        let mut known = Known::default();
        let total = MOST_ENDED + 5;
        for number in 0..total {
            known.insert(number.to_string(), ()).unwrap();
            known.end(&number.to_string());
        }
        assert_eq!(known.values().len(), MOST_ENDED);
        assert!(known.get("4").is_none() && known.get("5").is_some());
        known.forget("4");
        known.forget("6");
        assert!(known.get("6").is_none());
        for number in 0..MOST_RUNNING {
            known.insert(format!("r{number}"), ()).unwrap();
        }
        let refused = known.insert("one more".into(), ()).unwrap_err();
        assert!(refused.to_string().contains("operations"), "{refused}");
        known.end("r0");
        known.insert("one more".into(), ()).unwrap();
    }
}
