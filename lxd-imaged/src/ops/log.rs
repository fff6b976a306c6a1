//! Log lines as events, for `lxc monitor --type=logging`.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::{Arc, OnceLock};

use lxd_proto::event::Logging;
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::events::Events;

/// A log layer that sends each line to the listeners of [`LogEvents::attach`].
#[derive(Debug, Clone, Default)]
pub struct LogEvents {
    events: Arc<OnceLock<Arc<Events>>>,
}

impl LogEvents {
    /// From now on lines go to these listeners; only the first call counts.
    pub fn attach(&self, events: Arc<Events>) {
        let _ = self.events.set(events);
    }
}

impl<S: Subscriber> Layer<S> for LogEvents {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let Some(events) = self.events.get().filter(|events| events.has_listeners()) else {
            return;
        };
        let mut line = Line::default();
        event.record(&mut line);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        events.logging(&Logging {
            message: line.message,
            level: level.to_owned(),
            context: line.context,
        });
    }
}

#[derive(Default)]
struct Line {
    message: String,
    context: BTreeMap<String, String>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(text, "{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => drop(self.context.insert(name.to_owned(), text)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use lxd_proto::event::EventType;
    use tracing_subscriber::prelude::*;

    use super::*;

    #[tokio::test]
    async fn a_log_line_reaches_its_listeners() {
        let (layer, events) = (LogEvents::default(), Events::new());
        layer.attach(events.clone());
        let mut listener = events.listen(&[EventType::Logging]);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(images = 3, name = "x", "something happened");
        });
        let event: serde_json::Value =
            serde_json::from_str(&listener.next().await.unwrap()).unwrap();
        assert_eq!(event["type"], "logging");
        assert!(event.get("project").is_none(), "log lines belong to no project");
        let expected = serde_json::json!({
            "message": "something happened", "level": "warning",
            "context": { "images": "3", "name": "x" },
        });
        assert_eq!(event["metadata"], expected);
    }
}
