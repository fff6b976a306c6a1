//! `config trust list-tokens` and `revoke-token`: tokens that wait for their use.

use clap::Args;
use jiff::Timestamp;
use lxd_proto::client::{LxdClient, WaitingToken};
use lxd_proto::time::is_unset;
use serde::Serialize;
use serde_json::json;

use crate::command::flags::{ListFormat, ResultFormat, ServerArg};
use crate::command::image::info::minute;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Table, print_list, sort_rows};
use crate::suggest::did_you_mean;

/// A token that nobody has used yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Token {
    client_name: String,
    token: String,
    /// Absent when it never expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip)]
    operation: String,
}

/// List the tokens that wait for their use.
#[derive(Debug, Args)]
#[command(after_help = "\
Whoever has a token can become a trusted client with it, once.

Example:
  lxd-cli config trust list-tokens")]
pub(crate) struct List {
    #[command(flatten)]
    server: ServerArg,
    #[command(flatten)]
    format: ListFormat,
}

impl List {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let tokens = waiting(&self.server.open(context)?).await?;
        let mut table = Table::new(&["NAME", "TOKEN", "EXPIRES AT"]);
        table.rows = tokens.iter().map(row).collect();
        sort_rows(&mut table.rows);
        print_list(self.format.format, &table, &tokens)
    }
}

fn row(token: &Token) -> Vec<String> {
    let expires = token.expires_at.map(minute).unwrap_or_default();
    vec![token.client_name.clone(), token.token.clone(), expires]
}

/// Make a token useless.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli config trust revoke-token laptop")]
pub(crate) struct Revoke {
    /// The name that the client would get
    #[arg(value_name = "[REMOTE:]NAME")]
    name: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Revoke {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let reference = context.remotes.parse(&self.name)?;
        let name = &reference.name;
        let server = context.remotes.server(&reference.remote)?;
        let tokens = waiting(&server).await?;
        let matching: Vec<_> = tokens.iter().filter(|token| token.client_name == *name).collect();
        if matching.is_empty() {
            let known = tokens.iter().map(|token| token.client_name.as_str());
            let remote = &reference.remote;
            let what = format!("No certificate add token for member {name} on remote: {remote}");
            return Err(Failure::new(what).maybe_hint(did_you_mean(name, known)));
        }
        // The name of a token need not be unique; none of them may stay.
        for token in matching {
            server.cancel_operation(&token.operation).await?;
        }
        let text = format!("Certificate add token for {name} deleted\n");
        self.format.print(&json!({ "client_name": name, "revoked": true }), &text)
    }
}

/// The unused join tokens of a server.
async fn waiting(server: &LxdClient) -> Outcome<Vec<Token>> {
    Ok(server.list_tokens().await?.into_iter().map(Token::from).collect())
}

impl From<WaitingToken> for Token {
    fn from(waiting: WaitingToken) -> Self {
        let token = waiting.metadata.token();
        Self {
            client_name: token.client_name.clone(),
            token: token.encode(),
            expires_at: waiting.metadata.expires_at.filter(|time| !is_unset(*time)),
            operation: waiting.operation.id,
        }
    }
}
