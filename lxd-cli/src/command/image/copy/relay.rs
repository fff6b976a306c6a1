//! Copying by relay: the bytes go through this client, from the download into the upload, and
//! never rest.

use std::io;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use lxd_proto::client::{FilePart, UploadBody, UploadOptions};
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::InstanceType;
use lxd_proto::remote::{Error, Fetch, FileRole, IncomingFile, Progress, Sink, fetch};
use tokio::io::AsyncRead;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::io::StreamReader;

use super::parties::Target;
use super::transfer::{Job, LABEL};
use crate::command::image::fetching::{classified, result};
use crate::command::operation::follow;
use crate::failure::{Failure, Outcome};
use crate::progress::show;

/// Pieces between the download and the upload: at most so many wait.
const WAITING: usize = 4;
/// The largest piece, in bytes.
const PIECE: usize = 256 << 10;

/// Downloads the image from the source and uploads it to the target at the same time.
pub(super) async fn relay(job: &Job<'_>, target: &Target) -> Outcome<Fingerprint> {
    let image = &job.image;
    let request = Fetch::default();
    request.progress.set_total(image.size);
    let shown = show(job.context.progress, LABEL, &request.progress);
    let (files, incoming) = channel(1);
    // It owns the sink: when it ends, the upload sees the end of all files.
    let download = async {
        let mut sink = Relay { files, pieces: None };
        match fetch(&*job.source.remote, image, &request, &mut sink).await {
            // Only now is it known that these were the right bytes.
            Ok(()) => sink.end().await.map_err(|_| Ended::Upload),
            Err(Error::Io { .. }) => Err(Ended::Upload),
            Err(error) => Err(Ended::Download(error)),
        }
    };
    let upload = async {
        let body = body(incoming, image.kind).await?;
        let options = UploadOptions {
            public: job.wish.public,
            properties: image.properties.clone(),
            fingerprint: Some(image.fingerprint),
            ..UploadOptions::default()
        };
        // The bytes are counted where they come in.
        Some(target.server.upload(body, &options, &Progress::default()).await)
    };
    tokio::pin!(download, upload);
    let (downloaded, uploaded) = tokio::select! {
        downloaded = &mut download => match downloaded {
            // Ends the upload, which must not look complete.
            Err(Ended::Download(error)) => return Err(classified(error)),
            other => (other, upload.await),
        },
        // The answer has come before the last byte was sent: it can only be a refusal.
        uploaded = &mut upload => match uploaded {
            Some(Err(error)) => return Err(error.into()),
            other => (download.await, other),
        },
    };
    let operation = match (downloaded, uploaded) {
        (_, Some(Ok(operation))) => operation,
        (_, Some(Err(error))) => return Err(error.into()),
        (Err(Ended::Download(error)), None) => return Err(classified(error)),
        (_, None) => return Err(Failure::new("the source has sent no file")),
    };
    let ended = follow(job.context, &target.server, operation, &shown, "the copy").await?;
    let operation = ended.map_err(classified)?;
    shown.done();
    let fingerprint = result(&operation, Some(image.fingerprint))?;
    job.complete(target, fingerprint).await?;
    Ok(fingerprint)
}

/// Why the download ended early.
enum Ended {
    /// By itself.
    Download(Error),
    /// Because the upload takes nothing any more; it knows the reason.
    Upload,
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the upload has ended")
}

/// A file and its bytes to come.
struct Coming {
    file: IncomingFile,
    pieces: Receiver<Piece>,
}

/// A part of a file.
enum Piece {
    Bytes(Bytes),
    /// The file is complete. Without it the end of the channel is a fault.
    End,
}

/// Passes on what is downloaded.
struct Relay {
    files: Sender<Coming>,
    pieces: Option<Sender<Piece>>,
}

