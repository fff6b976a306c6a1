//! Names for an imported image: who has them now, and taking them.

use lxd_proto::alias::{AliasPut, AliasesPost};
use lxd_proto::client::LxdClient;
use lxd_proto::fingerprint::Fingerprint;
use serde::Serialize;

use crate::command::image::alias::taken;
use crate::failure::Outcome;

/// A name that the image shall have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Claim {
    pub(super) name: String,
    /// The image that had it.
    pub(super) was: Option<Fingerprint>,
    #[serde(skip)]
    description: String,
}

/// Who has the names now.
pub(super) async fn look_up(server: &LxdClient, names: &[String]) -> Outcome<Vec<Claim>> {
    let mut claims: Vec<Claim> = Vec::new();
    for name in names {
        if claims.iter().any(|claim| claim.name == *name) {
            continue;
        }
        let (was, description) = match server.get_alias(name).await {
            Ok(found) => (Some(found.value.target), found.value.description),
            Err(error) if error.is_not_found() => (None, String::new()),
            Err(error) => return Err(error.into()),
        };
        claims.push(Claim { name: name.clone(), was, description });
    }
    Ok(claims)
}

/// Fails when a name belongs to another image than `fingerprint`, which may not be known yet.
pub(super) fn refuse_taken(claims: &[Claim], fingerprint: Option<Fingerprint>) -> Outcome {
    for claim in claims {
        if let Some(owner) = claim.was.filter(|owner| Some(*owner) != fingerprint) {
            return Err(taken(&claim.name, owner));
        }
    }
    Ok(())
}

/// Gives the names to the image, each in one step.
pub(super) async fn set(
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
                    ..AliasesPost::default()
                };
                server.create_alias(&body).await?;
            }
        }
    }
    Ok(())
}
