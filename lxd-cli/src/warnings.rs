//! What the layers below warn of, as lines for people on standard error.

use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::output::note;

/// The crates whose warnings are for the user: ours.
const OURS: &str = "lxd_";
/// How many different warnings one command shows: a hostile catalog could cause any number.
const MOST: usize = 10;

/// From now on warnings are shown, each once.
pub(crate) fn show() {
    let subscriber =
        tracing_subscriber::registry().with(Warnings::default().with_filter(LevelFilter::WARN));
    // The only one of this program: it cannot be set already.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// The warnings so far.
#[derive(Debug, Default)]
struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// The line to show for a warning, if any is.
    fn line(&self, text: String) -> Option<String> {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.len() > MOST || shown.contains(&text) {
            return None;
        }
        shown.push(text.clone());
        Some(if shown.len() > MOST {
            "Warning: there are more warnings, which are not shown.".to_owned()
        } else {
            text
        })
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !event.metadata().target().starts_with(OURS) {
            return;
        }
        let mut told = Told::default();
        event.record(&mut told);
        if let Some(line) = self.line(told.text()) {
            note(&line);
        }
    }
}

/// An event in words.
#[derive(Debug, Default)]
struct Told {
    message: String,
    /// `server https://h, age 5 s`.
    facts: String,
    error: String,
}

impl Told {
    /// `Warning: MESSAGE (NAME VALUE, …): ERROR`.
    fn text(&self) -> String {
        let mut text = format!("Warning: {}", self.message);
        // Writing to a string cannot fail.
        if !self.facts.is_empty() {
            let _ = write!(text, " ({})", self.facts);
        }
        if !self.error.is_empty() {
            let _ = write!(text, ": {}", self.error);
        }
        text
    }
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "error" => self.error = format!("{value:?}"),
            name => {
                let comma = if self.facts.is_empty() { "" } else { ", " };
                // A name ends in the unit of its value.
                let (name, unit) = match name.strip_suffix("_s") {
                    Some(name) => (name, " s"),
                    None => (name, ""),
                };
                let _ = write!(self.facts, "{comma}{} {value:?}{unit}", name.replace('_', " "));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Keeps what would be shown.
    struct Kept(Warnings, Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut told = Told::default();
            event.record(&mut told);
            self.1.lock().unwrap().extend(self.0.line(told.text()));
        }
    }

    #[test]
    fn a_warning_is_one_line_once_and_not_any_number_is_shown() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Kept(Warnings::default(), lines.clone()).with_filter(LevelFilter::WARN);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(kept), || {
            for _ in 0..2 {
                let error = "connection refused";
                tracing::warn!(server = "https://h", age_s = 5, %error, "it does not answer");
                tracing::info!("no warning");
            }
            for n in 0..100 {
                tracing::warn!("number {n}");
            }
        });
        let lines = lines.lock().unwrap();
        assert_eq!(
            lines[0],
            "Warning: it does not answer (server https://h, age 5 s): connection refused"
        );
        assert_eq!(lines[1], "Warning: number 0");
        assert_eq!(lines.len(), MOST + 1);
        assert!(lines[MOST].contains("not shown"), "{lines:?}");
    }
}
