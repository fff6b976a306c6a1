//! Ctrl-C and its like: end a command at once, or let it first undo what the server is doing.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, INTERRUPTED};

/// Told to every command.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    token: CancellationToken,
    handled: AtomicBool,
}

/// Whether another program has the terminal, to which Ctrl-C then belongs.
static LENT: AtomicBool = AtomicBool::new(false);

/// The terminal is another program's until this is dropped.
#[derive(Debug)]
pub(crate) struct Lent(());

/// Lends the terminal to another program.
pub(crate) fn lend_terminal() -> Lent {
    LENT.store(true, Ordering::SeqCst);
    Lent(())
}

impl Drop for Lent {
    fn drop(&mut self) {
        LENT.store(false, Ordering::SeqCst);
    }
}

/// The signals that ask a program to end.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` where hangups are ignored, as under nohup.
    hangup: Option<Signal>,
}

impl Signals {
    /// From now on they don't end the program by themselves.
    pub(crate) fn catch() -> io::Result<Self> {
        let hangup = SignalKind::hangup();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if is_ignored(hangup) { None } else { Some(signal(hangup)?) },
        })
    }

    /// The next signal, as the exit status that tells of it.
    pub(crate) async fn next(&mut self) -> u8 {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(hangup);
        loop {
            let kind = tokio::select! {
                _ = self.interrupt.recv() => {
                    if LENT.load(Ordering::SeqCst) {
                        continue;
                    }
                    SignalKind::interrupt()
                }
                _ = self.terminate.recv() => SignalKind::terminate(),
                _ = &mut hangup => SignalKind::hangup(),
            };
            return 128 + u8::try_from(kind.as_raw_value()).unwrap_or_default();
        }
    }
}

/// Whether a signal was ignored when the program began.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (kind.as_raw_value() - 1) & 1 == 1)
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
