//! Server configuration keys: their types, defaults and what they accept.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde_json::Value;

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Write-only text, read back as "set".
    Secret,
    /// `true` or `false`; also `1`, `yes`, `on` and their opposites.
    Bool,
    /// A whole number.
    Integer,
    /// So many minutes, a year at most.
    Minutes,
    /// `HOST[:PORT]`, `:PORT`, `[V6]:PORT`, or empty.
    Address,
    /// A compression algorithm with an optional level.
    Compression,
    /// A network interface of the host.
    Interface,
    /// A proxy: `http://` or `https://`, or a host with a port.
    Proxy,
    /// An architecture name.
    Architecture,
    /// A file of the server's, by its absolute path.
    File,
    /// Numbers with units `M`, `H`, `d`, `w`, `m`, `y`, separated by spaces.
    Expiry,
}

/// One configuration key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Its value when unset.
    pub default: &'static str,
    /// What it does, for people.
    pub help: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { name, kind, default, help }
}

/// Prefix of free keys, stored as they are.
pub const USER_PREFIX: &str = "user.";
/// Address of the network listener.
pub const HTTPS_ADDRESS: &str = "core.https_address";
/// Whether web pages of the allowed origin may send credentials.
pub const HTTPS_ALLOWED_CREDENTIALS: &str = "core.https_allowed_credentials";
/// Headers that web pages of the allowed origin may send.
pub const HTTPS_ALLOWED_HEADERS: &str = "core.https_allowed_headers";
/// Methods that web pages of the allowed origin may use.
pub const HTTPS_ALLOWED_METHODS: &str = "core.https_allowed_methods";
/// Origin whose web pages may use the API.
pub const HTTPS_ALLOWED_ORIGIN: &str = "core.https_allowed_origin";
/// How long a join token is good for; empty for ever.
pub const TOKEN_EXPIRY: &str = "core.remote_token_expiry";
/// Password with which a client may add itself.
pub const TRUST_PASSWORD: &str = "core.trust_password";
/// Hours between two updates of an image; 0 for never.
pub const AUTO_UPDATE_INTERVAL: &str = "images.auto_update_interval";
/// Days after which an unused cached image goes; 0 for never.
pub const REMOTE_CACHE_EXPIRY: &str = "images.remote_cache_expiry";
/// Whether images downloaded for an instance follow their source.
pub const AUTO_UPDATE_CACHED: &str = "images.auto_update_cached";
/// Of ours: replaced versions of an image that are kept.
pub const KEEP_VERSIONS: &str = "images.keep_versions";
/// Of ours: the largest image that is taken from another server, in bytes; 0 for no limit.
pub const MAX_SIZE: &str = "images.max_size";
/// Of ours: minutes that the files of a deleted public image are still served; 0 for none.
pub const STREAMS_GRACE: &str = "images.streams_grace";
/// Of ours: a file of the server's with the secret OpenPGP key that signs what it publishes as a
/// simplestreams server; empty signs nothing.
pub const STREAMS_KEY: &str = "images.streams_key";
/// How published images are compressed.
pub const COMPRESSION_ALGORITHM: &str = "images.compression_algorithm";
/// Of ours: the bridge that instances get a network interface on; empty for none.
pub const INSTANCES_BRIDGE: &str = "instances.bridge";
/// Proxy for plain http.
pub const PROXY_HTTP: &str = "core.proxy_http";
/// Proxy for https.
pub const PROXY_HTTPS: &str = "core.proxy_https";
/// Hosts that are reached without a proxy.
pub const PROXY_IGNORE_HOSTS: &str = "core.proxy_ignore_hosts";

