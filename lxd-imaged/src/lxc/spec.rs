//! What an instance is to be, as liblxc's configuration; nothing in it can add a line of its own.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::cgroup::{Hierarchies, Version};
use super::ids::Range;
use super::limits::Limits;

/// The name of an instance: letters, digits and hyphens, at most 63, as LXD allows them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// Takes a name that is allowed.
    pub fn new(name: &str) -> Result<Self, Error> {
        let allowed = (1..=63).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && name.starts_with(|first: char| first.is_ascii_alphabetic())
            && !name.ends_with('-');
        if allowed { Ok(Self(name.to_owned())) } else { Err(invalid("instance name", name)) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The name of a network bridge of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge(String);

impl Bridge {
    /// Takes a name that an interface can have; whether there is one shows at the start.
    pub fn new(name: &str) -> Result<Self, Error> {
        let allowed = (1..=15).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && !matches!(name, "." | "..");
        if allowed { Ok(Self(name.to_owned())) } else { Err(invalid("bridge name", name)) }
    }
}

/// A hardware address, `00:16:3e:aa:bb:cc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardwareAddress([u8; 6]);

impl HardwareAddress {
    /// Reads an address of six bytes that names one interface and not a group.
    pub fn new(address: &str) -> Result<Self, Error> {
        let error = || invalid("hardware address", address);
        let mut bytes = [0; 6];
        let mut parts = address.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(error)?;
            // `from_str_radix` would take a sign.
            let digits = part.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| digits).ok_or_else(error)?;
        }
        let group = bytes[0] & 1 == 1;
        if parts.next().is_some() || group || bytes == [0; 6] {
            return Err(error());
        }
        Ok(Self(bytes))
    }

    /// A new address of the range that liblxc and LXD use.
    pub fn random() -> Self {
        let random = uuid::Uuid::new_v4().into_bytes();
        Self([0x00, 0x16, 0x3e, random[0], random[1], random[2]])
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.map(|byte| format!("{byte:02x}"));
        formatter.write_str(&bytes.join(":"))
    }
}

/// The interface `eth0` of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The bridge of the host it is plugged into.
    pub bridge: Bridge,
    /// Its address.
    pub hwaddr: HardwareAddress,
}

/// What is started.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The instance.
    pub name: Name,
    /// Its root file system, mounted; owners are those that the host sees.
    pub rootfs: PathBuf,
    /// What it calls itself.
    pub hostname: String,
    /// The environment of its first process.
    pub environment: Vec<(String, String)>,
    /// What it may use.
    pub limits: Limits,
    /// Its network; without one it has only `lo`.
    pub network: Option<Nic>,
}

/// The largest console log; liblxc keeps as much again of what came before.
const CONSOLE_LOG: u64 = 1 << 20;

/// The files of an instance that a configuration names.
pub(super) struct Files<'a> {
    pub(super) console: &'a Path,
    pub(super) seccomp: &'a Path,
}

/// The text of a configuration, line by line.
struct Lines(String);

impl Lines {
    /// Adds `key = value`; refuses what would become another line.
    fn set(&mut self, key: &str, value: impl fmt::Display) -> Result<(), Error> {
        let value = value.to_string();
        if value.chars().any(char::is_control) {
            return Err(invalid(key, &value));
        }
        self.0.push_str(&format!("{key} = {value}\n"));
        Ok(())
    }

    fn path(&mut self, key: &str, prefix: &str, path: &Path) -> Result<(), Error> {
        let text = std::str::from_utf8(path.as_os_str().as_bytes());
        let text = text.map_err(|_| invalid(key, &path.to_string_lossy()))?;
        // liblxc drops spaces at the end, and would use another file.
        if text.trim() != text {
            return Err(invalid(key, text));
        }
        self.set(key, format!("{prefix}{text}"))
    }
}

