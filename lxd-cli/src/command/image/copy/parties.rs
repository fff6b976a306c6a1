//! The two servers of a copy, and what has to be known about them.

use std::sync::Arc;

use lxd_proto::client::LxdClient;
use lxd_proto::extensions::SOURCE_KEYRING;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::project;
use lxd_proto::remote::{Protocol, Remote, RemoteSpec};
use lxd_proto::server::{Environment, Server};

use crate::context::Context;
use crate::failure::{Cause, Failure, Outcome};

/// Where images come from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) remote: Arc<dyn Remote>,
    /// The same as an LXD server that trusts us.
    pub(crate) server: Option<LxdClient>,
    environment: Environment,
}

/// Where images go.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) server: LxdClient,
    spec: RemoteSpec,
    environment: Environment,
    /// Whether it can take a keyring with what it is to fetch.
    checks_signatures: bool,
}

impl Source {
    pub(crate) async fn open(context: &Context, name: &str) -> Outcome<Self> {
        let remote = context.remotes.reader(name)?;
        let entry = context.remotes.entry(name)?;
        let mut source = Self {
            name: name.to_owned(),
            remote,
            server: None,
            environment: Environment::default(),
        };
        if source.remote.spec().protocol != Protocol::Lxd || entry.public {
            return Ok(source);
        }
        let server = context.remotes.server(name)?;
        // A server that cannot be reached from here may still be within the target's reach.
        if let Ok(about) = server.server().await {
            let about = about.value;
            if about.auth == "trusted" {
                source.server = Some(server);
            } else {
                context.remotes.warn_stranger(name, "the server does not trust this client");
            }
            source.environment = about.environment.unwrap_or_default();
        }
        Ok(source)
    }

    pub(crate) fn spec(&self) -> &RemoteSpec {
        self.remote.spec()
    }

    /// URLs at which others can reach it, best first.
    pub(crate) fn urls(&self) -> Outcome<Vec<String>> {
        urls(self.spec(), &self.environment, &self.name, "source")
    }

    /// The certificate by which others know it.
    pub(crate) fn certificate(&self) -> String {
        certificate(self.spec(), &self.environment)
    }

    /// The project that its images are in; only LXD's protocol has projects.
    pub(crate) fn project(&self) -> String {
        match self.spec().protocol {
            Protocol::Lxd => self.spec().project.clone(),
            Protocol::Simplestreams => String::new(),
        }
    }

    /// The keys that must have signed what it says; empty for none.
    pub(crate) fn keyring(&self) -> String {
        self.spec().keyring.clone().unwrap_or_default()
    }
}

impl Target {
    pub(crate) async fn open(
        context: &Context,
        name: &str,
        project: Option<&str>,
    ) -> Outcome<Self> {
        let mut spec = context.remotes.spec(name)?;
        if let Some(project) = project {
            project.clone_into(&mut spec.project);
        }
        // Through the remotes, which refuse servers that can only be read.
        context.remotes.server(name)?;
        let server = LxdClient::new(spec.clone(), &context.remotes.access(name)?)?;
        let Server { auth, environment, api_extensions, .. } = server.server().await?.value;
        if auth != "trusted" {
            return Err(Failure::new(format!("{name}: does not trust this client"))
                .hint(format!("`lxd-cli doctor {name}:` says what is missing.")));
        }
        let environment = environment.unwrap_or_default();
        let checks_signatures = api_extensions.iter().any(|name| name == SOURCE_KEYRING);
        Ok(Self { name: name.to_owned(), server, spec, environment, checks_signatures })
    }

    /// Copying a server onto itself can only be a slip.
    pub(crate) fn refuse_same(&self, source: &Source) -> Outcome {
        if self.is_same(source) {
            return Err(Failure::usage("The source and target servers must be different"));
        }
        Ok(())
    }

    /// Whether it may be told to fetch from `source`: one that cannot check signatures would
    /// believe whatever it gets.
    pub(crate) fn may_pull(&self, source: &Source) -> bool {
        source.spec().keyring.is_none() || self.checks_signatures
    }

