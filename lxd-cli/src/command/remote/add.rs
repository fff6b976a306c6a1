//! `remote add`: finds out what a server is, gets its trust, and gives it a name.

use std::path::PathBuf;

use clap::Args;
use lxd_proto::certificate::{CLIENT, CertificatesPost, JoinToken};
use lxd_proto::client::LxdClient;
use lxd_proto::filter::Filter;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::net::Access;
use lxd_proto::project;
use lxd_proto::remote::{Error, Protocol, RemoteSpec};
use lxd_proto::server::Server;
use lxd_proto::time::is_unset;
use lxd_simplestreams::connect;
use lxd_simplestreams::signed::Keyring;
use serde_json::json;

use super::address::{Address, check_name};
use super::certificate::{AcceptFlags, trusted};
use crate::command::flags::ResultFormat;
use crate::config::RemoteEntry;
use crate::context::Context;
use crate::failure::{Cause, Failure, Outcome};
use crate::keyrings;
use crate::output::{emit, note};
use crate::prompt::{ask, ask_secret};
use crate::redact::without_password;
use crate::remotes::stranger;

/// Servers that want a token in a field of its own have this API extension.
const TRUST_TOKEN: &str = "explicit_trust_token";

/// Give a server a name.
#[derive(Debug, Args)]
#[command(
    override_usage = "lxd-cli remote add [OPTIONS] [NAME] <ADDRESS|TOKEN>",
    after_help = "\
An address is HOST, HOST:PORT, https://HOST[:PORT], or the path of a socket. A server whose
certificate no authority vouches for shows its fingerprint, which you are asked about; it is kept,
and no other certificate is accepted from then on. A server to manage must trust this client: with
a token from `config trust add` there, or with its trust password. With --public nobody logs in,
and the server may be an LXD server or a simplestreams tree, whichever answers. With --keyring it
is a simplestreams tree whose documents are signed: what is unsigned, signed by another key, or
older than what was seen before is refused from then on, by servers that copy from it, too.

Examples:
  lxd-cli remote add backup backup.example.org
  lxd-cli remote add backup eyJjbGllbnRfbmFtZSI6...
  lxd-cli remote add team images.example.org --public
  lxd-cli remote add ubuntu-minimal https://cloud-images.ubuntu.com/minimal/releases --protocol simplestreams
  lxd-cli remote add team https://images.example.org --keyring team.gpg"
)]
pub(crate) struct Add {
    /// The name, which follows from the address if not given, and the address or a token
    #[arg(value_name = "NAME | ADDRESS | TOKEN", num_args = 1..=2, required = true)]
    words: Vec<String>,
    /// Only read public images, as a stranger
    #[arg(long)]
    public: bool,
    /// lxd or simplestreams
    #[arg(long)]
    protocol: Option<Protocol>,
    /// A token from `config trust add` on the server
    #[arg(long, conflicts_with = "public")]
    token: Option<String>,
    /// The server's trust password, or a token
    #[arg(long, conflicts_with_all = ["public", "token"])]
    password: Option<String>,
    /// How the server knows this client: tls
    #[arg(long, value_name = "TYPE")]
    auth_type: Option<String>,
    /// Take only what a key of this file has signed: OpenPGP public keys of a simplestreams server
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token", "password", "auth_type"])]
    keyring: Option<PathBuf>,
    /// Save it without asking the server
    #[arg(long, conflicts_with_all = ["token", "password"])]
    no_check: bool,
    #[command(flatten)]
    accept: AcceptFlags,
    #[command(flatten)]
    format: ResultFormat,
}

/// What was found, ready to be saved.
#[derive(Debug)]
struct Found {
    entry: RemoteEntry,
    /// PEM to pin; empty where an authority vouches for the server.
    certificate: String,
    /// Keys that must have signed what the server says.
    keyring: Option<Keyring>,
}

