//! Downloads: the files of an image, taken up again where they were cut.

use std::io;

use bytes::Bytes;

use crate::client::LxdClient;
use crate::client::transport::Request;
use crate::image::{Image, InstanceType};
use crate::multipart::{
    Event, Limits, Multipart, MultipartError, PartHead, boundary_of, parameter_of,
};
use crate::net::{Download, DownloadOptions, Piece};
use crate::remote::{Error, Fetch, FileRole, IncomingFile, Result, Sink};
use crate::routes::{self, query};

/// Bytes that the framing of two files may take, with room to spare.
const FRAMING: u64 = 64 << 10;
/// What a sink holds of a part is jumped over when it is more than this; less is dropped.
const WORTH_A_JUMP: u64 = 256 << 10;

impl LxdClient {
    pub(super) async fn export(
        &self,
        image: &Image,
        request: &Fetch,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        tokio::select! {
            biased;
            () = request.cancel.cancelled() => Err(Error::Cancelled),
            done = self.receive(image, request, sink) => done,
        }
    }

    async fn receive(&self, image: &Image, fetch: &Fetch, sink: &mut dyn Sink) -> Result<()> {
        let mut request = Request::get(routes::IMAGE_EXPORT.url(&[&image.fingerprint.to_string()]));
        if let Some(secret) = &fetch.secret {
            request = request.query(query::SECRET, secret.expose());
        }
        // LXD tells the size of an image; a server that tells none gets the general limit.
        let most = (image.size > 0).then_some(image.size.saturating_add(FRAMING));
        let options = DownloadOptions { most, ..DownloadOptions::default() };
        let url = self.transport.url(&request);
        let download = Download::open(self.transport.http.clone(), url, options).await?;
        fetch.progress.set_total(image.size);
        let content_type = download.head().header("content-type").unwrap_or_default();
        let form = boundary_of(content_type).is_some();
        let mut receiver = Receiver { download, sink, fetch, written: 0, image };
        if form {
            receiver.split().await?;
        } else {
            receiver.unified().await?;
        }
        receiver.check_size()?;
        receiver.download.settle().await;
        Ok(())
    }
}

struct Receiver<'a> {
    download: Download,
    sink: &'a mut dyn Sink,
    fetch: &'a Fetch,
    image: &'a Image,
    /// Bytes of all files that the sink has.
    written: u64,
}

impl Receiver<'_> {
    async fn unified(&mut self) -> Result<()> {
        let head = self.download.head();
        let disposition = head.header("content-disposition").unwrap_or_default();
        let filename = parameter_of(disposition, "filename").unwrap_or_default();
        let length = self.download.length();
        if let Some(length) = length
            && self.image.size > 0
            && length != self.image.size
        {
            return Err(self.wrong_size(length));
        }
        let file = IncomingFile { role: FileRole::Unified, filename: component(&filename), length };
        let held = self.begin(&file).await?;
        self.download.skip_to(held);
        while let Some(bytes) = self.download.next().await? {
            self.write(bytes).await?;
        }
        Ok(())
    }

    /// A form of two parts. Where the server can begin in the middle, the form goes on there;
    /// where it cannot, the form begins again and what was written already is dropped.
    async fn split(&mut self) -> Result<()> {
        let mut form = self.form()?;
        let mut parts = Parts::default();
        loop {
            match self.download.piece().await? {
                Piece::Bytes(bytes) => form.push(bytes),
                Piece::Again => {
                    form = self.form()?;
                    parts.again();
                }
                Piece::End => {
                    form.finish().map_err(|error| self.broken(&error))?;
                    return Ok(());
                }
            }
            while let Some(event) = form.next().map_err(|error| self.broken(&error))? {
                match event {
                    Event::Part(head) => self.part(&mut form, &mut parts, &head).await?,
                    Event::Data(bytes) => {
                        if let Some(bytes) = parts.unwritten(bytes) {
                            self.write(bytes).await?;
                        }
                    }
                    // LXD 5.0.2 ends a form twice: what follows is not looked at.
                    Event::End if parts.seen == 2 => return Ok(()),
                    Event::End => {
                        let reason = format!("the form has {} parts instead of two", parts.seen);
                        return Err(self.undecodable(reason));
                    }
                }
            }
        }
    }

    fn form(&self) -> Result<Multipart> {
        let content_type = self.download.head().header("content-type").unwrap_or_default();
        let boundary = boundary_of(content_type)
            .ok_or_else(|| self.undecodable("it was a form and is none any more".to_owned()))?;
        Multipart::new(&boundary, Limits::default()).map_err(|error| self.broken(&error))
    }

    async fn part(
        &mut self,
        form: &mut Multipart,
        parts: &mut Parts,
        head: &PartHead,
    ) -> Result<()> {
        let role = self.role(parts.seen, head)?;
        if parts.is_new() {
            let filename = component(head.filename.as_deref().unwrap_or_default());
            let held = self.begin(&IncomingFile { role, filename, length: head.length }).await?;
            parts.begin(held);
        } else {
            parts.begin_again();
        }
        let held = parts.held();
        if held > form.unread() as u64 + WORTH_A_JUMP && self.download.takes_ranges() {
            // Past what is there already, in one jump.
            let position = form.position() + held;
            let boundary = self.boundary()?;
            *form = Multipart::in_part(&boundary, Limits::default(), position, 0)
                .map_err(|error| self.broken(&error))?;
            self.download.skip_to(position);
            parts.jump();
        }
        Ok(())
    }

    fn boundary(&self) -> Result<String> {
        let content_type = self.download.head().header("content-type").unwrap_or_default();
        boundary_of(content_type).ok_or_else(|| self.broken(&MultipartError::Boundary))
    }

    fn role(&self, index: usize, head: &PartHead) -> Result<FileRole> {
        let expected = ["metadata", "rootfs"];
        match (index, head.name.as_deref().unwrap_or_default()) {
            (0, "metadata") => Ok(FileRole::Metadata),
            (1, "rootfs") => Ok(FileRole::Rootfs(InstanceType::Container)),
            (1, "rootfs.img") => Ok(FileRole::Rootfs(InstanceType::VirtualMachine)),
            (_, name) => Err(self.undecodable(match expected.get(index) {
                Some(expected) => format!("the form has \"{name}\" where \"{expected}\" belongs"),
                None => format!("the form has \"{name}\" after its two files"),
            })),
        }
    }

    async fn begin(&mut self, file: &IncomingFile) -> Result<u64> {
        let held = self.sink.begin(file).await.map_err(local)?;
        self.written += held;
        self.fetch.progress.add(usize::try_from(held).unwrap_or(usize::MAX));
        Ok(held)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.written += bytes.len() as u64;
        if self.image.size > 0 && self.written > self.image.size {
            return Err(self.wrong_size(self.written));
        }
        self.fetch.progress.add(bytes.len());
        self.sink.write(bytes).await.map_err(local)
    }

    fn check_size(&self) -> Result<()> {
        if self.image.size > 0 && self.written != self.image.size {
            return Err(self.wrong_size(self.written));
        }
        Ok(())
    }

    fn wrong_size(&self, came: u64) -> Error {
        let what = self.what();
        let size = self.image.size;
        Error::Size { what, reason: format!("{came} bytes where the image has {size}") }
    }

    fn what(&self) -> String {
        format!("GET {}", routes::IMAGE_EXPORT.url(&[&self.image.fingerprint.to_string()]))
    }

    fn undecodable(&self, reason: String) -> Error {
        Error::Decode { what: self.what(), reason }
    }

    fn broken(&self, error: &MultipartError) -> Error {
        self.undecodable(error.to_string())
    }
}

