//! `config`: the configuration of the server and of instances, and whom the server trusts.

mod trust;

use std::collections::BTreeMap;
use std::io::Read;

use clap::{Args, Subcommand};
use lxd_proto::client::LxdClient;
use lxd_proto::config::{KEYS, USER_PREFIX, lookup};
use lxd_proto::remote::Error;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::command::flags::ResultFormat;
use crate::command::image::edit::merge_maps;
use crate::command::instance::{self, Named};
use crate::context::Context;
use crate::editor::{EditOptions, Editable, blocking, edit};
use crate::failure::{Failure, Outcome};
use crate::output::{from_yaml, yaml};
use crate::suggest::did_you_mean;

type Values = BTreeMap<String, Value>;

/// The commands below `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Edit the whole configuration in an editor, or from standard input
    Edit(Edit),
    /// Print the value of a key
    Get(Get),
    /// Set keys
    Set(Set),
    /// Show the keys that are set, as YAML
    Show(Show),
    /// Manage who may manage the server
    #[command(subcommand, arg_required_else_help = true)]
    Trust(trust::Command),
    /// Set a key back to its default
    Unset(Unset),
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Edit(edit) => edit.run(context).await,
        Command::Get(get) => get.run(context).await,
        Command::Set(set) => set.run(context).await,
        Command::Show(show) => show.run(context).await,
        Command::Trust(command) => trust::run(command, context).await,
        Command::Unset(unset) => unset.run(context).await,
    }
}

/// Print the value of a key.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lxd-cli config get images.remote_cache_expiry\n  \
                           lxd-cli config get web limits.memory")]
pub(crate) struct Get {
    /// A remote ("NAME:") or an instance if wanted, and the key
    #[arg(value_name = "[REMOTE:][NAME] KEY", num_args = 1..=2, required = true)]
    words: Vec<String>,
    /// Also what the instance has from its profiles
    #[arg(short, long)]
    expanded: bool,
    #[command(flatten)]
    format: ResultFormat,
}

impl Get {
    async fn run(&self, context: &Context) -> Outcome {
        let (target, words) = target(context, &self.words)?;
        let key = one_key(words)?;
        let server = match target {
            Target::Server(server) => server,
            Target::Instance(named) => {
                let value = instance::config::get(&named, key, self.expanded).await?;
                let text = format!("{}\n", value.as_deref().unwrap_or_default());
                return self.format.print(&json!({ "key": key, "value": value }), &text);
            }
        };
        if self.expanded {
            return Err(Failure::usage("--expanded cannot be used with a server"));
        }
        let values = server.server().await?.value.config.unwrap_or_default();
        let Some(value) = values.get(key).map(as_text) else {
            check_known(key)?;
            return self.format.print(&json!({ "key": key, "value": null }), "\n");
        };
        self.format.print(&json!({ "key": key, "value": value }), &format!("{value}\n"))
    }
}

/// Set keys.
#[derive(Debug, Args)]
#[command(after_help = "\
A value of \"-\" is read from standard input.

Examples:
  lxd-cli config set images.remote_cache_expiry=20 images.auto_update_interval=12
  lxd-cli config set images.compression_algorithm zstd
  lxd-cli config set web limits.memory=512MiB environment.TZ=UTC")]
pub(crate) struct Set {
    /// A remote ("NAME:") or an instance if wanted, and KEY=VALUE pairs or one KEY and its VALUE
    #[arg(value_name = "[REMOTE:][NAME] KEY=VALUE", required = true, allow_hyphen_values = true)]
    words: Vec<String>,
    #[command(flatten)]
    format: ResultFormat,
}

impl Set {
    async fn run(&self, context: &Context) -> Outcome {
        let (target, words) = target(context, &self.words)?;
        let mut values = pairs(words)?;
        let from_stdin: Vec<_> =
            values.iter().filter(|(_, value)| *value == "-").map(|(key, _)| key.as_str()).collect();
        if from_stdin.len() > 1 {
            return Err(Failure::usage(format!(
                "standard input can be the value of only one of {}",
                from_stdin.join(", ")
            )));
        }
        for value in values.values_mut() {
            if value == "-" {
                *value = stdin_value().await?;
            }
        }
        match target {
            Target::Server(server) => {
                let changes =
                    values.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect();
                server.patch_config(changes, None).await?;
            }
            Target::Instance(named) => instance::config::set(&named, &values).await?,
        }
        self.format.done(&json!(values))
    }
}

