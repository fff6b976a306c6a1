//! What the configuration of an instance may say: LXD's keys for containers, and their values.

use std::str::FromStr;

use super::key;
use crate::config::{check_expiry, parse_bool};

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Bool,
    Integer,
    /// From 0 up to this.
    UpTo(u32),
    Memory,
    Processors,
    Allowance,
    Count,
    Size,
    Expiry,
    OneOf(&'static [&'static str]),
}

/// LXD's keys for containers. What is not in here LXD 5.0 refuses too.
const KEYS: &[(&str, Kind)] = &[
    (key::AUTOSTART, Kind::Bool),
    ("boot.autostart.delay", Kind::Integer),
    (key::AUTOSTART_PRIORITY, Kind::Integer),
    ("boot.host_shutdown_timeout", Kind::Integer),
    ("boot.stop.priority", Kind::Integer),
    ("cloud-init.network-config", Kind::Any),
    ("cloud-init.user-data", Kind::Any),
    ("cloud-init.vendor-data", Kind::Any),
    ("cluster.evacuate", Kind::OneOf(&["auto", "migrate", "live-migrate", "stop"])),
    (key::LIMIT_CPU, Kind::Processors),
    (key::LIMIT_CPU_ALLOWANCE, Kind::Allowance),
    ("limits.cpu.priority", Kind::UpTo(10)),
    ("limits.disk.priority", Kind::UpTo(10)),
    ("limits.hugepages.1GB", Kind::Size),
    ("limits.hugepages.1MB", Kind::Size),
    ("limits.hugepages.2MB", Kind::Size),
    ("limits.hugepages.64KB", Kind::Size),
    (key::LIMIT_MEMORY, Kind::Memory),
    ("limits.memory.enforce", Kind::OneOf(&["hard", "soft"])),
    ("limits.memory.swap", Kind::Bool),
    ("limits.memory.swap.priority", Kind::UpTo(10)),
    ("limits.network.priority", Kind::UpTo(10)),
    (key::LIMIT_PROCESSES, Kind::Count),
    ("linux.kernel_modules", Kind::Any),
    ("migration.incremental.memory", Kind::Bool),
    ("migration.incremental.memory.goal", Kind::UpTo(100)),
    ("migration.incremental.memory.iterations", Kind::Integer),
    ("nvidia.driver.capabilities", Kind::Any),
    ("nvidia.require.cuda", Kind::Any),
    ("nvidia.require.driver", Kind::Any),
    ("nvidia.runtime", Kind::Bool),
    ("security.devlxd", Kind::Bool),
    ("security.devlxd.images", Kind::Bool),
    ("security.guestapi", Kind::Bool),
    ("security.idmap.base", Kind::Integer),
    ("security.idmap.isolated", Kind::Bool),
    ("security.idmap.size", Kind::Integer),
    ("security.nesting", Kind::Bool),
    ("security.privileged", Kind::Bool),
    (key::PROTECTED, Kind::Bool),
    ("security.protection.shift", Kind::Bool),
    ("security.syscalls.allow", Kind::Any),
    ("security.syscalls.deny", Kind::Any),
    ("security.syscalls.deny_compat", Kind::Bool),
    ("security.syscalls.deny_default", Kind::Bool),
    (key::SNAPSHOT_EXPIRY, Kind::Expiry),
    ("snapshots.pattern", Kind::Any),
    ("snapshots.schedule", Kind::Any),
    ("snapshots.schedule.stopped", Kind::Bool),
];

/// Beginnings of keys that go on as one likes.
const FREE: &[&str] = &[
    key::ENVIRONMENT,
    key::IMAGE,
    key::USER,
    key::VOLATILE,
    "limits.kernel.",
    "security.syscalls.intercept.",
];

/// Why a key or its value is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// LXD has no such key.
    #[error("Unknown configuration key: {0}")]
    Unknown(String),
    /// The value means nothing.
    #[error("Invalid value \"{value}\" for {key}: {wanted}")]
    Value {
        /// The key.
        key: String,
        /// What it was to be, shortened.
        value: String,
        /// What it takes.
        wanted: String,
    },
}

