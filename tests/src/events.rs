//! A listener on `/1.0/events`, by hand: frames as they come, in the order they come.

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::Http;

/// An open event stream.
#[derive(Debug)]
pub struct Events {
    reader: BufReader<UnixStream>,
    pings: Vec<Vec<u8>>,
}

impl Events {
    /// Listens with this query (without `?`), which must be accepted.
    pub fn listen(http: &Http, query: &str) -> Self {
        let mut stream = http.connect();
        let head = format!(
            "GET /1.0/events?{query} HTTP/1.1\r\nHost: unix.socket\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            reader.read_exact(&mut byte).expect("an answer to the handshake");
            answer.push(byte[0]);
        }
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(answer.starts_with("http/1.1 101"), "no upgrade:\n{answer}");
        // The value that RFC 6455 prescribes for the key above.
        let accept = "sec-websocket-accept: bacsccjpnqyz+uboqmh89vmuroa=";
        assert!(answer.contains(accept), "no {accept}:\n{answer}");
        Self { reader, pings: Vec::new() }
    }

    /// The next event; fails after `limit`.
    pub fn next_within(&mut self, limit: Duration) -> Option<Value> {
        let deadline = Instant::now() + limit;
        let mut message = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.reader.get_ref().set_read_timeout(Some(left)).unwrap();
            let (last, opcode, payload) = self.frame()?;
            match opcode {
                // Text and its continuations.
                0 | 1 => message.extend_from_slice(&payload),
                9 => {
                    self.pong(&payload);
                    self.pings.push(payload);
                    continue;
                }
                10 => continue,
                _ => return None,
            }
            if last {
                return Some(serde_json::from_slice(&message).expect("an event is JSON"));
            }
        }
    }

    /// Events up to and including the first that `last` accepts; fails after a while.
    pub fn until(&mut self, what: &str, last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut seen = Vec::new();
        while let Some(event) = self.next_within(crate::wait::PATIENCE) {
            let done = last(&event);
            seen.push(event);
            if done {
                return seen;
            }
        }
        panic!("no event {what} after {seen:#?}")
    }

    /// Everything that still comes while `limit` passes.
    pub fn rest(&mut self, limit: Duration) -> Vec<Value> {
        let deadline = Instant::now() + limit;
        let left = || deadline.saturating_duration_since(Instant::now());
        std::iter::from_fn(|| self.next_within(left())).collect()
    }

    /// Payloads of the pings seen so far.
    pub fn pings(&self) -> &[Vec<u8>] {
        &self.pings
    }

    /// One frame: whether it ends a message, its kind, its bytes; `None` at the end or time-out.
    fn frame(&mut self) -> Option<(bool, u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.reader.read_exact(&mut head).ok()?;
        assert_eq!(head[1] & 0x80, 0, "a server must not mask");
        let length = match head[1] & 0x7f {
            126 => {
                let mut bytes = [0; 2];
                self.reader.read_exact(&mut bytes).ok()?;
                usize::from(u16::from_be_bytes(bytes))
            }
            127 => {
                let mut bytes = [0; 8];
                self.reader.read_exact(&mut bytes).ok()?;
                usize::try_from(u64::from_be_bytes(bytes)).ok()?
            }
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.reader.read_exact(&mut payload).ok()?;
        Some((head[0] & 0x80 != 0, head[0] & 0x0f, payload))
    }

    fn pong(&mut self, payload: &[u8]) {
        // A mask of zeros is a mask: the bytes go out as they are.
        let length = u8::try_from(payload.len()).expect("a ping is short");
        let mut frame = vec![0x8a, 0x80 | length, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        let _ = self.reader.get_mut().write_all(&frame);
    }
}

/// Whether `event` is about the operation that a 202 announced and is its last.
pub fn is_final(event: &Value, operation: &str) -> bool {
    let data = &event["metadata"];
    event["type"] == "operation"
        && data["id"].as_str().is_some_and(|id| operation.ends_with(id))
        && data["status_code"].as_u64() >= Some(200)
}

/// `action` of the life-cycle events among these.
pub fn actions(events: &[Value]) -> Vec<String> {
    let lifecycle = events.iter().filter(|e| e["type"] == "lifecycle");
    lifecycle.filter_map(|e| Some(e["metadata"]["action"].as_str()?.to_owned())).collect()
}
