//! `info`: an instance, or what the server says about itself.

use clap::Args;

use crate::command::flags::ResultFormat;
use crate::command::instance;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::yaml;

/// Show an instance, or what the server says about itself.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lxd-cli info\n  lxd-cli info local: --format json\n  \
                           lxd-cli info web --show-log")]
pub(crate) struct Info {
    /// An instance, or a server; the default remote if not given
    #[arg(value_name = "[REMOTE:][NAME]")]
    name: Option<String>,
    /// Also the log of the instance's last start
    #[arg(long)]
    show_log: bool,
    #[command(flatten)]
    format: ResultFormat,
}

impl Info {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let word = self.name.as_deref().unwrap_or_default();
        let reference = context.remotes.parse(word)?;
        if !reference.name.is_empty() {
            return instance::info::show(context, word, self.show_log, &self.format).await;
        }
        if self.show_log {
            return Err(Failure::usage("--show-log needs an instance"));
        }
        let server = context.remotes.server(&reference.remote)?.server().await?.value;
        self.format.print(&server, &yaml(&server)?)
    }
}
