//! `config trust add`: a certificate that is at hand, or a token for one to come.

use std::io::Read;
use std::path::Path;

use clap::Args;
use lxd_proto::certificate::{CLIENT, CertificatesPost};
use lxd_proto::client::LxdClient;
use serde_json::json;

use super::pem;
use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::editor::blocking;
use crate::failure::{Failure, Outcome};
use crate::output::{emit, note};
use crate::prompt::ask;

/// The largest certificate file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Trust a certificate, or make a token.
#[derive(Debug, Args)]
#[command(
    override_usage = "lxd-cli config trust add [OPTIONS] [REMOTE:] [CERTIFICATE]",
    after_help = "\
With a certificate file (or \"-\") that client is trusted at once. Without one a token is made: the
client runs `remote add NAME TOKEN`, and is trusted from then on. A token is good for one client,
until the server restarts or core.remote_token_expiry has passed. With -q only the token is printed.

Examples:
  lxd-cli config trust add --name laptop
  lxd-cli config trust add backup: --name ci --restricted --projects default
  lxd-cli config trust add ./laptop.crt"
)]
pub(crate) struct Add {
    /// A remote ("NAME:") if wanted, and a certificate file or "-"
    #[arg(value_name = "REMOTE: | CERTIFICATE", num_args = 0..=2)]
    words: Vec<String>,
    /// What the client is called; the file's name if not given
    #[arg(long)]
    name: Option<String>,
    /// Let it only read
    #[arg(long)]
    restricted: bool,
    /// Projects that a restricted client may read, with commas between
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    projects: Vec<String>,
    /// What the certificate is for: client or metrics
    #[arg(long = "type", default_value = CLIENT, value_name = "TYPE")]
    kind: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Add {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        if !matches!(self.kind.as_str(), CLIENT | "metrics") {
            return Err(Failure::usage(format!("Unknown certificate type \"{}\"", self.kind)));
        }
        let (remote, file) = self.sort_words(context)?;
        let server = context.remotes.server(&remote)?;
        let request = CertificatesPost {
            name: self.name.clone().unwrap_or_default(),
            kind: self.kind.clone(),
            restricted: self.restricted,
            projects: self.projects.clone(),
            ..CertificatesPost::default()
        };
        match file {
            Some(file) => self.certificate(&server, &file, request).await,
            None => self.token(context, &server, request).await,
        }
    }

    fn sort_words(&self, context: &Context) -> Outcome<(String, Option<String>)> {
        let default = context.remotes.config.default_remote.clone();
        match self.words.as_slice() {
            [] => Ok((default, None)),
            [first, rest @ ..] => match context.remotes.parse_bare(first) {
                Some(remote) => Ok((remote?, rest.first().cloned())),
                None if rest.is_empty() => Ok((default, Some(first.clone()))),
                None => Err(Failure::usage(format!("\"{first}\" is no remote"))
                    .hint("A remote ends with a colon.")),
            },
        }
    }

    async fn certificate(
        &self,
        server: &LxdClient,
        file: &str,
        mut request: CertificatesPost,
    ) -> Outcome {
        let text = read(file).await?;
        request.certificate = pem::body(&text)
            .ok_or_else(|| Failure::new(format!("{file} holds no certificate in PEM")))?;
        if request.name.is_empty() && file != "-" {
            let name = Path::new(file).file_name().unwrap_or_default();
            request.name = name.to_string_lossy().into_owned();
        }
        server.add_certificate(&request).await?;
        self.format.done(&json!({ "name": request.name, "type": request.kind }))
    }

    async fn token(
        &self,
        context: &Context,
        server: &LxdClient,
        mut request: CertificatesPost,
    ) -> Outcome {
        if self.kind != CLIENT {
            return Err(Failure::usage("Cannot use metrics type certificate when using a token"));
        }
        while request.name.is_empty() {
            let Some(name) = ask("Please provide client name: ").await? else {
                return Err(Failure::usage("the client's name is missing").hint("Use --name NAME."));
            };
            name.trim().clone_into(&mut request.name);
            if request.name.is_empty() {
                note("Invalid input, try again.");
            }
        }
        request.token = true;
        let token = server.create_token(&request).await?.metadata.token().encode();
        let name = &request.name;
        if context.quiet && self.format.is_text() {
            return emit(&format!("{token}\n"));
        }
        let text = format!("Client {name} certificate add token:\n{token}\n");
        self.format.print(&json!({ "client_name": name, "token": token }), &text)
    }
}

async fn read(file: &str) -> Outcome<String> {
    let name = file.to_owned();
    let text = blocking(move || {
        let mut text = String::new();
        if name == "-" {
            std::io::stdin().lock().take(MAX_FILE).read_to_string(&mut text)
        } else {
            std::fs::File::open(&name)
                .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        }
        .map(|_| text)
    })
    .await?;
    text.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(format!("open {file}: no such file or directory"))
        }
        _ => Failure::new(format!("cannot read {file}: {error}")),
    })
}
