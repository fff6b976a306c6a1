//! From what is typed, `REMOTE:NAME`, to a server and a name on it.

use std::sync::{Arc, OnceLock};

use lxd_proto::alias::AliasEntry;
use lxd_proto::client::LxdClient;
use lxd_proto::filter::Filter;
use lxd_proto::image::Image;
use lxd_proto::net::Access;
use lxd_proto::remote::{Error, Protocol, Remote, RemoteSpec, Resolved, Want, resolve};
use lxd_simplestreams::connect;
use url::Url;

use crate::config::{Config, RemoteEntry, cache_dir, local_socket};
use crate::credentials::Credentials;
use crate::failure::{Failure, Outcome};
use crate::in_use::InUse;
use crate::keyrings::Keyrings;
use crate::output::note;
use crate::suggest::{closest, did_you_mean};

/// What a server calls a client that it trusts.
const TRUSTED: &str = "trusted";

/// A name on a remote; the name may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) remote: String,
    pub(crate) name: String,
}

/// The known remotes, and how to reach them.
#[derive(Debug)]
pub(crate) struct Remotes {
    pub(crate) config: Config,
    /// `--project`.
    pub(crate) project: Option<String>,
    in_use: InUse,
}

impl Remotes {
    pub(crate) fn new(config: Config, project: Option<String>) -> Self {
        Self { config, project, in_use: InUse::default() }
    }

    /// Splits `REMOTE:NAME` at the first colon; without one it is on the default remote.
    pub(crate) fn parse(&self, text: &str) -> Outcome<Reference> {
        let here = |name: &str| Reference {
            remote: self.config.default_remote.clone(),
            name: name.to_owned(),
        };
        let Some((remote, name)) = text.split_once(':') else {
            return Ok(here(text));
        };
        if self.config.remotes.contains_key(remote) {
            Ok(Reference { remote: remote.to_owned(), name: name.to_owned() })
        } else if remote.contains('/') {
            // An alias such as a/b:c.
            Ok(here(text))
        } else {
            Err(self.unknown(remote))
        }
    }

    /// Whether `text` is just a remote: `NAME:`.
    pub(crate) fn parse_bare(&self, text: &str) -> Option<Outcome<String>> {
        let name = text.strip_suffix(':')?;
        if name.contains([':', '/']) {
            return None;
        }
        let known = self.config.remotes.contains_key(name);
        Some(if known { Ok(name.to_owned()) } else { Err(self.unknown(name)) })
    }

    /// The failure that asks whether a word is a remote that lacks its colon.
    pub(crate) fn lacks_colon(&self, word: &str) -> Option<Failure> {
        let known = self.config.remotes.contains_key(word) && !std::path::Path::new(word).exists();
        known.then(|| {
            Failure::usage(format!("\"{word}\" is no file, but a remote has that name"))
                .hint(format!("Did you mean \"{word}:\"?"))
        })
    }

    /// Why there is no such remote, and what to do.
    fn unknown(&self, name: &str) -> Failure {
        if let Some(failure) = self.config.unusable(name) {
            return failure;
        }
        if name == self.config.default_remote {
            let failure = Failure::new(format!("The default remote \"{name}\" doesn't exist"));
            return failure.hint(if self.config.default_is_from_env {
                "$LXC_REMOTE names it: set it to another, or unset it.".to_owned()
            } else {
                format!(
                    "{} names it; `lxd-cli remote switch local` chooses another.",
                    self.config.path().display()
                )
            });
        }
        let known = || self.config.remotes.keys().map(String::as_str);
        let hint = did_you_mean(name, known()).unwrap_or_else(|| {
            format!("Available remotes: {}", known().collect::<Vec<_>>().join(", "))
        });
        Failure::new(format!("The remote \"{name}\" doesn't exist")).hint(hint)
    }

    /// What is known about a remote.
    pub(crate) fn entry(&self, name: &str) -> Outcome<&RemoteEntry> {
        self.config.remotes.get(name).ok_or_else(|| self.unknown(name))
    }

    /// Where a remote is and how it is spoken to.
    pub(crate) fn spec(&self, name: &str) -> Outcome<RemoteSpec> {
        let entry = self.entry(name)?;
        let protocol = entry
            .protocol
            .parse()
            .map_err(|error| Failure::new(format!("the remote \"{name}\": {error}")))?;
        let project = self.project.clone().unwrap_or_else(|| entry.project.clone());
        let address = address(entry);
        let certificate = if address.starts_with("https:") {
            self.credentials().pinned(name)?
        } else {
            String::new()
        };
        let keyring = match protocol {
            Protocol::Simplestreams => self.keyrings().of(name, &entry.addr)?,
            Protocol::Lxd => None,
        };
        let keyring = keyring.map(|keyring| keyring.armored());
        Ok(RemoteSpec { address, protocol, certificate, project, keyring })
    }