impl Relay {
    /// The current file is complete.
    async fn end(&mut self) -> io::Result<()> {
        match self.pieces.take() {
            Some(pieces) => pieces.send(Piece::End).await.map_err(|_| gone()),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Sink for Relay {
    async fn begin(&mut self, file: &IncomingFile) -> io::Result<u64> {
        self.end().await?;
        let (sender, pieces) = channel(WAITING);
        self.files.send(Coming { file: file.clone(), pieces }).await.map_err(|_| gone())?;
        self.pieces = Some(sender);
        Ok(0)
    }

    async fn write(&mut self, mut bytes: Bytes) -> io::Result<()> {
        let Some(pieces) = &self.pieces else { return Ok(()) };
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            pieces.send(Piece::Bytes(piece)).await.map_err(|_| gone())?;
        }
        Ok(())
    }
}

/// The body of the upload, which begins with the first file; `None` when none comes.
async fn body(mut files: Receiver<Coming>, kind: InstanceType) -> Option<UploadBody> {
    let first = files.recv().await?;
    let is_whole = first.file.role == FileRole::Unified;
    let (filename, length) = (first.file.filename.clone(), first.file.length);
    let part = FilePart { filename, length, reader: reader(Rest::Here(first.pieces)) };
    if is_whole {
        return Some(UploadBody::Unified(part));
    }
    // What stands before the second file is sent before that file has begun. No server records
    // its name, and what it is, is known from the image.
    let rootfs =
        FilePart { filename: String::new(), length: None, reader: reader(Rest::Next(files)) };
    Some(UploadBody::Split { metadata: part, rootfs, kind })
}

/// Where the bytes of a file come from.
enum Rest {
    /// From the file that comes next.
    Next(Receiver<Coming>),
    /// From the file that is there.
    Here(Receiver<Piece>),
}

fn reader(rest: Rest) -> Pin<Box<dyn AsyncRead + Send>> {
    let pieces = stream::unfold(rest, |mut rest| async {
        loop {
            let piece = match &mut rest {
                Rest::Here(pieces) => pieces.recv().await,
                Rest::Next(files) => match files.recv().await {
                    Some(coming) => {
                        rest = Rest::Here(coming.pieces);
                        continue;
                    }
                    None => None,
                },
            };
            return match piece {
                Some(Piece::Bytes(bytes)) => Some((Ok(bytes), rest)),
                Some(Piece::End) => None,
                // Without an end the file is not complete, and must not look so.
                None => {
                    let reason = "the download broke off";
                    Some((Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason)), rest))
                }
            };
        }
    });
    Box::pin(StreamReader::new(Box::pin(pieces)))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn file(role: FileRole, name: &str) -> IncomingFile {
        IncomingFile { role, filename: name.into(), length: None }
    }

    fn relay() -> (Relay, Receiver<Coming>) {
        let (files, incoming) = channel(1);
        (Relay { files, pieces: None }, incoming)
    }

    async fn read(mut part: FilePart) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        part.reader.read_to_end(&mut bytes).await.map(|_| bytes)
    }

    #[tokio::test]
    async fn two_files_arrive_as_two_parts() {
        let (mut sink, incoming) = relay();
        let rootfs = FileRole::Rootfs(InstanceType::Container);
        let big = Bytes::from(vec![7; 3 * PIECE + 1]);
        let sending = async {
            sink.begin(&file(FileRole::Metadata, "m.tar")).await.unwrap();
            sink.write(Bytes::from_static(b"meta")).await.unwrap();
            sink.begin(&file(rootfs, "r.squashfs")).await.unwrap();
            sink.write(big.clone()).await.unwrap();
            sink.end().await.unwrap();
        };
        let receiving = async {
            let body = body(incoming, InstanceType::Container).await.unwrap();
            let UploadBody::Split { metadata, rootfs, .. } = body else { panic!("{body:?}") };
            assert_eq!(metadata.filename, "m.tar");
            (read(metadata).await.unwrap(), read(rootfs).await.unwrap())
        };
        let ((), (metadata, rootfs)) = tokio::join!(sending, receiving);
        assert_eq!((&metadata[..], rootfs.len()), (&b"meta"[..], big.len()));
    }

    #[tokio::test]
    async fn what_breaks_off_does_not_look_complete() {
        let (mut sink, incoming) = relay();
        sink.begin(&file(FileRole::Unified, "x.tar")).await.unwrap();
        sink.write(Bytes::from_static(b"half")).await.unwrap();
        drop(sink);
        let body = body(incoming, InstanceType::Container).await.unwrap();
        let UploadBody::Unified(part) = body else { panic!("{body:?}") };
        let error = read(part).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn little_waits_between_the_two() {
        let (mut sink, mut incoming) = relay();
        sink.begin(&file(FileRole::Unified, "x.tar")).await.unwrap();
        let coming = incoming.recv().await.unwrap();
        let bytes = Bytes::from(vec![0; (WAITING + 1) * PIECE]);
        let write = tokio::time::timeout(std::time::Duration::from_millis(50), sink.write(bytes));
        assert!(write.await.is_err(), "a sink whose bytes nobody takes must wait");
        assert_eq!(coming.pieces.len(), WAITING);
    }
}
