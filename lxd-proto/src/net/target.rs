//! Addresses as people and servers write them.

use url::Url;

use crate::remote::{Error, Result};

/// An `http://` or `https://` URL.
pub(crate) fn parse(text: &str) -> Result<Url> {
    let wrong = |reason: String| Error::Address { address: without_password(text), reason };
    let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("it must begin with https:// or http://".to_owned()));
    }
    if !url.has_host() {
        return Err(wrong("it names no host".to_owned()));
    }
    Ok(url)
}

/// The text up to where a password could begin.
fn without_password(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => text.to_owned(),
    }
}