/// Every key except the free ones.
pub const KEYS: &[Key] = &[
    key("core.debug_address", Kind::Address, "", "address of the debug listener"),
    key(HTTPS_ADDRESS, Kind::Address, "", "address of the network listener"),
    key(HTTPS_ALLOWED_CREDENTIALS, Kind::Bool, "false", "CORS: allow credentials"),
    key(HTTPS_ALLOWED_HEADERS, Kind::Text, "", "CORS: allowed headers"),
    key(HTTPS_ALLOWED_METHODS, Kind::Text, "", "CORS: allowed methods"),
    key(HTTPS_ALLOWED_ORIGIN, Kind::Text, "", "CORS: allowed origin"),
    key("core.https_trusted_proxy", Kind::Text, "", "proxies whose forwarded address is believed"),
    key("core.metrics_address", Kind::Address, "", "address of the metrics listener"),
    key(PROXY_HTTP, Kind::Proxy, "", "proxy for http"),
    key(PROXY_HTTPS, Kind::Proxy, "", "proxy for https"),
    key(PROXY_IGNORE_HOSTS, Kind::Text, "", "hosts reached without the proxy"),
    key(TOKEN_EXPIRY, Kind::Expiry, "", "how long a join token is good for"),
    key("core.shutdown_timeout", Kind::Integer, "5", "minutes to wait for operations at shutdown"),
    key("core.trust_ca_certificates", Kind::Bool, "false", "trust clients signed by the CA"),
    key(TRUST_PASSWORD, Kind::Secret, "", "password for new clients"),
    key(AUTO_UPDATE_CACHED, Kind::Bool, "true", "keep cached images current"),
    key(AUTO_UPDATE_INTERVAL, Kind::Integer, "6", "hours between two updates, 0 for never"),
    key(COMPRESSION_ALGORITHM, Kind::Compression, "gzip", "how published images are compressed"),
    key(
        "images.default_architecture",
        Kind::Architecture,
        "",
        "architecture of instances without one",
    ),
    key(KEEP_VERSIONS, Kind::Integer, "1", "replaced versions of an image that are kept"),
    key(MAX_SIZE, Kind::Integer, "0", "bytes of the largest image taken from a server, 0 for any"),
    key(REMOTE_CACHE_EXPIRY, Kind::Integer, "10", "days an unused cached image is kept"),
    key(
        STREAMS_GRACE,
        Kind::Minutes,
        "120",
        "minutes that files of a deleted public image are still served to simplestreams clients, \
         0 for none; only while core.https_address is set is anything kept",
    ),
    key(STREAMS_KEY, Kind::File, "", "file of the OpenPGP key that signs the published catalogs"),
    key(INSTANCES_BRIDGE, Kind::Interface, "", "bridge that instances get an interface on"),
];

/// Why a value was refused. The texts are LXD's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// One key.
    #[error("cannot set '{key}' to '{value}': {reason}")]
    Value {
        /// The key.
        key: String,
        /// What it should become.
        value: String,
        /// Why not.
        reason: String,
    },
    /// The value is no string.
    #[error("cannot set '{key}': invalid type {json}")]
    Type {
        /// The key.
        key: String,
        /// What it was.
        json: &'static str,
    },
    /// More than one key.
    #[error("{first} (and {more} more errors)")]
    Several {
        /// The first.
        first: Box<ConfigError>,
        /// How many others.
        more: usize,
    },
}

/// The key with this name, if it is not a free one.
pub fn lookup(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// What a request wants of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This value; the default unsets it.
    Set(String),
    /// The secret stays as it is.
    Unchanged,
    /// Back to the default.
    Unset,
}

