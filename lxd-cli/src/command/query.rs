//! `query`: any request to the server's API.

use clap::Args;
use lxd_proto::client::RawReply;
use lxd_proto::envelope::{Envelope, Kind};
use lxd_proto::operation::Operation;
use serde::Serialize;
use serde_json::Value;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Node, emit, emit_bytes};

/// Send a request to the server's API.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lxd-cli query /1.0/images?recursion=1
  lxd-cli query -X POST -d '{\"name\":\"a\",\"target\":\"a658\"}' /1.0/images/aliases
  lxd-cli query -X DELETE --wait /1.0/images/a65894de6c07")]
pub(crate) struct Query {
    /// For example /1.0/images
    #[arg(value_name = "[REMOTE:]PATH")]
    path: String,
    /// HTTP method
    #[arg(short = 'X', long, default_value = "GET", value_name = "METHOD")]
    request: String,
    /// JSON to send; anything else is sent as a JSON string
    #[arg(short, long, allow_hyphen_values = true)]
    data: Option<String>,
    /// Wait for the operation that the request starts
    #[arg(long)]
    wait: bool,
    /// Print the whole answer
    #[arg(long)]
    raw: bool,
}

impl Query {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        if context.remotes.project.is_some() {
            return Err(Failure::usage("--project cannot be used with the query command"));
        }
        let (remote, path) = match self.path.split_once(':') {
            Some((remote, path)) if !self.path.starts_with('/') => (remote, path),
            _ => (context.remotes.config.default_remote.as_str(), self.path.as_str()),
        };
        if !path.starts_with('/') {
            return Err(Failure::usage("Query path must start with /"));
        }
        // The project of the remote has no place in a request that is sent as it is.
        let server =
            context.remotes.server(&context.remotes.parse(&format!("{remote}:"))?.remote)?;
        let body = self.data.as_deref().map(as_json);
        let reply = server.query(&self.request, path, body).await?;
        let Some(envelope) = parse(&reply) else {
            if reply.status >= 400 {
                let what = format!("{} {path} was answered with {}", self.request, refused(&reply));
                return Err(Failure::new(what));
            }
            return emit_bytes(&reply.body);
        };
        match envelope.kind {
            Kind::Error => {
                return Err(Failure::new(format!("{} ({})", envelope.error, reply.status)));
            }
            Kind::Async if self.wait => {
                let operation: Operation = metadata(&envelope)?;
                let operation = server.finish(operation, |_| ()).await?;
                return emit(&indented(&operation)?);
            }
            Kind::Async | Kind::Sync => {}
        }
        if self.raw {
            let whole: Node = serde_json::from_slice(&reply.body).map_err(unreadable)?;
            return emit(&format!("{}\n", indented(&whole)?));
        }
        let shown: Value = metadata(&envelope)?;
        let empty = match &shown {
            Value::Null => true,
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if empty { Ok(()) } else { emit(&format!("{}\n", indented(&shown)?)) }
    }
}

fn parse(reply: &RawReply) -> Option<Envelope> {
    serde_json::from_slice(&reply.body).ok()
}

/// `400: Bad Request`, from a body that is but the text of the status.
fn refused(reply: &RawReply) -> String {
    let text = String::from_utf8_lossy(&reply.body);
    let line = text.lines().next().unwrap_or_default().trim();
    let page = line.starts_with('<');
    if line.is_empty() || page {
        reply.status.to_string()
    } else {
        format!("{}: {line}", reply.status)
    }
}

fn metadata<T: serde::de::DeserializeOwned>(envelope: &Envelope) -> Outcome<T> {
    let text = envelope.metadata.as_ref().map_or("null", |raw| raw.get());
    serde_json::from_str(text).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> Failure {
    Failure::new(format!("the server's answer can't be read: {error}"))
}

/// JSON as it is, and anything else as a JSON string.
fn as_json(data: &str) -> String {
    match serde_json::from_str::<Value>(data) {
        Ok(_) => data.to_owned(),
        Err(_) => Value::from(data).to_string(),
    }
}

/// Indented with tabs, as lxc prints it.
fn indented(value: &impl Serialize) -> Outcome<String> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    value.serialize(&mut serializer).map_err(unreadable)?;
    Ok(format!("{}\n", String::from_utf8_lossy(&out)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_is_no_json_is_a_string() {
        assert_eq!(as_json(r#"{"a":1}"#), r#"{"a":1}"#);
        assert_eq!(as_json("word"), r#""word""#);
    }
}
