//! `image get-property`, `set-property` and `unset-property`.

use clap::Args;
use serde_json::json;

use crate::command::flags::{ImageArg, ResultFormat};
use crate::command::image::edit::overlay;
use crate::command::image::update::update;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::suggest::did_you_mean;

/// Print one property.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli image get-property debian/12 os")]
pub(crate) struct Get {
    #[command(flatten)]
    image: ImageArg,
    /// Name of the property
    key: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Get {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let found = self.image.read(context).await?;
        let properties = &found.resolved.image.properties;
        let Some(value) = properties.get(&self.key) else {
            let known = properties.keys().map(String::as_str);
            return Err(Failure::new(format!("Property not found: \"{}\"", self.key))
                .maybe_hint(did_you_mean(&self.key, known)));
        };
        let object = json!({ "key": self.key, "value": value });
        self.format.print(&object, &format!("{value}\n"))
    }
}

/// Set one property.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  lxd-cli image set-property debian/12 description 'Our base image'"
)]
pub(crate) struct Set {
    #[command(flatten)]
    image: ImageArg,
    /// Name of the property
    key: String,
    /// Its new value
    #[arg(allow_hyphen_values = true)]
    value: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Set {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        change(context, &self.image, &self.key, &self.value, &self.format).await
    }
}

/// Remove one property.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli image unset-property debian/12 serial")]
pub(crate) struct Unset {
    #[command(flatten)]
    image: ImageArg,
    /// Name of the property
    key: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Unset {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        change(context, &self.image, &self.key, "", &self.format).await
    }
}

/// Sets a property, or removes it when the value is empty.
async fn change(
    context: &Context,
    image: &ImageArg,
    key: &str,
    value: &str,
    format: &ResultFormat,
) -> Outcome {
    let found = image.open(context).await?;
    let fingerprint = found.resolved.image.fingerprint;
    let changed = update(&found.server, fingerprint, |image| {
        overlay(&mut image.properties, key, value);
    })
    .await?;
    format.done(&json!({ "fingerprint": fingerprint, "changed": changed }))
}
