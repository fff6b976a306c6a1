//! Instances as the runtime knows them, in the words of the protocol.

use std::collections::BTreeMap;
use std::str::FromStr;

use lxd_proto::instance::settings::{self, Allowance, MemoryLimit, Processors};
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
///
/// # Errors
/// A value that means nothing.
pub(super) fn limits(config: &Config) -> Result<lxc::Limits> {
    let mut limits = lxc::Limits {
        memory: parsed(config, key::LIMIT_MEMORY)?.map(memory),
        processes: text(config, key::LIMIT_PROCESSES)
            .map(|text| {
                settings::count(text).map_err(|wanted| wrong(key::LIMIT_PROCESSES, &wanted))
            })
            .transpose()?,
        ..lxc::Limits::default()
    };
    match parsed(config, key::LIMIT_CPU)? {
        Some(Processors::Count(count)) => limits.cpus = Some(count),
        Some(Processors::These(ranges)) => limits.pinned = ranges,
        None => {}
    }
    match parsed(config, key::LIMIT_CPU_ALLOWANCE)? {
        Some(Allowance::Percent(part)) => limits.weight = Some(part),
        Some(Allowance::Time { of, each }) => {
            let [time, period] = [of, each].map(|millis| u64::from(millis) * 1000);
            limits.quota = Some(lxc::Quota { time, period });
        }
        None => {}
    }
    Ok(limits)
}

fn text<'a>(config: &'a Config, key: &str) -> Option<&'a str> {
    config.get(key).map(String::as_str).filter(|text| !text.is_empty())
}

fn parsed<T: FromStr<Err = String>>(config: &Config, key: &str) -> Result<Option<T>> {
    text(config, key)
        .map(|text| text.parse().map_err(|wanted: String| wrong(key, &wanted)))
        .transpose()
}

fn wrong(key: &str, wanted: &str) -> Error {
    Error::BadRequest(format!("{key}: {wanted}"))
}

/// Bytes; a part is one of what this machine has.
fn memory(limit: MemoryLimit) -> u64 {
    match limit {
        MemoryLimit::Bytes(bytes) => bytes,
        MemoryLimit::Percent(part) => {
            let total = rustix::system::sysinfo();
            #[expect(
                clippy::useless_conversion,
                reason = "the kernel's word, wide here and narrow elsewhere"
            )]
            let total = u64::from(total.totalram).saturating_mul(u64::from(total.mem_unit));
            total / 100 * u64::from(part)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_configuration() {
        let of = |key: &str, text: &str| limits(&[(key.to_owned(), text.to_owned())].into());
        assert_eq!(of(key::LIMIT_MEMORY, "64MiB").unwrap().memory, Some(64 << 20));
        let half = of(key::LIMIT_MEMORY, "50%").unwrap().memory.unwrap();
        let whole = of(key::LIMIT_MEMORY, "100%").unwrap().memory.unwrap();
        assert!(half > 1 << 20 && half * 2 <= whole && whole - half * 2 < 100, "{half} {whole}");
        assert!(of(key::LIMIT_MEMORY, "5XB").is_err());
        assert_eq!(of(key::LIMIT_CPU, "2").unwrap().cpus, Some(2));
        assert_eq!(of(key::LIMIT_CPU, "0-1").unwrap().pinned, [(0, 1)]);
        assert_eq!(of(key::LIMIT_CPU_ALLOWANCE, "20%").unwrap().weight, Some(20));
        let quota = lxc::Quota { time: 25_000, period: 100_000 };
        assert_eq!(of(key::LIMIT_CPU_ALLOWANCE, "25ms/100ms").unwrap().quota, Some(quota));
        assert_eq!(of(key::LIMIT_CPU, "").unwrap(), lxc::Limits::default());
    }
}
