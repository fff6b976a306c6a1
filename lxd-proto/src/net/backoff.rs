//! How long to wait before asking again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(10);

/// The pause before attempt number `attempt` (the first again is 1): it doubles, and half of it
/// is chance, so that many who were cut off together do not come back together.
pub(super) fn pause(first: Duration, attempt: u32) -> Duration {
    let doubled = first.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    let whole = doubled.min(LONGEST);
    let chance = u32::from(RandomState::new().hash_one(attempt).to_le_bytes()[0]);
    whole / 2 + whole / 2 * chance / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let first = Duration::from_millis(200);
        for (attempt, longest) in [(1, 200), (2, 400), (5, 3200), (9, 10_000), (99, 10_000)] {
            let pause = pause(first, attempt);
            let longest = Duration::from_millis(longest);
            assert!(pause <= longest && pause >= longest / 2, "{attempt}: {pause:?}");
        }
    }
}
