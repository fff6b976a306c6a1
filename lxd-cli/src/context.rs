//! What every command gets: the remotes, and how talkative to be.

use crate::interrupt::Interrupt;
use crate::progress::Style;
use crate::remotes::Remotes;

/// Built once from the global flags.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) remotes: Remotes,
    /// `-q`: only results, in their barest form.
    pub(crate) quiet: bool,
    /// How transfers are shown.
    pub(crate) progress: Style,
    /// Ctrl-C.
    pub(crate) interrupt: Interrupt,
}
