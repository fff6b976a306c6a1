//! `monitor`: events as they happen.

use clap::{Args, ValueEnum};
use lxd_proto::event::{Event, EventType, Lifecycle, Logging};
use lxd_proto::operation::Operation;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Failure, INTERRUPTED, Outcome};
use crate::output::{Node, Times, emit, json as one_line, visible};
use crate::redact::redact;

/// Watch what happens on the server.
#[derive(Debug, Args)]
#[command(after_help = "\
One document per event. Secrets are hidden unless --show-secrets is given.

Examples:
  lxd-cli monitor
  lxd-cli monitor --type lifecycle -f json
  lxd-cli monitor --type logging --pretty --loglevel warning")]
pub(crate) struct Monitor {
    /// Which server; the default remote if not given
    #[arg(value_name = "REMOTE:")]
    remote: Option<String>,
    /// Only events of this type; may be repeated
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    types: Vec<Kind>,
    /// How events are written
    #[arg(short, long, value_enum, default_value_t)]
    format: Style,
    /// The same as --format pretty
    #[arg(long)]
    pretty: bool,
    /// The least important log lines to show, with --pretty
    #[arg(long, value_enum, value_name = "LEVEL")]
    loglevel: Option<Level>,
    /// Events of all projects; there is only one
    #[arg(long)]
    all_projects: bool,
    /// Show one-time secrets as they are
    #[arg(long)]
    show_secrets: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Operation,
    Lifecycle,
    Logging,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Style {
    #[default]
    Yaml,
    Json,
    Pretty,
}

/// Most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Level {
    Error,
    Warning,
    Info,
    Debug,
}

impl Monitor {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let style = if self.pretty { Style::Pretty } else { self.format };
        if self.loglevel.is_some() && style != Style::Pretty {
            let what = "Log level filtering can only be used with pretty formatting";
            return Err(Failure::usage(what));
        }
        let reference = context.remotes.parse(self.remote.as_deref().unwrap_or_default())?;
        if !reference.name.is_empty() {
            let word = &reference.name;
            return Err(context.remotes.lacks_colon(word).unwrap_or_else(|| {
                Failure::usage(format!("\"{word}\" is no remote; a remote ends with a colon"))
            }));
        }
        let types: Vec<_> = self.types.iter().map(|kind| kind.wire()).collect();
        let mut events = context.remotes.server(&reference.remote)?.events(&types).await?;
        // There is no other end than this one, so it is no mishap.
        context.interrupt.handle();
        loop {
            let event = tokio::select! {
                event = events.next() => event?,
                () = context.interrupt.happened() => {
                    return Err(Failure { code: INTERRUPTED, ..Failure::silent() });
                }
            };
            let Some(event) = event else {
                return Err(Failure::new("the server has ended the subscription"));
            };
            let text = match style {
                Style::Pretty => self.pretty(&event).map(|line| visible(&line).into_owned()),
                Style::Yaml | Style::Json => Some(self.document(&event, style)?),
            };
            if let Some(text) = text {
                emit(&text)?;
            }
        }
    }

    fn document(&self, event: &Event, style: Style) -> Outcome<String> {
        let mut value: Value = serde_json::to_value(event)
            .map_err(|error| Failure::new(format!("an event can't be written: {error}")))?;
        if !self.show_secrets {
            redact(&mut value);
        }
        if style == Style::Json {
            return one_line(&value);
        }
        let node = Node::of(&value)
            .map_err(|error| Failure::new(format!("an event can't be written: {error}")))?;
        Ok(format!("---\n{}\n", node.yaml(Times::Quoted)))
    }

    /// One line for people; `None` for a log line that is not important enough.
    fn pretty(&self, event: &Event) -> Option<String> {
        let text = event.metadata.get();
        let (level, what) = match event.kind {
            EventType::Operation => {
                let operation: Operation = serde_json::from_str(text).ok()?;
                let progress = operation.metadata.unwrap_or_default();
                let progress = progress.iter().find(|(key, _)| key.ends_with("_progress"));
                let progress = progress.and_then(|(_, value)| value.as_str()).unwrap_or_default();
                let facts = [operation.status.name(), progress, &operation.err];
                let facts: Vec<_> = facts.into_iter().filter(|fact| !fact.is_empty()).collect();
                let facts = facts.join(", ");
                (None, format!("{} {}: {facts}", operation.id, operation.description))
            }
            EventType::Lifecycle => {
                let lifecycle: Lifecycle = serde_json::from_str(text).ok()?;
                let mut context = json!(lifecycle.context);
                redact(&mut context);
                let context = if lifecycle.context.is_empty() {
                    String::new()
                } else {
                    format!(" {context}")
                };
                (None, format!("{} {}{context}", lifecycle.action, lifecycle.source))
            }
            EventType::Logging => {
                let line: Logging = serde_json::from_str(text).ok()?;
                let level = Level::from_str(&line.level, true).unwrap_or(Level::Debug);
                let context: Vec<_> =
                    line.context.iter().map(|(key, value)| format!(" {key}={value}")).collect();
                (Some(level), format!("{}{}", line.message, context.concat()))
            }
        };
        if level.is_some_and(|level| self.loglevel.is_some_and(|least| level > least)) {
            return None;
        }
        let label = level.map_or(event.kind.as_str().to_owned(), |level| format!("{level:?}"));
        Some(format!("{:.3} {:9} {what}\n", event.timestamp, label.to_uppercase()))
    }
}

impl Kind {
    const fn wire(self) -> EventType {
        match self {
            Self::Operation => EventType::Operation,
            Self::Lifecycle => EventType::Lifecycle,
            Self::Logging => EventType::Logging,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn monitor(line: &str) -> Monitor {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Monitor(monitor) = cli.command else { panic!("{line}") };
        monitor
    }

    const OPERATION: &str = r#"{"type":"operation","timestamp":"2026-11-24T01:58:18.920483887Z","location":"none",
        "project":"default","metadata":{"id":"09e0","class":"token","description":"Image download token",
        "created_at":"2026-11-24T01:58:18Z","updated_at":"2026-11-24T01:58:18Z","status":"Running",
        "status_code":103,"resources":null,"metadata":{"secret":"abc"},"may_cancel":true,"err":"","location":"none"}}"#;

    #[test]
    fn secrets_are_hidden_unless_asked_for() {
        let event: Event = serde_json::from_str(OPERATION).unwrap();
        let text = monitor("x monitor").document(&event, Style::Yaml).unwrap();
        assert!(text.starts_with("---\nlocation: none\nmetadata:\n"), "{text}");
        assert!(text.contains("    secret: '***'\n"), "{text}");
        let text = monitor("x monitor --show-secrets").document(&event, Style::Json).unwrap();
        assert!(text.contains(r#""secret":"abc""#) && text.ends_with("}\n"), "{text}");
    }

    #[test]
    fn pretty_lines_are_filtered_by_level() {
        let line = |level: &str| -> Event {
            serde_json::from_str(&format!(
                r#"{{"type":"logging","timestamp":"2026-11-24T01:58:18.9Z","metadata":{{"message":"m","level":"{level}","context":{{"a":"b"}}}}}}"#
            ))
            .unwrap()
        };
        let monitor = monitor("x monitor --pretty --loglevel warning");
        assert_eq!(monitor.pretty(&line("info")), None);
        let text = monitor.pretty(&line("error")).unwrap();
        assert!(text.ends_with(" ERROR     m a=b\n"), "{text}");
    }
}