/// Set a key back to its default.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lxd-cli config unset images.remote_cache_expiry\n  \
                           lxd-cli config unset web limits.memory")]
pub(crate) struct Unset {
    /// A remote ("NAME:") or an instance if wanted, and the key
    #[arg(value_name = "[REMOTE:][NAME] KEY", num_args = 1..=2, required = true)]
    words: Vec<String>,
    #[command(flatten)]
    format: ResultFormat,
}

impl Unset {
    async fn run(&self, context: &Context) -> Outcome {
        let (target, words) = target(context, &self.words)?;
        let key = one_key(words)?;
        match target {
            Target::Server(server) => {
                server.patch_config(Values::from([(key.to_owned(), "".into())]), None).await?;
            }
            Target::Instance(named) => instance::config::unset(&named, key).await?,
        }
        self.format.done(&json!({ "key": key, "unset": true }))
    }
}

/// Show the keys that are set.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lxd-cli config show\n  lxd-cli config show local: -f json\n  \
                           lxd-cli config show web --expanded"
)]
pub(crate) struct Show {
    /// An instance, a snapshot or a server; the default remote if not given
    #[arg(value_name = "[REMOTE:][NAME[/SNAPSHOT]]")]
    name: Option<String>,
    /// Also what the instance has from its profiles
    #[arg(short, long)]
    expanded: bool,
    #[command(flatten)]
    format: ResultFormat,
}

impl Show {
    async fn run(&self, context: &Context) -> Outcome {
        let server = match bare_target(context, self.name.as_deref())? {
            Target::Server(server) => server,
            Target::Instance(named) => {
                let (object, text) = instance::config::show(&named, self.expanded).await?;
                return self.format.print(&object, &text);
            }
        };
        if self.expanded {
            return Err(Failure::usage("--expanded cannot be used with a server"));
        }
        let values = server.server().await?.value.config.unwrap_or_default();
        let object = json!({ "config": values });
        self.format.print(&object, &yaml(&object)?)
    }
}

/// Edit the whole configuration.
#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal the configuration opens in $VISUAL or $EDITOR; otherwise YAML is read from standard
input. Keys that are missing below \"config:\" go back to their defaults.

Examples:
  lxd-cli config edit
  lxd-cli config edit web
  lxd-cli config edit --dry-run < new.yaml")]
pub(crate) struct Edit {
    /// An instance or a server; the default remote if not given
    #[arg(value_name = "[REMOTE:][NAME]")]
    name: Option<String>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Edit {
    async fn run(&self, context: &Context) -> Outcome {
        let options = EditOptions { dry_run: self.dry_run, quiet: context.quiet };
        match bare_target(context, self.name.as_deref())? {
            Target::Server(server) => edit(&EditableConfig { server }, options).await,
            Target::Instance(named) => instance::config::edit_whole(&named, options).await,
        }
    }
}

/// The configuration of a server.
struct EditableConfig {
    server: LxdClient,
}

impl Editable for EditableConfig {
    type Value = Values;

    const HEADER: &'static str = "\
### The server's configuration, as YAML. Lines that start with a hash are ignored.
###
### For example:
### config:
###   images.remote_cache_expiry: \"20\"";

    async fn read(&self) -> Outcome<(Values, Option<String>)> {
        let read = self.server.server().await?;
        Ok((read.value.config.unwrap_or_default(), read.etag))
    }

    async fn save(&self, value: &Values, etag: Option<&str>) -> Result<(), Error> {
        self.server.put_config(value.clone(), etag).await
    }

    fn to_yaml(value: &Values) -> Outcome<String> {
        yaml(&json!({ "config": value }))
    }

    fn parse(text: &str, base: &Values) -> Result<Values, String> {
        let edited: Edited = from_yaml(text)?;
        // As everywhere, what is not said stays as it is; to empty it all is said as {}.
        let Some(values) = edited.config else {
            return Err(
                "there is no \"config:\" with keys in it; \"config: {}\" unsets all".to_owned()
            );
        };
        Ok(values
            .into_iter()
            .map(|(key, value)| {
                let text = value.unwrap_or_default();
                // A password reads as `true`, and `true` leaves it as it is.
                let unchanged = base.get(&key).filter(|old| as_text(old) == text).cloned();
                (key, unchanged.unwrap_or_else(|| text.into()))
            })
            .collect())
    }

