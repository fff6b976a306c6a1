//! The front door: checks a file of any role and format while it arrives.

use super::decoder::Decoder;
use super::error::FormatError;
use super::file_type::{Compression, FileType};
use super::layout::{Limits, Role};
use super::qcow2;
use super::read_at::ReadAt;
use super::squashfs::{self, Compressor};
use super::tar_check::TarCheck;
use crate::image::InstanceType;
use crate::metadata::Metadata;

/// Checks one file of an image, from its first byte to its last.
///
/// Tarballs are checked as they are fed. Squashfs files and disks can only be checked once they
/// are complete, by [`Checker::finish`]; their bytes need not be fed but for the first
/// [`FileType::DETECT_BYTES`]. After an error the checker is of no further use.
#[derive(Debug)]
pub struct Checker {
    role: Role,
    limits: Limits,
    verify_data: bool,
    body: Body,
    /// How many bytes were fed or skipped.
    read: u64,
    file_type: Option<FileType>,
    slow: bool,
}

/// What is done with the bytes, by format.
enum Body {
    /// Not enough is known yet.
    Head(Vec<u8>),
    Tar(Box<TarBody>),
    /// Looked at when it is complete.
    Whole,
}

struct TarBody {
    decoder: Decoder,
    tar: TarCheck,
    /// How many bytes came out of the decoder.
    decoded: u64,
}

/// What a checker knows so far.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The format; `None` until enough bytes came.
    pub file_type: Option<FileType>,
    /// What `metadata.yaml` says, once it was read.
    pub metadata: Option<&'a Metadata>,
    /// What the image makes, once its root was seen.
    pub kind: Option<InstanceType>,
    /// Whether all that describes the image was seen: metadata and kind as the role has them.
    /// The rest of the file can then only lead to a refusal.
    pub settled: bool,
    /// Whether the rest takes much longer to check than to receive, as it is compressed with
    /// xz, lzma or bzip2.
    pub slow: bool,
}

/// What a whole file was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Its format.
    pub file_type: FileType,
    /// What `metadata.yaml` says; `None` for [`Role::Rootfs`].
    pub metadata: Option<Metadata>,
    /// What the image makes; `None` for [`Role::Metadata`].
    pub kind: Option<InstanceType>,
    /// How many entries the archive has; 0 for a disk.
    pub entries: u64,
    /// How many bytes its files have when unpacked; the length of the file for a disk.
    pub unpacked_bytes: u64,
}

impl Checker {
    /// A checker at the start of a file.
    pub fn new(role: Role, limits: Limits) -> Self {
        Self {
            role,
            limits,
            verify_data: true,
            body: Body::Head(Vec::new()),
            read: 0,
            file_type: None,
            slow: false,
        }
    }

    /// Whether [`Checker::finish`] decompresses all data of a squashfs file (it does by default),
    /// or checks its structure only, which is quick.
    #[must_use]
    pub fn verify_data(mut self, verify: bool) -> Self {
        self.verify_data = verify;
        self
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// The reason to refuse the file, as soon as there is one.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.read += bytes.len() as u64;
        let Body::Head(head) = &mut self.body else { return self.push(bytes) };
        if head.len() + bytes.len() < FileType::DETECT_BYTES {
            head.extend_from_slice(bytes);
            return Ok(());
        }
        let missing = FileType::DETECT_BYTES.saturating_sub(head.len());
        head.extend_from_slice(&bytes[..missing]);
        self.begin()?;
        self.push(&bytes[missing..])
    }

    /// How many of the next bytes need not be fed but may be skipped: data of files in a plain
    /// tarball, and everything of a squashfs file or a disk.
    pub fn skippable(&self) -> u64 {
        match &self.body {
            Body::Tar(body) if self.file_type == Some(FileType::Tar(Compression::None)) => {
                body.tar.skippable()
            }
            Body::Head(_) | Body::Tar(_) => 0,
            Body::Whole => u64::MAX,
        }
    }

    /// Goes on behind the next `count` bytes, at most [`Checker::skippable`] and no more than the
    /// file has.
    ///
    /// # Errors
    /// When `count` is more than may be skipped.
    pub fn skip(&mut self, count: u64) -> Result<(), FormatError> {
        if count > self.skippable() {
            return Err(FormatError::corrupt("file", "more of it was skipped than may be"));
        }
        self.read = self.read.saturating_add(count);
        match &mut self.body {
            Body::Tar(body) => body.tar.skip(count),
            Body::Head(_) | Body::Whole => Ok(()),
        }
    }

