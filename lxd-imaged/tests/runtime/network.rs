//! Names, addresses, and the bridge.

use lxd_imaged::lxc::{Bridge, Error, HardwareAddress, Name, Nic, Scope};

use std::process::Command as Program;

use crate::machine::Machine;

#[test]
fn names_that_could_mean_more_are_refused() {
    let long = "a".repeat(64);
    for name in ["", "1a", "-a", "a-", "a b", "a\nb", "../a", "a.b", "ä", long.as_str()] {
        assert!(Name::new(name).is_err(), "{name:?}");
    }
    for name in ["a", "c1", "My-instance-2"] {
        assert_eq!(Name::new(name).unwrap().as_str(), name);
    }
    for name in ["", "..", "br0\nlxc.hook.start = x", "br/0", "a-name-too-long-for-it", "a b"] {
        assert!(Bridge::new(name).is_err(), "{name:?}");
    }
    let odd =
        ["", "00:16:3e:00:00", "00:16:3e:00:00:0g", "00:16:3e:00:00:00:00", "01:00:00:00:00:00"];
    for address in
        odd.into_iter().chain(["+0:16:3e:00:00:01", "00:00:00:00:00:00", "00:16:3e:0:0:1\n"])
    {
        assert!(HardwareAddress::new(address).is_err(), "{address:?}");
    }
    let address = HardwareAddress::new("00:16:3E:aa:bb:cc").unwrap();
    assert_eq!(address.to_string(), "00:16:3e:aa:bb:cc");
    assert_ne!(HardwareAddress::random(), HardwareAddress::random());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_bridge_there_is_only_lo() {
    let machine = Machine::new();
    let name = machine.started("c1").await;
    machine.shell(&name, "ip link set lo up").await;
    let state = machine.runtime.state(&name).await.unwrap();
    let [lo] = state.network.as_slice() else { panic!("{:?}", state.network) };
    assert!(lo.loopback && lo.up && lo.name == "lo" && lo.hwaddr.is_empty(), "{lo:?}");
    let address = lo.addresses.iter().find(|address| address.address.is_ipv4()).unwrap();
    assert_eq!((address.address.to_string().as_str(), address.prefix), ("127.0.0.1", 8));
    assert_eq!(address.scope, Scope::Local);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_missing_is_the_reason_given() {
    let machine = Machine::new();
    let mut spec = machine.prepare("c1");
    let bridge = Bridge::new("no-such-bridge").unwrap();
    spec.network = Some(Nic { bridge, hwaddr: HardwareAddress::random() });
    let refused = machine.runtime.start(&spec).await.unwrap_err();
    assert!(matches!(refused, Error::Start { .. }), "{refused}");
    assert!(refused.to_string().contains("no-such-bridge"), "{refused}");
}

/// Says that a test runs where it may change the network.
const ALONE: &str = "LXD_IMAGED_TEST_ALONE";

/// Runs a test of this program again, in network and mount namespaces of its own, with a bridge.
///
/// No control groups are mounted there.
fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let prepare = "mount -t sysfs sysfs /sys && busybox brctl addbr testbr0 \
                   && busybox ip address add 10.177.0.1/24 dev testbr0 \
                   && busybox ip link set testbr0 up && exec \"$@\"";
    let outcome = Program::new("unshare")
        .args(["--net", "--mount", "sh", "-c", prepare, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let (out, errors) =
        (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    assert!(outcome.status.success(), "{out}{errors}");
    assert!(out.contains("1 passed"), "{out}{errors}");
    false
}

#[test]
fn an_instance_on_a_bridge_shows_its_addresses() {
    if !alone("network::an_instance_on_a_bridge_shows_its_addresses") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let machine = Machine::new();
        let mut spec = machine.prepare("c1");
        let hwaddr = HardwareAddress::random();
        spec.network = Some(Nic { bridge: Bridge::new("testbr0").unwrap(), hwaddr });
        machine.runtime.start(&spec).await.unwrap();
        let script = "ip address add 10.177.0.2/24 dev eth0; ping -c 1 -W 10 10.177.0.1";
        machine.shell(&spec.name, script).await;

        let state = machine.runtime.state(&spec.name).await.unwrap();
        let eth0 = state.network.iter().find(|interface| interface.name == "eth0").unwrap();
        assert!(eth0.up && !eth0.loopback && eth0.mtu == 1500, "{eth0:?}");
        assert_eq!(eth0.hwaddr, hwaddr.to_string());
        let address = eth0.addresses.iter().find(|one| one.address.is_ipv4()).unwrap();
        assert_eq!((address.address.to_string().as_str(), address.prefix), ("10.177.0.2", 24));
        assert_eq!(address.scope, Scope::Global);
        assert!(eth0.counters.bytes_sent > 0 && eth0.counters.packets_received > 0, "{eth0:?}");
        let plugged = std::path::Path::new("/sys/class/net/testbr0/brif").join(&eth0.host_name);
        assert!(!eth0.host_name.is_empty() && plugged.exists(), "{eth0:?}");

        machine.runtime.kill(&spec.name).await.unwrap();
        assert!(!plugged.exists(), "the interface is left behind");
    });
}
