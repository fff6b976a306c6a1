//! Wrong passwords and tokens: how many an address may try.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, Result};
use crate::network::neighbourhood;

/// Wrong guesses that an address has at once.
const BURST: u32 = 10;
/// After that, one more in so much time.
const REFILL: Duration = Duration::from_secs(6);
/// Addresses that are remembered; beyond that, new ones share one count.
const MAX_ADDRESSES: usize = 10_000;
/// Passwords that are compared at once; each takes a core for a tenth of a second.
const AT_ONCE: usize = 2;

/// What each address has left.
#[derive(Debug)]
pub struct Guesses {
    tallies: Mutex<HashMap<Option<IpAddr>, Tally>>,
    comparing: Semaphore,
}

#[derive(Debug, Clone, Copy)]
struct Tally {
    spent: u32,
    since: Instant,
}

impl Default for Guesses {
    fn default() -> Self {
        Self { tallies: Mutex::default(), comparing: Semaphore::new(AT_ONCE) }
    }
}

impl Guesses {
    /// Counts one guess, before it is known to be wrong: a thousand at once are a thousand.
    pub fn attempt(&self, from: IpAddr) -> Result<()> {
        self.attempt_at(from, Instant::now())
    }

    fn attempt_at(&self, from: IpAddr, now: Instant) -> Result<()> {
        let mut tallies = self.tallies.lock();
        let mut from = Some(neighbourhood(from));
        if tallies.len() >= MAX_ADDRESSES && !tallies.contains_key(&from) {
            tallies.retain(|_, tally| tally.at(now).spent > 0);
            if tallies.len() >= MAX_ADDRESSES {
                from = None;
            }
        }
        let tally = tallies.entry(from).or_insert(Tally { spent: 0, since: now });
        *tally = tally.at(now);
        if tally.spent >= BURST {
            let wait = REFILL.saturating_sub(now - tally.since);
            return Err(Error::TooManyGuesses { seconds: wait.as_secs() + 1 });
        }
        tally.spent += 1;
        Ok(())
    }

    /// The guess was right: the address has all of its guesses again.
    pub fn right(&self, from: IpAddr) {
        self.tallies.lock().remove(&Some(neighbourhood(from)));
    }

    /// Waits for a turn to compare a password.
    pub async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        self.comparing.acquire().await.map_err(|_| Error::ShuttingDown)
    }
}

impl Tally {
    /// The same at another time: what has been given back is.
    fn at(self, now: Instant) -> Self {
        let periods = (now - self.since).as_secs() / REFILL.as_secs();
        let back = u32::try_from(periods).unwrap_or(u32::MAX);
        if back >= self.spent {
            return Self { spent: 0, since: now };
        }
        Self { spent: self.spent - back, since: self.since + REFILL * back }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_run_out_and_come_back() {
        let (guesses, start) = (Guesses::default(), Instant::now());
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let count = |from, after| {
            (0..100).filter(|_| guesses.attempt_at(from, start + REFILL * after).is_ok()).count()
        };
        assert_eq!(count(one, 0), 10);
        assert_eq!(count(one, 0), 0);
        assert_eq!(count(other, 0), 10, "others are not held up");
        assert_eq!(count(one, 3), 3);
        assert_eq!(count(one, 1000), 10);
        guesses.right(one);
        assert_eq!(count(one, 1000), 10);
    }

    #[test]
    fn memory_is_bounded() {
        let (guesses, start) = (Guesses::default(), Instant::now());
        for number in 0..2 * u32::try_from(MAX_ADDRESSES).unwrap() {
            let _ = guesses.attempt_at(IpAddr::from(number.to_be_bytes()), start);
        }
        assert!(guesses.tallies.lock().len() <= MAX_ADDRESSES + 1);
        guesses.attempt_at(IpAddr::from([255, 0, 0, 1]), start + REFILL * 20).unwrap();
        assert_eq!(guesses.tallies.lock().len(), 1);
    }
}