/// Checks the values of a `PUT` or `PATCH /1.0`; all errors are counted, the first is told.
pub fn parse(values: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Wanted>, ConfigError> {
    let mut wanted = BTreeMap::new();
    let mut errors = Vec::new();
    for (name, value) in values {
        match parse_one(name, value) {
            Ok(want) => drop(wanted.insert(name.clone(), want)),
            Err(error) => errors.push(error),
        }
    }
    let more = errors.len().saturating_sub(1);
    match errors.into_iter().next() {
        None => Ok(wanted),
        Some(only) if more == 0 => Err(only),
        Some(first) => Err(ConfigError::Several { first: Box::new(first), more }),
    }
}

fn parse_one(name: &str, value: &Value) -> Result<Wanted, ConfigError> {
    let text = match value {
        Value::Null => return Ok(Wanted::Unset),
        Value::String(text) => text.as_str(),
        Value::Bool(true) if is_secret(name) => return Ok(Wanted::Unchanged),
        Value::Bool(_) => return Err(wrong_type(name, "bool")),
        Value::Number(_) => return Err(wrong_type(name, "float64")),
        Value::Array(_) => return Err(wrong_type(name, "[]interface {}")),
        Value::Object(_) => return Err(wrong_type(name, "map[string]interface {}")),
    };
    let refuse =
        |reason: String| ConfigError::Value { key: name.into(), value: text.into(), reason };
    if name.strip_prefix(USER_PREFIX).is_some_and(|rest| !rest.is_empty()) {
        return Ok(if text.is_empty() { Wanted::Unset } else { Wanted::Set(text.into()) });
    }
    let Some(key) = lookup(name) else { return Err(refuse("unknown key".into())) };
    if text.is_empty() {
        return Ok(Wanted::Unset);
    }
    // Clients other than LXD's read a set password as the string "true" and send it back.
    if key.kind == Kind::Secret && text == "true" {
        return Ok(Wanted::Unchanged);
    }
    let value = check(key.kind, text).map_err(refuse)?;
    Ok(if value == key.default { Wanted::Unset } else { Wanted::Set(value) })
}

fn is_secret(name: &str) -> bool {
    lookup(name).is_some_and(|key| key.kind == Kind::Secret)
}

fn wrong_type(name: &str, json: &'static str) -> ConfigError {
    ConfigError::Type { key: name.into(), json }
}

/// The longest time that is given in minutes.
const YEAR: i64 = 365 * 24 * 60;

/// The value in its normal spelling, or why it is refused.
fn check(kind: Kind, text: &str) -> Result<String, String> {
    match kind {
        Kind::Bool => {
            parse_bool(text).map(|b| b.to_string()).ok_or_else(|| "invalid boolean".into())
        }
        Kind::Integer => match text.parse::<i64>() {
            Ok(_) => Ok(text.into()),
            Err(_) => Err("invalid integer".into()),
        },
        Kind::Minutes => match text.parse::<i64>() {
            Ok(0..=YEAR) => Ok(text.into()),
            _ => Err(format!("a number of minutes from 0 to {YEAR}")),
        },
        Kind::Address => text.parse::<ListenAddress>().map(|_| text.into()),
        Kind::Compression => text
            .parse::<CompressionAlgorithm>()
            .map(|_| text.into())
            .map_err(|_| format!("Invalid compression algorithm \"{text}\"")),
        Kind::Architecture => match text.parse::<crate::arch::Architecture>() {
            Ok(_) => Ok(text.into()),
            Err(_) => Err(format!("Architecture isn't supported: {text}")),
        },
        Kind::File if !text.starts_with('/') || text.contains(char::is_control) => {
            Err("a file of the server is named by its absolute path".into())
        }
        Kind::Text | Kind::Secret | Kind::File => Ok(text.into()),
        Kind::Expiry => check_expiry(text).map(|()| text.into()),
        Kind::Proxy => {
            let address = match text.split_once("://") {
                Some(("http" | "https", address)) => address,
                Some(_) => return Err("a proxy is an http:// or https:// URL".into()),
                None => text,
            };
            let host = address.rsplit('@').next().unwrap_or_default();
            let odd = |c: char| c.is_whitespace() || c.is_control();
            if !text.is_empty() && (host.trim_start_matches(':').is_empty() || text.contains(odd)) {
                return Err("a proxy is an http:// or https:// URL, or HOST:PORT".into());
            }
            Ok(text.into())
        }
        Kind::Interface => {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let dots = text.chars().all(|c| c == '.') && !text.is_empty();
            if text.len() > 15 || dots || !text.chars().all(known) {
                return Err("no name of a network interface".into());
            }
            Ok(text.into())
        }
    }
}

/// A boolean as configuration and upload headers spell it; any case.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A listening address as LXD spells it: `HOST[:PORT]`, `:PORT`, `[V6]`, `[V6]:PORT`, a bare V6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// Name or address without brackets; empty for everywhere.
    pub host: String,
    /// Port; absent for the default one.
    pub port: Option<u16>,
}

