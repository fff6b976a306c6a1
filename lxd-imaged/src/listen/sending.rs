//! A unix stream that sends file ranges by itself where a body holds stand-ins for them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::sendfile;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use crate::store::outbox::Outbox;

/// The stream of one connection, and the file ranges its responses have queued.
#[derive(Debug)]
pub(super) struct Sending {
    stream: UnixStream,
    outbox: Arc<Outbox>,
}

impl Sending {
    pub(super) fn new(stream: UnixStream, outbox: Arc<Outbox>) -> Self {
        Self { stream, outbox }
    }

    /// Sends up to `count` bytes of the next queued range, from file to socket in the kernel.
    fn poll_send(&self, context: &mut Context<'_>, count: usize) -> Poll<io::Result<usize>> {
        let Some((file, mut offset)) = self.outbox.next() else {
            return Poll::Ready(Err(io::Error::other("a body stands in for no file")));
        };
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                Ok(sendfile(&self.stream, &file, Some(&mut offset), count)?)
            });
            match sent {
                Ok(0) => {
                    let error = io::Error::new(io::ErrorKind::UnexpectedEof, "a blob is cut short");
                    return Poll::Ready(Err(error));
                }
                Ok(sent) => {
                    self.outbox.sent(sent as u64);
                    return Poll::Ready(Ok(sent));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for Sending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Sending {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if Outbox::stands_in(bytes) {
            self.poll_send(context, bytes.len())
        } else {
            Pin::new(&mut self.stream).poll_write(context, bytes)
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        if let Some(slice) = first.filter(|slice| Outbox::stands_in(slice)) {
            return self.poll_send(context, slice.len());
        }
        let ordinary = slices.iter().take_while(|slice| !Outbox::stands_in(slice)).count();
        Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..ordinary])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
