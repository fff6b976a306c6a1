//! `image alias`: the names of images.

use clap::{Args, Subcommand};
use lxd_proto::alias::{AliasEntry, AliasName, AliasPut, AliasesPost};
use lxd_proto::client::LxdClient;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::remote::{Remote, Want};
use serde_json::json;

use crate::command::flags::{ListFormat, ResultFormat};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Table, print_list, sort_rows};
use crate::remotes::{Reference, close_alias};

/// The commands below `image alias`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give an image a name
    Create(Create),
    /// Take a name away; the image stays
    #[command(visible_alias = "rm")]
    Delete(Delete),
    /// List names
    #[command(visible_alias = "ls")]
    List(List),
    /// Change a name
    #[command(visible_alias = "mv")]
    Rename(Rename),
    /// Let a name mean another image, in one step, or describe it
    #[command(visible_alias = "move")]
    Set(Set),
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Create(create) => create.run(context).await,
        Command::Delete(delete) => delete.run(context).await,
        Command::List(list) => list.run(context).await,
        Command::Rename(rename) => rename.run(context).await,
        Command::Set(set) => set.run(context).await,
    }
}

/// Give an image a name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lxd-cli image alias create debian/stable a65894de6c07
  lxd-cli image alias create debian/stable debian/12 --description 'Follows the release'")]
pub(crate) struct Create {
    /// The new name
    #[arg(value_name = "[REMOTE:]ALIAS")]
    alias: String,
    /// The image: alias, fingerprint or its beginning
    #[arg(value_name = "IMAGE")]
    target: String,
    /// Free text; an alias that moves keeps its own unless another is given
    #[arg(long)]
    description: Option<String>,
    /// Take the name from another image if it has it
    #[arg(long)]
    reuse: bool,
    #[command(flatten)]
    format: ResultFormat,
}

