//! `image show`: the editable part of an image, as YAML.

use clap::Args;
use lxd_proto::image::ImagePut;

use crate::command::flags::{ImageArg, ResultFormat};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::yaml;

/// Show what can be edited.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lxd-cli image show debian/12 > new.yaml; vi new.yaml; lxd-cli image edit debian/12 < new.yaml")]
pub(crate) struct Show {
    #[command(flatten)]
    image: ImageArg,
    #[command(flatten)]
    format: ResultFormat,
}

impl Show {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let found = self.image.read(context).await?;
        let editable = ImagePut::from(&found.resolved.image);
        self.format.print(&editable, &yaml(&editable)?)
    }
}
