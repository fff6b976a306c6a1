//! A value that is made when somebody first wants it, once for all who want it then.

use std::sync::{Arc, OnceLock};

use tokio::sync::Mutex;

use crate::error::{Error, Result};

/// Cheap to clone; the clones share the value.
#[derive(Debug)]
pub(super) struct Once<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    made: OnceLock<T>,
    turn: Arc<Mutex<()>>,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(Arc::new(Inner { made: OnceLock::new(), turn: Arc::default() }))
    }
}

impl<T: Clone + Send + Sync + 'static> Once<T> {
    /// The value, which `make` makes on a blocking thread unless it is there. It is finished also
    /// when nobody waits for it any more; after an error the next one tries again.
    pub(super) async fn get(&self, make: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        if let Some(made) = self.0.made.get() {
            return Ok(made.clone());
        }
        let turn = self.0.turn.clone().lock_owned().await;
        if let Some(made) = self.0.made.get() {
            return Ok(made.clone());
        }
        let inner = self.0.clone();
        let made = tokio::task::spawn_blocking(move || {
            let made = make()?;
            let made = inner.made.get_or_init(|| made).clone();
            drop(turn);
            Ok(made)
        });
        made.await.map_err(|error| Error::Internal(error.to_string()))?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn it_is_made_once_and_again_only_after_an_error() {
        let once = Once::default();
        let failed = once.get(|| Err::<usize, _>(Error::Cancelled)).await;
        assert!(failed.is_err());
        let made = Arc::new(AtomicUsize::new(0));
        let get = || {
            let made = made.clone();
            once.get(move || Ok(made.fetch_add(1, Ordering::Relaxed)))
        };
        let (first, second, third) = tokio::join!(get(), get(), get());
        assert_eq!([first.unwrap(), second.unwrap(), third.unwrap()], [0, 0, 0]);
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }
}
