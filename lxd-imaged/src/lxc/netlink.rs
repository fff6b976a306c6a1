//! Interfaces and addresses of a network namespace, asked of the kernel.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::ThreadNameSpaceType;

use super::state::{ADDRESSES, Address, Counters, INTERFACES, Interface, Scope};

const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const HEADER: usize = 16;
/// The most messages of an answer that are looked at; a namespace may hold many more interfaces.
const MESSAGES: usize = 4096;
/// One part of an answer: the kernel makes them no longer.
const PART: usize = 64 << 10;

const FLAG_UP: u32 = 1;
const FLAG_LOOPBACK: u32 = 8;

/// Moves this thread into the network namespace of a process and looks around.
pub(super) fn interfaces(process: &OwnedFd) -> io::Result<Vec<Interface>> {
    let network = ThreadNameSpaceType::NETWORK;
    rustix::thread::move_into_thread_name_spaces(process.as_fd(), network)?;
    let socket = socket()?;
    let mut found: Vec<(u32, Interface)> = Vec::new();
    dump(&socket, GET_LINK, |message| {
        if found.len() < INTERFACES {
            found.extend(link(message));
        }
    })?;
    dump(&socket, GET_ADDRESS, |message| {
        let Some((index, address)) = address(message) else { return };
        if let Some((_, interface)) = found.iter_mut().find(|(one, _)| *one == index)
            && interface.addresses.len() < ADDRESSES
        {
            interface.addresses.push(address);
        }
    })?;
    Ok(found.into_iter().map(|(_, interface)| interface).collect())
}

/// Numbers and names of the interfaces where this thread is.
pub(super) fn names() -> io::Result<Vec<(u32, String)>> {
    let mut names = Vec::new();
    dump(&socket()?, GET_LINK, |message| {
        names.extend(link(message).map(|(index, interface)| (index, interface.name)));
    })?;
    Ok(names)
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let family = AddressFamily::NETLINK;
    // The protocol with number 0 is the one about interfaces.
    let socket = rustix::net::socket_with(family, SocketType::RAW, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(2)))?;
    Ok(socket)
}

/// Asks for all of a kind; `each` gets the messages without their headers.
fn dump(socket: &OwnedFd, kind: u16, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let length: u32 = 36;
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    // Sequence and port, then the rest: every family, every interface.
    request.resize(length as usize, 0);
    rustix::net::send(socket, &request, SendFlags::empty())?;
    let mut buffer = vec![0; PART];
    let mut seen = 0;
    while seen < MESSAGES {
        let (read, _) = rustix::net::recv(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = &buffer[..read];
        while rest.len() >= HEADER {
            let (Some(length), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) else { break };
            let length = length as usize;
            let Some(body) = rest.get(HEADER..length) else { break };
            match kind {
                DONE => return Ok(()),
                ERROR => return Err(io::Error::other("the kernel refused to list the network")),
                _ => each(body),
            }
            seen += 1;
            rest = rest.get(aligned(length)..).unwrap_or_default();
        }
        if read == 0 {
            break;
        }
    }
    Ok(())
}

/// An interface and its number.
fn link(message: &[u8]) -> Option<(u32, Interface)> {
    let index = u32_at(message, 4)?;
    let flags = u32_at(message, 8)?;
    let mut interface = Interface {
        up: flags & FLAG_UP != 0,
        loopback: flags & FLAG_LOOPBACK != 0,
        ..Interface::default()
    };
    for (kind, value) in attributes(message.get(16..)?) {
        match kind {
            1 if !interface.loopback => interface.hwaddr = hardware_address(value),
            3 => interface.name = text(value),
            4 => interface.mtu = u32_at(value, 0)?,
            // For a veth, the number of the other end.
            5 => interface.peer = u32_at(value, 0),
            23 => interface.counters = counters(value),
            _ => {}
        }
    }
    (!interface.name.is_empty()).then_some((index, interface))
}

/// An address and the number of its interface.
fn address(message: &[u8]) -> Option<(u32, Address)> {
    let [family, prefix, _, scope, ..] = *message else { return None };
    let index = u32_at(message, 4)?;
    let attributes: Vec<_> = attributes(message.get(8..)?).collect();
    // With a peer, the interface's own address is the second kind.
    let value = [2, 1].iter().find_map(|wanted| {
        attributes.iter().find(|(kind, _)| kind == wanted).map(|(_, value)| *value)
    })?;
    let address = match i32::from(family) {
        libc::AF_INET => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?)),
        libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => return None,
    };
    let scope = match scope {
        253 => Scope::Link,
        254 => Scope::Local,
        _ => Scope::Global,
    };
    Some((index, Address { address, prefix, scope }))
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        // The upper bits say how the value is to be read.
        let kind = u16_at(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn counters(value: &[u8]) -> Counters {
    let number = |at: usize| {
        let bytes = value.get(at * 8..at * 8 + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    };
    Counters {
        packets_received: number(0),
        packets_sent: number(1),
        bytes_received: number(2),
        bytes_sent: number(3),
        errors_received: number(4),
        errors_sent: number(5),
        packets_dropped_inbound: number(6),
        packets_dropped_outbound: number(7),
    }
}

fn hardware_address(value: &[u8]) -> String {
    let bytes: Vec<_> = value.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

/// A name as the kernel has it, ended by a zero; an instance chooses it, so nothing odd passes.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    let text = String::from_utf8_lossy(&value[..end]);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{attributes, link, names};

    #[test]
    fn this_machine_has_lo() {
        let names = names().unwrap();
        assert!(names.iter().any(|(_, name)| name == "lo"), "{names:?}");
    }

    #[test]
    fn broken_messages_end_the_list() {
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[255, 0, 1, 0, 9]).count(), 0);
        assert_eq!(attributes(&[5, 0, 1, 0, 9]).count(), 1);
        assert!(link(&[0; 10]).is_none());
    }
}
