//! Names for an image that is about to come: who has them now, and taking them.

use std::collections::BTreeMap;

use lxd_proto::alias::{AliasEntry, AliasPut, AliasesPost, ImageAlias};
use lxd_proto::client::LxdClient;
use lxd_proto::fingerprint::Fingerprint;
use serde::Serialize;

use crate::command::image::alias::{check_name, taken};
use crate::failure::Outcome;

/// A name that the image shall have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Claim {
    pub(crate) name: String,
    /// The image that had it.
    pub(crate) was: Option<Fingerprint>,
    #[serde(skip)]
    description: String,
}

/// The aliases of a server, by name.
pub(crate) type Known = BTreeMap<String, AliasEntry>;

/// Names as they were typed, checked.
pub(crate) fn typed(names: &[String]) -> Outcome<Vec<ImageAlias>> {
    let check = |name: &String| {
        check_name(name)?;
        Ok(ImageAlias { name: name.clone(), description: String::new() })
    };
    names.iter().map(check).collect()
}

/// Who has the names now.
pub(crate) async fn look_up(server: &LxdClient, names: &[ImageAlias]) -> Outcome<Vec<Claim>> {
    let mut known = Known::new();
    for alias in names {
        match server.get_alias(&alias.name).await {
            Ok(found) => drop(known.insert(alias.name.clone(), found.value)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(among(&known, names))
}

/// Who has the names among `known`.
pub(crate) fn among(known: &Known, names: &[ImageAlias]) -> Vec<Claim> {
    let mut claims: Vec<Claim> = Vec::new();
    for alias in names {
        if claims.iter().any(|claim| claim.name == alias.name) {
            continue;
        }
        let owner = known.get(&alias.name);
        let description = match owner {
            Some(owner) if alias.description.is_empty() => owner.description.clone(),
            _ => alias.description.clone(),
        };
        let was = owner.map(|owner| owner.target);
        claims.push(Claim { name: alias.name.clone(), was, description });
    }
    claims
}

/// Fails when a name belongs to another image than `fingerprint`, which may not be known yet.
pub(crate) fn refuse_taken(claims: &[Claim], fingerprint: Option<Fingerprint>) -> Outcome {
    for claim in claims {
        if let Some(owner) = claim.was.filter(|owner| Some(*owner) != fingerprint) {
            return Err(taken(&claim.name, owner));
        }
    }
    Ok(())
}

/// Gives the names to the image, each in one step.
pub(crate) async fn set(
    server: &LxdClient,
    claims: &[Claim],
    fingerprint: Fingerprint,
    reuse: bool,
) -> Outcome {
    for claim in claims {
        match claim.was {
            Some(owner) if owner == fingerprint => {}
            Some(owner) if !reuse => return Err(taken(&claim.name, owner)),
            Some(_) => {
                let body = AliasPut {
                    description: Some(claim.description.clone()),
                    target: Some(fingerprint.to_string()),
                };
                server.put_alias(&claim.name, &body, None).await?;
            }
            None => {
                let body = AliasesPost {
                    name: claim.name.clone(),
                    target: fingerprint.to_string(),
                    description: claim.description.clone(),
                    ..AliasesPost::default()
                };
                server.create_alias(&body).await?;
            }
        }
    }
    Ok(())
}
