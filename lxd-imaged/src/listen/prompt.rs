//! A connection whose answers begin at once.
//!
//! TLS encrypts all that it is given, up to its buffer, before anything goes out. For a long answer
//! that is good for the rate, and the client waits for its first byte meanwhile. So the first piece
//! that is written after something was read is one record; all others are as large as they come.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that one TLS record holds, in bytes.
const RECORD: usize = 16 << 10;
/// Slices of the first piece: a head, and the body behind it.
const SLICES: usize = 4;

/// Makes the first piece of each answer short.
#[derive(Debug)]
pub(super) struct Prompt<S> {
    inner: S,
    begins: bool,
}

impl<S> Prompt<S> {
    pub(super) const fn new(inner: S) -> Self {
        Self { inner, begins: true }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.begins = true;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.begins {
            return Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        }
        let mut first = [IoSlice::new(&[]); SLICES];
        let mut left = RECORD;
        for (short, slice) in first.iter_mut().zip(slices) {
            let length = slice.len().min(left);
            *short = IoSlice::new(&slice[..length]);
            left -= length;
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, &first);
        if written.is_ready() {
            self.begins = false;
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Takes whatever is written, and notes how much at once.
    #[derive(Default)]
    struct Pieces {
        bytes: Vec<u8>,
        lengths: Vec<usize>,
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buffer.put_slice(b"GET");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Pieces {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(context, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let length = slices.iter().map(|slice| slice.len()).sum();
            slices.iter().for_each(|slice| self.bytes.extend_from_slice(slice));
            self.lengths.push(length);
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn the_first_piece_of_each_answer_is_short_and_nothing_is_lost() {
        let body: Vec<u8> = (0..100_000u32).map(|number| (number % 251) as u8).collect();
        let mut stream = Prompt::new(Pieces::default());
        let mut request = [0; 3];
        for _ in 0..2 {
            stream.read_exact(&mut request).await.unwrap();
            let slices = [IoSlice::new(b"head"), IoSlice::new(&body)];
            let written = stream.write_vectored(&slices).await.unwrap();
            assert_eq!(written, RECORD);
            stream.write_all(&body[written - 4..]).await.unwrap();
        }
        let Pieces { bytes, lengths } = stream.inner;
        let rest = body.len() + 4 - RECORD;
        assert_eq!(lengths, [RECORD, rest, RECORD, rest]);
        assert!(bytes == [b"head", &body[..], b"head", &body[..]].concat());
    }
}