impl Spec {
    /// liblxc's configuration.
    pub(super) fn config(
        &self,
        ids: Range,
        groups: &Hierarchies,
        confine: bool,
        files: &Files<'_>,
    ) -> Result<String, Error> {
        let mut lines = Lines("# Written at every start; changes are lost.\n".to_owned());
        lines.path("lxc.rootfs.path", "dir:", &self.rootfs)?;
        // An overlay has this from its mount, a plain copy of an image from here.
        lines.set("lxc.rootfs.options", "nodev")?;
        lines.set("lxc.uts.name", hostname(&self.hostname)?)?;
        for kind in ["u", "g"] {
            lines.set("lxc.idmap", format!("{kind} 0 {} {}", ids.base, ids.size))?;
        }
        lines.path("lxc.console.logfile", "", files.console)?;
        lines.set("lxc.console.size", CONSOLE_LOG)?;
        lines.set("lxc.console.buffer.size", "auto")?;
        lines.path("lxc.seccomp.profile", "", files.seccomp)?;
        for (key, value) in FIXED {
            lines.set(key, value)?;
        }
        if confine {
            lines.set("lxc.apparmor.profile", "generated")?;
            lines.set("lxc.apparmor.allow_nesting", 1)?;
        }
        for (key, value) in &self.environment {
            lines.set("lxc.environment", variable(key, value)?)?;
        }
        self.limits(&mut lines, groups)?;
        self.network(&mut lines)?;
        Ok(lines.0)
    }

    fn limits(&self, lines: &mut Lines, groups: &Hierarchies) -> Result<(), Error> {
        for setting in self.limits.settings() {
            let Some(value) = setting.value else { continue };
            let version = groups
                .controller(setting.controller)
                .ok_or(Error::NoController { controller: setting.controller })?;
            let (prefix, file) = match version {
                Version::One => ("lxc.cgroup", setting.files[0]),
                Version::Two => ("lxc.cgroup2", setting.files[1]),
            };
            if !file.is_empty() {
                lines.set(&format!("{prefix}.{file}"), value.of(version))?;
            }
        }
        Ok(())
    }

    fn network(&self, lines: &mut Lines) -> Result<(), Error> {
        let Some(Nic { bridge, hwaddr }) = &self.network else {
            return lines.set("lxc.net.0.type", "empty");
        };
        lines.set("lxc.net.0.type", "veth")?;
        lines.set("lxc.net.0.link", &bridge.0)?;
        lines.set("lxc.net.0.name", "eth0")?;
        lines.set("lxc.net.0.flags", "up")?;
        lines.set("lxc.net.0.hwaddr", hwaddr)
    }
}

/// What every instance gets.
const FIXED: &[(&str, &str)] = &[
    // What of /proc/sys is not the instance's own, the user namespace keeps from it.
    ("lxc.mount.auto", "proc:rw sys:mixed cgroup:mixed"),
    ("lxc.autodev", "1"),
    ("lxc.pty.max", "1024"),
    // No terminals besides the console: a login prompt on them would wait for nobody.
    ("lxc.tty.max", "0"),
    ("lxc.cap.drop", "mac_admin mac_override sys_time sys_module sys_rawio"),
    // The devices that LXD lends too; what they may do, the user namespace decides.
    ("lxc.mount.entry", "/dev/fuse dev/fuse none bind,create=file,optional 0 0"),
    ("lxc.mount.entry", "/dev/net/tun dev/net/tun none bind,create=file,optional 0 0"),
];

fn hostname(name: &str) -> Result<&str, Error> {
    let allowed = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if allowed { Ok(name) } else { Err(invalid("host name", name)) }
}

/// `"KEY=VALUE"`; liblxc takes the quotes off, and keeps spaces inside of them.
fn variable(key: &str, value: &str) -> Result<String, Error> {
    let allowed = !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_graphic() && !b"=\"'".contains(&byte));
    if !allowed {
        return Err(invalid("name of an environment variable", key));
    }
    Ok(format!("\"{key}={value}\""))
}

fn invalid(what: &str, value: &str) -> Error {
    // What is refused may be long, or meant to confuse a terminal.
    let value = value.chars().take(80).flat_map(char::escape_default).collect();
    Error::Invalid { what: what.to_owned(), value }
}