/// What of each part the sink has, and how far the form that comes now has got.
#[derive(Debug, Default)]
struct Parts {
    /// Bytes that the sink has of each part that has begun.
    written: Vec<u64>,
    /// Parts of this form that have begun.
    seen: usize,
    /// Bytes of the current part that this form has brought.
    come: u64,
}

impl Parts {
    /// The form begins anew.
    fn again(&mut self) {
        self.seen = 0;
        self.come = 0;
    }

    /// Whether the part that begins now was never begun before.
    fn is_new(&self) -> bool {
        self.seen == self.written.len()
    }

    fn begin(&mut self, held: u64) {
        self.written.push(held);
        self.begin_again();
    }

    fn begin_again(&mut self) {
        self.seen += 1;
        self.come = 0;
    }

    /// What the sink has of the current part.
    fn held(&self) -> u64 {
        self.seen.checked_sub(1).and_then(|at| self.written.get(at)).copied().unwrap_or_default()
    }

    /// What the sink has of the current part will not come.
    fn jump(&mut self) {
        self.come = self.held();
    }

    /// Of bytes of the current part those that the sink does not have.
    fn unwritten(&mut self, mut bytes: Bytes) -> Option<Bytes> {
        let written = self.seen.checked_sub(1).and_then(|at| self.written.get_mut(at))?;
        let known = usize::try_from(*written - self.come.min(*written)).unwrap_or(usize::MAX);
        self.come += bytes.len() as u64;
        let new = bytes.split_off(known.min(bytes.len()));
        *written = (*written).max(self.come);
        (!new.is_empty()).then_some(new)
    }
}

/// A failure of the sink: its own text says on which file.
fn local(source: io::Error) -> Error {
    Error::Io { what: "cannot store the image".to_owned(), source }
}

/// A stranger's file name as one component of a path that stays where it is put.
fn component(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let printable: String = last.chars().filter(|c| !c.is_control()).collect();
    if matches!(printable.as_str(), "." | "..") { String::new() } else { printable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_strangers_stay_in_the_directory() {
        for (given, safe) in [
            ("a.tar.xz", "a.tar.xz"),
            ("../../etc/passwd", "passwd"),
            ("a/..", ""),
            (".", ""),
            ("c:\\x\\y.tar", "y.tar"),
            ("a\nb\0.tar", "ab.tar"),
        ] {
            assert_eq!(component(given), safe, "{given:?}");
        }
    }

    #[test]
    fn what_was_written_is_not_written_again() {
        let mut parts = Parts::default();
        parts.begin(2);
        assert_eq!(parts.unwritten("abc".into()), Some("c".into()));
        assert_eq!(parts.unwritten("de".into()), Some("de".into()));
        assert!(parts.is_new());
        parts.again();
        assert!(!parts.is_new());
        parts.begin_again();
        assert_eq!(parts.unwritten("abcd".into()), None);
        assert_eq!(parts.unwritten("ef".into()), Some("f".into()));
        parts.begin(0);
        assert_eq!(parts.unwritten("x".into()), Some("x".into()));
    }
}
