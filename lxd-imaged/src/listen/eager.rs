//! A connection that goes on at once when it has woken itself.
//!
//! A request's body passes from the reading half of a connection to its handler inside one task,
//! and each piece wakes that task while it runs. The runtime would queue the task anew and wake
//! another thread to take it: several system calls for each piece, and a cold cache.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::task::coop::has_budget_remaining;

/// Rounds after which others get their turn.
const ROUNDS: usize = 64;

/// Nobody polls; a wake-up goes to the runtime.
const IDLE: u8 = 0;
/// Being polled; a wake-up asks for another round.
const POLLING: u8 = 1;
/// Woken while it was being polled.
const WOKEN: u8 = 2;

/// Polls a future again by itself, instead of being queued anew, when it wakes itself.
#[derive(Debug)]
pub(super) struct Eager<F> {
    inner: Pin<Box<F>>,
    own: Arc<SelfWaker>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct SelfWaker {
    state: AtomicU8,
    runtime: AtomicWaker,
}

impl<F> Eager<F> {
    pub(super) fn new(inner: F) -> Self {
        let own = Arc::new(SelfWaker::default());
        let waker = Waker::from(own.clone());
        Self { inner: Box::pin(inner), own, waker }
    }
}

impl Wake for SelfWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let while_polling =
            self.state.compare_exchange(POLLING, WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if while_polling == Err(IDLE) {
            self.runtime.wake();
        }
    }
}

impl<F: Future> Future for Eager<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.own.runtime.register(context.waker());
        for _ in 0..ROUNDS {
            this.own.state.store(POLLING, Ordering::Release);
            let polled = this.inner.as_mut().poll(&mut Context::from_waker(&this.waker));
            let woken = this.own.state.swap(IDLE, Ordering::AcqRel) == WOKEN;
            if polled.is_ready() || !woken {
                return polled;
            }
            if !has_budget_remaining() {
                break;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wakes itself so many times, then is ready.
    struct Restless(usize);

    impl Future for Restless {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if self.0 == 0 {
                return Poll::Ready(());
            }
            self.0 -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }

    #[derive(Default)]
    struct Counting(std::sync::atomic::AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn waking_itself_costs_the_runtime_nothing_and_others_get_their_turn() {
        let runtime = Arc::new(Counting::default());
        let waker = Waker::from(runtime.clone());
        let mut context = Context::from_waker(&waker);
        let mut short = Eager::new(Restless(ROUNDS - 1));
        assert!(Pin::new(&mut short).poll(&mut context).is_ready());
        assert_eq!(runtime.0.load(Ordering::Relaxed), 0);
        let mut long = Eager::new(Restless(ROUNDS + 1));
        assert!(Pin::new(&mut long).poll(&mut context).is_pending());
        assert_eq!(runtime.0.load(Ordering::Relaxed), 1);
        assert!(Pin::new(&mut long).poll(&mut context).is_ready());
    }

    #[tokio::test]
    async fn wake_ups_from_elsewhere_arrive() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(Eager::new(receiver));
        let waking = tokio::task::spawn_blocking(move || sender.send(7));
        waking.await.unwrap().unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(7));
    }
}
