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
        let wait = {
            let mut due = self.due.lock();
            let now = Instant::now();
            let begin = (*due).max(now);
            let nanos = (bytes as u128) * 1_000_000_000 / u128::from(self.rate);
            *due = begin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            due.saturating_duration_since(now).saturating_sub(AHEAD)
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn several_downloads_share_one_rate() {
        let pace = std::sync::Arc::new(Pace::new(1000).unwrap());
        let began = Instant::now();
        let mut all = Vec::new();
        for _ in 0..4 {
            let pace = pace.clone();
            all.push(tokio::spawn(async move {
                for _ in 0..10 {
                    pace.pass(100).await;
                }
            }));
        }
        for one in all {
            one.await.unwrap();
        }
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(3700) && took <= Duration::from_millis(4100),
            "{took:?}"
        );
        assert!(Pace::new(0).is_none());
    }
}
