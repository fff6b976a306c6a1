//! Images made in memory: incompressible, of any size, and never the same bytes twice.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

/// Bytes of the file that tells images apart.
const SERIAL: usize = 16;
/// Files of the large image are this large.
const FILE: usize = 8 << 20;
/// The boundary of multipart bodies.
const BOUNDARY: &str = "5a9f0c1be2d84f7c9d3b7a60";

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A number that no other image of this run has.
pub(crate) fn serial() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// `metadata.yaml` of an image called `name`.
pub(crate) fn metadata_yaml(name: &str) -> String {
    format!(
        "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  os: Bench\n  release: {name}\n  description: {name} made by lxd-bench\n"
    )
}

/// A tarball being written into memory.
#[derive(Debug)]
pub(crate) struct Tarball {
    bytes: Vec<u8>,
    serial_at: Option<usize>,
}

impl Tarball {
    /// An image: `metadata.yaml` first.
    pub(crate) fn unified(name: &str) -> Result<Self> {
        let mut tarball = Self { bytes: Vec::new(), serial_at: None };
        tarball.file("metadata.yaml", metadata_yaml(name).as_bytes())?;
        tarball.directory("rootfs/")?;
        Ok(tarball)
    }

    /// A root file system alone.
    pub(crate) fn root() -> Result<Self> {
        let mut tarball = Self { bytes: Vec::new(), serial_at: None };
        tarball.directory("./")?;
        Ok(tarball)
    }

    fn header(&mut self, name: &str, size: usize, kind: tar::EntryType) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name)?;
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_mtime(1_700_000_000);
        header.set_size(size as u64);
        header.set_cksum();
        self.bytes.write_all(header.as_bytes())?;
        Ok(())
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        self.header(name, 0, tar::EntryType::Directory)
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.header(name, content.len(), tar::EntryType::Regular)?;
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    /// Adds the file that [`Tarball::renew`] changes.
    pub(crate) fn with_serial(mut self, name: &str) -> Result<Self> {
        self.header(name, SERIAL, tar::EntryType::Regular)?;
        self.serial_at = Some(self.bytes.len());
        self.bytes.extend_from_slice(&[b'0'; SERIAL]);
        self.pad();
        Ok(self)
    }

    /// Adds files of noise in `folder` until the tarball has about `size` bytes, and closes it.
    pub(crate) fn filled(mut self, folder: &str, size: usize) -> Result<Self> {
        self.bytes.reserve(size + (1 << 20));
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let mut number = 0;
        while self.bytes.len() + 2048 < size {
            let length = FILE.min(size - self.bytes.len() - 1536);
            self.header(&format!("{folder}/noise-{number:04}"), length, tar::EntryType::Regular)?;
            noise.fill(&mut self.bytes, length);
            self.pad();
            number += 1;
        }
        self.bytes.extend_from_slice(&[0; 1024]);
        Ok(self)
    }

    /// Makes it an image that no daemon has seen.
    pub(crate) fn renew(&mut self) -> Result<()> {
        let at = self.serial_at.context("a tarball without a serial number")?;
        let digits = format!("{:0width$}", serial(), width = SERIAL);
        self.bytes[at..at + SERIAL].copy_from_slice(digits.as_bytes());
        Ok(())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A unified image of one small file.
pub(crate) fn tiny(name: &str) -> Result<Vec<u8>> {
    let mut tarball = Tarball::unified(name)?.with_serial("rootfs/serial")?.filled("rootfs", 0)?;
    tarball.renew()?;
    Ok(tarball.bytes)
}

/// A unified image of one small file: build number `build` of a release of its own.
pub(crate) fn version(release: &str, build: usize) -> Result<Vec<u8>> {
    let yaml = format!(
        "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  os: Bench\n  release: {release}\n  serial: \"202601{:02}_0000\"\n",
        build + 1
    );
    let mut tarball = Tarball { bytes: Vec::new(), serial_at: None };
    tarball.file("metadata.yaml", yaml.as_bytes())?;
    tarball.directory("rootfs/")?;
    let mut tarball = tarball.with_serial("rootfs/serial")?.filled("rootfs", 0)?;
    tarball.renew()?;
    Ok(tarball.bytes)
}

/// The `Content-Type` of [`multipart`].
pub(crate) fn multipart_type() -> String {
    format!("multipart/form-data; boundary={BOUNDARY}")
}

/// What stands before the metadata, between it and the rootfs, and after that.
pub(crate) fn multipart() -> [String; 3] {
    let part = |name: &str| {
        format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
    };
    [part("metadata"), format!("\r\n{}", part("rootfs")), format!("\r\n--{BOUNDARY}--\r\n")]
}

/// `metadata.tar.xz` of a split image.
pub(crate) fn split_metadata() -> Result<Vec<u8>> {
    let mut tarball = Tarball { bytes: Vec::new(), serial_at: None };
    tarball.file("metadata.yaml", metadata_yaml("split").as_bytes())?;
    tarball.bytes.extend_from_slice(&[0; 1024]);
    let mut packer = liblzma::write::XzEncoder::new(Vec::new(), 6);
    packer.write_all(&tarball.bytes)?;
    Ok(packer.finish()?)
}

/// Bytes that no compressor makes smaller.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, into: &mut Vec<u8>, length: usize) {
        let end = into.len() + length;
        while into.len() < end {
            // xorshift64*: quick, and random enough for any compressor.
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            into.extend_from_slice(&word[..word.len().min(end - into.len())]);
        }
    }
}
