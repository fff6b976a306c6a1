//! The network listener: HTTPS, open to everyone, who is then told apart by their certificate.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use lxd_proto::event::Requestor;
use parking_lot::Mutex;
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client_auth::AnyCertificate;
use super::connection::{self, Peer};
use super::eager::Eager;
use super::prompt::Prompt;
use crate::app::{App, Caller, Client};
use crate::catalog::Viewer;
use crate::certificate::Identities;
use crate::network::{Bound, neighbourhood};
use crate::trust::Shown;

/// Connections that may be open at once.
const MAX_CONNECTIONS: usize = 4096;
/// Connections more whose handshake has not ended; what comes beyond that ends the oldest one.
const MAX_UNFINISHED: usize = 1024;
/// Of all of these, how many one address may hold.
const MAX_PER_ADDRESS: usize = 1024;
/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long to let others end after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a client may leave what was sent to it unread or unacknowledged, in milliseconds.
const UNREAD: u32 = 300_000;
/// How long a connection is silent before the kernel asks whether the client is still there.
const KEEPALIVE: Duration = Duration::from_mins(1);
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// Encrypted bytes that wait for the socket at most: what one system call sends.
const SEND_BUFFER: usize = 256 << 10;

/// What is said to a client that speaks plain HTTP here; Go's words, which clients look for.
const PLAIN_HTTP: &[u8] = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// How this server does TLS: 1.3 and 1.2, whatever certificate a client has, or none.
pub fn config(identities: Arc<Identities>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(AnyCertificate(provider)))
        .with_cert_resolver(identities);
    // Websockets are HTTP/1.1 only, and so are LXD's own clients.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Clients that come again skip the signatures; nothing is kept here for it.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// Serves whatever `app.network` listens on until `shutdown` is cancelled, then waits for the
/// open connections.
pub async fn serve(
    app: Arc<App>,
    router: Router,
    shutdown: CancellationToken,
) -> Result<(), rustls::Error> {
    let listening = Listening {
        acceptor: TlsAcceptor::from(Arc::new(config(app.identity.clone())?)),
        router,
        shutdown: shutdown.clone(),
        connections: TaskTracker::new(),
        places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        unfinished: Arc::default(),
        crowd: Arc::default(),
    };
    let mut changes = app.network.follow();
    // Handlers hold the daemon's parts; the listener must not hold them at the end.
    drop(app);
    loop {
        let bound = changes.borrow_and_update().clone();
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = changes.changed() => if changed.is_err() { break },
            () = listening.accept(bound) => {}
        }
    }
    listening.connections.close();
    listening.connections.wait().await;
    Ok(())
}

struct Listening {
    acceptor: TlsAcceptor,
    router: Router,
    shutdown: CancellationToken,
    connections: TaskTracker,
    places: Arc<Semaphore>,
    unfinished: Arc<Unfinished>,
    crowd: Arc<Crowd>,
}