/// Checks one key of an instance's configuration; an empty value unsets it.
///
/// # Errors
/// A key that LXD does not know for containers, or a value that it would refuse.
pub fn check(name: &str, value: &str) -> Result<(), SettingError> {
    let unknown = || SettingError::Unknown(name.to_owned());
    if let Some(variable) = name.strip_prefix(key::ENVIRONMENT)
        && (variable.is_empty() || !variable.bytes().all(is_of_variable))
    {
        return Err(unknown());
    }
    let free = |prefix: &&str| name.len() > prefix.len() && name.starts_with(*prefix);
    let kind = match KEYS.iter().find(|(known, _)| *known == name) {
        Some((_, kind)) => *kind,
        None if FREE.iter().any(free) => return Ok(()),
        None => return Err(unknown()),
    };
    if value.is_empty() {
        return Ok(());
    }
    kind.check(value).map_err(|wanted| SettingError::Value {
        key: name.to_owned(),
        value: value.chars().take(80).flat_map(char::escape_debug).collect(),
        wanted,
    })
}

/// What the name of an environment variable may be made of.
fn is_of_variable(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"=\"'".contains(&byte)
}

impl Kind {
    fn check(self, value: &str) -> Result<(), String> {
        let is_bool = || parse_bool(value).map(drop).ok_or("true or false".to_owned());
        match self {
            Self::Any => Ok(()),
            Self::Bool => is_bool(),
            Self::Integer => value.parse::<i64>().map(drop).map_err(|_| "a whole number".into()),
            Self::UpTo(most) => value
                .parse::<u32>()
                .ok()
                .filter(|number| *number <= most)
                .map(drop)
                .ok_or_else(|| format!("a whole number from 0 to {most}")),
            Self::Memory => value.parse::<MemoryLimit>().map(drop),
            Self::Processors => value.parse::<Processors>().map(drop),
            Self::Allowance => value.parse::<Allowance>().map(drop),
            Self::Count => count(value).map(drop),
            Self::Size => bytes(value).map(drop).ok_or_else(|| SIZE.into()),
            Self::Expiry => check_expiry(value),
            Self::OneOf(words) if words.contains(&value) => Ok(()),
            Self::OneOf(words) => Err(format!("one of {}", words.join(", "))),
        }
    }
}

const SIZE: &str = "a size is like 512MiB or 2GB";

/// `limits.processes`: at least one.
///
/// # Errors
/// What it takes.
pub fn count(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or("a number of processes, 1 or more".into())
}

/// `limits.memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of what the host has.
    Percent(u32),
}

impl FromStr for MemoryLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let limit = match text.strip_suffix('%') {
            Some(number) => {
                let number = number.trim().parse().ok();
                number.filter(|number| (1..=100).contains(number)).map(Self::Percent)
            }
            None => bytes(text).map(Self::Bytes),
        };
        limit.ok_or_else(|| format!("{SIZE}, or a part of the host's memory like 50%"))
    }
}

/// `limits.cpu`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Processors {
    /// The time of so many.
    Count(u32),
    /// These ones: first and last of each range.
    These(Vec<(u32, u32)>),
}

/// Processors that the kernel can count.
const MOST_PROCESSORS: u32 = 8192;

impl FromStr for Processors {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let number = text.trim().parse::<u32>().ok();
            number.filter(|number| *number < MOST_PROCESSORS)
        };
        let range = |part: &str| match part.split_once('-') {
            Some((first, last)) => {
                Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last)
            }
            None => number(part).map(|one| (one, one)),
        };
        let parsed = if text.contains(['-', ',']) {
            text.split(',').map(range).collect::<Option<Vec<_>>>().map(Self::These)
        } else {
            number(text).filter(|count| *count > 0).map(Self::Count)
        };
        parsed.ok_or_else(|| "a number of processors, or which ones: 0-3 or 0,2".into())
    }
}

/// `limits.cpu.allowance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// So many hundredths of what others get, when there is not enough for all.
    Percent(u32),
    /// So many milliseconds of each so many, at most.
    Time {
        /// Milliseconds of processor time.
        of: u32,
        /// Milliseconds that pass.
        each: u32,
    },
}

