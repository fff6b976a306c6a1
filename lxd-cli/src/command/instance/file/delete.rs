//! `file delete`: files and empty directories of an instance.

use clap::Args;
use serde_json::json;

use super::Place;
use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::failure::Outcome;

/// Delete files and empty directories in an instance.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli file delete web/etc/motd web/tmp/old")]
pub(crate) struct Delete {
    /// The files
    #[arg(value_name = "[REMOTE:]NAME/PATH", required = true)]
    files: Vec<String>,
    #[command(flatten)]
    format: ResultFormat,
}

impl Delete {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let parse = |word: &String| Place::parse(context, word, "path");
        let places: Vec<_> = self.files.iter().map(parse).collect::<Outcome<_>>()?;
        for place in &places {
            let Err(error) = place.named.server.delete_file(&place.named.name, &place.path).await
            else {
                continue;
            };
            return Err(place.failed(&place.path, error).await);
        }
        let deleted: Vec<_> = places.iter().map(Place::shown).collect();
        self.format.done(&json!({ "deleted": deleted }))
    }
}
