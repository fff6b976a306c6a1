//! The terminal of this client while a command in an instance has it: raw, and its size.

use std::io;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Whether both ends of this client are a terminal.
pub(super) fn is_whole() -> bool {
    isatty(io::stdin()) && isatty(io::stdout())
}

/// Columns and lines; `None` without a terminal, or with one that does not know.
pub(super) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// A terminal that hands on every key as it is; as before when this is dropped.
pub(super) struct Raw(Termios);

impl Raw {
    /// `None` when standard input is no terminal.
    pub(super) fn begin() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // What was typed ahead is for the command, so it is not flushed.
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no repair.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
