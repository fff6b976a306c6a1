//! Connections to other servers: who we are, which way out, and one client for all that ask at
//! once, so that a catalog is read once for fifty callers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::url::Url;
use lxd_proto::config;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::net::{Access, Authorities, Proxies};
use lxd_proto::remote::{self, Protocol, Remote, RemoteSpec};
use lxd_simplestreams::signed::Keyring;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::app::App;
use crate::directory::Directory;
use crate::error::{Error, Result};

/// How long an unused client is kept, with what it knows about its server.
const KEPT: Duration = Duration::from_mins(1);
/// Clients that are kept at most.
const MOST: usize = 16;
/// Environment variable: how long a silent server is waited for, in seconds, instead of a minute.
const IDLE_TIMEOUT: &str = "LXD_IMAGED_IDLE_TIMEOUT";
/// The longest address of a server, in bytes.
const LONGEST_ADDRESS: usize = 2048;

/// Makes a client; a test puts its own servers here.
pub type Connector =
    Arc<dyn Fn(RemoteSpec, &Access) -> remote::Result<Arc<dyn Remote>> + Send + Sync>;

/// Clients for servers that were asked lately.
pub struct Origins {
    connector: Connector,
    /// Read once: it is a long list.
    authorities: Authorities,
    known: Mutex<Vec<Known>>,
}

struct Known {
    spec: RemoteSpec,
    /// What the proxies were when it was made.
    way: Way,
    remote: Arc<dyn Remote>,
    used: Instant,
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origins").field("known", &self.known.lock().len()).finish_non_exhaustive()
    }
}

impl Origins {
    /// No client yet; `connector` makes them.
    pub fn new(connector: Connector) -> Self {
        Self { connector, authorities: Authorities::system(), known: Mutex::default() }
    }

    /// Drops clients that nobody has used for a while.
    pub fn tidy(&self) {
        self.known.lock().retain(|known| known.used.elapsed() < KEPT);
    }
}

impl Default for Origins {
    fn default() -> Self {
        Self::new(Arc::new(lxd_simplestreams::connect))
    }
}

/// The client for a server. Opens no connection.
pub fn connect(app: &App, spec: &RemoteSpec) -> Result<Arc<dyn Remote>> {
    let way = Way::now(app);
    let mut known = app.origins.known.lock();
    known.retain(|known| known.used.elapsed() < KEPT);
    if let Some(known) = known.iter_mut().find(|k| k.spec == *spec && k.way == way) {
        known.used = Instant::now();
        return Ok(known.remote.clone());
    }
    let remote = (app.origins.connector)(spec.clone(), &access(app, &way))
        .map_err(|error| failed(spec, "Failed to connect", error))?;
    if known.len() >= MOST {
        known.remove(0);
    }
    let used = Instant::now();
    known.push(Known { spec: spec.clone(), way, remote: remote.clone(), used });
    Ok(remote)
}

/// What decides how we come to a server, besides where it is.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    /// Who we are.
    identity: Fingerprint,
    /// For http, for https, and the hosts that need none.
    proxies: [String; 3],
}

impl Way {
    fn now(app: &App) -> Self {
        let mut values = app.catalog.config();
        let proxies = [config::PROXY_HTTP, config::PROXY_HTTPS, config::PROXY_IGNORE_HOSTS]
            .map(|key| values.remove(key).unwrap_or_default());
        Self { identity: app.identity.get().fingerprint(), proxies }
    }
}

/// Who we are to other servers, and which way we reach them now.
pub fn access_now(app: &App) -> Access {
    access(app, &Way::now(app))
}

fn access(app: &App, way: &Way) -> Access {
    let [http, https, ignored] = &way.proxies;
    let mut access = Access::anonymous(user_agent());
    access.identity = Some(app.identity.get().pair.clone());
    access.authorities = app.origins.authorities.clone();
    access.proxies = Proxies::new(http, https, ignored);
    access.cache = Some(Directory::new(&app.root).cache());
    if let Some(seconds) = std::env::var(IDLE_TIMEOUT).ok().and_then(|value| value.parse().ok()) {
        access.limits.idle = Duration::from_secs(seconds);
    }
    access
}

/// How we introduce ourselves, in the form LXD uses.
pub fn user_agent() -> String {
    format!(
        "LXD {} (Linux; lxd-imaged {})",
        lxd_proto::server::SPOKEN_VERSION,
        env!("CARGO_PKG_VERSION")
    )
}

/// A server as a request describes it.
///
/// # Errors
/// [`Error::BadRequest`] when it is not an https address: nothing else leaves this machine, and
/// no request makes the daemon open a file or a socket of its own.
pub fn spec(server: &str, protocol: &str, certificate: &str, project: &str) -> Result<RemoteSpec> {
    let protocol: Protocol = protocol
        .parse()
        .map_err(|_| Error::BadRequest(format!("Unsupported protocol: {}", clip(protocol))))?;
    https(server)?;
    Ok(RemoteSpec {
        address: server.trim_end_matches('/').to_owned(),
        protocol,
        certificate: certificate.trim().to_owned(),
        project: if project == lxd_proto::project::DEFAULT {
            String::new()
        } else {
            project.to_owned()
        },
        keyring: None,
    })
}