    /// Refuses to let it fetch from `source` what it could not check.
    pub(crate) fn must_check(&self, source: &Source) -> Outcome {
        if self.may_pull(source) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{}: cannot check signatures, which {}: has to have",
            self.name, source.name
        )))
    }

    /// Whether both are one server and one project of it.
    pub(crate) fn is_same(&self, source: &Source) -> bool {
        let key = |environment: &Environment| environment.certificate_fingerprint.clone();
        let (ours, theirs) = (key(&self.environment), key(&source.environment));
        let project = |spec: &RemoteSpec| match spec.project.as_str() {
            "" => project::DEFAULT.to_owned(),
            name => name.to_owned(),
        };
        let same_place =
            self.spec.address == source.spec().address || (!ours.is_empty() && ours == theirs);
        same_place && project(&self.spec) == project(source.spec())
    }

    /// Whether it has the image already.
    pub(crate) async fn has(&self, fingerprint: &Fingerprint) -> Outcome<bool> {
        match self.server.get_image(&Prefix::from(*fingerprint), None).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// URLs at which others can reach it, best first.
    pub(crate) fn urls(&self) -> Outcome<Vec<String>> {
        urls(&self.spec, &self.environment, &self.name, "target")
    }

    /// The certificate by which others know it.
    pub(crate) fn certificate(&self) -> String {
        certificate(&self.spec, &self.environment)
    }

    /// The project that images go to.
    pub(crate) fn project(&self) -> String {
        self.spec.project.clone()
    }
}

/// What a server tells about itself is better than what was pinned: it is the whole chain.
fn certificate(spec: &RemoteSpec, environment: &Environment) -> String {
    match (spec.protocol, environment.certificate.as_str()) {
        (Protocol::Lxd, own) if !own.is_empty() => own.to_owned(),
        _ => spec.certificate.clone(),
    }
}

fn urls(
    spec: &RemoteSpec,
    environment: &Environment,
    name: &str,
    role: &str,
) -> Outcome<Vec<String>> {
    let mut urls = Vec::new();
    if spec.address.starts_with("https:") {
        urls.push(spec.address.clone());
    }
    if spec.protocol == Protocol::Lxd {
        for address in &environment.addresses {
            let url = format!("https://{address}");
            // An address without a host says only that all of them are listened on.
            if !address.starts_with(':') && !urls.contains(&url) {
                urls.push(url);
            }
        }
    }
    if urls.is_empty() {
        return Err(Failure::new(format!(
            "The {role} server isn't listening on the network ({name}:)"
        ))
        .hint(format!("`lxd-cli config set {name}: core.https_address=:8443` opens it."))
        .because(Cause::Unreachable));
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(address: &str) -> RemoteSpec {
        RemoteSpec { address: address.into(), ..RemoteSpec::default() }
    }

    fn environment(addresses: &[&str]) -> Environment {
        Environment {
            addresses: addresses.iter().map(|&a| a.to_owned()).collect(),
            certificate: "OWN".into(),
            ..Environment::default()
        }
    }

    #[test]
    fn a_server_is_offered_at_every_address_it_has() {
        let environment = environment(&["10.0.0.1:8443", ":8443", "h:8443"]);
        let urls = |address| urls(&spec(address), &environment, "r", "source").unwrap();
        assert_eq!(urls("https://h:8443"), ["https://h:8443", "https://10.0.0.1:8443"]);
        assert_eq!(urls("unix:///run/x"), ["https://10.0.0.1:8443", "https://h:8443"]);
    }

    #[test]
    fn a_server_on_a_socket_only_cannot_be_reached_by_others() {
        let failure = urls(&spec("unix:///x"), &environment(&[]), "r", "source").unwrap_err();
        assert!(failure.error.contains("isn't listening on the network"), "{failure:?}");
        assert_eq!(failure.cause, Cause::Unreachable);
    }

    #[test]
    fn the_certificate_is_the_servers_own_or_the_pinned_one() {
        let mut spec = spec("https://h");
        spec.certificate = "PINNED".into();
        assert_eq!(certificate(&spec, &environment(&[])), "OWN");
        assert_eq!(certificate(&spec, &Environment::default()), "PINNED");
        spec.protocol = Protocol::Simplestreams;
        assert_eq!(certificate(&spec, &environment(&[])), "PINNED");
    }
}