impl Add {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        if self.auth_type.as_deref().is_some_and(|kind| kind != "tls") {
            let kind = self.auth_type.as_deref().unwrap_or_default();
            return Err(Failure::usage(format!("Authentication type '{kind}' is not supported"))
                .hint("Servers know this client by its certificate: leave --auth-type out."));
        }
        let (name, address) = self.words()?;
        if let Some(known) = context.remotes.config.remotes.get(&name) {
            let addr = without_password(&known.addr);
            return Err(Failure::new(format!("Remote {name} exists as <{addr}>"))
                .hint("Choose another name, or remove that one first."));
        }
        if let Some(failure) = context.remotes.config.unusable(&name) {
            return Err(failure);
        }
        let keyring = self.keyring(&address)?;
        let job = Job { add: self, context, name: &name, keyring };
        let found = match &address {
            _ if self.no_check => self.unchecked(&address, job.keyring),
            Address::Unix(_) => job.unix(&address).await?,
            Address::Token(token) => job.by_token(token).await?,
            Address::Https { .. } => job.network(&address).await?,
        };
        save(context, &name, &found)?;
        let RemoteEntry { addr, protocol, public, .. } = &found.entry;
        let addr = without_password(addr);
        let mut object =
            json!({ "remote": name, "addr": addr, "protocol": protocol, "public": public });
        if let Some(keyring) = &found.keyring {
            object["keyring"] = keyring.fingerprints().into();
        }
        if self.words.len() == 1 && !context.quiet {
            note(&format!("The remote is called \"{name}\"."));
        }
        self.format.done(&object)
    }

    /// The keys that must have signed what the server at `address` says.
    fn keyring(&self, address: &Address) -> Outcome<Option<Keyring>> {
        let Some(file) = &self.keyring else { return Ok(None) };
        if self.protocol == Some(Protocol::Lxd) || !matches!(address, Address::Https { .. }) {
            return Err(Failure::usage(
                "a keyring is for simplestreams servers: what an LXD server says is not signed",
            ));
        }
        keyrings::load(file).map(Some)
    }

    fn words(&self) -> Outcome<(String, Address)> {
        let (name, address) = match self.words.as_slice() {
            [name, address, ..] => (Some(name), Address::parse(address)?),
            [address] => (None, Address::parse(address)?),
            [] => return Err(Failure::usage("the address is missing")),
        };
        let name = match name {
            Some(name) => name.strip_suffix(':').unwrap_or(name).to_owned(),
            None => address.name().ok_or_else(|| {
                Failure::usage("the remote needs a name").hint("Write it before the address.")
            })?,
        };
        check_name(&name)?;
        Ok((name, address))
    }

    fn unchecked(&self, address: &Address, keyring: Option<Keyring>) -> Found {
        let protocol = match &keyring {
            Some(_) => Protocol::Simplestreams,
            None => self.protocol.unwrap_or_default(),
        };
        let entry = entry(address.url(protocol), protocol, self.public);
        Found { entry, certificate: String::new(), keyring }
    }

    /// The protocols that the server may speak, in the order in which they are tried.
    fn protocols(&self) -> Vec<Protocol> {
        match self.protocol {
            None if self.keyring.is_some() => vec![Protocol::Simplestreams],
            Some(protocol) => vec![protocol],
            None if self.public => vec![Protocol::Lxd, Protocol::Simplestreams],
            None => vec![Protocol::Lxd],
        }
    }

    /// The token or the password that was given.
    fn secret(&self) -> Option<&str> {
        self.token.as_deref().or(self.password.as_deref())
    }
}

/// One `remote add` on its way.
struct Job<'a> {
    add: &'a Add,
    context: &'a Context,
    name: &'a str,
    keyring: Option<Keyring>,
}