    /// What is known so far.
    pub fn known(&self) -> Known<'_> {
        let parts = match &self.body {
            Body::Tar(body) => Some(body.tar.parts()),
            Body::Head(_) | Body::Whole => None,
        };
        let metadata = parts.and_then(|parts| parts.metadata.as_ref());
        let kind = match (self.role, self.file_type) {
            (Role::Rootfs, Some(FileType::Qcow2)) => Some(InstanceType::VirtualMachine),
            (Role::Rootfs, Some(_)) => Some(InstanceType::Container),
            _ => parts.and_then(|parts| parts.kind),
        };
        let settled = match self.role {
            Role::Unified => metadata.is_some() && kind.is_some(),
            Role::Metadata => metadata.is_some(),
            Role::Rootfs => kind.is_some(),
        };
        Known { file_type: self.file_type, metadata, kind, settled, slow: self.slow }
    }

    /// Ends the file, and checks what can only be checked now. `file` is the whole file, of which
    /// tarballs are not read again.
    ///
    /// # Errors
    /// The reason to refuse the file.
    pub fn finish(mut self, file: &dyn ReadAt) -> Result<Findings, FormatError> {
        if let Body::Head(_) = self.body {
            self.begin()?;
        }
        let Some(file_type) = self.file_type else {
            return Err(FormatError::UnsupportedCompression);
        };
        match (self.body, file_type) {
            (Body::Tar(body), _) => {
                let TarBody { decoder, tar, .. } = *body;
                decoder.finish()?;
                let (entries, unpacked_bytes) = (tar.entries(), tar.unpacked());
                let parts = tar.finish()?;
                Ok(Findings {
                    file_type,
                    metadata: parts.metadata,
                    kind: parts.kind.filter(|_| self.role != Role::Metadata),
                    entries,
                    unpacked_bytes,
                })
            }
            (_, FileType::Qcow2) => {
                qcow2::check(file, &self.limits)?;
                Ok(Findings {
                    file_type,
                    metadata: None,
                    kind: Some(InstanceType::VirtualMachine),
                    entries: 0,
                    unpacked_bytes: file.len()?,
                })
            }
            (_, _) => {
                let walked = squashfs::check(file, self.role, &self.limits, self.verify_data)?;
                Ok(Findings {
                    file_type,
                    metadata: walked.parts.metadata,
                    kind: walked.parts.kind,
                    entries: walked.entries,
                    unpacked_bytes: walked.unpacked,
                })
            }
        }
    }

    /// Tells the format by the first bytes, and begins.
    fn begin(&mut self) -> Result<(), FormatError> {
        let Body::Head(head) = &mut self.body else { return Ok(()) };
        let head = std::mem::take(head);
        let file_type = FileType::detect(&head).ok_or(FormatError::UnsupportedCompression)?;
        let found = match (self.role, file_type) {
            (Role::Unified | Role::Metadata, FileType::Qcow2) => Some("a disk image"),
            (Role::Metadata, FileType::Squashfs) => Some("a squashfs image"),
            _ => None,
        };
        if let Some(found) = found {
            return Err(FormatError::NotMetadata { found });
        }
        self.file_type = Some(file_type);
        self.slow = match file_type {
            FileType::Tar(compression) => compression.is_slow(),
            FileType::Squashfs => Compressor::detect(&head).is_some_and(Compressor::is_slow),
            FileType::Qcow2 => false,
        };
        let FileType::Tar(compression) = file_type else {
            self.body = Body::Whole;
            return Ok(());
        };
        self.body = Body::Tar(Box::new(TarBody {
            decoder: Decoder::new(compression)?,
            tar: TarCheck::new(self.role, self.limits),
            decoded: 0,
        }));
        self.push(&head)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let Body::Tar(body) = &mut self.body else { return Ok(()) };
        let TarBody { decoder, tar, decoded } = &mut **body;
        let (limits, read) = (&self.limits, self.read);
        decoder.feed(bytes, &mut |piece| {
            *decoded += piece.len() as u64;
            limits.check_unpacked(read, *decoded)?;
            tar.feed(piece)
        })
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Head(_) => "Head",
            Self::Tar(_) => "Tar",
            Self::Whole => "Whole",
        })
    }
}

#[cfg(test)]
mod tests;