impl std::str::FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, tail)) => (host, tail.strip_prefix(':').or(Some("?"))),
                None => return Err(format!("Invalid address \"{text}\": missing ']'")),
            },
            None if text.matches(':').count() > 1 => (text, None),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.chars().any(|c| c.is_whitespace() || c == '/') {
            return Err(format!("Invalid address \"{text}\""));
        }
        let port = port.map(str::parse::<u16>).transpose();
        let port = port.map_err(|_| format!("Invalid port in address \"{text}\""))?;
        Ok(Self { host: host.to_owned(), port })
    }
}

/// When something that lasts for `expression` (`1d 12H`) from `start` on ends; `None` when the
/// expression is empty or lies beyond all calendars.
pub fn expiry(expression: &str, start: Timestamp) -> Option<Timestamp> {
    let mut end = start.to_zoned_datetime(TimeZone::UTC);
    for word in expression.split_whitespace() {
        let (at, unit) = word.char_indices().next_back()?;
        let count: i64 = word[..at].parse::<u32>().ok()?.into();
        let span = Span::new();
        let span = match unit {
            'M' => span.try_minutes(count),
            'H' => span.try_hours(count),
            'd' => span.try_days(count),
            'w' => span.try_weeks(count),
            'm' => span.try_months(count),
            'y' => span.try_years(count),
            _ => return None,
        };
        end = end.checked_add(span.ok()?).ok()?;
    }
    Some(end.timestamp()).filter(|end| *end > start)
}

pub(crate) fn check_expiry(text: &str) -> Result<(), String> {
    let units = "MHdwmy";
    let sound = |word: &str| {
        let mut chars = word.chars();
        let unit = chars.next_back();
        unit.is_some_and(|unit| units.contains(unit)) && chars.as_str().parse::<u32>().is_ok()
    };
    if text.split_whitespace().all(sound) {
        Ok(())
    } else {
        Err("Invalid expiry expression".into())
    }
}

/// How an image is compressed: an algorithm and perhaps a level, never a command line
/// (CVE-2026-28384, CVE-2026-48755).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionAlgorithm {
    /// Plain tar.
    None,
    /// gzip, level 1 to 9.
    Gzip(Option<u8>),
    /// bzip2, level 1 to 9.
    Bzip2(Option<u8>),
    /// xz, level 0 to 9.
    Xz(Option<u8>),
    /// lzma, level 0 to 9.
    Lzma(Option<u8>),
    /// zstd, level 1 to 19.
    Zstd(Option<u8>),
    /// squashfs.
    Squashfs,
}

/// The text names no known algorithm and level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid compression algorithm \"{0}\"")]
pub struct UnknownCompression(String);

impl CompressionAlgorithm {
    /// The level that was asked for.
    pub fn level(&self) -> Option<u8> {
        match self {
            Self::None | Self::Squashfs => None,
            Self::Gzip(level)
            | Self::Bzip2(level)
            | Self::Xz(level)
            | Self::Lzma(level)
            | Self::Zstd(level) => *level,
        }
    }
}

impl std::str::FromStr for CompressionAlgorithm {
    type Err = UnknownCompression;

