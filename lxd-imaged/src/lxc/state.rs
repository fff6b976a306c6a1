//! What instances use and how they are reached, read without starting a process.

use std::net::IpAddr;

use super::cgroup::Hierarchies;
use super::monitor::{self, Process};
use super::netlink;
use super::spec::Name;
use super::{Error, Runtime};

/// The most interfaces that are told of an instance, which can make as many as it likes.
pub(super) const INTERFACES: usize = 64;
/// The most addresses that are told of an interface.
pub(super) const ADDRESSES: usize = 32;

/// Whether an instance runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does not.
    Stopped,
    /// It does.
    Running,
    /// Its processes are held where they are.
    Frozen,
}

/// An instance at this moment. What nothing on the machine counts is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Whether it runs.
    pub status: Status,
    /// Its first process, as the host numbers it; 0 if there is none at this moment.
    pub pid: i32,
    /// Bytes of memory.
    pub memory: u64,
    /// The most bytes of memory there were at once.
    pub memory_peak: u64,
    /// Bytes of swap.
    pub swap: u64,
    /// The most bytes of swap there were at once.
    pub swap_peak: u64,
    /// Nanoseconds of processor time.
    pub cpu: u64,
    /// Processes and threads; 0 where no control group counts them.
    pub processes: u64,
    /// Its interfaces, `lo` among them.
    pub network: Vec<Interface>,
}

/// A network interface of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// What the instance calls it.
    pub name: String,
    /// What the host calls its other end; empty if there is none.
    pub host_name: String,
    /// Its hardware address; empty if it has none.
    pub hwaddr: String,
    /// The longest packet, in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is `lo`, or another interface that leads nowhere.
    pub loopback: bool,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// What went through it.
    pub counters: Counters,
    /// The number of its other end, on the host.
    pub(super) peer: Option<u32>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The bits of its network.
    pub prefix: u8,
    /// How far it reaches.
    pub scope: Scope,
}

impl Address {
    /// The family of the address.
    pub fn family(&self) -> Family {
        if self.address.is_ipv4() { Family::Inet } else { Family::Inet6 }
    }
}

/// The family of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// The network the interface is on.
    Link,
    /// The instance itself.
    Local,
}

/// What went through an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub struct Counters {
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub packets_received: u64,
    pub packets_sent: u64,
    pub errors_received: u64,
    pub errors_sent: u64,
    pub packets_dropped_inbound: u64,
    pub packets_dropped_outbound: u64,
}

impl State {
    fn stopped() -> Self {
        Self {
            status: Status::Stopped,
            pid: 0,
            memory: 0,
            memory_peak: 0,
            swap: 0,
            swap_peak: 0,
            cpu: 0,
            processes: 0,
            network: Vec::new(),
        }
    }
}

impl Runtime {
    /// Whether an instance runs: a few small reads.
    pub fn status(&self, name: &Name) -> Status {
        let Ok(monitor) = self.monitor(name) else { return Status::Stopped };
        // Without a first process it is on its way up, or down, or up again.
        let init = monitor::ready(&monitor);
        let frozen = init.is_some_and(|init| Hierarchies::mounted().is_frozen(init.pid()));
        if frozen { Status::Frozen } else { Status::Running }
    }

    /// The states of instances, in the order of their names. One thread looks at all networks.
    pub async fn states(&self, names: Vec<Name>) -> Result<Vec<State>, Error> {
        let runtime = self.clone();
        // The thread enters network namespaces, so it must end and serve nobody else.
        let (sender, receiver) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("states".to_owned())
            .spawn(move || drop(sender.send(runtime.states_here(&names))))
            .map_err(|source| Error::System { what: "start a thread".to_owned(), source })?;
        receiver.await.map_err(|error| Error::System {
            what: "look at instances".to_owned(),
            source: std::io::Error::other(error),
        })
    }

    /// The state of one instance.
    pub async fn state(&self, name: &Name) -> Result<State, Error> {
        Ok(self.states(vec![name.clone()]).await?.pop().unwrap_or_else(State::stopped))
    }

    /// Leaves the calling thread in the network namespace of one of them.
    fn states_here(&self, names: &[Name]) -> Vec<State> {
        let hierarchies = Hierarchies::mounted();
        let monitors: Vec<Option<Process>> =
            names.iter().map(|name| monitor::find(&self.directory(name))).collect();
        // Before this thread goes elsewhere.
        let any = monitors.iter().any(Option::is_some);
        let host = if any { netlink::names().unwrap_or_default() } else { Vec::new() };
        let state = |monitor: Option<Process>| match monitor {
            Some(monitor) => match monitor::ready(&monitor) {
                Some(init) => running(&init, &hierarchies, &host),
                None => State { status: Status::Running, ..State::stopped() },
            },
            None => State::stopped(),
        };
        monitors.into_iter().map(state).collect()
    }
}

fn running(init: &Process, hierarchies: &Hierarchies, host: &[(u32, String)]) -> State {
    let pid = init.pid();
    let usage = hierarchies.usage(pid);
    let mut network = netlink::interfaces(init.handle()).unwrap_or_else(|error| {
        tracing::debug!(%error, pid, "cannot look at the network of an instance");
        Vec::new()
    });
    for interface in &mut network {
        let peer = host.iter().find(|(index, _)| Some(*index) == interface.peer);
        interface.host_name = peer.map(|(_, name)| name.clone()).unwrap_or_default();
    }
    State {
        status: if hierarchies.is_frozen(pid) { Status::Frozen } else { Status::Running },
        pid,
        memory: usage.memory,
        memory_peak: usage.memory_peak,
        swap: usage.swap,
        swap_peak: usage.swap_peak,
        cpu: usage.cpu,
        processes: usage.processes.unwrap_or_default(),
        network,
    }
}
