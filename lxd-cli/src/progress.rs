//! How far a transfer is, shown on standard error while it runs.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use lxd_proto::remote::Progress;
use serde_json::json;
use tokio::task::JoinHandle;
use unicode_width::UnicodeWidthChar;

use crate::output::{human_size, note};

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Style {
    /// A live line on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// A line at the start, one every ten seconds, one at the end.
    Plain,
    /// One JSON object per line.
    Json,
    /// Nothing.
    None,
}

/// How often the live line is drawn.
const LIVE: Duration = Duration::from_millis(200);
/// How often the other styles speak.
const CALM: Duration = Duration::from_secs(10);
/// The rate is that of the last so many seconds.
const WINDOW: Duration = Duration::from_secs(4);

/// A transfer that is being shown. Dropping it clears the live line.
#[derive(Debug)]
pub(crate) struct Shown {
    label: String,
    style: Style,
    progress: Progress,
    note: Arc<Mutex<String>>,
    started: Instant,
    ticker: Option<JoinHandle<()>>,
}

impl Style {
    /// What `auto` means here and now.
    fn settled(self) -> Self {
        match self {
            Self::Auto if io::stderr().is_terminal() => Self::Auto,
            Self::Auto => Self::Plain,
            other => other,
        }
    }
}

/// Starts to show `progress` under `label`, for example "Exporting the image".
pub(crate) fn show(style: Style, label: &str, progress: &Progress) -> Shown {
    let style = style.settled();
    let mut shown = Shown {
        label: label.to_owned(),
        style,
        progress: progress.clone(),
        note: Arc::default(),
        started: Instant::now(),
        ticker: None,
    };
    shown.speak("start");
    let every = match style {
        Style::None => return shown,
        Style::Auto => LIVE,
        Style::Plain | Style::Json => CALM,
    };
    let (label, progress, note) = (shown.label.clone(), progress.clone(), shown.note.clone());
    shown.ticker = Some(tokio::spawn(async move {
        let mut rate = Rate::default();
        // The calm styles have just said that it starts.
        let first = if style == Style::Auto { Duration::ZERO } else { every };
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, every);
        loop {
            let now = ticks.tick().await.into_std();
            let bytes_per_second = rate.sample(now, progress.done());
            let extra = note.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let state = State {
                done: progress.done(),
                total: progress.total(),
                rate: bytes_per_second,
                note: &extra,
            };
            match style {
                Style::Json => json_line(&label, "progress", &state),
                Style::Auto => live_line(&format!("{label}: {}", state.text())),
                Style::Plain | Style::None if state.done > 0 => {
                    self::note(&format!("{label}: {}", state.text()));
                }
                Style::Plain | Style::None => {}
            }
        }
    }));
    shown
}

