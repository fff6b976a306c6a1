//! `image get-property`, `set-property` and `unset-property`.

use clap::Args;
use lxd_proto::remote::Want;
use serde_json::json;

use crate::command::flags::ResultFormat;
use crate::command::image::edit::overlay;
use crate::command::image::update::{find, update};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Shape, print_result};
use crate::suggest::did_you_mean;

/// Print one property.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli image get-property debian/12 os")]
pub(crate) struct Get {
    /// Alias, fingerprint or its beginning
    #[arg(value_name = "[REMOTE:]IMAGE")]
    image: String,
    /// Name of the property
    key: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Get {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let reference = context.remotes.parse(&self.image)?;
        let remote = context.remotes.reader(&reference.remote)?;
        let found = context.remotes.image(&*remote, &reference, &Want::default()).await?;
        let properties = &found.image.properties;
        let Some(value) = properties.get(&self.key) else {
            let known = properties.keys().map(String::as_str);
            return Err(Failure::new(format!("Property not found: \"{}\"", self.key))
                .maybe_hint(did_you_mean(&self.key, known)));
        };
        let object = json!({ "key": self.key, "value": value });
        print_result(self.format.format, &object, &format!("{value}\n"))
    }
}

/// Set one property.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  lxd-cli image set-property debian/12 description 'Our base image'"
)]
pub(crate) struct Set {
    /// Alias, fingerprint or its beginning
    #[arg(value_name = "[REMOTE:]IMAGE")]
    image: String,
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
    /// Alias, fingerprint or its beginning
    #[arg(value_name = "[REMOTE:]IMAGE")]
    image: String,
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

/// Sets a property, or removes it when the value is empty. Silent, as in lxc, unless an object
/// is asked for.
async fn change(
    context: &Context,
    image: &str,
    key: &str,
    value: &str,
    format: &ResultFormat,
) -> Outcome {
    let image = find(context, image).await?;
    let changed = update(&image.server, image.fingerprint, |image| {
        overlay(&mut image.properties, key, value);
    })
    .await?;
    match format.format.shape {
        Shape::Json | Shape::Yaml => {
            let object = json!({ "fingerprint": image.fingerprint, "changed": changed });
            print_result(format.format, &object, "")
        }
        Shape::Table | Shape::Csv | Shape::Compact => Ok(()),
    }
}
