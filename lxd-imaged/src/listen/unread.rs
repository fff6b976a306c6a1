//! What of a request its handler has left unread: it is read and dropped, so that the answer
//! arrives. A socket that is closed over unread bytes takes back what was sent before.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Bytes that are read of what nobody wants; who sends more does not look at answers.
const MOST: u64 = 64 << 20;
/// How long that may take.
const LONGEST: Duration = Duration::from_secs(5);

/// A request's body; what is left of it when it is dropped is read to its end, within bounds.
pub(super) struct Whole {
    body: Option<Incoming>,
    /// The client sends nothing before it is told to.
    waits: bool,
}

impl Whole {
    /// `waits` is whether the client wants to be told before it sends its body.
    pub(super) fn new(body: Incoming, waits: bool) -> Self {
        Self { body: Some(body), waits }
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits = false;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if self.waits || body.is_end_stream() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Longer is nothing waited for: the connection is closed then.
            runtime.spawn(tokio::time::timeout(LONGEST, drain(body)));
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut left = MOST;
    while left > 0 {
        let next = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let Some(Ok(frame)) = next.await else { return };
        let read = frame.data_ref().map_or(0, Bytes::len) as u64;
        left = left.saturating_sub(read);
    }
}
