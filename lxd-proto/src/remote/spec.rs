//! Where an image server is and how it is spoken to.

use std::fmt;
use std::str::FromStr;

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// LXD's REST API.
    #[default]
    Lxd,
    /// A tree of JSON documents on a web server.
    Simplestreams,
}

impl Protocol {
    /// The name in configuration files and image sources.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lxd => "lxd",
            Self::Simplestreams => "simplestreams",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// No protocol has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a protocol is \"lxd\" or \"simplestreams\", not \"{0}\"")]
pub struct UnknownProtocol(String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            // What Incus calls the same API.
            "" | "lxd" | "incus" => Ok(Self::Lxd),
            "simplestreams" => Ok(Self::Simplestreams),
            other => Err(UnknownProtocol(other.to_owned())),
        }
    }
}

/// An image server: what an image row stores as its source and a copy sends as its source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoteSpec {
    /// `unix:///PATH` or `https://HOST[:PORT]`.
    pub address: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// PEM of the pinned server certificate; empty trusts the system's authorities.
    pub certificate: String,
    /// Project at the server; empty means its default.
    pub project: String,
    /// Armoured OpenPGP keys, one of which must have signed what a simplestreams server says;
    /// `None` believes whoever answers at the address.
    pub keyring: Option<String>,
}

impl RemoteSpec {
    /// The LXD server behind a unix socket.
    pub fn unix(socket: &std::path::Path) -> Self {
        Self { address: format!("unix://{}", socket.display()), ..Self::default() }
    }
}
