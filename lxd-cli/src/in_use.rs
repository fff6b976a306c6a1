//! The remotes that a command uses, and what was told about them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Remotes in the order in which their use began.
#[derive(Debug, Default)]
pub(crate) struct InUse(Mutex<Vec<Used>>);

#[derive(Debug)]
struct Used {
    name: String,
    /// Whether it was told that this client is a stranger there.
    warned: bool,
}

impl InUse {
    /// The remote is used from now on.
    pub(crate) fn add(&self, name: &str) {
        let mut all = self.all();
        if !all.iter().any(|used| used.name == name) {
            all.push(Used { name: name.to_owned(), warned: false });
        }
    }

    /// The first one in use whose name is meant.
    pub(crate) fn find(&self, is_meant: impl Fn(&str) -> bool) -> Option<String> {
        self.all().iter().map(|used| &used.name).find(|name| is_meant(name)).cloned()
    }

    /// Whether a warning about this remote, which is in use, is the first one.
    pub(crate) fn is_first_warning(&self, name: &str) -> bool {
        self.all()
            .iter_mut()
            .find(|used| used.name == name)
            .is_some_and(|used| !std::mem::replace(&mut used.warned, true))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Used>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_remote_is_warned_of_once() {
        let in_use = InUse::default();
        assert!(!in_use.is_first_warning("a"), "it is not in use");
        for name in ["a", "b", "a"] {
            in_use.add(name);
        }
        let warned = ["a", "a", "b", "a"].map(|name| in_use.is_first_warning(name));
        assert_eq!(warned, [true, false, true, false]);
        assert_eq!(in_use.find(|_| true).as_deref(), Some("a"));
        assert_eq!(in_use.find(|name| name == "c"), None);
    }
}