/// The same server, if what it says has to be signed by one of these keys; `keyring` may be empty.
///
/// # Errors
/// [`Error::BadRequest`] when there are no such keys, or the server is none that signs.
pub fn signed(spec: RemoteSpec, keyring: &str) -> Result<RemoteSpec> {
    if keyring.trim().is_empty() {
        return Ok(spec);
    }
    if spec.protocol != Protocol::Simplestreams {
        let text = "a keyring is for simplestreams servers: what an LXD server says is not signed";
        return Err(Error::BadRequest(text.into()));
    }
    let keys = Keyring::from_bytes(keyring.as_bytes())
        .map_err(|error| Error::BadRequest(format!("cannot use the keyring: {error}")))?;
    // In one spelling: the same keys are the same origin.
    Ok(RemoteSpec { keyring: Some(keys.armored()), ..spec })
}

/// The address, if it is an https one.
pub fn https(address: &str) -> Result<Url> {
    let refuse =
        |why: &str| Err(Error::BadRequest(format!("cannot use \"{}\": {why}", clip(address))));
    if address.len() > LONGEST_ADDRESS {
        return refuse("the address is too long");
    }
    match Url::parse(address) {
        Ok(url) if url.scheme() == "https" && url.has_host() => Ok(url),
        Ok(url) if url.scheme() == "http" => {
            refuse("images are fetched over https only; plain http can be changed on its way")
        }
        Ok(_) => refuse("an image server has an https:// address"),
        Err(error) => refuse(&error.to_string()),
    }
}

/// The error of a server, in the words that LXD's client looks for.
pub fn failed(spec: &RemoteSpec, what: &str, source: remote::Error) -> Error {
    if matches!(source, remote::Error::Cancelled) {
        return Error::Cancelled;
    }
    let what = match &source {
        // lxc tries the server's next address when it reads "Unable to connect to".
        remote::Error::Connect { endpoint, source } => {
            // What kind of server it would be, nobody knows: it may be any web server.
            format!(
                "Failed to connect to \"{}\": Unable to connect to: {endpoint} ({source})",
                redacted(&spec.address)
            )
        }
        source => format!("{what}: {source}"),
    };
    Error::Origin { what, source: Arc::new(source) }
}

/// The address without a password.
pub(super) fn redacted(address: &str) -> String {
    match Url::parse(address) {
        Ok(mut url) if url.password().is_some() => {
            let _ = url.set_password(Some("***"));
            url.to_string()
        }
        _ => address.to_owned(),
    }
}

/// At most 80 characters of a stranger's text, for an error message.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_leaves_the_machine() {
        for server in ["https://images.example", "https://10.0.0.1:8443/", "https://[::1]:1/a"] {
            let spec = spec(server, "simplestreams", "", "default").unwrap();
            assert!(!spec.address.ends_with('/') && spec.project.is_empty());
        }
        for server in [
            "",
            "images.example",
            "http://images.example",
            "file:///etc/passwd",
            "unix:///run/x.socket",
            "/run/x.socket",
            "https://",
            "ftp://a",
        ] {
            assert!(spec(server, "lxd", "", "").is_err(), "{server}");
        }
        let error = spec("https://a", "direct", "", "").unwrap_err();
        assert_eq!(error.to_string(), "Unsupported protocol: direct");
    }

    #[test]
    fn a_keyring_is_for_servers_that_sign() {
        let spec = |protocol| spec("https://a", protocol, "", "").unwrap();
        assert_eq!(signed(spec("lxd"), " \n").unwrap().keyring, None);
        let error = signed(spec("lxd"), "keys").unwrap_err().to_string();
        assert!(error.contains("is not signed"), "{error}");
        let error = signed(spec("simplestreams"), "keys").unwrap_err().to_string();
        assert!(error.contains("cannot use the keyring"), "{error}");
    }

    #[test]
    fn a_server_that_does_not_answer_is_told_as_lxc_wants_to_hear_it() {
        let spec = spec("https://u:secret@10.0.0.1:8443", "lxd", "", "").unwrap();
        let source = remote::Error::Connect {
            endpoint: "10.0.0.1:8443".into(),
            source: std::io::ErrorKind::ConnectionRefused.into(),
        };
        let text = failed(&spec, "Failed", source).to_string();
        assert!(text.contains("Unable to connect to: 10.0.0.1:8443"), "{text}");
        assert!(!text.contains("secret") && !text.contains("LXD"), "{text}");
    }
}
