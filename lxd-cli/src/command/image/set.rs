//! `image set`: several changes to an image in one step.

use clap::Args;
use jiff::Timestamp;
use lxd_proto::config::parse_bool;
use lxd_proto::image::ImagePut;
use serde_json::json;

use crate::command::flags::{ImageArg, ResultFormat};
use crate::command::image::edit::{overlay, parse_time};
use crate::command::image::update::update;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// Fields that nobody can change: a property of the same name would hide behind them.
const READ_ONLY: &[&str] = &[
    "aliases",
    "architecture",
    "cached",
    "created_at",
    "filename",
    "fingerprint",
    "last_used_at",
    "size",
    "type",
    "update_source",
    "uploaded_at",
    "verified",
];

/// Change properties and flags in one step.
#[derive(Debug, Args)]
#[command(after_help = "\
The keys public, auto_update, expires_at and profiles (with commas between) change those fields;
any other key, or one after \"properties.\", is a property; the other fields of an image can't be
changed. An empty value removes a property.

Examples:
  lxd-cli image set debian/12 public=true os=debian release=12
  lxd-cli image set debian/12 serial= expires_at=2030-01-31")]
pub(crate) struct Set {
    #[command(flatten)]
    image: ImageArg,
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
        let found = self.image.open(context).await?;
        let fingerprint = found.resolved.image.fingerprint;
        let changed = update(&found.server, fingerprint, |image| {
            changes.iter().for_each(|change| change.apply(image));
        })
        .await?;
        self.format.done(&json!({ "fingerprint": fingerprint, "changed": changed }))
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
        _ if READ_ONLY.contains(&key) => {
            return Err(Failure::usage(format!("{key} of an image cannot be changed")).hint(
                format!("A property of that name is set with \"properties.{key}={value}\"."),
            ));
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
        let property = Change::Property("type".into(), "squashfs".into());
        assert_eq!(parse("properties.type=squashfs").unwrap(), property);
        for wrong in ["public", "public=maybe", "expires_at=soon", "=x", "type=x", "size=1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
