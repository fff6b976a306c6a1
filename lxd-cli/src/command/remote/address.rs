//! Where a server is, in all the ways people write it.

use lxd_proto::certificate::JoinToken;
use lxd_proto::remote::Protocol;
use lxd_proto::server::DEFAULT_PORT;

use crate::failure::{Failure, Outcome};

const HTTPS: &str = "https://";

/// What stands in the place of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket on this machine; its path may be empty for the usual one.
    Unix(String),
    /// A server on the network.
    Https {
        /// `USER:PASSWORD@`, or empty.
        login: String,
        /// Name or address, in brackets where it has colons.
        host: String,
        port: Option<u16>,
        /// From the first slash on; may be empty.
        path: String,
    },
    /// A token that says where the server is.
    Token(JoinToken),
}

impl Address {
    /// Reads `HOST`, `HOST:PORT`, `[V6]:PORT`, `https://…`, `unix:…`, `/PATH` or a token.
    pub(crate) fn parse(text: &str) -> Outcome<Self> {
        let wrong = |why: &str| Failure::usage(format!("\"{text}\" is no address: {why}"));
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(text.to_owned()));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.strip_prefix("//").unwrap_or(path).to_owned()));
        }
        if let Ok(token) = JoinToken::decode(text) {
            return Ok(Self::Token(token));
        }
        let rest = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some((scheme, _)) => {
                return Err(Failure::usage(format!(
                    "Invalid URL scheme \"{scheme}\" in \"{text}\""
                ))
                .hint("Only https is spoken: nothing else keeps a secret."));
            }
            None => text,
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (login, host_port) = match authority.rfind('@') {
            Some(at) => authority.split_at(at + 1),
            None => ("", authority),
        };
        let (host, port) = split_port(host_port).ok_or_else(|| wrong("the port is no number"))?;
        let strange = |c: char| c.is_whitespace() || c.is_control() || "?#\\\"<>".contains(c);
        if host.is_empty() || rest.contains(strange) {
            return Err(wrong("write HOST, HOST:PORT or https://HOST[:PORT]"));
        }
        let path = path.trim_end_matches('/').to_owned();
        Ok(Self::Https { login: login.to_owned(), host, port, path })
    }

    /// As it stands in `config.yml`. Without a port a server of LXD's is on 8443, and a web
    /// server where web servers are.
    pub(crate) fn url(&self, protocol: Protocol) -> String {
        match (self, protocol) {
            (Self::Unix(path), _) => format!("unix://{path}"),
            (Self::Https { host, port, .. }, Protocol::Lxd) => {
                format!("{HTTPS}{host}:{}", port.unwrap_or(DEFAULT_PORT))
            }
            (Self::Https { login, host, port, path }, Protocol::Simplestreams) => {
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                format!("{HTTPS}{login}{host}{port}{path}")
            }
            (Self::Token(token), _) => token
                .addresses
                .first()
                .map(|address| format!("{HTTPS}{address}"))
                .unwrap_or_default(),
        }
    }

    /// A name for a remote that was given none.
    pub(super) fn name(&self) -> Option<String> {
        let host = match self {
            Self::Unix(_) => return None,
            Self::Https { host, .. } => host.clone(),
            Self::Token(token) => split_port(token.addresses.first()?)?.0,
        };
        // A colon would end the remote's name.
        let name = host.trim_matches(['[', ']']).replace(':', "-");
        check_name(&name).is_ok().then_some(name)
    }
}

/// The host, in brackets where it has colons, and the port. `None` when the port is none.
fn split_port(text: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port.parse().ok()?),
            None if port.is_empty() => None,
            None => return None,
        };
        return Some((format!("[{host}]"), port));
    }
    match text.split_once(':') {
        None => Some((text.to_owned(), None)),
        // More than one colon: an address of IPv6 without a port.
        Some((_, rest)) if rest.contains(':') => Some((format!("[{text}]"), None)),
        Some((host, port)) => Some((host.to_owned(), Some(port.parse().ok()?))),
    }
}

/// Refuses names that no command line could hold, or that lead a file elsewhere.
pub(super) fn check_name(name: &str) -> Outcome {
    let why = if name.is_empty() {
        "they are not empty"
    } else if name.contains(':') {
        return Err(Failure::usage("Remote names may not contain colons"));
    } else if name.contains('/') || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "they hold no slashes and no spaces"
    } else if name.starts_with(['.', '-']) {
        "they start with a letter or a digit"
    } else if name.len() > 128 {
        "they have at most 128 bytes"
    } else {
        return Ok(());
    };
    Err(Failure::usage(format!("\"{name}\" cannot name a remote: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, lxd: &str, simplestreams: &str, name: Option<&str>) {
        let address = Address::parse(text).unwrap();
        assert_eq!(address.url(Protocol::Lxd), lxd, "{text}");
        assert_eq!(address.url(Protocol::Simplestreams), simplestreams, "{text}");
        assert_eq!(address.name().as_deref(), name, "{text}");
    }

    #[test]
    fn addresses_are_read_in_every_spelling() {
        check("h", "https://h:8443", "https://h", Some("h"));
        check("h:1", "https://h:1", "https://h:1", Some("h"));
        check("https://h", "https://h:8443", "https://h", Some("h"));
        check("https://h:443/x/", "https://h:443", "https://h:443/x", Some("h"));
        check("https://u:p@h/x", "https://h:8443", "https://u:p@h/x", Some("h"));
        check("::1", "https://[::1]:8443", "https://[::1]", None);
        check(
            "[2001:db8::1]:7",
            "https://[2001:db8::1]:7",
            "https://[2001:db8::1]:7",
            Some("2001-db8--1"),
        );
        check("/run/x", "unix:///run/x", "unix:///run/x", None);
        check("unix:///run/x", "unix:///run/x", "unix:///run/x", None);
        check("unix://", "unix://", "unix://", None);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for wrong in ["", "http://h", "h:x", "h:99999", "https://", "a b", "[::1", "ftp://h"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
        let failure = Address::parse("http://h").unwrap_err();
        assert_eq!(failure.error, "Invalid URL scheme \"http\" in \"http://h\"");
    }

    #[test]
    fn names_stay_names() {
        for wrong in ["", "a:b", "../x", ".x", "-x", "a b", "a/b"] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
        check_name("10.0.0.1").unwrap();
    }
}
