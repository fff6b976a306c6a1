//! `info NAME`: everything about one instance, for people.

use std::fmt::Write as _;

use lxd_proto::instance::{InstanceFull, Network};
use lxd_proto::time::is_unset;

use super::Named;
use crate::command::flags::ResultFormat;
use crate::command::image::info::minute;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{Table, emit, emit_bytes, human_size};

/// Shows an instance, or what its start has written.
pub(crate) async fn show(
    context: &Context,
    word: &str,
    show_log: bool,
    format: &ResultFormat,
) -> Outcome {
    let named = Named::instance(context, word)?;
    let read = named.server.get_instance_full(&named.name).await;
    let full = named.ok(read).await?;
    format.print(&full, &text(&full))?;
    if show_log && format.is_text() {
        let log = named.server.instance_log(&named.name, "lxc.log").await?;
        emit("\nLog:\n\n")?;
        emit_bytes(&log)?;
    }
    Ok(())
}

fn text(full: &InstanceFull) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut out, full);
    let _ = resources(&mut out, full);
    let _ = snapshots(&mut out, full);
    out
}

fn head(out: &mut String, full: &InstanceFull) -> std::fmt::Result {
    let instance = &full.instance;
    writeln!(out, "Name: {}", instance.name)?;
    if !instance.description.is_empty() {
        writeln!(out, "Description: {}", instance.description)?;
    }
    writeln!(out, "Status: {}", instance.status.name().to_uppercase())?;
    let ephemeral = if instance.ephemeral { " (ephemeral)" } else { "" };
    writeln!(out, "Type: {}{ephemeral}", instance.kind)?;
    writeln!(out, "Architecture: {}", instance.architecture)?;
    if !matches!(instance.location.as_str(), "" | "none") {
        writeln!(out, "Location: {}", instance.location)?;
    }
    if let Some(state) = full.state.as_ref().filter(|state| state.pid != 0) {
        writeln!(out, "PID: {}", state.pid)?;
    }
    if !is_unset(instance.created_at) {
        writeln!(out, "Created: {}", minute(instance.created_at))?;
    }
    if !is_unset(instance.last_used_at) {
        writeln!(out, "Last Used: {}", minute(instance.last_used_at))?;
    }
    Ok(())
}

fn resources(out: &mut String, full: &InstanceFull) -> std::fmt::Result {
    let Some(state) = full.state.as_ref().filter(|state| state.pid != 0) else { return Ok(()) };
    writeln!(out, "\nResources:\n  Processes: {}", state.processes)?;
    let used: Vec<_> = state.disk.iter().filter(|(_, disk)| disk.usage != 0).collect();
    if !used.is_empty() {
        writeln!(out, "  Disk usage:")?;
        for (name, disk) in used {
            writeln!(out, "    {name}: {}", size(disk.usage))?;
        }
    }
    if state.cpu.usage != 0 {
        let seconds = state.cpu.usage / 1_000_000_000;
        writeln!(out, "  CPU usage:\n    CPU usage (in seconds): {seconds}")?;
    }
    let memory = &state.memory;
    let amounts = [
        ("Memory (current)", memory.usage),
        ("Memory (peak)", memory.usage_peak),
        ("Swap (current)", memory.swap_usage),
        ("Swap (peak)", memory.swap_usage_peak),
    ];
    if amounts.iter().any(|(_, bytes)| *bytes != 0) {
        writeln!(out, "  Memory usage:")?;
        for (name, bytes) in amounts.iter().filter(|(_, bytes)| *bytes != 0) {
            writeln!(out, "    {name}: {}", size(*bytes))?;
        }
    }
    let Some(networks) = state.network.as_ref().filter(|all| !all.is_empty()) else {
        return Ok(());
    };
    writeln!(out, "  Network usage:")?;
    networks.iter().try_for_each(|(name, network)| interface(out, name, network))
}

fn interface(out: &mut String, name: &str, network: &Network) -> std::fmt::Result {
    writeln!(out, "    {name}:\n      Type: {}", network.kind)?;
    writeln!(out, "      State: {}", network.state.to_uppercase())?;
    if !network.host_name.is_empty() {
        writeln!(out, "      Host interface: {}", network.host_name)?;
    }
    if !network.hwaddr.is_empty() {
        writeln!(out, "      MAC address: {}", network.hwaddr)?;
    }
    if network.mtu != 0 {
        writeln!(out, "      MTU: {}", network.mtu)?;
    }
    let counters = &network.counters;
    writeln!(out, "      Bytes received: {}", size(counters.bytes_received))?;
    writeln!(out, "      Bytes sent: {}", size(counters.bytes_sent))?;
    writeln!(out, "      Packets received: {}", counters.packets_received)?;
    writeln!(out, "      Packets sent: {}", counters.packets_sent)?;
    writeln!(out, "      IP addresses:")?;
    for address in &network.addresses {
        let (family, scope) = (&address.family, &address.scope);
        writeln!(out, "        {family}:  {}/{} ({scope})", address.address, address.netmask)?;
    }
    Ok(())
}

fn size(bytes: i64) -> String {
    human_size(u64::try_from(bytes).unwrap_or_default())
}

fn snapshots(out: &mut String, full: &InstanceFull) -> std::fmt::Result {
    let Some(snapshots) = full.snapshots.as_ref().filter(|all| !all.is_empty()) else {
        return Ok(());
    };
    let mut table = Table::new(&["NAME", "TAKEN AT", "EXPIRES AT", "STATEFUL"]);
    for snapshot in snapshots {
        let time = |time| if is_unset(time) { String::new() } else { minute(time) };
        table.rows.push(vec![
            snapshot.name.clone(),
            time(snapshot.created_at),
            time(snapshot.expires_at),
            if snapshot.stateful { "YES" } else { "NO" }.to_owned(),
        ]);
    }
    write!(out, "\nSnapshots:\n{}", table.boxed(true))
}

#[cfg(test)]
mod tests {
    use super::super::list::tests::sample;
    use super::*;

    #[test]
    fn info_is_lxcs() {
        let expected = "\
Name: c1
Status: RUNNING
Type: container
Architecture: x86_64
PID: 25178
Created: 2026/11/24 01:57 UTC

Resources:
  Processes: 2
  CPU usage:
    CPU usage (in seconds): 2
  Memory usage:
    Memory (current): 624.00KiB
    Memory (peak): 1.07MiB
  Network usage:
    eth0:
      Type: broadcast
      State: UP
      Host interface: veth1
      MAC address: 00:16:3e:00:00:01
      MTU: 1500
      Bytes received: 0B
      Bytes sent: 0B
      Packets received: 0
      Packets sent: 0
      IP addresses:
        inet:  10.0.3.7/24 (global)
        inet6:  fd00::7/64 (global)
        inet6:  fe80::7/64 (link)
";
        assert!(text(&sample()).starts_with(expected), "{}", text(&sample()));
    }
}