impl Shown {
    /// What is being counted.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// What the server says about its own part of the work.
    pub(crate) fn note(&self, text: &str) {
        text.clone_into(&mut self.note.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The work is done: clears the live line, or says so.
    pub(crate) fn done(mut self) {
        self.stop();
        self.speak("done");
    }

    fn stop(&mut self) {
        if let Some(ticker) = self.ticker.take() {
            ticker.abort();
            if self.style == Style::Auto {
                clear_line();
            }
        }
    }

    fn speak(&self, event: &str) {
        let done = self.progress.done();
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = (event == "done" && seconds > 0.0).then(|| per_second(done, seconds));
        let state = State { done, total: self.progress.total(), rate, note: "" };
        match (self.style, event) {
            (Style::Json, _) => json_line(&self.label, event, &state),
            (Style::Plain, "start") => match state.total {
                Some(total) => note(&format!("{}: {}", self.label, human_size(total))),
                None => note(&format!("{}...", self.label)),
            },
            // The server did not say how much it moved.
            (Style::Plain, _) if done == 0 => {
                note(&format!("{}: done in {seconds:.1}s", self.label));
            }
            (Style::Plain, _) => note(&format!(
                "{}: done, {} in {seconds:.1}s ({}/s)",
                self.label,
                human_size(done),
                human_size(rate.unwrap_or(0)),
            )),
            (Style::Auto | Style::None, _) => {}
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How a transfer stands.
struct State<'a> {
    done: u64,
    total: Option<u64>,
    /// Bytes per second.
    rate: Option<u64>,
    note: &'a str,
}

impl State<'_> {
    /// `42% (12.30MiB/29.10MiB, 18.20MiB/s, 1s left)`.
    fn text(&self) -> String {
        let mut facts = vec![match self.total {
            Some(total) => format!("{}/{}", human_size(self.done), human_size(total)),
            None => human_size(self.done),
        }];
        if let Some(rate) = self.rate {
            facts.push(format!("{}/s", human_size(rate)));
        }
        if let Some(seconds) = self.seconds_left() {
            facts.push(format!("{} left", duration(seconds)));
        }
        let facts = facts.join(", ");
        let text = match self.percent() {
            Some(percent) => format!("{percent}% ({facts})"),
            None => facts,
        };
        if self.note.is_empty() { text } else { format!("{text}, {}", self.note) }
    }

    fn percent(&self) -> Option<u64> {
        let total = self.total.filter(|total| *total > 0)?;
        u64::try_from(u128::from(self.done.min(total)) * 100 / u128::from(total)).ok()
    }

    fn seconds_left(&self) -> Option<u64> {
        let left = self.total?.checked_sub(self.done).filter(|left| *left > 0)?;
        left.checked_div(self.rate?).filter(|seconds| *seconds > 0)
    }
}

/// Bytes per second over the last [`WINDOW`].
#[derive(Debug, Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    fn sample(&mut self, now: Instant, done: u64) -> Option<u64> {
        self.0.push_back((now, done));
        while self.0.len() > 2 && self.0.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.0.pop_front();
        }
        let (first, before) = *self.0.front()?;
        let seconds = (now - first).as_secs_f64();
        (seconds > 0.0).then(|| per_second(done.saturating_sub(before), seconds))
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people to read"
)]
fn per_second(bytes: u64, seconds: f64) -> u64 {
    (bytes as f64 / seconds) as u64
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

fn json_line(label: &str, event: &str, state: &State<'_>) {
    note(
        &json!({
            "event": event,
            "task": label,
            "done": state.done,
            "total": state.total,
            "bytes_per_second": state.rate,
            "seconds_left": state.seconds_left(),
            "note": state.note,
        })
        .to_string(),
    );
}

fn live_line(text: &str) {
    let told = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col);
    // Terminals that programs make (CI, expect) often say that they have no columns at all.
    let width = if told == 0 { 80 } else { told };
    // The last column stays free: some terminals wrap when it is written.
    let line = clipped(text, usize::from(width).saturating_sub(1));
    // Nobody can be told that the terminal is gone.
    let _ = write!(io::stderr().lock(), "\r\x1b[K{line}");
    let _ = io::stderr().lock().flush();
}

fn clear_line() {
    let _ = write!(io::stderr().lock(), "\r\x1b[K");
}

/// As much of `text` as fits into `width` columns.
fn clipped(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > width {
            return &text[..at];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let state = State { done: 42 * MIB, total: Some(100 * MIB), rate: Some(2 * MIB), note: "" };
        assert_eq!(state.text(), "42% (42.00MiB/100.00MiB, 2.00MiB/s, 29s left)");
        let state = State { done: MIB, total: None, rate: None, note: "rootfs: 7%" };
        assert_eq!(state.text(), "1.00MiB, rootfs: 7%");
        let state = State { done: MIB, total: Some(MIB), rate: Some(0), note: "" };
        assert_eq!(state.text(), "100% (1.00MiB/1.00MiB, 0B/s)");
        assert_eq!(duration(3725), "1h02m");
    }

    #[test]
    fn the_rate_forgets_what_is_long_ago() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rate = Rate::default();
        assert_eq!(rate.sample(at(0), 0), None);
        assert_eq!(rate.sample(at(1), 1000), Some(1000));
        for second in 2..10 {
            rate.sample(at(second), 1000);
        }
        assert_eq!(rate.sample(at(10), 1000), Some(0));
    }

    #[test]
    fn a_line_is_clipped_by_columns() {
        assert_eq!(clipped("日本語", 4), "日本");
        assert_eq!(clipped("abc", 4), "abc");
        assert_eq!(clipped("abcde", 4), "abcd");
    }
}
