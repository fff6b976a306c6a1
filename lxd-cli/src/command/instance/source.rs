//! Which image a new instance is made from, and how its server gets at it.

use lxd_proto::client::LxdClient;
use lxd_proto::image::{Image, InstanceType};
use lxd_proto::instance::{InstanceSource, InstancesPost};
use lxd_proto::operation::Operation;
use lxd_proto::remote::{Error, Protocol, Want, resolve};

use super::wait_shown;
use crate::command::image::copy::bring;
use crate::command::image::copy::parties::{Source, Target};
use crate::command::image::fetching::classified;
use crate::context::Context;
use crate::failure::{Cause, Failure, Outcome};
use crate::output::note;
use crate::remotes::Reference;

/// What is shown while the image comes and is unpacked.
const WORDS: (&str, &str) = ("Retrieving image", "the creation");

/// An image for a server, found.
#[derive(Debug)]
pub(super) struct Found {
    /// One for each address at which the server may reach the image; never empty.
    sources: Vec<InstanceSource>,
    /// What it makes; `None` when only the server can ask.
    pub(super) kind: Option<InstanceType>,
}

/// Finds `reference` for the server `target`.
pub(super) async fn find(
    context: &Context,
    reference: &Reference,
    target: &str,
    vm: bool,
) -> Outcome<Found> {
    let want = Want { kind: vm.then_some(InstanceType::VirtualMachine), ..Want::default() };
    let reference = &as_remote(context, reference, target).await?;
    if reference.remote == target {
        let server = context.remotes.server(target)?;
        return Ok(local(&context.remotes.image(&server, reference, &want).await?.image));
    }
    let source = Source::open(context, &reference.remote).await?;
    let party = Target::open(context, target, None).await?;
    let resolved = match resolve(&*source.remote, &reference.name, &want, None).await {
        Err(Error::Connect { .. } | Error::Silent { .. })
            if !reference.name.is_empty() && party.may_pull(&source) =>
        {
            note(&format!(
                "{}: cannot be reached from here; {target}: is asked to fetch \"{}\" from it.",
                reference.remote, reference.name
            ));
            let alias = reference.name.clone();
            let sources = addressed(&source, &InstanceSource { alias, ..common(&source) })?;
            return Ok(Found { sources, kind: None });
        }
        // Once more, with the names that are close.
        Err(Error::NotFound { .. }) => {
            context.remotes.image(&*source.remote, reference, &want).await?
        }
        resolved => resolved?,
    };
    let image = resolved.image;
    if party.is_same(&source) {
        return Ok(local(&image));
    }
    if !party.may_pull(&source) {
        note(&format!(
            "{target}: cannot check signatures, so the image comes through this client."
        ));
        bring(context, &source, &party, image.clone()).await?;
        return Ok(local(&image));
    }
    let private = !image.public && source.spec().protocol == Protocol::Lxd;
    let mut form = common(&source);
    match resolved.alias {
        // An alias can be followed later on; but a private image is opened by a secret, which is
        // made for this one image.
        Some(alias) if !private => form.alias = alias,
        _ => form.fingerprint = image.fingerprint.to_string(),
    }
    if private && let Some(secret) = source.remote.secret(&image.fingerprint).await? {
        secret.expose().clone_into(&mut form.secret);
    }
    Ok(Found { sources: addressed(&source, &form)?, kind: Some(image.kind) })
}

/// A word without a colon that is no image here, but the name of a remote, means its image
/// `default`; `REMOTE/IMAGE` means `REMOTE:IMAGE`. As with lxc, and as there it is told.
async fn as_remote(context: &Context, reference: &Reference, target: &str) -> Outcome<Reference> {
    let (remote, name) = reference.name.split_once('/').unwrap_or((&reference.name, ""));
    let remotes = &context.remotes.config.remotes;
    let other = remotes.contains_key(remote) && remote != reference.remote;
    if !other || reference.remote != target {
        return Ok(reference.clone());
    }
    let here = context.remotes.server(target)?;
    match resolve(&here, &reference.name, &Want::default(), None).await {
        Err(Error::NotFound { .. }) => {
            let written = format!("{remote}:{name}");
            note(&format!(
                "The local image '{}' couldn't be found, trying '{written}' instead.",
                reference.name
            ));
            Ok(Reference { remote: remote.to_owned(), name: name.to_owned() })
        }
        _ => Ok(reference.clone()),
    }
}

fn local(image: &Image) -> Found {
    let source = InstanceSource {
        kind: "image".to_owned(),
        fingerprint: image.fingerprint.to_string(),
        ..InstanceSource::default()
    };
    Found { sources: vec![source], kind: Some(image.kind) }
}

fn common(source: &Source) -> InstanceSource {
    InstanceSource {
        kind: "image".to_owned(),
        mode: "pull".to_owned(),
        protocol: source.spec().protocol.as_str().to_owned(),
        certificate: source.certificate(),
        project: source.project(),
        keyring: source.keyring(),
        ..InstanceSource::default()
    }
}

fn addressed(source: &Source, form: &InstanceSource) -> Outcome<Vec<InstanceSource>> {
    let with = |url| InstanceSource { server: url, ..form.clone() };
    Ok(source.urls()?.into_iter().map(with).collect())
}

impl Found {
    /// Lets the server make the instance, from the first address of the image that it reaches.
    pub(super) async fn create(
        &self,
        context: &Context,
        server: &LxdClient,
        post: &InstancesPost,
    ) -> Outcome<Operation> {
        let mut refused: Option<Failure> = None;
        for source in &self.sources {
            let post = InstancesPost { source: source.clone(), ..post.clone() };
            let begun = server.create_instance(&post).await.map_err(classified)?;
            match wait_shown(context, server, begun, WORDS).await {
                Err(failure) if is_unreachable(&failure) => {
                    refused.get_or_insert(failure);
                }
                done => return done,
            }
        }
        Err(refused.unwrap_or_else(|| Failure::new("the image's server has no address")))
    }
}

fn is_unreachable(failure: &Failure) -> bool {
    failure.cause == Cause::Unreachable
        || crate::command::image::fetching::is_connection(&failure.error)
}
