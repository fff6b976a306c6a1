//! Who we are and how we get out.

use std::path::PathBuf;
use std::time::Duration;

use crate::net::{Authorities, Identity, Proxies};

/// Who we are and how we get out. Cheap to clone.
///
/// Start from [`Access::anonymous`] and set what differs.
#[derive(Debug, Clone)]
pub struct Access {
    /// Shown to servers that ask for a certificate; `None` stays a stranger.
    pub identity: Option<Identity>,
    /// Ways around firewalls.
    pub proxies: Proxies,
    /// Who vouches for servers whose certificate is not pinned.
    pub authorities: Authorities,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Where catalogs of simplestreams servers are kept; `None` keeps none.
    pub cache: Option<PathBuf>,
    /// How long and how often.
    pub limits: Limits,
}

impl Access {
    /// A stranger, with proxies from the environment and the system's authorities.
    pub fn anonymous(user_agent: impl Into<String>) -> Self {
        Self {
            identity: None,
            proxies: Proxies::from_env(),
            authorities: Authorities::system(),
            user_agent: user_agent.into(),
            cache: None,
            limits: Limits::default(),
        }
    }
}

/// How long a peer is waited for, and how often it is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// To open a connection, TLS included.
    pub connect: Duration,
    /// Without a byte from the peer.
    pub idle: Duration,
    /// Attempts in a row that bring no byte before a download is given up.
    pub retries: u32,
    /// The first pause between two attempts; it doubles, up to ten seconds.
    pub backoff: Duration,
    /// Pieces of one file that are asked for at once; 1 asks for one after the other.
    pub parallel: usize,
    /// The largest file that is downloaded when nobody said how large it is, in bytes.
    pub max_file: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_mins(1),
            retries: 8,
            backoff: Duration::from_millis(200),
            parallel: 4,
            max_file: 256 << 30,
        }
    }
}
