//! `mirror edit` and `mirror set`.

use std::collections::BTreeMap;

use clap::Args;
use lxd_proto::client::LxdClient;
use lxd_proto::config::parse_bool;
use lxd_proto::mirror::{MirrorConfig, MirrorPatch, MirrorPut};
use lxd_proto::remote::Error;
use serde_json::{Map, Value, json};

use super::MirrorArg;
use super::create::rate;
use crate::command::flags::ResultFormat;
use crate::command::image::edit::merge_maps;
use crate::context::Context;
use crate::editor::{EditOptions, Editable, edit};
use crate::failure::{Failure, Outcome};
use crate::output::{from_yaml, yaml};

/// Edit a mirror.
#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal it opens in $VISUAL or $EDITOR; otherwise YAML is read from standard input.
Keys that the YAML leaves out stay as they are.

Examples:
  lxd-cli mirror edit debian
  echo 'os: [debian, ubuntu]' | lxd-cli mirror edit debian")]
pub(crate) struct Edit {
    #[command(flatten)]
    mirror: MirrorArg,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Edit {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let (server, name) = self.mirror.open(context)?;
        let object = EditableMirror { server, name };
        edit(&object, EditOptions { dry_run: self.dry_run, quiet: context.quiet }).await
    }
}

/// One mirror on its server.
struct EditableMirror {
    server: LxdClient,
    name: String,
}

impl Editable for EditableMirror {
    type Value = MirrorConfig;

    const HEADER: &'static str = "\
### A mirror, as YAML. Lines that start with a hash are ignored.
###
### Filters are lists of patterns with * and ?; one that begins with ! excludes. For example:
### os:
### - debian
### - \"!debian-testing\"
### keep: 2
### schedule: \"15 4 * * *\"";

    async fn read(&self) -> Outcome<(MirrorConfig, Option<String>)> {
        let read = self.server.get_mirror(&self.name).await?;
        Ok((read.value.config, read.etag))
    }

    async fn save(&self, value: &MirrorConfig, etag: Option<&str>) -> Result<(), Error> {
        self.server.put_mirror(&self.name, &MirrorPut { config: value.clone() }, etag).await
    }

    fn to_yaml(value: &MirrorConfig) -> Outcome<String> {
        yaml(value)
    }

    fn parse(text: &str, base: &MirrorConfig) -> Result<MirrorConfig, String> {
        let config: Option<Map<String, Value>> = from_yaml(text)?;
        let patch = MirrorPatch { config: config.unwrap_or_default() };
        let edited = patch.apply(base).map_err(|error| error.to_string())?;
        edited.check().map_err(|error| error.to_string())?;
        Ok(edited)
    }

    fn merge(base: &MirrorConfig, mine: &MirrorConfig, theirs: &MirrorConfig) -> MirrorConfig {
        let (base, changed, theirs) = (fields(base), fields(mine), fields(theirs));
        let merged = merge_maps(&base, &changed, &theirs).into_iter().collect();
        serde_json::from_value(Value::Object(merged)).unwrap_or_else(|_| mine.clone())
    }
}

/// The settings by name.
fn fields(config: &MirrorConfig) -> BTreeMap<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

/// Change settings of a mirror.
#[derive(Debug, Args)]
#[command(after_help = "\
Keys are those that `mirror show` prints below \"config\". Patterns are written with commas between;
an empty value removes them all.

Examples:
  lxd-cli mirror set debian keep=3 schedule=@daily
  lxd-cli mirror set debian os=debian,ubuntu variant= bandwidth=2M")]
pub(crate) struct Set {
    #[command(flatten)]
    mirror: MirrorArg,
    /// What to change
    #[arg(value_name = "KEY=VALUE", required = true)]
    changes: Vec<String>,
    #[command(flatten)]
    format: ResultFormat,
}

impl Set {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let config = self.changes.iter().map(|word| parse(word)).collect::<Outcome<_>>()?;
        let (server, name) = self.mirror.open(context)?;
        server.patch_mirror(&name, &MirrorPatch { config }, None).await?;
        self.format.done(&json!({ "name": name, "changed": true }))
    }
}

/// `KEY=VALUE` as the kind of value that the key has.
fn parse(word: &str) -> Outcome<(String, Value)> {
    let Some((key, text)) = word.split_once('=') else {
        return Err(Failure::usage(format!("\"{word}\" is not KEY=VALUE")));
    };
    let known = fields(&MirrorConfig::default());
    let value = match known.get(key) {
        Some(Value::Array(_)) => {
            let globs = text.split(',').map(str::trim).filter(|glob| !glob.is_empty());
            Value::Array(globs.map(Value::from).collect())
        }
        Some(Value::Bool(_)) => Value::Bool(
            parse_bool(text)
                .ok_or_else(|| Failure::usage(format!("{key} is true or false, not \"{text}\"")))?,
        ),
        Some(Value::Number(_)) => Value::from(
            rate(text).map_err(|_| Failure::usage(format!("{key} is a number, not \"{text}\"")))?,
        ),
        Some(_) => Value::from(text),
        None => {
            let keys: Vec<_> = known.keys().map(String::as_str).collect();
            return Err(Failure::usage(format!("a mirror has no setting \"{key}\""))
                .hint(format!("Settings: {}", keys.join(", "))));
        }
    };
    Ok((key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back_unchanged() {
        let base = MirrorConfig { keep: 4, ..MirrorConfig::default() };
        let text = EditableMirror::to_yaml(&base).unwrap();
        assert_eq!(EditableMirror::parse(&text, &base).unwrap(), base);
        let edited = EditableMirror::parse("os: [debian]\npublic: true\n", &base).unwrap();
        assert_eq!((edited.keep, edited.public, edited.os.as_slice().len()), (4, true, 1));
        for wrong in ["kepe: 1", "keep: 0", "os: debian: x", "keep: many"] {
            assert!(EditableMirror::parse(wrong, &base).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_merge_takes_both_sides() {
        let base = MirrorConfig::default();
        let mine = MirrorConfig { keep: 2, ..base.clone() };
        let theirs = MirrorConfig { public: true, ..base.clone() };
        let merged = EditableMirror::merge(&base, &mine, &theirs);
        assert!(merged.public && merged.keep == 2);
    }

    #[test]
    fn values_have_the_kind_of_their_key() {
        for (word, value) in [
            ("os=debian, ubuntu", json!(["debian", "ubuntu"])),
            ("variant=", json!([])),
            ("public=yes", json!(true)),
            ("keep=3", json!(3)),
            ("bandwidth=2M", json!(2_000_000)),
            ("schedule=0 4 * * *", json!("0 4 * * *")),
        ] {
            assert_eq!(parse(word).unwrap().1, value, "{word}");
        }
        for word in ["keep", "keep=x", "public=7", "color=red"] {
            assert!(parse(word).is_err(), "{word}");
        }
    }
}
