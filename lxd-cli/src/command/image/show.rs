//! `image show`: the editable part of an image, as YAML.

use clap::Args;
use lxd_proto::image::ImagePut;

use crate::command::flags::{ResultFormat, VmFlag};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{print_result, yaml};

/// Show what can be edited.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lxd-cli image show debian/12 > new.yaml; vi new.yaml; lxd-cli image edit debian/12 < new.yaml")]
pub(crate) struct Show {
    /// Alias, fingerprint or its beginning
    #[arg(value_name = "[REMOTE:]IMAGE")]
    image: String,
    #[command(flatten)]
    vm: VmFlag,
    #[command(flatten)]
    format: ResultFormat,
}

impl Show {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let reference = context.remotes.parse(&self.image)?;
        let remote = context.remotes.reader(&reference.remote)?;
        let found = context.remotes.image(&*remote, &reference, &self.vm.want()).await?;
        let editable = ImagePut::from(&found.image);
        print_result(self.format.format, &editable, &yaml(&editable)?)
    }
}