    /// The certificates of this client.
    pub(crate) fn credentials(&self) -> Credentials<'_> {
        Credentials::new(&self.config)
    }

    /// The keys that must have signed what remotes say.
    pub(crate) fn keyrings(&self) -> Keyrings<'_> {
        Keyrings::new(&self.config)
    }

    /// Who we are for a remote and how we get to it. A public LXD server sees a stranger; a
    /// web server sees our certificate only when it asks for one.
    pub(crate) fn access(&self, name: &str) -> Outcome<Access> {
        let entry = self.entry(name)?;
        self.in_use.add(name);
        let mut access = stranger();
        let simplestreams = entry.protocol == Protocol::Simplestreams.as_str();
        if entry.addr.starts_with("https:") && (simplestreams || !entry.public) {
            access.identity = self.credentials().identity()?;
        }
        Ok(access)
    }

    /// The remote in use that has this endpoint, as errors call it.
    pub(crate) fn opened_at(&self, endpoint: &str) -> Option<String> {
        let origin = |address: &str| Some(address.parse::<Url>().ok()?.origin());
        let wanted = origin(endpoint)?;
        let is_there = |name: &str| {
            self.config.remotes.get(name).and_then(|entry| origin(&entry.addr)).as_ref()
                == Some(&wanted)
        };
        self.in_use.find(is_there)
    }

    /// Tells, once for each remote, that this client is a stranger there and so sees only part.
    pub(crate) fn warn_stranger(&self, name: &str, why: &str) {
        if self.in_use.is_first_warning(name) {
            note(&format!(
                "Warning: {name}: {why}; only public images are seen. `lxd-cli doctor {name}:` \
                 says what is missing."
            ));
        }
    }

    /// The warning for a remote to manage when there is nothing to be known by.
    fn warn_nameless(&self, name: &str, access: &Access) {
        let Some(entry) = self.config.remotes.get(name) else { return };
        let to_manage = entry.addr.starts_with("https:") && !is_public(entry);
        if to_manage && access.identity.is_none() {
            let (certificate, _) = self.credentials().identity_paths();
            let why = format!("this client has no certificate ({})", certificate.display());
            self.warn_stranger(name, &why);
        }
    }

    /// Warns when a server to manage says that it does not trust this client. Only the network
    /// has strangers. A server that does not answer says so to the command itself.
    pub(crate) async fn warn_if_stranger(&self, name: &str, server: &LxdClient) {
        let answer = match self.entry(name) {
            Ok(entry) if entry.addr.starts_with("https:") => server.server().await,
            _ => return,
        };
        if answer.is_ok_and(|about| about.value.auth != TRUSTED) {
            self.warn_stranger(name, "the server does not trust this client");
        }
    }

    /// All images that a remote shows us.
    pub(crate) async fn images(&self, name: &str) -> Outcome<Vec<Image>> {
        let entry = self.entry(name)?;
        if is_public(entry) {
            return Ok(self.reader(name)?.images(&Filter::default()).await?);
        }
        // What a stranger gets looks like an answer: the server is asked what it thinks of us.
        let server = self.server(name)?;
        let images = server.images(&Filter::default()).await?;
        self.warn_if_stranger(name, &server).await;
        Ok(images)
    }

    /// The remote for reading images, whatever it speaks.
    pub(crate) fn reader(&self, name: &str) -> Outcome<Arc<dyn Remote>> {
        let access = self.access(name)?;
        self.warn_nameless(name, &access);
        Ok(connect(self.spec(name)?, &access)?)
    }

    /// All aliases that a remote shows us.
    pub(crate) async fn aliases(&self, name: &str) -> Outcome<Vec<AliasEntry>> {
        if is_public(self.entry(name)?) {
            return visible_aliases(&*self.reader(name)?).await;
        }
        let server = self.server(name)?;
        let aliases = visible_aliases(&server).await?;
        self.warn_if_stranger(name, &server).await;
        Ok(aliases)
    }

    /// The remote as an LXD server, for all that only those can do.
    pub(crate) fn server(&self, name: &str) -> Outcome<LxdClient> {
        let spec = self.spec(name)?;
        let public = self.config.remotes.get(name).is_some_and(|entry| entry.public);
        if spec.protocol != Protocol::Lxd || public {
            let what = format!("\"{name}\" is an image server that can only be read");
            return Err(
                Failure::new(what).hint("This command needs an LXD server, such as local:.")
            );
        }
        let access = self.access(name)?;
        self.warn_nameless(name, &access);
        Ok(LxdClient::new(spec, &access)?)
    }

    /// The image that `reference` names. When there is none, or more than one, the failure
    /// says where was looked and what is close.
    pub(crate) async fn image(
        &self,
        remote: &dyn Remote,
        reference: &Reference,
        want: &Want,
    ) -> Outcome<Resolved> {
        match resolve(remote, &reference.name, want, None).await {
            Ok(resolved) => Ok(resolved),
            Err(Error::NotFound { reference: name }) => {
                let place = &reference.remote;
                if self.entry(place).is_ok_and(|entry| !is_public(entry)) {
                    self.warn_if_stranger(place, &self.server(place)?).await;
                }
                if let Some(kind) = want.kind
                    && let Ok(other) = remote.alias(&name, &Want { kind: None, ..*want }).await
                {
                    return Err(Failure::new(format!(
                        "\"{name}\" on {place}: names a {} image, not a {kind} one",
                        other.kind
                    )));
                }
                let failure = Failure::new(format!(
                    "Image not found: \"{name}\" is neither an alias nor the beginning of a \
                     fingerprint on {place}:"
                ));
                Err(failure.maybe_hint(close_alias(remote, &name).await))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The aliases of a server. LXD does not list them for strangers, but shows them with the images.
async fn visible_aliases(remote: &dyn Remote) -> Outcome<Vec<AliasEntry>> {
    match remote.aliases().await {
        Err(Error::Api { status: 401 | 403, .. }) => {}
        listed => return Ok(listed?),
    }
    let mut aliases = Vec::new();
    for image in remote.images(&Filter::default()).await? {
        aliases.extend(image.aliases.into_iter().map(|alias| AliasEntry {
            description: alias.description,
            target: image.fingerprint,
            name: alias.name,
            kind: image.kind,
        }));
    }
    Ok(aliases)
}

/// Aliases that look like `name`.
pub(crate) async fn close_alias(remote: &dyn Remote, name: &str) -> Option<String> {
    let aliases = visible_aliases(remote).await.ok()?;
    let names: Vec<_> = aliases.iter().map(|alias| alias.name.as_str()).collect();
    if closest(name, names.iter().copied()).is_empty() {
        return None;
    }
    did_you_mean(name, names)
}

/// Nobody in particular, out by the proxies of the environment.
pub(crate) fn stranger() -> Access {
    // One for the whole run: its clones share what is read of the system's authorities.
    static ONE: OnceLock<Access> = OnceLock::new();
    let make = || Access {
        cache: cache_dir(),
        ..Access::anonymous(concat!("lxd-cli/", env!("CARGO_PKG_VERSION")))
    };
    ONE.get_or_init(make).clone()
}

/// Whether nobody logs in there.
fn is_public(entry: &RemoteEntry) -> bool {
    entry.public || entry.protocol == Protocol::Simplestreams.as_str()
}

fn address(entry: &RemoteEntry) -> String {
    match entry.addr.as_str() {
        "unix://" | "unix:" => format!("unix://{}", local_socket().display()),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remotes() -> Remotes {
        Remotes::new(Config::load(true), None)
    }

    fn check(text: &str, remote: &str, name: &str) {
        let expected = Reference { remote: remote.into(), name: name.into() };
        assert_eq!(remotes().parse(text).unwrap(), expected, "{text}");
    }

    #[test]
    fn a_remote_ends_at_the_first_colon() {
        check("busybox", "local", "busybox");
        check("images:debian/12", "images", "debian/12");
        check("images:", "images", "");
        check("local:a:b", "local", "a:b");
        check("a/b:c", "local", "a/b:c");
        check("", "local", "");
    }

    #[test]
    fn an_unknown_remote_names_the_known_ones() {
        let failure = remotes().parse("imags:x").unwrap_err();
        assert_eq!(failure.hints, ["Did you mean \"images\"?"]);
        let failure = remotes().parse("zzz:x").unwrap_err();
        assert!(failure.hints[0].contains("images, local"), "{failure:?}");
    }

    #[test]
    fn an_endpoint_is_the_remote_in_use_there() {
        let remotes = remotes();
        let endpoint = "https://images.linuxcontainers.org";
        assert_eq!(remotes.opened_at(endpoint), None);
        remotes.access("local").unwrap();
        remotes.access("images").unwrap();
        assert_eq!(remotes.opened_at(endpoint).as_deref(), Some("images"));
        assert_eq!(remotes.opened_at("https://images.linuxcontainers.org:8443"), None);
    }

    #[test]
    fn a_default_remote_that_is_not_there_is_told_as_such() {
        let mut remotes = remotes();
        remotes.config.default_remote = "nope".into();
        let failure = remotes.entry("nope").unwrap_err();
        assert_eq!(failure.error, "The default remote \"nope\" doesn't exist");
        assert!(failure.hints[0].contains("remote switch local"), "{failure:?}");
        remotes.config.default_is_from_env = true;
        let failure = remotes.entry("nope").unwrap_err();
        assert!(failure.hints[0].contains("$LXC_REMOTE"), "{failure:?}");
        assert!(!remotes.parse("other:x").unwrap_err().error.contains("default"));
    }

    #[test]
    fn a_forgotten_colon_is_noticed() {
        assert!(remotes().lacks_colon("images").is_some());
        assert!(remotes().lacks_colon("nothing").is_none());
        assert!(remotes().parse_bare("images:").unwrap().is_ok());
        assert!(remotes().parse_bare("nope:").unwrap().is_err());
        assert!(remotes().parse_bare("a=b").is_none());
    }
}
