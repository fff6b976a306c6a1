//! Bytes between the websockets of a client and the files of a process.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::ops::sockets::Frame;

/// Bytes of one message.
const PIECE: usize = 64 << 10;
/// How long more is waited for in the stream of a process that is gone.
const PAUSE: Duration = Duration::from_millis(100);
/// How long such a stream is read at most; what the process itself has said is there at once.
pub(super) const LEFT_OVER: Duration = Duration::from_secs(2);

/// Everything that comes from `from`, up to the end of the stream or of the client.
///
/// A process that does not read its input to the end is no error: what is left over is dropped.
pub(super) async fn carry_in(mut from: mpsc::Receiver<Frame>, mut to: impl AsyncWrite + Unpin) {
    while let Some(frame) = from.recv().await {
        let Frame::Data(bytes) = frame else { break };
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
    // The process reads the end of its input.
    let _ = to.shutdown().await;
}

/// Everything that `from` gives, and then the end of the stream. A client that is gone does not
/// hold the process up: what it says is read and dropped. When the process has `exited`, what is
/// left in the stream is carried, but nobody who still has it open is waited for.
pub(super) async fn carry_out(
    mut from: impl AsyncRead + Unpin,
    to: mpsc::Sender<Frame>,
    exited: CancellationToken,
) {
    let mut buffer = BytesMut::with_capacity(PIECE);
    let mut heard = true;
    let mut last = None;
    loop {
        if buffer.capacity() < PIECE / 4 {
            buffer.reserve(PIECE);
        }
        let read = match last {
            None => tokio::select! {
                read = from.read_buf(&mut buffer) => read,
                () = exited.cancelled() => {
                    last = Some(Instant::now() + LEFT_OVER);
                    continue;
                }
            },
            // What is there comes at once; whoever else goes on writing is not listened to.
            Some(last) => {
                match timeout(PAUSE.min(last - Instant::now()), from.read_buf(&mut buffer)).await {
                    Ok(read) => read,
                    Err(_) => break,
                }
            }
        };
        match read {
            // A terminal whose last user is gone reports an error.
            Ok(0) | Err(_) => break,
            Ok(_) if heard => heard = to.send(Frame::Data(buffer.split().freeze())).await.is_ok(),
            Ok(_) => buffer.clear(),
        }
    }
    let _ = to.send(Frame::end()).await;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn bytes_arrive_whole_and_then_the_end() {
        let (mut near, far) = duplex(1000);
        let (sender, mut receiver) = mpsc::channel(2);
        let carried = tokio::spawn(carry_out(far, sender, CancellationToken::new()));
        let sent: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let writing = sent.clone();
        tokio::spawn(async move { near.write_all(&writing).await.unwrap() });
        let mut got = Vec::new();
        while let Some(Frame::Data(bytes)) = receiver.recv().await {
            got.extend_from_slice(&bytes);
        }
        assert_eq!(got, sent);
        carried.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_is_gone_does_not_hold_a_process_up() {
        let (mut near, far) = duplex(10);
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let carried = tokio::spawn(carry_out(far, sender, CancellationToken::new()));
        near.write_all(&[1; 1000]).await.unwrap();
        drop(near);
        carried.await.unwrap();
    }

    #[tokio::test]
    async fn what_others_write_after_the_end_of_the_process_is_not_waited_for() {
        let (mut near, far) = duplex(1000);
        let (sender, mut receiver) = mpsc::channel(1);
        let exited = CancellationToken::new();
        let carried = tokio::spawn(carry_out(far, sender, exited.clone()));
        near.write_all(b"last words").await.unwrap();
        exited.cancel();
        let Some(Frame::Data(bytes)) = receiver.recv().await else { panic!("nothing came") };
        assert_eq!(bytes, "last words");
        // The other end stays open.
        assert_eq!(receiver.recv().await, Some(Frame::end()));
        carried.await.unwrap();
        drop(near);
    }

    #[tokio::test]
    async fn the_end_of_the_clients_stream_ends_the_input() {
        let (near, mut far) = duplex(1000);
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(carry_in(receiver, near));
        sender.send(Frame::Data(Bytes::from_static(b"abc"))).await.unwrap();
        sender.send(Frame::end()).await.unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"abc");
    }
}