    /// Reads what LXD accepts, as far as it is an algorithm with a level: `zstd -19`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownCompression(text.into());
        let mut words = text.split_whitespace();
        let name = words.next().ok_or_else(unknown)?;
        let (low, high) = match name {
            "gzip" | "bzip2" => (1, 9),
            "xz" | "lzma" => (0, 9),
            "zstd" => (1, 19),
            _ => (1, 0),
        };
        let level = match words.next() {
            None => None,
            Some(word) => {
                let digits = word.strip_prefix('-').ok_or_else(unknown)?;
                let level: u8 = digits.parse().map_err(|_| unknown())?;
                Some(level)
                    .filter(|level| (low..=high).contains(level))
                    .map_or_else(|| Err(unknown()), |l| Ok(Some(l)))?
            }
        };
        if words.next().is_some() {
            return Err(unknown());
        }
        match (name, level) {
            ("none", None) => Ok(Self::None),
            ("squashfs", None) => Ok(Self::Squashfs),
            ("gzip", level) => Ok(Self::Gzip(level)),
            ("bzip2", level) => Ok(Self::Bzip2(level)),
            ("xz", level) => Ok(Self::Xz(level)),
            ("lzma", level) => Ok(Self::Lzma(level)),
            ("zstd", level) => Ok(Self::Zstd(level)),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(name: &str, value: Value) -> Result<Wanted, String> {
        parse(&BTreeMap::from([(name.to_owned(), value)]))
            .map(|mut all| all.remove(name).unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_checked_and_normalised() {
        let set = |text: &str| Ok(Wanted::Set(text.into()));
        assert_eq!(parsed("images.auto_update_cached", json!("No")), set("false"));
        assert_eq!(parsed("images.auto_update_cached", json!("yes")), Ok(Wanted::Unset));
        assert_eq!(parsed("images.remote_cache_expiry", json!("5")), set("5"));
        assert_eq!(parsed("user.any.thing", json!("x")), set("x"));
        assert_eq!(parsed("core.trust_password", json!(true)), Ok(Wanted::Unchanged));
        assert_eq!(parsed("core.trust_password", json!("true")), Ok(Wanted::Unchanged));
        assert_eq!(parsed("core.proxy_http", Value::Null), Ok(Wanted::Unset));
        assert_eq!(parsed("images.compression_algorithm", json!("zstd -19")), set("zstd -19"));
        for address in [":8443", "[::]", "[::1]:8443", "127.0.0.1", "host:1"] {
            assert_eq!(parsed(HTTPS_ADDRESS, json!(address)), set(address));
        }
    }

    #[test]
    fn proxies_and_interfaces_are_what_they_are_called() {
        for proxy in ["http://p:3128", "https://u:w@p", "p:3128", ""] {
            assert!(parsed(PROXY_HTTPS, json!(proxy)).is_ok(), "{proxy}");
        }
        for none in ["garbage proxy", "ftp://x", "socks5://127.0.0.1:1", "http://", "http://a b"] {
            assert!(parsed(PROXY_HTTPS, json!(none)).is_err(), "{none}");
        }
        assert!(parsed(INSTANCES_BRIDGE, json!("br-0.1")).is_ok());
        for none in ["..", "a b", "a/b", "a\nlxc.x=1", "a-name-of-17-bytes"] {
            assert!(parsed(INSTANCES_BRIDGE, json!(none)).is_err(), "{none}");
        }
    }

    #[test]
    fn an_expiry_is_counted_on_the_calendar() {
        let start: Timestamp = "2024-01-31T00:00:00Z".parse().unwrap();
        for (expression, end) in [
            ("90M", "2024-01-31T01:30:00Z"),
            ("1d 12H", "2024-02-01T12:00:00Z"),
            ("1m", "2024-02-29T00:00:00Z"),
            ("1w 1y", "2025-02-07T00:00:00Z"),
        ] {
            assert_eq!(expiry(expression, start).unwrap().to_string(), end);
        }
        for never in ["", "0d", "4000000000y"] {
            assert_eq!(expiry(never, start), None, "{never}");
        }
    }

    #[test]
    fn wrong_values_are_refused_in_lxds_words() {
        let wrong = [
            ("foo.bar", json!("x"), "cannot set 'foo.bar' to 'x': unknown key"),
            (
                "images.auto_update_interval",
                json!("abc"),
                "cannot set 'images.auto_update_interval' to 'abc': invalid integer",
            ),
            (
                "images.auto_update_cached",
                json!("abc"),
                "cannot set 'images.auto_update_cached' to 'abc': invalid boolean",
            ),
            (
                "images.auto_update_interval",
                json!(6),
                "cannot set 'images.auto_update_interval': invalid type float64",
            ),
            (
                "images.compression_algorithm",
                json!("zzz"),
                "cannot set 'images.compression_algorithm' to 'zzz': Invalid compression algorithm \"zzz\"",
            ),
        ];
        for (name, value, expected) in wrong {
            assert_eq!(parsed(name, value).unwrap_err(), expected);
        }
        for attack in
            ["gzip;id", "gzip --rsyncable", "zstd -19 -o /etc/x", "xz -T0", "sh -c id", "none -1"]
        {
            assert!(attack.parse::<CompressionAlgorithm>().is_err(), "{attack}");
        }
    }
}
