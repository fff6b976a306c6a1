//! Events to listeners: in order, bounded, and never without an operation's end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use jiff::Timestamp;
use lxd_proto::event::{Event, EventType, Lifecycle, Logging, Requestor};
use lxd_proto::operation::Operation;
use lxd_proto::project;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::to_raw_value;
use tokio::sync::Notify;

/// Events that wait for a slow listener before progress is left out for it.
const SOFT_LIMIT: usize = 1000;
/// Events that wait for a slow listener before it is dropped.
const HARD_LIMIT: usize = 20_000;

/// Everyone who listens.
#[derive(Debug, Default)]
pub struct Events {
    listeners: Mutex<Vec<(Vec<EventType>, Weak<Queue>)>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Arc<str>>,
    overflowed: bool,
}

/// One listener's events, rendered.
#[derive(Debug)]
pub struct Listener {
    queue: Arc<Queue>,
}

impl Listener {
    /// The next event as JSON; `None` when this listener fell too far behind.
    pub async fn next(&mut self) -> Option<Arc<str>> {
        loop {
            let changed = self.queue.changed.notified();
            {
                let mut waiting = self.queue.waiting.lock();
                if waiting.overflowed {
                    return None;
                }
                if let Some(event) = waiting.events.pop_front() {
                    return Some(event);
                }
            }
            changed.await;
        }
    }
}

impl Events {
    /// No listeners yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Everything of these types from now on.
    pub fn listen(&self, types: &[EventType]) -> Listener {
        let queue = Arc::new(Queue::default());
        self.listeners.lock().push((types.to_vec(), Arc::downgrade(&queue)));
        Listener { queue }
    }

    /// Whether anyone may be listening.
    pub fn has_listeners(&self) -> bool {
        !self.listeners.lock().is_empty()
    }

    /// An operation changed.
    pub fn operation(&self, operation: &Operation) {
        self.send(EventType::Operation, operation, operation.status.is_final());
    }

    /// Something happened to the thing at `source`.
    pub fn lifecycle(
        &self,
        action: &str,
        source: String,
        context: &[(&str, &str)],
        requestor: Option<&Requestor>,
    ) {
        let context: BTreeMap<String, Value> =
            context.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
        let lifecycle =
            Lifecycle { action: action.to_owned(), source, context, requestor: requestor.cloned() };
        self.send(EventType::Lifecycle, &lifecycle, true);
    }

    /// Something was logged.
    pub fn logging(&self, line: &Logging) {
        self.send(EventType::Logging, line, false);
    }

    fn send(&self, kind: EventType, metadata: &impl Serialize, must_arrive: bool) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|(_, queue)| queue.strong_count() > 0);
        if !listeners.iter().any(|(types, _)| types.contains(&kind)) {
            return;
        }
        let Ok(metadata) = to_raw_value(metadata) else { return };
        let event = Event {
            kind,
            timestamp: Timestamp::now(),
            metadata,
            location: "none".into(),
            // Log lines are everyone's.
            project: match kind {
                EventType::Logging => String::new(),
                EventType::Operation | EventType::Lifecycle => project::DEFAULT.into(),
            },
        };
        let Ok(text) = serde_json::to_string(&event) else { return };
        let text: Arc<str> = text.into();
        for (_, queue) in listeners.iter().filter(|(types, _)| types.contains(&kind)) {
            if let Some(queue) = queue.upgrade() {
                queue.push(text.clone(), must_arrive);
            }
        }
    }
}

impl Queue {
    fn push(&self, event: Arc<str>, must_arrive: bool) {
        let mut waiting = self.waiting.lock();
        if waiting.events.len() >= HARD_LIMIT {
            waiting.overflowed = true;
            waiting.events.clear();
        } else if must_arrive || waiting.events.len() < SOFT_LIMIT {
            waiting.events.push_back(event);
        }
        drop(waiting);
        self.changed.notify_one();
    }
}