impl Job<'_> {
    async fn unix(&self, address: &Address) -> Outcome<Found> {
        let url = address.url(Protocol::Lxd);
        let spec = RemoteSpec { address: url.clone(), ..RemoteSpec::default() };
        LxdClient::new(spec, &stranger())?.server().await?;
        let entry = entry(url, Protocol::Lxd, false);
        Ok(Found { entry, certificate: String::new(), keyring: None })
    }

    /// Tries the protocols one after the other; the first failure is the one that is told.
    async fn network(&self, address: &Address) -> Outcome<Found> {
        let mut first: Option<Failure> = None;
        for protocol in self.add.protocols() {
            let url = address.url(protocol);
            let found = match protocol {
                Protocol::Lxd => self.lxd(&url, None).await,
                Protocol::Simplestreams => self.simplestreams(url).await,
            };
            match found {
                Ok(found) => return Ok(found),
                // What a person or the server has refused is not tried in another way.
                Err(failure) if matches!(failure.cause, Cause::Other | Cause::Untrusted) => {
                    return Err(failure);
                }
                Err(failure) => match &mut first {
                    Some(first) => first.hints.push(format!("As {protocol}: {}", failure.error)),
                    None => first = Some(failure),
                },
            }
        }
        Err(first.unwrap_or_else(|| Failure::new("no protocol was tried")))
    }

    async fn simplestreams(&self, url: String) -> Outcome<Found> {
        let mut access = stranger();
        access.identity = self.context.remotes.credentials().identity()?;
        let certificate = trusted(&url, &access, &self.add.accept, None).await?;
        let spec = RemoteSpec {
            address: url.clone(),
            protocol: Protocol::Simplestreams,
            certificate: certificate.clone(),
            project: String::new(),
            keyring: self.keyring.as_ref().map(Keyring::armored),
        };
        let images = connect(spec, &access)?.images(&Filter::default()).await;
        images.map_err(|error| match error {
            Error::Decode { .. } | Error::Api { status: 404, .. } => {
                Failure::from(error).because(Cause::OtherProtocol)
            }
            error => error.into(),
        })?;
        let entry = entry(url, Protocol::Simplestreams, true);
        Ok(Found { entry, certificate, keyring: self.keyring.clone() })
    }

    /// An LXD server at `url`; `token` when that is how it was found.
    async fn lxd(&self, url: &str, token: Option<&JoinToken>) -> Outcome<Found> {
        let given = self.add.secret().and_then(|secret| JoinToken::decode(secret).ok());
        let token = token.or(given.as_ref());
        if let Some(token) = token.filter(|token| !is_unset(token.expires_at))
            && token.expires_at < jiff::Timestamp::now()
        {
            return Err(Failure::new(format!("this token has expired on {}", token.expires_at))
                .hint("Ask the server's owner for a new one."));
        }
        let mut access = stranger();
        if !self.add.public {
            access.identity = Some(self.context.remotes.credentials().identity_or_new()?);
        }
        let known: Option<Fingerprint> = token.and_then(|token| token.fingerprint.parse().ok());
        let certificate = trusted(url, &access, &self.add.accept, known).await?;
        let entry = entry(url.to_owned(), Protocol::Lxd, true);
        let mut found = Found { entry, certificate, keyring: None };
        let client = self.client(&found, &access)?;
        let server = client.server().await.map_err(|error| not_lxd(url, error))?.value;
        if self.add.public || server.public {
            return Ok(found);
        }
        found.entry.public = false;
        "tls".clone_into(&mut found.entry.auth_type);
        if server.auth != "trusted" {
            let secret = match (token, self.add.secret()) {
                (Some(token), _) => token.encode(),
                (None, Some(secret)) => secret.to_owned(),
                (None, None) => self.ask_for_secret().await?,
            };
            join(&client, &server, secret).await?;
            if !self.context.quiet && self.add.format.is_text() {
                let name = self.name;
                emit(&format!("Client certificate now trusted by server: {name}\n"))?;
            }
        }
        found.entry.project = self.project(&client).await?;
        Ok(found)
    }

    fn client(&self, found: &Found, access: &Access) -> Outcome<LxdClient> {
        let spec = RemoteSpec {
            address: found.entry.addr.clone(),
            certificate: found.certificate.clone(),
            ..RemoteSpec::default()
        };
        Ok(LxdClient::new(spec, access)?)
    }

    /// A token says where its server is; every address is tried.
    async fn by_token(&self, token: &JoinToken) -> Outcome<Found> {
        if self.add.public {
            return Err(Failure::usage("a token is for logging in, which --public does not do"));
        }
        for address in &token.addresses {
            let url = Address::parse(address)?.url(Protocol::Lxd);
            match self.lxd(&url, Some(token)).await {
                Err(failure) if failure.cause == Cause::Unreachable => note(&failure.error),
                found => return found,
            }
        }
        note("All server addresses are unavailable");
        let question = "Please provide an alternate server address (empty to abort): ";
        match ask(question).await?.filter(|address| !address.trim().is_empty()) {
            Some(address) => {
                let url = Address::parse(address.trim())?.url(Protocol::Lxd);
                self.lxd(&url, Some(token)).await
            }
            None => Err(Failure::new("Failed to add remote")),
        }
    }

    async fn ask_for_secret(&self) -> Outcome<String> {
        let question = format!("Admin password (or token) for {}: ", self.name);
        match ask_secret(&question).await?.filter(|secret| !secret.is_empty()) {
            Some(secret) => Ok(secret),
            None => Err(Failure::new("the server does not trust this client yet")
                .hint("Use --token TOKEN, or --public to read public images only.")),
        }
    }

    /// The project to use: the one that was asked for, the default one, or the only one.
    async fn project(&self, client: &LxdClient) -> Outcome<String> {
        let projects = client.list_projects().await?;
        if let Some(wanted) = &self.context.remotes.project {
            if projects.contains(wanted) {
                return Ok(wanted.clone());
            }
            return Err(Failure::new(format!("there is no project \"{wanted}\" on this server"))
                .hint(format!("It has: {}", projects.join(", "))));
        }
        match projects.as_slice() {
            [] => Ok(project::DEFAULT.to_owned()),
            [only] => Ok(only.clone()),
            many if many.iter().any(|name| name == project::DEFAULT) => {
                Ok(project::DEFAULT.to_owned())
            }
            many => Err(Failure::new("this client may use several projects of this server")
                .hint(format!("Choose one with --project: {}", many.join(", ")))),
        }
    }
}

