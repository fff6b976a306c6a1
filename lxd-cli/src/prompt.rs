//! Questions to the person at the terminal, or to whatever feeds standard input.

use std::io::{self, BufRead, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::editor::blocking;
use crate::failure::{Failure, Outcome};

/// A line of the user's, without its end; `None` when there are no more. Several questions read
/// from one buffer, so that answers can be piped.
pub(crate) async fn ask(question: &str) -> Outcome<Option<String>> {
    let mut out = io::stdout().lock();
    out.write_all(question.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::new(format!("cannot ask: {error}")))?;
    drop(out);
    let answer = blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|read| (read > 0).then_some(line))
    })
    .await?;
    let answer = answer.map_err(|error| Failure::new(format!("cannot read an answer: {error}")))?;
    Ok(answer.map(|line| line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// The same, but a terminal does not show what is typed.
pub(crate) async fn ask_secret(question: &str) -> Outcome<Option<String>> {
    let unseen = Unseen::begin();
    let answer = ask(question).await;
    if unseen.is_some() {
        // The line feed that was typed was not shown either.
        let _ = writeln!(io::stdout().lock());
    }
    answer
}

/// A terminal without echo; as before when it is dropped, also by an interrupt.
struct Unseen(Termios);

impl Unseen {
    /// `None` when standard input is no terminal.
    fn begin() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet).ok()?;
        Some(Self(before))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // A terminal that is gone needs no repair.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