impl Create {
    async fn run(&self, context: &Context) -> Outcome {
        let (reference, server) = named(context, &self.alias)?;
        let target = target(context, &server, &reference.remote, &self.target).await?;
        let existing = match server.get_alias(&reference.name).await {
            Ok(existing) => Some(existing),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let Some(existing) = existing else {
            let body = AliasesPost {
                name: reference.name.clone(),
                target: target.to_string(),
                description: self.description.clone().unwrap_or_default(),
                kind: String::new(),
            };
            server.create_alias(&body).await?;
            return tell(&self.format, &reference.name, None, target);
        };
        let (old, description) = (existing.value.target, existing.value.description);
        if !self.reuse {
            return Err(taken(&reference.name, old));
        }
        let body = AliasPut {
            description: Some(self.description.clone().unwrap_or(description)),
            target: Some(target.to_string()),
        };
        server.put_alias(&reference.name, &body, existing.etag.as_deref()).await?;
        tell(&self.format, &reference.name, Some(old), target)
    }
}

/// The failure when a name belongs to another image.
pub(crate) fn taken(name: &str, owner: Fingerprint) -> Failure {
    Failure::new(format!("Alias \"{name}\" already exists: it names image {}", owner.short()))
        .hint("Use --reuse to let it name this image instead.")
}

/// Let a name mean another image.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lxd-cli image alias set debian/stable debian/13
  lxd-cli image alias set debian/stable --description 'Follows the release'")]
pub(crate) struct Set {
    /// The name
    #[arg(value_name = "[REMOTE:]ALIAS")]
    alias: String,
    /// The image it names from now on
    #[arg(value_name = "IMAGE", required_unless_present = "description")]
    target: Option<String>,
    /// Free text
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    format: ResultFormat,
}

impl Set {
    async fn run(&self, context: &Context) -> Outcome {
        let (reference, server) = named(context, &self.alias)?;
        let existing = find(&server, &reference).await.map_err(|failure| {
            let known = !failure.hints.is_empty() || failure.code != 1;
            let hint = "`lxd-cli image alias create` makes a new alias.".to_owned();
            failure.maybe_hint((!known).then_some(hint))
        })?;
        let old = existing.0.target;
        let new = match &self.target {
            Some(word) => target(context, &server, &reference.remote, word).await?,
            None => old,
        };
        let description = self.description.clone().unwrap_or(existing.0.description);
        let body = AliasPut { description: Some(description), target: Some(new.to_string()) };
        server.put_alias(&reference.name, &body, existing.1.as_deref()).await?;
        tell(&self.format, &reference.name, Some(old), new)
    }
}

/// Take a name away.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli image alias delete debian/old")]
pub(crate) struct Delete {
    /// The name
    #[arg(value_name = "[REMOTE:]ALIAS")]
    alias: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Delete {
    async fn run(&self, context: &Context) -> Outcome {
        let (reference, server) = named(context, &self.alias)?;
        if let Err(error) = server.delete_alias(&reference.name).await {
            return Err(explained(error, &server, &reference).await);
        }
        self.format.done(&json!({ "alias": reference.name, "deleted": true }))
    }
}

/// Change a name.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lxd-cli image alias rename debian/testing debian/13")]
pub(crate) struct Rename {
    /// The name as it is
    #[arg(value_name = "[REMOTE:]ALIAS")]
    alias: String,
    /// The name as it shall be
    new: String,
    #[command(flatten)]
    format: ResultFormat,
}

impl Rename {
    async fn run(&self, context: &Context) -> Outcome {
        let (reference, server) = named(context, &self.alias)?;
        check_name(&self.new)?;
        if context.remotes.parse_bare(&self.new).is_some_and(|remote| remote.is_ok()) {
            let what = format!("\"{}\" is a remote; the new name of an alias is wanted", self.new);
            return Err(Failure::usage(what));
        }
        if let Err(error) = server.rename_alias(&reference.name, &self.new).await {
            return Err(explained(error, &server, &reference).await);
        }
        self.format.done(&json!({ "alias": self.new, "renamed_from": reference.name }))
    }
}

/// List names.
#[derive(Debug, Args)]
#[command(after_help = "\
A filter is part of a name or of a fingerprint; one of the filters must match.

Examples:
  lxd-cli image alias list
  lxd-cli image alias list debian -f csv")]
pub(crate) struct List {
    /// A remote ("NAME:") and filters
    #[arg(value_name = "REMOTE: | FILTER")]
    filters: Vec<String>,
    #[command(flatten)]
    format: ListFormat,
}

impl List {
    async fn run(&self, context: &Context) -> Outcome {
        let mut remote = context.remotes.config.default_remote.clone();
        let mut filters = Vec::new();
        for (index, word) in self.filters.iter().enumerate() {
            if index == 0 && word.contains(':') {
                let reference = context.remotes.parse(word)?;
                remote = reference.remote;
                filters.extend(Some(reference.name).filter(|name| !name.is_empty()));
            } else if let Some(name) = context.remotes.parse_bare(word) {
                remote = name?;
            } else {
                filters.push(word.clone());
            }
        }
        let mut aliases = context.remotes.aliases(&remote).await?;
        // As with lxc, and unlike images: the words are alternatives.
        let wanted = |alias: &AliasEntry| filters.iter().any(|filter| matches(alias, filter));
        aliases.retain(|alias| filters.is_empty() || wanted(alias));
        let mut table = Table::new(&["ALIAS", "FINGERPRINT", "TYPE", "DESCRIPTION"]);
        table.rows = aliases.iter().map(row).collect();
        sort_rows(&mut table.rows);
        print_list(self.format.format, &table, &aliases)
    }
}

fn matches(alias: &AliasEntry, filter: &str) -> bool {
    alias.name.contains(filter) || alias.target.to_string().contains(filter)
}

fn row(alias: &AliasEntry) -> Vec<String> {
    let kind = alias.kind.as_str().to_uppercase();
    vec![alias.name.clone(), alias.target.short(), kind, alias.description.clone()]
}

/// The name in `REMOTE:ALIAS`, and its server.
fn named(context: &Context, word: &str) -> Outcome<(Reference, LxdClient)> {
    let reference = context.remotes.parse(word)?;
    check_name(&reference.name)?;
    let server = context.remotes.server(&reference.remote)?;
    Ok((reference, server))
}

/// Fails when no alias can have this name.
pub(crate) fn check_name(name: &str) -> Outcome {
    if name.is_empty() {
        return Err(Failure::usage("Alias name missing"));
    }
    if matches!(name, "." | "..") {
        // In a URL they mean a directory; such an alias could not be reached.
        return Err(Failure::usage(format!("\"{name}\" cannot be the name of an alias")));
    }
    name.parse::<AliasName>().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(())
}

async fn find(server: &LxdClient, reference: &Reference) -> Outcome<(AliasEntry, Option<String>)> {
    match server.get_alias(&reference.name).await {
        Ok(found) => Ok((found.value, found.etag)),
        Err(error) => Err(explained(error, server, reference).await),
    }
}

/// Adds names that are close when there is no such alias.
async fn explained(
    error: lxd_proto::remote::Error,
    server: &LxdClient,
    reference: &Reference,
) -> Failure {
    if error.is_not_found() {
        let name = &reference.name;
        return Failure::new(format!("Image alias not found: \"{name}\" on {}:", reference.remote))
            .maybe_hint(close_alias(server, name).await);
    }
    error.into()
}

/// The fingerprint of what a target names: an alias, or an image by its beginning.
async fn target(
    context: &Context,
    server: &LxdClient,
    remote: &str,
    word: &str,
) -> Outcome<Fingerprint> {
    if let Ok(full) = word.parse() {
        return Ok(full);
    }
    // Written with the alias's own remote it means the same.
    let name = word.strip_prefix(&format!("{remote}:")).unwrap_or(word);
    let reference = Reference { remote: remote.to_owned(), name: name.to_owned() };
    let server: &dyn Remote = server;
    Ok(context.remotes.image(server, &reference, &Want::default()).await?.image.fingerprint)
}

fn tell(format: &ResultFormat, name: &str, old: Option<Fingerprint>, new: Fingerprint) -> Outcome {
    let object = json!({ "alias": name, "target": new, "was": old });
    match old.filter(|old| *old != new) {
        Some(old) => format.print(&object, &moved(name, old, new)),
        None => format.done(&object),
    }
}

/// `alias props: 5e1884442425 -> 482f21215811`, as a line.
pub(crate) fn moved(name: &str, old: Fingerprint, new: Fingerprint) -> String {
    format!("alias {name}: {} -> {}\n", old.short(), new.short())
}
