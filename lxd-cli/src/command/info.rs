//! `info`: what the server says about itself.

use clap::Args;

use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::yaml;

/// Show what the server says about itself.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lxd-cli info\n  lxd-cli info local: --format json")]
pub(crate) struct Info {
    /// Which server; the default remote if not given
    #[arg(value_name = "REMOTE:")]
    remote: Option<String>,
    #[command(flatten)]
    format: ResultFormat,
}

impl Info {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let reference = context.remotes.parse(self.remote.as_deref().unwrap_or_default())?;
        if !reference.name.is_empty() {
            return Err(context.remotes.lacks_colon(&reference.name).unwrap_or_else(|| {
                Failure::usage(format!("\"{}\": instances are not managed yet", reference.name))
                    .hint("To see an image, use `lxd-cli image info`; a remote ends with a colon.")
            }));
        }
        let server = context.remotes.server(&reference.remote)?.server().await?.value;
        self.format.print(&server, &yaml(&server)?)
    }
}
