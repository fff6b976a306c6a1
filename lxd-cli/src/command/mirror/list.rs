//! `mirror list`.

use clap::Args;
use lxd_proto::mirror::Mirror;

use crate::command::flags::{ListFormat, ServerArg};
use crate::command::image::list::for_people;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{Table, human_size, print_list};
use crate::redact::without_password;

/// List the mirrors.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lxd-cli mirror list
  lxd-cli mirror list backup: -f json")]
pub(crate) struct List {
    #[command(flatten)]
    server: ServerArg,
    #[command(flatten)]
    format: ListFormat,
}

impl List {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let mirrors = self.server.open(context)?.list_mirrors().await?;
        let headers = [
            "NAME", "SOURCE", "KEEP", "PUBLIC", "IMAGES", "SIZE", "SCHEDULE", "LAST RUN",
            "NEXT RUN",
        ];
        let mut table = Table::new(&headers);
        table.rows = mirrors.iter().map(row).collect();
        print_list(self.format.format, &table, &mirrors)
    }
}

fn row(mirror: &Mirror) -> Vec<String> {
    let (config, state) = (&mirror.config, &mirror.state);
    let last = state
        .last_run
        .as_ref()
        .map(|run| format!("{} ({})", run.outcome.as_str(), for_people(run.started_at)));
    vec![
        mirror.name.to_string(),
        if config.server.is_empty() {
            "bundles".to_owned()
        } else {
            without_password(&config.server)
        },
        config.keep.to_string(),
        if config.public { "yes" } else { "no" }.to_owned(),
        state.images.to_string(),
        human_size(state.bytes),
        if config.enabled { config.schedule.clone() } else { "disabled".to_owned() },
        last.unwrap_or_default(),
        state.next_run.map(for_people).unwrap_or_default(),
    ]
}
