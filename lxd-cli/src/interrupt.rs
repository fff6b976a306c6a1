//! Ctrl-C: ends a command at once, or lets it first undo what the server is doing for it.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, INTERRUPTED};

/// Told to every command.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    token: CancellationToken,
    handled: AtomicBool,
}

impl Interrupt {
    /// Ctrl-C was pressed. True when the command wants to end by itself.
    pub(crate) fn happen(&self) -> bool {
        self.token.cancel();
        self.handled.load(Ordering::SeqCst)
    }

    /// From now on the command itself answers an interrupt.
    pub(crate) fn handle(&self) {
        self.handled.store(true, Ordering::SeqCst);
    }

    /// Ends when Ctrl-C is pressed.
    pub(crate) async fn happened(&self) {
        self.token.cancelled().await;
    }
}

/// The failure of an interrupted command; `what` says what remains.
pub(crate) fn interrupted(what: &str) -> Failure {
    Failure { code: INTERRUPTED, ..Failure::new(format!("interrupted; {what}")) }
}
