//! The filters of `list`: names, and `KEY=VALUE` on fields and configuration.

use std::net::IpAddr;

use lxd_proto::instance::{InstanceFull, Network};
use regex::Regex;

use crate::failure::{Failure, Outcome};

/// Filters that must all match.
#[derive(Debug)]
pub(super) struct Filters(Vec<Clause>);

#[derive(Debug)]
enum Clause {
    /// The beginning of a name, or a regular expression for all of it.
    Name(String, Option<Regex>),
    Type(Vec<String>),
    Status(Vec<String>),
    Architecture(Vec<String>),
    Location(Vec<String>),
    Address(Vec<Addresses>),
    /// A key of the configuration, and a regular expression for its value.
    Config(String, String, Option<Regex>),
}

/// An address, or all that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Addresses {
    first: IpAddr,
    bits: u32,
}

impl Filters {
    pub(super) fn parse(words: &[String]) -> Outcome<Self> {
        words.iter().map(|word| clause(word)).collect::<Outcome<_>>().map(Self)
    }

    pub(super) fn matches(&self, instance: &InstanceFull) -> bool {
        self.0.iter().all(|clause| clause.matches(instance))
    }

    /// Whether a filter looks at more than the instances themselves.
    pub(super) fn need_state(&self) -> bool {
        self.0.iter().any(|clause| matches!(clause, Clause::Address(_)))
    }
}

fn clause(word: &str) -> Outcome<Clause> {
    let Some((key, value)) = word.split_once('=') else {
        return Ok(Clause::Name(word.to_owned(), whole(word)));
    };
    let values = || value.split(',').map(str::to_lowercase).collect::<Vec<_>>();
    Ok(match key {
        "" => return Err(Failure::usage(format!("\"{word}\" has no key"))),
        "type" => Clause::Type(values()),
        "status" => Clause::Status(values()),
        "architecture" => Clause::Architecture(values()),
        "location" => Clause::Location(values()),
        "ipv4" | "ipv6" => {
            let parse = |text: &str| {
                let wrong =
                    || Failure::usage(format!("{key} is an address or a network, not \"{text}\""));
                Addresses::parse(text)
                    .filter(|given| given.first.is_ipv4() == (key == "ipv4"))
                    .ok_or_else(wrong)
            };
            Clause::Address(value.split(',').map(parse).collect::<Outcome<_>>()?)
        }
        _ => Clause::Config(key.to_owned(), value.to_owned(), whole(value)),
    })
}

/// A regular expression for a whole text; `None` where it is none.
fn whole(text: &str) -> Option<Regex> {
    if text.contains(['^', '$']) {
        return Regex::new(text).ok();
    }
    Regex::new(&format!("^(?:{text})$")).ok()
}

impl Clause {
    fn matches(&self, full: &InstanceFull) -> bool {
        let instance = &full.instance;
        let among = |values: &[String], value: &str| values.contains(&value.to_lowercase());
        match self {
            Self::Name(word, regex) => {
                let all = regex.as_ref().is_some_and(|regex| regex.is_match(&instance.name));
                all || instance.name.starts_with(word.as_str())
            }
            Self::Type(values) => among(values, instance.kind.as_str()),
            Self::Status(values) => among(values, instance.status.name()),
            Self::Architecture(values) => among(values, &instance.architecture),
            Self::Location(values) => among(values, &instance.location),
            Self::Address(wanted) => networks(full).any(|(_, network)| {
                let addresses = network.addresses.iter();
                let mut addresses = addresses.filter_map(|a| a.address.parse::<IpAddr>().ok());
                addresses.any(|address| wanted.iter().any(|all| all.contain(address)))
            }),
            Self::Config(key, value, regex) => instance.expanded_config.iter().any(|(name, is)| {
                let matches = regex.as_ref().map_or(is == value, |regex| regex.is_match(is));
                abbreviates(key, name) && (matches || is == value)
            }),
        }
    }
}

/// The interfaces of an instance.
pub(super) fn networks(full: &InstanceFull) -> impl Iterator<Item = (&String, &Network)> {
    full.state.iter().filter_map(|state| state.network.as_ref()).flatten()
}

impl Addresses {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().ok()?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { first, bits })
    }

    fn contain(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let different = u32::from(a) ^ u32::from(b);
                different.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let different = u128::from(a) ^ u128::from(b);
                different.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Whether every dotted component of `full` begins with that of `short`.
fn abbreviates(short: &str, full: &str) -> bool {
    let (short, full): (Vec<_>, Vec<_>) = (short.split('.').collect(), full.split('.').collect());
    short.len() == full.len() && short.iter().zip(&full).all(|(s, f)| f.starts_with(s))
}

#[cfg(test)]
mod tests {
    use super::super::list::tests::sample;
    use super::*;

    fn check(words: &[&str]) -> bool {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        Filters::parse(&words).unwrap().matches(&sample())
    }

    #[test]
    fn filters_match_as_documented() {
        for (words, expected) in [
            (&[][..], true),
            (&["c"], true),
            (&["c1"], true),
            (&["1"], false),
            (&["^c[12]$"], true),
            (&[".*1"], true),
            (&["status=running"], true),
            (&["status=stopped,RUNNING"], true),
            (&["status=stopped"], false),
            (&["type=container", "c1"], true),
            (&["type=virtual-machine"], false),
            (&["architecture=x86_64"], true),
            (&["image.os=busybox"], true),
            (&["i.o=busy.*"], true),
            (&["i.o=busy"], false),
            (&["os=busybox"], false),
            (&["ipv4=10.0.3.0/24"], true),
            (&["ipv4=10.0.3.7"], true),
            (&["ipv4=10.0.4.0/24"], false),
            (&["ipv4=0.0.0.0/0"], true),
            (&["ipv6=fd00::/8"], true),
        ] {
            assert_eq!(check(words), expected, "{words:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in ["=x", "ipv4=fd00::1", "ipv6=10.0.0.1", "ipv4=10.0.0.0/33", "ipv4=x"] {
            assert!(Filters::parse(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
