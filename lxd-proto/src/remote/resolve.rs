//! From what a person types to an image: an alias first, then the beginning of a fingerprint.

use crate::filter::Filter;
use crate::fingerprint::Prefix;
use crate::image::Image;
use crate::remote::{Error, Remote, Result, Secret, Want};

/// The alias that an empty reference stands for.
pub const DEFAULT_ALIAS: &str = "default";

/// What a reference led to.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The image.
    pub image: Image,
    /// The alias it was found by; `None` when by fingerprint.
    pub alias: Option<String>,
}

/// Finds the image that `reference` names on `remote`.
///
/// # Errors
/// [`Error::NotFound`], or [`Error::Ambiguous`] with every image that begins so.
pub async fn resolve(
    remote: &dyn Remote,
    reference: &str,
    want: &Want,
    secret: Option<&Secret>,
) -> Result<Resolved> {
    let name = if reference.is_empty() { DEFAULT_ALIAS } else { reference };
    match remote.alias(name, want).await {
        Ok(entry) => {
            let image = remote.image(&Prefix::from(entry.target), secret).await?;
            return Ok(Resolved { image, alias: Some(entry.name) });
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let missing = || Error::NotFound { reference: name.to_owned() };
    let prefix: Prefix = name.parse().map_err(|_| missing())?;
    match remote.image(&prefix, secret).await {
        Ok(image) => Ok(Resolved { image, alias: None }),
        Err(error) if error.is_not_found() => Err(missing()),
        Err(error) => Err(ambiguous(remote, name, &prefix).await.unwrap_or(error)),
    }
}

/// Servers say "more than one" with a status that means anything: count for ourselves.
async fn ambiguous(remote: &dyn Remote, reference: &str, prefix: &Prefix) -> Option<Error> {
    let images = remote.images(&Filter::default()).await.ok()?;
    let mut candidates: Vec<_> =
        images.iter().map(|image| image.fingerprint).filter(|fp| prefix.matches(fp)).collect();
    candidates.sort_unstable();
    (candidates.len() > 1).then(|| Error::Ambiguous { reference: reference.to_owned(), candidates })
}