impl Listening {
    /// Accepts for ever, or waits for ever when there is nothing to accept from.
    async fn accept(&self, bound: Option<Arc<Bound>>) {
        let Some(bound) = bound else { return std::future::pending().await };
        loop {
            match bound.listener.accept().await {
                Ok((stream, address)) => {
                    // One address too often: closed without a word.
                    let Some(guest) = self.crowd.enter(address.ip()) else { continue };
                    let serve = welcome(
                        stream,
                        address,
                        self.acceptor.clone(),
                        self.router.clone(),
                        self.shutdown.clone(),
                        (self.unfinished.enter(), self.places.clone()),
                    );
                    self.connections.spawn(Eager::new(async move {
                        if let Err(error) = serve.await {
                            tracing::debug!(%address, %error, "no connection came about");
                        }
                        drop(guest);
                    }));
                }
                Err(error) => {
                    // Out of file descriptors, or the listener has just been moved.
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One connection: handshake, who it is, requests.
async fn welcome(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    shutdown: CancellationToken,
    (newcomer, places): (Newcomer, Arc<Semaphore>),
) -> io::Result<()> {
    tune(&stream)?;
    let handshake = async {
        let mut first = [0];
        match stream.peek(&mut first).await? {
            0 => return Ok(None),
            _ if first[0] != TLS_HANDSHAKE => {
                refuse_plain(stream).await?;
                return Ok(None);
            }
            _ => {}
        }
        let stream = acceptor.accept(stream).await?;
        // Only who has shaken hands takes a place.
        let place = places.acquire_owned().await.map_err(io::Error::other)?;
        Ok::<_, io::Error>(Some((stream, place)))
    };
    let welcomed = tokio::select! {
        welcomed = tokio::time::timeout(HANDSHAKE, handshake) => welcomed??,
        () = newcomer.pushed_out.cancelled() => None,
    };
    drop(newcomer);
    let Some((mut stream, place)) = welcomed else { return Ok(()) };
    let (_, session) = stream.get_mut();
    session.set_buffer_limit(Some(SEND_BUFFER));
    // Only the first certificate of a chain is proven to be the client's own.
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    let certificate = leaf.and_then(|der| Shown::from_der(der).ok());
    let address = canonical(address);
    let requestor = Requestor {
        username: certificate.as_ref().map(|it| it.fingerprint.to_string()).unwrap_or_default(),
        protocol: "tls".into(),
        address: address.to_string(),
    };
    let peer = Peer {
        caller: Caller { viewer: Viewer::Stranger, requestor },
        client: Some(Arc::new(Client { address, certificate })),
        outbox: None,
    };
    connection::serve(Prompt::new(stream), router, peer, shutdown).await;
    drop(place);
    Ok(())
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
    // The kernel gives up a client that stops reading: no timer of ours per connection.
    sockopt::set_tcp_user_timeout(stream, UNREAD)?;
    Ok(())
}

/// Answers a client that did not mean HTTPS, without waiting for the end of its request.
async fn refuse_plain(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(PLAIN_HTTP).await?;
    stream.shutdown().await?;
    // What is left unread would make the kernel take the answer back.
    let mut rest = [0; 4096];
    let mut left: usize = 256 << 10;
    while left > 0 {
        match tokio::time::timeout(Duration::from_secs(1), stream.read(&mut rest)).await {
            Ok(Ok(0) | Err(_)) | Err(_) => break,
            Ok(Ok(read)) => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

/// An IPv4 client on an IPv6 socket is an IPv4 client.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Connections whose handshake has not ended, oldest first: silence must not keep others out.
#[derive(Debug, Default)]
struct Unfinished(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<u64, CancellationToken>,
}

/// Counts as unfinished until it is dropped.
struct Newcomer {
    all: Arc<Unfinished>,
    number: u64,
    /// Cancelled when younger ones need the room.
    pushed_out: CancellationToken,
}

/// How many connections come from where.
#[derive(Debug, Default)]
struct Crowd(Mutex<HashMap<IpAddr, usize>>);

/// Counts as one connection of an address until it is dropped.
struct Guest {
    crowd: Arc<Crowd>,
    from: IpAddr,
}

impl Unfinished {
    fn enter(self: &Arc<Self>) -> Newcomer {
        let pushed_out = CancellationToken::new();
        let mut queue = self.0.lock();
        if queue.waiting.len() >= MAX_UNFINISHED
            && let Some((_, oldest)) = queue.waiting.pop_first()
        {
            oldest.cancel();
        }
        let number = queue.next;
        queue.next += 1;
        queue.waiting.insert(number, pushed_out.clone());
        Newcomer { all: self.clone(), number, pushed_out }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.all.0.lock().waiting.remove(&self.number);
    }
}

impl Crowd {
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Guest> {
        let from = neighbourhood(address);
        let mut counts = self.0.lock();
        let count = counts.entry(from).or_default();
        if *count >= MAX_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Guest { crowd: self.clone(), from })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock();
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn silent_newcomers_make_room_for_the_next_one_and_nobody_waits() {
        let all = Arc::new(Unfinished::default());
        let mut silent: Vec<_> = (0..MAX_UNFINISHED).map(|_| all.enter()).collect();
        let next = all.enter();
        assert!(silent[0].pushed_out.is_cancelled(), "the oldest goes");
        assert!(!silent[1].pushed_out.is_cancelled() && !next.pushed_out.is_cancelled());
        // Who has finished makes room without anybody going.
        silent.drain(..10);
        let another = all.enter();
        assert!(silent.iter().all(|it| !it.pushed_out.is_cancelled()));
        drop((silent, next, another));
        assert!(all.0.lock().waiting.is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn one_address_cannot_hold_all_places() {
        let crowd = Arc::new(Crowd::default());
        let near = |n: usize| IpAddr::V6(Ipv6Addr::from_bits((7 << 64) + n as u128));
        let guests: Vec<_> = (0..MAX_PER_ADDRESS).map(|n| crowd.enter(near(n))).collect();
        assert!(guests.iter().all(Option::is_some));
        assert!(crowd.enter(near(0)).is_none());
        assert!(crowd.enter(IpAddr::V6(Ipv6Addr::LOCALHOST)).is_some());
        drop(guests);
        assert!(crowd.enter(near(0)).is_some());
        assert!(crowd.0.lock().is_empty(), "nothing is kept of who has gone");
    }
}
