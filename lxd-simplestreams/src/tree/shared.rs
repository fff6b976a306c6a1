//! Trees that are in use, so that many requests for one server share its listing, its
//! connections and one question whether anything is new.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lxd_proto::net::Access;
use lxd_proto::remote::{Error, RemoteSpec, Result};
use url::Url;

use crate::cache::Key;
use crate::signed::Keyring;
use crate::tree::Tree;
use crate::tree::trust::Trust;

/// Trees that are kept although nobody uses them.
const MAX_TREES: usize = 8;
/// How long they are kept.
const KEPT: Duration = Duration::from_mins(2);

struct Kept {
    key: Key,
    certificate: String,
    access: Access,
    tree: Arc<Tree>,
    used: Instant,
}

impl Kept {
    /// Whether it is the same tree, reached the same way by the same person.
    fn serves(&self, key: Key, certificate: &str, access: &Access) -> bool {
        let ours = &self.access;
        self.key == key
            && self.certificate == certificate
            && ours.proxies == access.proxies
            && ours.authorities == access.authorities
            && ours.limits == access.limits
            && ours.cache == access.cache
            && ours.user_agent == access.user_agent
    }
}

static TREES: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// The tree at the address of `spec`.
pub(crate) fn tree(spec: &RemoteSpec, access: &Access) -> Result<Arc<Tree>> {
    let address = address(&spec.address)?;
    let identity = access.identity.as_ref().map(|identity| identity.fingerprint().to_string());
    // Whoever shows another certificate may be shown another tree.
    let mut seen_by = vec![address.as_str(), identity.as_deref().unwrap_or_default()];
    // What was taken without a signature says nothing to who asks for one.
    seen_by.extend(spec.keyring.as_deref());
    let key = Key::of(&seen_by);

    let mut trees = TREES.lock().unwrap_or_else(PoisonError::into_inner);
    trees.retain(|kept| kept.used.elapsed() < KEPT);
    if let Some(kept) = trees.iter_mut().find(|kept| kept.serves(key, &spec.certificate, access)) {
        kept.used = Instant::now();
        return Ok(Arc::clone(&kept.tree));
    }
    let trust = spec.keyring.as_deref().map(|keys| trust(keys, &address, access)).transpose()?;
    let tree = Arc::new(Tree::new(&address, &spec.certificate, access, key, trust)?);
    if trees.len() >= MAX_TREES {
        trees.sort_by_key(|kept| kept.used);
        trees.remove(0);
    }
    trees.push(Kept {
        key,
        certificate: spec.certificate.clone(),
        access: access.clone(),
        tree: Arc::clone(&tree),
        used: Instant::now(),
    });
    Ok(tree)
}

/// What the documents of the tree at `address` have to show.
fn trust(keyring: &str, address: &Url, access: &Access) -> Result<Trust> {
    let keyring = Keyring::from_bytes(keyring.as_bytes()).map_err(|error| {
        let mut shown = address.clone();
        let _ = shown.set_username("").and_then(|()| shown.set_password(None));
        Error::Decode { what: format!("the keyring for {shown}"), reason: error.to_string() }
    })?;
    // Whoever asks, and by which keys: what is old stays old.
    let seen = Key::of(&[address.as_str()]);
    Ok(Trust::new(keyring, access.cache.as_deref(), seen))
}

/// The root of a tree, without a slash at its end.
fn address(text: &str) -> Result<Url> {
    let shown = text.rsplit('@').next().unwrap_or(text);
    let wrong =
        |reason: &str| Error::Address { address: shown.to_owned(), reason: reason.to_owned() };
    let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    match url.scheme() {
        "https" => {}
        // On this machine nobody listens in.
        "http" if is_loopback(&url) => {}
        _ => return Err(wrong("simplestreams servers are reached by https:// only")),
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it may not have a \"?\" or \"#\" part"));
    }
    let path = url.path().strip_suffix('/').unwrap_or(url.path()).to_owned();
    url.set_path(&path);
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_https_and_lose_one_slash() {
        for (text, read) in [
            ("https://host", "https://host/"),
            ("https://host/a/b/", "https://host/a/b"),
            ("https://user:pw@host:8443/a", "https://user:pw@host:8443/a"),
            ("http://127.0.0.1:80/x/", "http://127.0.0.1/x"),
        ] {
            assert_eq!(address(text).unwrap().as_str(), read);
        }
        for text in [
            "",
            "host",
            "http://host",
            "ftp://host/x",
            "https://host/?x",
            "https://host/#x",
            "file:///x",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
        let error = address("http://user:secret@host/").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
