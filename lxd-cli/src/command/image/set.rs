//! `image set`: several changes to an image in one step.

use clap::Args;
use jiff::Timestamp;
use lxd_proto::config::parse_bool;
use lxd_proto::image::ImagePut;
use serde_json::json;

use crate::command::flags::ResultFormat;
use crate::command::image::edit::{overlay, parse_time};
use crate::command::image::update::{find, update};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Shape, print_result};

/// Change properties and flags in one step.
#[derive(Debug, Args)]
#[command(after_help = "\
The keys public, auto_update, expires_at and profiles (with commas between) change those fields;
any other key, or one after \"properties.\", is a property. An empty value removes a property.

Examples:
  lxd-cli image set debian/12 public=true os=debian release=12
  lxd-cli image set debian/12 serial= expires_at=2030-01-31")]
pub(crate) struct Set {
    /// Alias, fingerprint or its beginning
    #[arg(value_name = "[REMOTE:]IMAGE")]
    image: String,
    /// What to change
    #[arg(value_name = "KEY=VALUE", required = true)]
    changes: Vec<String>,
    #[command(flatten)]
    format: ResultFormat,
}

#[derive(Debug, Clone, PartialEq)]
enum Change {
    Public(bool),
    AutoUpdate(bool),
    ExpiresAt(Timestamp),
    Profiles(Vec<String>),
    Property(String, String),
}

impl Set {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let changes: Vec<_> =
            self.changes.iter().map(|word| parse(word)).collect::<Outcome<_>>()?;
        let image = find(context, &self.image).await?;
        let changed = update(&image.server, image.fingerprint, |image| {
            changes.iter().for_each(|change| change.apply(image));
        })
        .await?;
        match self.format.format.shape {
            Shape::Json | Shape::Yaml => {
                let object = json!({ "fingerprint": image.fingerprint, "changed": changed });
                print_result(self.format.format, &object, "")
            }
            Shape::Table | Shape::Csv | Shape::Compact => Ok(()),
        }
    }
}

fn parse(word: &str) -> Outcome<Change> {
    let Some((key, value)) = word.split_once('=') else {
        return Err(Failure::usage(format!("\"{word}\" is not KEY=VALUE")));
    };
    let boolean = || {
        parse_bool(value)
            .ok_or_else(|| Failure::usage(format!("{key} is true or false, not \"{value}\"")))
    };
    Ok(match key {
        "" => return Err(Failure::usage(format!("\"{word}\" has no key"))),
        "public" => Change::Public(boolean()?),
        "auto_update" => Change::AutoUpdate(boolean()?),
        "expires_at" if value.is_empty() || value == "never" => {
            Change::ExpiresAt(Timestamp::UNIX_EPOCH)
        }
        "expires_at" => Change::ExpiresAt(parse_time(value).map_err(Failure::usage)?),
        "profiles" => {
            let names = value.split(',').filter(|name| !name.is_empty());
            Change::Profiles(names.map(str::to_owned).collect())
        }
        _ => {
            let key = key.strip_prefix("properties.").unwrap_or(key);
            Change::Property(key.to_owned(), value.to_owned())
        }
    })
}

impl Change {
    fn apply(&self, image: &mut ImagePut) {
        match self {
            Self::Public(value) => image.public = *value,
            Self::AutoUpdate(value) => image.auto_update = *value,
            Self::ExpiresAt(value) => image.expires_at = *value,
            Self::Profiles(names) => image.profiles = Some(names.clone()),
            Self::Property(key, value) => overlay(&mut image.properties, key, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fields_or_properties() {
        assert_eq!(parse("public=yes").unwrap(), Change::Public(true));
        assert_eq!(parse("profiles=a,b").unwrap(), Change::Profiles(vec!["a".into(), "b".into()]));
        assert_eq!(parse("os=a=b").unwrap(), Change::Property("os".into(), "a=b".into()));
        let property = Change::Property("public".into(), "x".into());
        assert_eq!(parse("properties.public=x").unwrap(), property);
        for wrong in ["public", "public=maybe", "expires_at=soon", "=x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