impl FromStr for Allowance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let millis = |text: &str| {
            let number = text.trim().strip_suffix("ms")?.parse::<u32>().ok()?;
            (1..=1_000_000).contains(&number).then_some(number)
        };
        let parsed = match (text.strip_suffix('%'), text.split_once('/')) {
            (Some(number), _) => {
                let number = number.trim().parse().ok();
                number.filter(|number| (1..=100).contains(number)).map(Self::Percent)
            }
            (None, Some((of, each))) => {
                millis(of).zip(millis(each)).map(|(of, each)| Self::Time { of, each })
            }
            (None, None) => None,
        };
        // The kernel takes periods of 1 ms to 1 s.
        let parsed = parsed.filter(|it| !matches!(it, Self::Time { each: 1001.., .. }));
        parsed.ok_or_else(|| "a part like 50%, or a time like 25ms/100ms".into())
    }
}

/// A size as LXD writes it: `64MiB`, `2GB`, `1024`; never 0.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lxd_refuses_is_refused() {
        for (name, value, taken) in [
            ("limits.memory", "64MiB", true),
            ("limits.memory", "1 GiB", true),
            ("limits.memory", "50%", true),
            ("limits.memory", "0%", false),
            ("limits.memory", "101%", false),
            ("limits.memory", "0", false),
            ("limits.memory", "99999999999GiB", false),
            ("limits.memory", "x", false),
            ("limits.memory", "", true),
            ("limits.cpu", "2", true),
            ("limits.cpu", "0", false),
            ("limits.cpu", "0-1", true),
            ("limits.cpu", "0,2-3", true),
            ("limits.cpu", "1-0", false),
            ("limits.cpu", "0,", false),
            ("limits.cpu.allowance", "50%", true),
            ("limits.cpu.allowance", "25ms/100ms", true),
            ("limits.cpu.allowance", "25/100", false),
            ("limits.cpu.allowance", "25ms/2000ms", false),
            ("limits.cpu.priority", "11", false),
            ("limits.memory.enforce", "soft", true),
            ("limits.memory.enforce", "maybe", false),
            ("limits.processes", "-1", false),
            ("limits.bogus", "1", false),
            ("limits.kernel.nofile", "1", true),
            ("boot.autostart", "bogus", false),
            ("boot.autostart", "yes", true),
            ("boot.autostart.priority", "x", false),
            ("security.protection.delete", "sure", false),
            ("security.bogus", "true", false),
            ("security.syscalls.intercept.mknod", "true", true),
            ("snapshots.expiry", "1d", true),
            ("snapshots.expiry", "tomorrow", false),
            ("user.", "x", false),
            ("user.x", "anything", true),
            // LXD takes them as they come: properties of images become keys.
            ("user.x y", "anything", true),
            ("image.a=b", "anything", true),
            ("environment.A_B", "x", true),
            ("environment.A\"B", "x", false),
            ("environment.A B", "x", false),
            ("bogus", "1", false),
        ] {
            assert_eq!(check(name, value).is_ok(), taken, "{name}={value}");
        }
        let error = check("limits.cpu", "many").unwrap_err().to_string();
        assert_eq!(
            error,
            "Invalid value \"many\" for limits.cpu: a number of processors, or which ones: 0-3 or 0,2"
        );
    }

    #[test]
    fn limits_are_read() {
        assert_eq!("64MiB".parse(), Ok(MemoryLimit::Bytes(64 << 20)));
        assert_eq!("2GB".parse(), Ok(MemoryLimit::Bytes(2_000_000_000)));
        assert_eq!("10%".parse(), Ok(MemoryLimit::Percent(10)));
        assert_eq!("3".parse(), Ok(Processors::Count(3)));
        assert_eq!("1-1".parse(), Ok(Processors::These(vec![(1, 1)])));
        assert_eq!("0,2-3".parse(), Ok(Processors::These(vec![(0, 0), (2, 3)])));
        assert_eq!("25ms/100ms".parse(), Ok(Allowance::Time { of: 25, each: 100 }));
    }
}
