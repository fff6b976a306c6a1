//! The network address the daemon listens on: how it is spelled, bound, moved and shown.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lxd_proto::config::ListenAddress;
use lxd_proto::server::DEFAULT_PORT;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::sync::watch;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long a host name may take to resolve.
const LOOKUP: Duration = Duration::from_secs(10);

/// A socket that listens; it may still wait to be served.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub listener: TcpListener,
    /// Where it listens, with the real port.
    pub local: SocketAddr,
}

impl Bound {
    /// Stops listening at once, whoever still holds the socket. Open connections go on.
    fn close(&self) {
        // Takes the socket out of the listening state; closing would wait for the last holder.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

/// The daemon's one network listener: what is bound now, and who wants to hear of a change.
#[derive(Debug)]
pub struct Network {
    current: watch::Sender<Option<Arc<Bound>>>,
    /// What a bind that failed at start is still tried for.
    awaited: Mutex<Option<String>>,
}

impl Default for Network {
    fn default() -> Self {
        Self { current: watch::Sender::new(None), awaited: Mutex::new(None) }
    }
}

/// A new listener that has been bound and does not count yet.
#[derive(Debug)]
#[must_use = "keep it with `Network::settle`, or go back with `Network::undo`"]
pub struct Move {
    new: Option<Bound>,
    /// The old listener had to go first, because it was in the way.
    freed: Option<SocketAddr>,
}

impl Network {
    /// Follows the listener: what is there now, and every change.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<Bound>>> {
        self.current.subscribe()
    }

    /// Binds `address` (empty: nothing) without letting the present listener go, unless that one
    /// holds the same port.
    pub async fn prepare(&self, address: &str) -> io::Result<Move> {
        if address.is_empty() {
            return Ok(Move { new: None, freed: None });
        }
        let target = resolve(address).await?;
        let old = self.current.borrow().clone();
        match bind(target) {
            Ok(new) => Ok(Move { new: Some(new), freed: None }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let in_the_way = old.filter(|old| old.local.port() == target.port());
                let Some(old) = in_the_way else { return Err(error) };
                old.close();
                match bind(target) {
                    Ok(new) => Ok(Move { new: Some(new), freed: Some(old.local) }),
                    Err(error) => {
                        self.restore(old.local);
                        Err(error)
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The prepared listener is the listener now; the old one is closed.
    pub fn settle(&self, prepared: Move) {
        *self.awaited.lock() = None;
        self.put(prepared.new);
    }

    /// Nothing has changed after all.
    pub fn undo(&self, prepared: Move) {
        drop(prepared.new);
        if let Some(address) = prepared.freed {
            self.restore(address);
        }
    }

    fn restore(&self, address: SocketAddr) {
        match bind(address) {
            Ok(bound) => self.put(Some(bound)),
            Err(error) => tracing::error!(%address, %error, "the network listener is lost"),
        }
    }

    fn put(&self, new: Option<Bound>) {
        let address = new.as_ref().map(|bound| tracing::field::display(bound.local));
        tracing::info!(address, "the network listener is settled");
        if let Some(old) = self.current.send_replace(new.map(Arc::new)) {
            old.close();
        }
    }

    /// Opens the stored address. Where that fails it is tried again, less and less often, until
    /// it works or another address is configured: an interface may come up after the daemon.
    pub async fn open(&self, address: &str) {
        *self.awaited.lock() = Some(address.to_owned());
        let mut pause = Duration::from_millis(500);
        loop {
            let error = match self.prepare(address).await {
                Ok(prepared) => {
                    if self.awaited.lock().as_deref() == Some(address) {
                        self.settle(prepared);
                    }
                    return;
                }
                Err(error) => error,
            };
            tracing::warn!(address, %error, "cannot listen on the network yet; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(30));
            if self.awaited.lock().as_deref() != Some(address) {
                return;
            }
        }
    }

    /// `host:port` of everywhere the server can be reached; empty when it listens nowhere.
    pub fn addresses(&self) -> Vec<String> {
        let Some(bound) = self.current.borrow().clone() else { return Vec::new() };
        let ip = bound.local.ip();
        if !ip.is_unspecified() {
            return vec![bound.local.to_string()];
        }
        let mut all = interfaces();
        if ip.is_ipv4() {
            all.retain(IpAddr::is_ipv4);
        }
        if all.is_empty() {
            // Better than nothing for who runs on this machine.
            all.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        all.into_iter().map(|ip| SocketAddr::new(ip, bound.local.port()).to_string()).collect()
    }
}

/// The socket address that `text` stands for; a name resolves to its IPv4 address first, as in Go.
async fn resolve(text: &str) -> io::Result<SocketAddr> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidInput, reason);
    let address: ListenAddress = text.parse().map_err(invalid)?;
    let port = address.port.unwrap_or(DEFAULT_PORT);
    if address.host.is_empty() {
        return Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
    }
    if let Ok(ip) = address.host.parse() {
        return Ok(SocketAddr::new(ip, port));
    }
    let found =
        tokio::time::timeout(LOOKUP, lookup_host((address.host.as_str(), port))).await.map_err(
            |_| invalid(format!("the host name \"{}\" does not resolve", address.host)),
        )??;
    let found: Vec<SocketAddr> = found.collect();
    let best = found.iter().find(|found| found.is_ipv4()).or(found.first());
    best.copied().ok_or_else(|| invalid(format!("\"{}\" has no address", address.host)))
}

fn bind(address: SocketAddr) -> io::Result<Bound> {
    let everywhere = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let listener = match bind_one(address) {
        // No IPv6 on this machine: everywhere is then 0.0.0.0.
        Err(error) if everywhere && error.kind() != io::ErrorKind::AddrInUse => {
            bind_one(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
                .map_err(|_| error)?
        }
        other => other?,
    };
    let local = listener.local_addr()?;
    Ok(Bound { listener, local })
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What is counted as one client: an IPv4 address, or the 2^64 IPv6 addresses around one, which
/// whoever has one of them has.
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Addresses of this machine that others can reach: neither loopback nor link-local.
fn interfaces() -> Vec<IpAddr> {
    let v4 = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let v6 = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mut all: Vec<IpAddr> = local_v4(&v4).into_iter().map(IpAddr::V4).collect();
    all.extend(global_v6(&v6).into_iter().map(IpAddr::V6));
    all
}

/// The routing trie lists each address of the machine as a local host route.
fn local_v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = last
            && !address.is_loopback()
            && !address.is_link_local()
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

fn global_v6(table: &str) -> Vec<Ipv6Addr> {
    let address = |line: &str| {
        let mut fields = line.split_whitespace();
        let digits = u128::from_str_radix(fields.next()?, 16).ok()?;
        // Interface number, prefix length, then the scope: 00 is global.
        (fields.nth(2)? == "00").then(|| Ipv6Addr::from_bits(digits))
    };
    table.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(network: &Network) -> SocketAddr {
        network.current.borrow().as_ref().unwrap().local
    }

    #[tokio::test]
    async fn a_listener_moves_only_to_where_it_can() {
        let network = Network::default();
        network.settle(network.prepare("127.0.0.1:0").await.unwrap());
        let first = local(&network);
        let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = network.prepare(&busy.local_addr().unwrap().to_string()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(network.prepare("203.0.113.1:1").await.is_err(), "not an address of ours");
        assert_eq!(local(&network), first, "a failed move changes nothing");
        tokio::net::TcpStream::connect(first).await.unwrap();

        // The same port on more addresses: the old listener is in the way.
        let everywhere = format!("0.0.0.0:{}", first.port());
        let prepared = network.prepare(&everywhere).await.unwrap();
        network.undo(prepared);
        assert_eq!(local(&network), first, "undone");
        tokio::net::TcpStream::connect(first).await.unwrap();
        network.settle(network.prepare(&everywhere).await.unwrap());
        assert_eq!(local(&network).to_string(), everywhere);
        tokio::net::TcpStream::connect(first).await.unwrap();

        network.settle(network.prepare("").await.unwrap());
        assert!(network.addresses().is_empty());
        assert!(tokio::net::TcpStream::connect(first).await.is_err(), "closed at once");
        assert!(std::net::TcpListener::bind(first).is_ok());
    }

    #[tokio::test]
    async fn addresses_are_spelled_as_lxd_accepts_them() {
        for (text, expected) in [
            (":1", "[::]:1"),
            ("[::]", "[::]:8443"),
            ("[::1]:2", "[::1]:2"),
            ("::1", "[::1]:8443"),
            ("127.0.0.1", "127.0.0.1:8443"),
            ("0.0.0.0:3", "0.0.0.0:3"),
            ("localhost:4", "127.0.0.1:4"),
        ] {
            assert_eq!(resolve(text).await.unwrap().to_string(), expected);
        }
    }

    #[test]
    fn addresses_of_interfaces_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 10.0.0.5\n        /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\nLocal:\n     |-- 10.0.0.5\n        /32 host LOCAL\n";
        assert_eq!(local_v4(trie), [Ipv4Addr::new(10, 0, 0, 5)]);
        let table = "fe800000000000000000000000000001 02 40 20 80 eth0\n20010db8000000000000000000000002 02 40 00 80 eth0\n00000000000000000000000000000001 01 80 10 80 lo\n";
        assert_eq!(global_v6(table), ["2001:db8::2".parse::<Ipv6Addr>().unwrap()]);
    }
}
