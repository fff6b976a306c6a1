//! `config trust list`: the trusted certificates as rows.

use clap::Args;
use jiff::Timestamp;
use lxd_proto::certificate::Certificate;

use super::pem;
use crate::command::flags::{ListFormat, ServerArg};
use crate::command::image::list::for_people;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{Table, print_list, sort_rows};

/// List the trusted certificates.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lxd-cli config trust list
  lxd-cli config trust list backup: -f json")]
pub(crate) struct List {
    #[command(flatten)]
    server: ServerArg,
    #[command(flatten)]
    format: ListFormat,
}

impl List {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let certificates = self.server.open(context)?.list_certificates().await?;
        let headers = ["TYPE", "NAME", "COMMON NAME", "FINGERPRINT", "ISSUE DATE", "EXPIRY DATE"];
        let mut table = Table::new(&headers);
        table.rows = certificates.iter().map(row).collect();
        sort_rows(&mut table.rows);
        print_list(self.format.format, &table, &certificates)
    }
}

fn row(certificate: &Certificate) -> Vec<String> {
    let facts = pem::facts(&certificate.certificate);
    let shown = |time: Option<Timestamp>| time.map(for_people).unwrap_or_default();
    vec![
        certificate.kind.clone(),
        certificate.name.clone(),
        facts.as_ref().map(|facts| facts.common_name.clone()).unwrap_or_default(),
        certificate.fingerprint.short(),
        shown(facts.as_ref().map(|facts| facts.not_before)),
        shown(facts.as_ref().map(|facts| facts.not_after)),
    ]
}
