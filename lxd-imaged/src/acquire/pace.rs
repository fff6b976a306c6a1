//! A limit of bytes a second that several downloads share.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How far ahead of its rate a download may be: short stalls are made up for.
const AHEAD: Duration = Duration::from_millis(200);

/// Lets bytes pass at a rate, whoever brings them.
#[derive(Debug)]
pub struct Pace {
    /// Bytes a second.
    rate: u64,
    /// When all that has passed would have passed at that rate.
    due: Mutex<Instant>,
}

impl Pace {
    /// So many bytes a second; `None` for 0.
    pub fn new(rate: u64) -> Option<Self> {
        (rate > 0).then(|| Self { rate, due: Mutex::new(Instant::now()) })
    }

    /// Waits until so many bytes may pass.
    pub async fn pass(&self, bytes: usize) {
        let wait = self.reserve(bytes, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes the next place in the line; returns how long it is from `now` to that.
    fn reserve(&self, bytes: usize, now: Instant) -> Duration {
        let mut due = self.due.lock();
        let nanos = (bytes as u128) * 1_000_000_000 / u128::from(self.rate);
        *due = (*due).max(now) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        due.saturating_duration_since(now).saturating_sub(AHEAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_bring_passes_at_one_rate() {
        let pace = Pace::new(1000).unwrap();
        let now = Instant::now();
        let waits: Vec<_> = (0..40).map(|_| pace.reserve(100, now).as_millis()).collect();
        assert_eq!(&waits[..4], [0, 0, 100, 200]);
        assert!((3790..=3801).contains(&waits[39]), "{waits:?}");
        // Time that nobody used is lost.
        let later = now + Duration::from_mins(1);
        assert_eq!(pace.reserve(100, later), Duration::ZERO);
        assert!(pace.reserve(1000, later) > Duration::from_millis(800));
        assert!(Pace::new(0).is_none());
    }
}
