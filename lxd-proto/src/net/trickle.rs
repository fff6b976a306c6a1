//! Servers that send so little that it would never end, but never nothing.

use std::time::Duration;

/// The rate below which a server is given up, in bytes a second.
const SLOWEST: u64 = 256;

/// What has come of one body, and how long we did nothing but wait for it: time in which we do
/// not ask for more is not the server's.
#[derive(Debug, Default)]
pub(crate) struct Trickle {
    waited: Duration,
    bytes: u64,
}

impl Trickle {
    /// Counts what has come after some waiting. Once that adds up to `window`: how many bytes came
    /// in which time, if they were too few.
    pub(crate) fn came(
        &mut self,
        waited: Duration,
        bytes: usize,
        window: Duration,
    ) -> Option<(u64, Duration)> {
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.waited < window {
            return None;
        }
        let Self { waited, bytes } = std::mem::take(self);
        let least = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX).saturating_mul(SLOWEST);
        (bytes < least / 1000).then_some((bytes, waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_sends_too_little_for_too_long_is_given_up() {
        let window = Duration::from_mins(1);
        let mut thin = Trickle::default();
        for _ in 0..5 {
            assert_eq!(thin.came(Duration::from_secs(10), 1, window), None);
        }
        assert_eq!(thin.came(Duration::from_secs(10), 1, window), Some((6, window)));
        let mut slow = Trickle::default();
        for _ in 0..100 {
            assert_eq!(slow.came(Duration::from_secs(10), 10_000, window), None);
        }
    }
}
