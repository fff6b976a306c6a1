//! Instances: everything about containers, and the words by which they are named.

pub(crate) mod config;
pub(crate) mod console;
pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod exec;
pub(crate) mod file;
mod filter;
pub(crate) mod info;
pub(crate) mod list;
pub(crate) mod publish;
pub(crate) mod rename;
mod settings;
pub(crate) mod snapshot;
mod source;
pub(crate) mod state;
mod terminal;

use lxd_proto::client::LxdClient;
use lxd_proto::operation::Operation;
use lxd_proto::remote::{Error, Progress};

use crate::command::operation::follow;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::progress::{Style, show};
use crate::suggest::did_you_mean;

/// An instance, or one of its snapshots, on a server.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) remote: String,
    pub(crate) server: LxdClient,
    pub(crate) name: String,
    pub(crate) snapshot: Option<String>,
}

impl Named {
    /// What `[REMOTE:]NAME[/SNAPSHOT]` names.
    pub(crate) fn parse(context: &Context, word: &str) -> Outcome<Self> {
        let reference = context.remotes.parse(word)?;
        let (name, snapshot) = match reference.name.split_once('/') {
            Some((name, snapshot)) => (name.to_owned(), Some(snapshot.to_owned())),
            None => (reference.name, None),
        };
        if name.is_empty() || snapshot.as_deref() == Some("") {
            return Err(Failure::usage(format!("\"{word}\" names no instance")).hint(
                "An instance is named as [REMOTE:]NAME, a snapshot as [REMOTE:]NAME/SNAPSHOT.",
            ));
        }
        let server = context.remotes.server(&reference.remote)?;
        Ok(Self { remote: reference.remote, server, name, snapshot })
    }

    /// The same, where only an instance makes sense.
    pub(crate) fn instance(context: &Context, word: &str) -> Outcome<Self> {
        let named = Self::parse(context, word)?;
        match &named.snapshot {
            None => Ok(named),
            Some(snapshot) => Err(Failure::usage(format!(
                "\"{snapshot}\" is a snapshot of {}; this needs an instance",
                named.name
            ))),
        }
    }

    /// The words for people: `NAME` or `NAME/SNAPSHOT`.
    pub(crate) fn shown(&self) -> String {
        match &self.snapshot {
            None => self.name.clone(),
            Some(snapshot) => format!("{}/{snapshot}", self.name),
        }
    }

    /// A failure that says where was looked and what is close, if the instance does not exist.
    pub(crate) async fn failed(&self, error: Error) -> Failure {
        if !error.is_not_found() || !error.to_string().contains("nstance not found") {
            return error.into();
        }
        let place = format!("Instance not found: \"{}\" on {}:", self.name, self.remote);
        let instances = self.server.list_instances().await.unwrap_or_default();
        let names = instances.iter().map(|instance| instance.name.as_str());
        Failure::new(place).maybe_hint(did_you_mean(&self.name, names))
    }

    /// The value, or [`Named::failed`].
    pub(crate) async fn ok<T>(&self, result: Result<T, Error>) -> Outcome<T> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => Err(self.failed(error).await),
        }
    }
}

/// Waits for the end of `operation`, without a word; an interrupt says that it concerned `what`
/// ("the start of c1").
pub(crate) async fn wait(
    context: &Context,
    server: &LxdClient,
    operation: Operation,
    what: &str,
) -> Outcome<Operation> {
    let shown = show(Style::None, what, &Progress::default());
    Ok(follow(context, server, operation, &shown, what).await??)
}

/// The same, and shows under `label` how far it is.
pub(crate) async fn wait_shown(
    context: &Context,
    server: &LxdClient,
    operation: Operation,
    (label, what): (&str, &str),
) -> Outcome<Operation> {
    let shown = show(context.progress, label, &Progress::default());
    let operation = follow(context, server, operation, &shown, what).await??;
    shown.done();
    Ok(operation)
}

/// The name that the server has given to a new instance.
pub(crate) fn created_name(operation: &Operation) -> Outcome<String> {
    let resources = operation.resources.as_ref();
    let paths = resources.and_then(|all| all.get("instances").or_else(|| all.get("containers")));
    let name = paths.and_then(|paths| paths.first()?.rsplit('/').next());
    match name {
        Some(name) => Ok(name.split('?').next().unwrap_or(name).to_owned()),
        None => Err(Failure::new("the server has made an instance, but does not say its name")),
    }
}

#[cfg(test)]
mod tests {
    use lxd_proto::routes;

    use super::*;

    #[test]
    fn the_name_is_the_last_part_of_the_path() {
        let text = r#"{"id":"1","class":"task","description":"","created_at":"2026-11-24T00:00:00Z",
            "updated_at":"2026-11-24T00:00:00Z","status":"Running","status_code":103,
            "resources":{},"metadata":null,"may_cancel":false,"err":""}"#;
        let mut operation: Operation = serde_json::from_str(text).unwrap();
        let path = format!("{}?project=p", routes::INSTANCE.url(&["elegant-boar"]));
        operation.resources = Some([("instances".to_owned(), vec![path])].into());
        assert_eq!(created_name(&operation).unwrap(), "elegant-boar");
        operation.resources = None;
        assert!(created_name(&operation).is_err());
    }
}
