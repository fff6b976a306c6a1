//! A wire between two servers: forwards bytes, counts them, and is cut, slowed and held on order.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes that are forwarded at once.
const STEP: usize = 64 << 10;

/// Forwards every connection to one port of this machine.
#[derive(Debug)]
pub struct Wire {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connections: AtomicUsize,
    /// Bytes that went to whoever connected, and that came from them.
    down: AtomicU64,
    up: AtomicU64,
    /// Cuts still to come, and how many bytes lie between two of them.
    cuts: AtomicI64,
    between: AtomicU64,
    /// Bytes since the last cut.
    since: AtomicU64,
    /// Nanoseconds to wait after each piece.
    pause: AtomicU64,
    /// Nanoseconds that each answer takes longer.
    delay: AtomicU64,
    /// Bytes that still come through; then connections stay open and silent.
    until_held: AtomicU64,
    closed: AtomicBool,
    /// Both ends of each connection, to be cut.
    open: Mutex<Vec<TcpStream>>,
}

impl Wire {
    /// A wire to the server at `port`.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            connections: AtomicUsize::new(0),
            down: AtomicU64::new(0),
            up: AtomicU64::new(0),
            cuts: AtomicI64::new(0),
            between: AtomicU64::new(u64::MAX),
            since: AtomicU64::new(0),
            pause: AtomicU64::new(0),
            delay: AtomicU64::new(0),
            until_held: AtomicU64::new(u64::MAX),
            closed: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let wire = Self { port: listener.local_addr().unwrap().port(), shared: shared.clone() };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.closed.load(Ordering::Relaxed) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                forward(client, server, &shared);
            }
        });
        wire
    }

    /// Its own end.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Bytes that came from the server so far, encryption included.
    pub fn bytes(&self) -> u64 {
        self.shared.down.load(Ordering::Relaxed)
    }

    /// Bytes that went to the server so far, encryption included.
    pub fn sent(&self) -> u64 {
        self.shared.up.load(Ordering::Relaxed)
    }

    /// Cuts all connections each time so many bytes have come, so many times.
    pub fn cut(&self, times: i64, between: u64) {
        self.shared.between.store(between, Ordering::Relaxed);
        self.shared.since.store(0, Ordering::Relaxed);
        self.shared.cuts.store(times, Ordering::Relaxed);
    }

    /// Cuts still to come.
    pub fn cuts_left(&self) -> i64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }

    /// Lets about so many bytes a second through, 64 KiB at a time.
    pub fn slow_to(&self, bytes_per_second: u64) {
        let pause = STEP as u64 * 1_000_000_000 / bytes_per_second;
        self.shared.pause.store(pause, Ordering::Relaxed);
    }

    /// Takes this long with every request, as a server far away would.
    pub fn delay(&self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).expect("a short time");
        self.shared.delay.store(time, Ordering::Relaxed);
    }

    /// Lets about so many more bytes come; then every connection stays open and brings nothing.
    pub fn hold_after(&self, bytes: u64) {
        self.shared.until_held.store(bytes, Ordering::Relaxed);
    }

    /// Lets bytes through again, on new connections; what was held is cut.
    pub fn release(&self) {
        self.shared.cut_all();
        self.shared.until_held.store(u64::MAX, Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.cut_all();
        // Wakes the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn remember(&self, stream: &TcpStream) {
        if let Ok(stream) = stream.try_clone() {
            self.open.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        }
    }

    fn cut_all(&self) {
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Counts what has come; whether the wire is cut here.
    fn came(&self, bytes: u64) -> bool {
        self.down.fetch_add(bytes, Ordering::Relaxed);
        let since = self.since.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let cut = since >= self.between.load(Ordering::Relaxed)
            && self.cuts.fetch_sub(1, Ordering::Relaxed) > 0;
        if cut {
            self.since.store(0, Ordering::Relaxed);
        }
        cut
    }

    /// Waits while the wire is held, and as long as a slow wire takes for a piece.
    fn wait(&self, bytes: u64) {
        let held = |left: u64| (left != u64::MAX).then(|| left.saturating_sub(bytes));
        let _ = self.until_held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, held);
        while self.until_held.load(Ordering::Relaxed) == 0 && !self.closed.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        let pause = self.pause.load(Ordering::Relaxed);
        if pause > 0 {
            thread::sleep(Duration::from_nanos(pause));
        }
    }
}

fn forward(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    shared.remember(&client);
    shared.remember(&server);
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    let upwards = shared.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; STEP];
        while let Ok(count @ 1..) = from_client.read(&mut buffer) {
            upwards.up.fetch_add(count as u64, Ordering::Relaxed);
            thread::sleep(Duration::from_nanos(upwards.delay.load(Ordering::Relaxed)));
            if to_server.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let shared = shared.clone();
    thread::spawn(move || {
        let (mut server, mut client) = (server, client);
        let mut buffer = vec![0; STEP];
        while let Ok(count @ 1..) = server.read(&mut buffer) {
            if client.write_all(&buffer[..count]).is_err() {
                break;
            }
            if shared.came(count as u64) {
                shared.cut_all();
                break;
            }
            shared.wait(count as u64);
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

/// A port of this machine that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
