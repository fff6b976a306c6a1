//! Which proxy a URL is reached by, after the rules of Go's `httpproxy`.

use std::net::IpAddr;
use std::sync::Arc;

use url::{Host, Url};

/// Which proxy a URL is reached by. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies(Arc<Rules>);

#[derive(Default, PartialEq, Eq)]
struct Rules {
    http: Option<Url>,
    https: Option<Url>,
    ignored: Vec<Ignored>,
}

/// One entry of `NO_PROXY`.
#[derive(Debug, PartialEq, Eq)]
enum Ignored {
    /// `*`.
    Everything,
    /// An address, of any port or of one.
    Address(IpAddr, Option<u16>),
    /// A network in CIDR form.
    Network(IpAddr, u8),
    /// A domain and, unless it began with a dot, the name itself.
    Domain { name: String, itself: bool, port: Option<u16> },
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Proxy URLs may hold passwords.
        let host =
            |url: &Option<Url>| url.as_ref().and_then(|url| url.host_str().map(String::from));
        f.debug_struct("Proxies")
            .field("http", &host(&self.0.http))
            .field("https", &host(&self.0.https))
            .field("ignored", &self.0.ignored)
            .finish()
    }
}

impl Proxies {
    /// What `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, upper case or lower case, say.
    pub fn from_env() -> Self {
        Self::new("", "", "")
    }

    /// None at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// From `core.proxy_http`, `core.proxy_https` and `core.proxy_ignore_hosts`; an empty value
    /// means what the environment says.
    pub fn new(http: &str, https: &str, ignore: &str) -> Self {
        let or_env = |value: &str, names: [&str; 2]| {
            if !value.is_empty() {
                return value.to_owned();
            }
            let set = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
            names.into_iter().find_map(set).unwrap_or_default()
        };
        Self::exactly(
            &or_env(http, ["HTTP_PROXY", "http_proxy"]),
            &or_env(https, ["HTTPS_PROXY", "https_proxy"]),
            &or_env(ignore, ["NO_PROXY", "no_proxy"]),
        )
    }

    /// From these three values, whatever the environment says.
    pub fn exactly(http: &str, https: &str, ignore: &str) -> Self {
        let rules = Rules {
            http: proxy_url(http),
            https: proxy_url(https),
            ignored: ignore.split([',', ' ']).filter_map(Ignored::parse).collect(),
        };
        Self(Arc::new(rules))
    }

    /// The proxy for `url`; `None` goes there directly. Loopback never goes through a proxy.
    pub fn proxy_for(&self, url: &Url) -> Option<Url> {
        let proxy = match url.scheme() {
            "https" | "wss" => self.0.https.as_ref()?,
            "http" | "ws" => self.0.http.as_ref()?,
            _ => return None,
        };
        let host = url.host()?;
        let port = url.port_or_known_default();
        let direct = is_loopback(&host) || self.0.ignored.iter().any(|i| i.covers(&host, port));
        (!direct).then(|| proxy.clone())
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// Stands for a proxy that is none: its name never resolves.
const UNUSABLE: &str = "http://the-configured-proxy-is-no-url.invalid";

/// `host:port` without a scheme is an HTTP proxy.
fn proxy_url(text: &str) -> Option<Url> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let usable = |url: &Url| url.has_host() && matches!(url.scheme(), "http" | "https");
    let url =
        if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
    if let Some(url) = url.ok().filter(usable) {
        return Some(url);
    }
    tracing::warn!("a proxy is configured that is no http:// or https:// URL; nothing is reached");
    // Whoever wants a proxy does not want to go out without one.
    Url::parse(UNUSABLE).ok()
}

impl Ignored {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        if entry.is_empty() {
            return None;
        }
        if entry == "*" {
            return Some(Self::Everything);
        }
        if let Some((network, bits)) = entry.split_once('/') {
            let network: IpAddr = network.parse().ok()?;
            let bits: u8 = bits.parse().ok()?;
            let widest = if network.is_ipv4() { 32 } else { 128 };
            return (bits <= widest).then_some(Self::Network(network, bits));
        }
        if let Ok(address) = entry.trim_matches(['[', ']']).parse() {
            return Some(Self::Address(address, None));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (entry.as_str(), None),
        };
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Some(Self::Address(address, port));
        }
        let host = host.strip_prefix('*').unwrap_or(host);
        let (name, itself) = match host.strip_prefix('.') {
            Some(name) => (name, false),
            None => (host, true),
        };
        (!name.is_empty()).then(|| Self::Domain { name: name.to_owned(), itself, port })
    }

    fn covers(&self, host: &Host<&str>, port: Option<u16>) -> bool {
        let address = match host {
            Host::Ipv4(address) => Some(IpAddr::V4(*address)),
            Host::Ipv6(address) => Some(IpAddr::V6(*address)),
            Host::Domain(_) => None,
        };
        let same_port = |wanted: &Option<u16>| wanted.is_none() || *wanted == port;
        match (self, host) {
            (Self::Everything, _) => true,
            (Self::Address(ignored, wanted), _) => address == Some(*ignored) && same_port(wanted),
            (Self::Network(network, bits), _) => {
                address.is_some_and(|address| within(address, *network, *bits))
            }
            (Self::Domain { name, itself, port: wanted }, Host::Domain(host)) => {
                let host = host.trim_end_matches('.');
                let below =
                    host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (below || (*itself && host == name)) && same_port(wanted)
            }
            (Self::Domain { .. }, _) => false,
        }
    }
}

fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(a.to_bits()), u128::from(n.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits(), n.to_bits(), 128),
        _ => return false,
    };
    let rest = width - u32::from(bits);
    rest == width || address >> rest == network >> rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(ignore: &str, url: &str) -> bool {
        let proxies = Proxies::exactly("http://p:1", "http://s:2", ignore);
        proxies.proxy_for(&Url::parse(url).unwrap()).is_none()
    }

    #[test]
    fn schemes_have_their_own_proxies() {
        let proxies = Proxies::exactly("p:1", "http://u:w@s:2", "");
        let by = |url: &str| proxies.proxy_for(&Url::parse(url).unwrap()).map(String::from);
        assert_eq!(by("http://a/").as_deref(), Some("http://p:1/"));
        assert_eq!(by("https://a/").as_deref(), Some("http://u:w@s:2/"));
        assert_eq!(by("wss://a/").as_deref(), Some("http://u:w@s:2/"));
        assert!(!format!("{proxies:?}").contains('w'));
        for loopback in ["https://localhost/", "https://127.0.0.9/", "https://[::1]:8443/"] {
            assert_eq!(by(loopback), None, "{loopback}");
        }
    }

    #[test]
    fn a_proxy_that_is_none_lets_nothing_out() {
        for none in ["garbage proxy", "socks5://127.0.0.1:1", "http://"] {
            let proxies = Proxies::exactly("", none, "");
            let by = proxies.proxy_for(&Url::parse("https://a/").unwrap()).unwrap();
            assert!(by.host_str().unwrap().ends_with(".invalid"), "{none}: {by}");
        }
    }

    #[test]
    fn what_is_ignored_goes_directly() {
        for (ignore, url, expected) in [
            ("*", "https://a.example/", true),
            ("example.com", "https://example.com/", true),
            ("example.com", "https://a.example.com/", true),
            ("example.com", "https://notexample.com/", false),
            (".example.com", "https://example.com/", false),
            (".example.com", "https://a.example.com/", true),
            ("*.example.com", "https://a.example.com/", true),
            ("x, example.com:8443", "https://example.com:8443/", true),
            ("example.com:8443", "https://example.com/", false),
            ("10.0.0.0/8", "https://10.9.8.7/", true),
            ("10.0.0.0/8", "https://11.0.0.1/", false),
            ("10.1.2.3", "http://10.1.2.3:99/", true),
            ("10.1.2.3:80", "http://10.1.2.3/", true),
            ("10.1.2.3:81", "http://10.1.2.3/", false),
            ("fd00::/8", "https://[fd12::1]/", true),
            ("0.0.0.0/0", "https://1.2.3.4/", true),
            ("[fd12::1]:443", "https://[fd12::1]/", true),
            ("EXAMPLE.com", "https://Example.COM/", true),
            ("", "https://example.com/", false),
        ] {
            assert_eq!(direct(ignore, url), expected, "{ignore} {url}");
        }
    }
}