/// Becomes a trusted client by a token or a password.
async fn join(client: &LxdClient, server: &Server, secret: String) -> Outcome {
    let mut request = CertificatesPost { kind: CLIENT.to_owned(), ..CertificatesPost::default() };
    let by_token = server.api_extensions.iter().any(|name| name == TRUST_TOKEN);
    if by_token && JoinToken::decode(&secret).is_ok() {
        request.trust_token = secret;
    } else {
        request.password = secret;
    }
    client.add_certificate(&request).await.map_err(|error| match error {
        Error::Api { status: 403, message } => Failure::new(message)
            .hint("The token is used up or the password wrong; `config trust add` on the server makes a token."),
        other => other.into(),
    })?;
    if client.server().await?.value.auth == "trusted" {
        return Ok(());
    }
    Err(Failure::new("Server doesn't trust us after authentication"))
}

/// Something answers, but not as LXD does.
fn not_lxd(url: &str, error: Error) -> Failure {
    match error {
        Error::Decode { .. } | Error::Api { status: 404, .. } => {
            Failure::new(format!("{url} is no LXD server"))
                .hint("For an image server on the web use --protocol simplestreams.")
                .because(Cause::OtherProtocol)
        }
        other => other.into(),
    }
}

fn entry(addr: String, protocol: Protocol, public: bool) -> RemoteEntry {
    // A simplestreams server has nobody to log in as.
    let public = public || protocol == Protocol::Simplestreams;
    RemoteEntry { addr, protocol: protocol.as_str().to_owned(), public, ..RemoteEntry::default() }
}

/// The certificate and the keys first: a remote without its certificate would be asked about
/// again, and one without its keys would be believed.
fn save(context: &Context, name: &str, found: &Found) -> Outcome {
    let credentials = context.remotes.credentials();
    let keyrings = context.remotes.keyrings();
    context.remotes.config.change(|document| {
        if document.has_remote(name) {
            return Err(Failure::new(format!("Remote {name} exists already")));
        }
        document.set_remote(name, &found.entry);
        match &found.keyring {
            Some(keyring) => keyrings.set(name, &found.entry.addr, keyring)?,
            None => keyrings.remove(name, &found.entry.addr)?,
        }
        // One that was left behind by another client must not count.
        if found.certificate.is_empty() {
            credentials.unpin(name)
        } else {
            credentials.pin(name, &found.certificate)
        }
    })
}
