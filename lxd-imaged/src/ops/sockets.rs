//! Websockets that operations wait for: whoever knows the secret brings one.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

/// Messages that wait for a slow end before the other is held up.
pub const AHEAD: usize = 8;

/// One message of a websocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes.
    Data(Bytes),
    /// Text; an empty one ends a stream.
    Text(String),
}

impl Frame {
    /// The end of a stream, after which the socket stays open.
    pub const fn end() -> Self {
        Self::Text(String::new())
    }
}

/// A connected websocket, seen from the operation.
#[derive(Debug)]
pub struct Socket {
    /// What the client sends; ends when it is gone.
    pub incoming: mpsc::Receiver<Frame>,
    /// What it is to get. Dropping it closes the socket after the last message.
    pub outgoing: mpsc::Sender<Frame>,
}

/// The place where a claimed websocket is handed over.
#[derive(Debug)]
pub struct Claim(oneshot::Sender<Socket>);

impl Claim {
    /// Hands the socket over; `false` when nobody waits for it any more.
    pub fn connect(self, socket: Socket) -> bool {
        self.0.send(socket).is_ok()
    }
}

/// Websockets that are waited for, by operation and secret.
#[derive(Debug, Default)]
pub struct Sockets {
    waiting: Mutex<HashMap<(String, String), oneshot::Sender<Socket>>>,
}

impl Sockets {
    /// Waits for the websocket that comes with this secret. Whoever stops waiting calls
    /// [`Sockets::forget`].
    pub fn expect(&self, operation: &str, secret: &str) -> oneshot::Receiver<Socket> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert((operation.to_owned(), secret.to_owned()), sender);
        receiver
    }

    /// Takes the place that the secret opens: once.
    pub fn claim(&self, operation: &str, secret: &str) -> Option<Claim> {
        let key = (operation.to_owned(), secret.to_owned());
        self.waiting.lock().remove(&key).map(Claim)
    }

    /// What was not claimed of an operation is not waited for any more.
    pub fn forget(&self, operation: &str) {
        self.waiting.lock().retain(|(id, _), _| id != operation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_opens_one_socket_once() {
        let sockets = Sockets::default();
        let waiting = sockets.expect("op", "secret");
        assert!(sockets.claim("op", "guess").is_none());
        assert!(sockets.claim("other", "secret").is_none());
        let claim = sockets.claim("op", "secret").unwrap();
        assert!(sockets.claim("op", "secret").is_none(), "it was used");
        let ((outgoing, _), (_, incoming)) = (mpsc::channel(1), mpsc::channel(1));
        assert!(claim.connect(Socket { incoming, outgoing }));
        assert!(waiting.await.is_ok());
    }

    #[test]
    fn an_operation_that_is_over_takes_no_sockets() {
        let sockets = Sockets::default();
        let waiting = sockets.expect("op", "secret");
        sockets.forget("op");
        assert!(sockets.claim("op", "secret").is_none());
        drop(waiting);
    }
}
