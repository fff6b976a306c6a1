//! Instances as the runtime knows them, in the words of the protocol.

use std::collections::BTreeMap;

use lxd_proto::instance::{
    Address, Config, Counters, Cpu, Disk, InstanceName, InstanceState, InstanceStatus, Memory,
    Network, key,
};

use crate::app::App;
use crate::error::{Error, Result};
use crate::lxc;

/// The name as the runtime takes it; both follow LXD's rules.
pub(super) fn named(name: &InstanceName) -> Result<lxc::Name> {
    Ok(lxc::Name::new(name.as_str())?)
}

/// Whether an instance runs.
pub(super) fn status(app: &App, name: &InstanceName) -> InstanceStatus {
    match named(name).map(|name| app.runtime.status(&name)) {
        Ok(status) => spoken(status),
        Err(_) => InstanceStatus::Stopped,
    }
}

/// Whether nothing of an instance runs.
pub(super) fn is_stopped(app: &App, name: &InstanceName) -> bool {
    status(app, name) == InstanceStatus::Stopped
}

fn spoken(status: lxc::Status) -> InstanceStatus {
    match status {
        lxc::Status::Stopped => InstanceStatus::Stopped,
        lxc::Status::Running => InstanceStatus::Running,
        lxc::Status::Frozen => InstanceStatus::Frozen,
    }
}

/// How several instances run, in their order; one look at all of them.
pub(super) async fn states(app: &App, names: &[&InstanceName]) -> Result<Vec<InstanceState>> {
    let names = names.iter().map(|name| named(name)).collect::<Result<Vec<_>>>()?;
    Ok(app.runtime.states(names).await?.into_iter().map(state).collect())
}

fn state(state: lxc::State) -> InstanceState {
    let status = spoken(state.status);
    if status == InstanceStatus::Stopped {
        return InstanceState::down(status);
    }
    InstanceState {
        status,
        status_code: status.code(),
        disk: BTreeMap::<String, Disk>::new(),
        memory: Memory {
            usage: number(state.memory),
            usage_peak: number(state.memory_peak),
            swap_usage: number(state.swap),
            swap_usage_peak: number(state.swap_peak),
        },
        network: Some(state.network.into_iter().map(|it| (it.name.clone(), network(it))).collect()),
        pid: i64::from(state.pid),
        processes: number(state.processes),
        cpu: Cpu { usage: number(state.cpu) },
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn network(interface: lxc::Interface) -> Network {
    let counters = interface.counters;
    Network {
        addresses: interface.addresses.into_iter().map(address).collect(),
        counters: Counters {
            bytes_received: number(counters.bytes_received),
            bytes_sent: number(counters.bytes_sent),
            packets_received: number(counters.packets_received),
            packets_sent: number(counters.packets_sent),
            errors_received: number(counters.errors_received),
            errors_sent: number(counters.errors_sent),
            packets_dropped_outbound: number(counters.packets_dropped_outbound),
            packets_dropped_inbound: number(counters.packets_dropped_inbound),
        },
        hwaddr: interface.hwaddr,
        host_name: interface.host_name,
        mtu: i64::from(interface.mtu),
        state: if interface.up { "up" } else { "down" }.into(),
        kind: if interface.loopback { "loopback" } else { "broadcast" }.into(),
    }
}

fn address(address: lxc::Address) -> Address {
    let family = match address.family() {
        lxc::Family::Inet => "inet",
        lxc::Family::Inet6 => "inet6",
    };
    let scope = match address.scope {
        lxc::Scope::Global => "global",
        lxc::Scope::Link => "link",
        lxc::Scope::Local => "local",
    };
    Address {
        family: family.into(),
        address: address.address.to_string(),
        netmask: address.prefix.to_string(),
        scope: scope.into(),
    }
}

/// What an instance may use, by its configuration.
pub(super) fn limits(config: &Config) -> Result<lxc::Limits> {
    let text = |key: &str| config.get(key).map(String::as_str).filter(|text| !text.is_empty());
    let wrong = |key: &str, what: &str| Error::BadRequest(format!("{key}: {what}"));
    let memory = match text(key::LIMIT_MEMORY) {
        None => None,
        Some(text) => Some(
            bytes(text).ok_or_else(|| wrong(key::LIMIT_MEMORY, "a size is like 512MiB or 2GB"))?,
        ),
    };
    let cpus = match text(key::LIMIT_CPU) {
        None => None,
        Some(text) => Some(
            text.parse()
                .ok()
                .filter(|count| *count > 0)
                .ok_or_else(|| wrong(key::LIMIT_CPU, "give a number of processors"))?,
        ),
    };
    let processes = match text(key::LIMIT_PROCESSES) {
        None => None,
        Some(text) => Some(
            text.parse()
                .ok()
                .filter(|count| *count > 0)
                .ok_or_else(|| wrong(key::LIMIT_PROCESSES, "give a number of processes"))?,
        ),
    };
    Ok(lxc::Limits { memory, cpus, processes })
}

/// A size as LXD writes it: `64MiB`, `2GB`, `1024`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_with_units_or_refused() {
        let of = |key: &str, text: &str| limits(&[(key.to_owned(), text.to_owned())].into());
        for (text, size) in
            [("1024", 1024), ("64MiB", 64 << 20), ("2GB", 2_000_000_000), ("1 GiB", 1 << 30)]
        {
            assert_eq!(of(key::LIMIT_MEMORY, text).unwrap().memory, Some(size), "{text}");
        }
        for text in ["x", "5XB", "99999999999GiB", "0", "-1", "50%"] {
            assert!(of(key::LIMIT_MEMORY, text).is_err(), "{text}");
        }
        assert_eq!(of(key::LIMIT_CPU, "2").unwrap().cpus, Some(2));
        assert!(of(key::LIMIT_CPU, "0-1").is_err());
        assert_eq!(of(key::LIMIT_CPU, "").unwrap(), lxc::Limits::default());
    }
}
