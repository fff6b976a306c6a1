//! Bounded waiting, and turns for tests that measure time.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up: long enough for a loaded machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Asks until `ready` says yes; fails the test, naming `what`, after [`PATIENCE`].
pub fn until(what: &str, ready: impl FnMut() -> bool) {
    assert!(within(PATIENCE, ready), "waited {PATIENCE:?} for {what}");
}

/// Asks until `ready` says yes or `limit` has passed, and returns which.
pub fn within(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if ready() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Who runs now: tests side by side, or one that wants the machine for itself.
struct Turns {
    sharing: usize,
    alone: bool,
    queued: usize,
}

static TURNS: Mutex<Turns> = Mutex::new(Turns { sharing: 0, alone: false, queued: 0 });
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// Turns that this thread holds: a second daemon of one test never waits for a queue.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

fn turns() -> MutexGuard<'static, Turns> {
    TURNS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A turn on the machine; given back when dropped.
#[derive(Debug)]
pub struct Turn {
    alone: bool,
}

impl Turn {
    /// A turn beside others.
    pub fn shared() -> Self {
        let holds = HELD.get() > 0;
        let mut turns = turns();
        while !holds && (turns.alone || turns.queued > 0) {
            turns = CHANGED.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        turns.sharing += 1;
        HELD.set(HELD.get() + 1);
        Self { alone: false }
    }

    /// The machine for this test only: waits until the tests under way have ended.
    pub fn alone() -> Self {
        let mut turns = turns();
        turns.queued += 1;
        while turns.alone || turns.sharing > 0 {
            turns = CHANGED.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        turns.queued -= 1;
        turns.alone = true;
        HELD.set(HELD.get() + 1);
        Self { alone: true }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = turns();
        if self.alone {
            turns.alone = false;
        } else {
            turns.sharing -= 1;
        }
        HELD.set(HELD.get().saturating_sub(1));
        CHANGED.notify_all();
    }
}
