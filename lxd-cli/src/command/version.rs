//! `version`: of the client and of the server.

use clap::Args;
use serde_json::json;

use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::failure::Outcome;

/// Show the versions of client and server.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lxd-cli version\n  lxd-cli version local:")]
pub(crate) struct Version {
    /// Which server; the default remote if not given
    #[arg(value_name = "REMOTE:")]
    remote: Option<String>,
    #[command(flatten)]
    format: ResultFormat,
}

impl Version {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let client = env!("CARGO_PKG_VERSION");
        let server = self.server_version(context).await;
        let shown = server.as_deref().unwrap_or("unreachable");
        let text = format!("Client version: {client}\nServer version: {shown}\n");
        self.format.print(&json!({ "client": client, "server": server }), &text)
    }

    /// `None` when the server cannot be asked: that is an answer here, not a failure.
    async fn server_version(&self, context: &Context) -> Option<String> {
        let word = self.remote.as_deref().unwrap_or_default();
        // As in lxc, the colon may be left out.
        let name = match word.strip_suffix(':').unwrap_or(word) {
            "" => context.remotes.config.default_remote.as_str(),
            name => name,
        };
        let server = context.remotes.server(name).ok()?.server().await.ok()?.value;
        server.environment.map(|environment| environment.server_version)
    }
}