    fn merge(base: &Values, mine: &Values, theirs: &Values) -> Values {
        merge_maps(base, mine, theirs)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edited {
    config: Option<BTreeMap<String, Option<String>>>,
}

/// What has a configuration.
enum Target {
    Server(LxdClient),
    Instance(Named),
}

/// What the first word names, if it names something, and the words after it. As with lxc, it is
/// no key when it has neither an equals sign nor, after its colon, a dot.
fn target<'a>(context: &Context, words: &'a [String]) -> Outcome<(Target, &'a [String])> {
    let default = &context.remotes.config.default_remote;
    let Some((first, rest)) = words.split_first() else {
        return Ok((Target::Server(context.remotes.server(default)?), words));
    };
    if let Some(remote) = context.remotes.parse_bare(first) {
        return Ok((Target::Server(context.remotes.server(&remote?)?), rest));
    }
    let after_colon = first.split_once(':').map_or(first.as_str(), |(_, name)| name);
    if rest.is_empty() || first.contains('=') || after_colon.contains('.') {
        return Ok((Target::Server(context.remotes.server(default)?), words));
    }
    Ok((Target::Instance(Named::parse(context, first)?), rest))
}

/// What a command that takes nothing else was told.
fn bare_target(context: &Context, word: Option<&str>) -> Outcome<Target> {
    let reference = context.remotes.parse(word.unwrap_or_default())?;
    match word {
        Some(word) if !reference.name.is_empty() => {
            Ok(Target::Instance(Named::parse(context, word)?))
        }
        _ => Ok(Target::Server(context.remotes.server(&reference.remote)?)),
    }
}

fn one_key(words: &[String]) -> Outcome<&str> {
    match words {
        [key] => Ok(key),
        [] => Err(Failure::usage("the key is missing")),
        [_, more, ..] => Err(Failure::usage(format!("one word too many: \"{more}\""))),
    }
}

/// `KEY=VALUE...`, or `KEY VALUE`.
fn pairs(words: &[String]) -> Outcome<BTreeMap<String, String>> {
    if let [key, value] = words
        && !key.contains('=')
    {
        return Ok([(key.clone(), value.clone())].into());
    }
    if words.is_empty() {
        return Err(Failure::usage("there is nothing to set"));
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("\"{word}\" is not KEY=VALUE"))),
    };
    words.iter().map(pair).collect()
}

async fn stdin_value() -> Outcome<String> {
    let text = blocking(|| {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
    })
    .await?;
    let text =
        text.map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

fn check_known(key: &str) -> Outcome {
    if key.starts_with(USER_PREFIX) || lookup(key).is_some() {
        return Ok(());
    }
    let known = KEYS.iter().map(|key| key.name);
    Err(Failure::new(format!("there is no key \"{key}\"")).maybe_hint(did_you_mean(key, known)))
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn keys_are_set_in_both_spellings() {
        let check = |words: &[&str], expected: &[(&str, &str)]| {
            let pairs = pairs(&strings(words)).unwrap();
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(pairs, expected, "{words:?}");
        };
        check(&["a.b", "c"], &[("a.b", "c")]);
        check(&["a.b=c"], &[("a.b", "c")]);
        check(&["a.b=c=d", "e="], &[("a.b", "c=d"), ("e", "")]);
        for wrong in [&["a"][..], &["a", "b", "c"], &["a=b", "c"], &[], &["=x"]] {
            assert!(pairs(&strings(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_untouched_password_stays_the_boolean() {
        let base = Values::from([
            ("core.trust_password".into(), Value::Bool(true)),
            ("images.auto_update_interval".into(), "6".into()),
        ]);
        let text = EditableConfig::to_yaml(&base).unwrap();
        assert_eq!(EditableConfig::parse(&text, &base).unwrap(), base);
        let changed = EditableConfig::parse("config:\n  a: 7\n", &base).unwrap();
        assert_eq!(changed, Values::from([("a".into(), "7".into())]));
        assert!(EditableConfig::parse("confg: {}", &base).is_err());
        for nothing_said in ["{}", "config:", "config: null"] {
            assert!(EditableConfig::parse(nothing_said, &base).is_err(), "{nothing_said}");
        }
        assert_eq!(EditableConfig::parse("config: {}", &base).unwrap(), Values::new());
    }

    #[test]
    fn an_unknown_key_names_the_close_one() {
        let failure = check_known("core.https_adress").unwrap_err();
        assert_eq!(failure.hints, ["Did you mean \"core.https_address\"?"]);
        check_known("user.anything").unwrap();
    }
}
