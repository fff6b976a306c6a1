//! `config trust`: who may manage the server.

mod add;
mod edit;
mod list;
mod pem;
mod tokens;

use clap::{Args, Subcommand};
use lxd_proto::certificate::Certificate;
use lxd_proto::client::LxdClient;
use serde_json::json;

use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::yaml;

/// The commands below `config trust`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Trust a certificate, or make a token for a client to come
    Add(add::Add),
    /// Edit a trusted certificate in an editor, or from standard input
    Edit(edit::Edit),
    /// List the trusted certificates
    #[command(visible_alias = "ls")]
    List(list::List),
    /// List the tokens that wait for their use
    ListTokens(tokens::List),
    /// Trust a certificate no longer
    #[command(visible_alias = "rm")]
    Remove(Remove),
    /// Make a token useless
    RevokeToken(tokens::Revoke),
    /// Show a trusted certificate, as YAML
    Show(Show),
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Add(add) => add.run(context).await,
        Command::Edit(edit) => edit.run(context).await,
        Command::List(list) => list.run(context).await,
        Command::ListTokens(list) => list.run(context).await,
        Command::Remove(remove) => remove.run(context).await,
        Command::RevokeToken(revoke) => revoke.run(context).await,
        Command::Show(show) => show.run(context).await,
    }
}

/// A trusted certificate.
#[derive(Debug, Args)]
pub(crate) struct CertificateArg {
    /// Its fingerprint, or the beginning of it
    #[arg(value_name = "[REMOTE:]FINGERPRINT")]
    fingerprint: String,
}

impl CertificateArg {
    /// The one certificate that it names, and its server.
    async fn open(&self, context: &Context) -> Outcome<(LxdClient, Certificate)> {
        let reference = context.remotes.parse(&self.fingerprint)?;
        let server = context.remotes.server(&reference.remote)?;
        let all = server.list_certificates().await?;
        let certificate = choose(all, &reference.name, &reference.remote)?;
        Ok((server, certificate))
    }
}

/// The one certificate whose fingerprint begins with `prefix`, or that has this name.
fn choose(all: Vec<Certificate>, prefix: &str, remote: &str) -> Outcome<Certificate> {
    if prefix.is_empty() {
        return Err(Failure::usage("the fingerprint is missing"));
    }
    let lower = prefix.to_ascii_lowercase();
    let mut matching: Vec<_> = all
        .into_iter()
        .filter(|known| known.fingerprint.to_string().starts_with(&lower) || known.name == prefix)
        .collect();
    let line = |known: &Certificate| format!("  {}  {}", known.fingerprint, known.name);
    match (matching.pop(), matching.is_empty()) {
        (Some(certificate), true) => Ok(certificate),
        (None, _) => Err(Failure::new(format!(
            "Certificate not found: no fingerprint on {remote}: begins with \"{prefix}\""
        ))
        .hint("`lxd-cli config trust list` shows them all.")),
        (Some(last), false) => {
            let count = matching.len() + 1;
            let mut failure =
                Failure::new(format!("More than one certificate matches: {count} do"));
            matching.push(last);
            failure.hints.extend(matching.iter().map(line));
            Err(failure)
        }
    }
}

/// Show a trusted certificate.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli config trust show 385e700e64a5")]
pub(crate) struct Show {
    #[command(flatten)]
    certificate: CertificateArg,
    #[command(flatten)]
    format: ResultFormat,
}

impl Show {
    async fn run(&self, context: &Context) -> Outcome {
        let (_, certificate) = self.certificate.open(context).await?;
        self.format.print(&certificate, &yaml(&certificate)?)
    }
}

/// Trust a certificate no longer.
#[derive(Debug, Args)]
#[command(after_help = "\
The client is a stranger from the next request on.

Example:
  lxd-cli config trust remove 385e700e64a5")]
pub(crate) struct Remove {
    #[command(flatten)]
    certificate: CertificateArg,
    #[command(flatten)]
    format: ResultFormat,
}

impl Remove {
    async fn run(&self, context: &Context) -> Outcome {
        let (server, certificate) = self.certificate.open(context).await?;
        server.delete_certificate(&certificate.fingerprint.to_string()).await?;
        self.format.done(&json!({ "fingerprint": certificate.fingerprint, "removed": true }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lxd_proto::fingerprint::Fingerprint;

    fn certificate(first: u8, name: &str) -> Certificate {
        Certificate {
            name: name.into(),
            kind: "client".into(),
            restricted: false,
            projects: Vec::new(),
            certificate: String::new(),
            fingerprint: Fingerprint::from_bytes([first; 32]),
        }
    }

    #[test]
    fn a_certificate_is_found_by_the_beginning_of_its_fingerprint_or_its_name() {
        let all = || vec![certificate(0xab, "one"), certificate(0xac, "two")];
        assert_eq!(choose(all(), "AB", "local").unwrap().name, "one");
        assert_eq!(choose(all(), "two", "local").unwrap().name, "two");
        let failure = choose(all(), "a", "local").unwrap_err();
        assert_eq!(failure.hints.len(), 2, "{failure:?}");
        assert!(choose(all(), "beef", "local").unwrap_err().error.contains("not found"));
        assert!(choose(all(), "", "local").is_err());
    }
}
