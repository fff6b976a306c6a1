//! Tar archives made by hand, so that they can be wrong in any way.

use std::fs;
use std::path::{Path, PathBuf};

use lxd_proto::remote::Progress;
use tokio_util::sync::CancellationToken;

use crate::rootfs::{Error, Source, Unpacked, unpack};

/// A `metadata.yaml` that is good.
pub(super) const METADATA: &[u8] = b"architecture: amd64\ncreation_date: 1424284563\n";

#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    /// Begins with what every image has.
    pub(super) fn image() -> Self {
        Self::default().file("metadata.yaml", METADATA).dir("rootfs/")
    }

    pub(super) fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(name, b'0', "", data, |_| {})
    }

    pub(super) fn dir(self, name: &str) -> Self {
        self.entry(name, b'5', "", b"", |_| {})
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, b'2', target, b"", |_| {})
    }

    pub(super) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(name, b'1', target, b"", |_| {})
    }

    pub(super) fn device(self, name: &str, kind: u8, major: u32, minor: u32) -> Self {
        self.entry(name, kind, "", b"", |header| {
            header[329..336].copy_from_slice(format!("{major:07o}").as_bytes());
            header[337..344].copy_from_slice(format!("{minor:07o}").as_bytes());
        })
    }

    /// An entry whose header is changed before its checksum is made.
    pub(super) fn entry(
        mut self,
        name: &str,
        kind: u8,
        link: &str,
        data: &[u8],
        change: impl FnOnce(&mut [u8; 512]),
    ) -> Self {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[136..147].copy_from_slice(b"14471142123");
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        change(&mut header);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// A pax extended header for the next entry.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while rest + len.to_string().len() != len {
                len += 1;
            }
            body.extend_from_slice(format!("{len} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry("PaxHeaders/x", b'x', "", &body, |_| {})
    }

    /// The archive with its end marker.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// A place to unpack to, and a file beside it that nothing may touch.
pub(super) struct Place {
    dir: tempfile::TempDir,
    before: Vec<Seen>,
}

/// All that would change when a file or directory is touched.
type Seen = (PathBuf, Vec<u8>, fs::Metadata);

impl Place {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/canary"), "untouched").unwrap();
        let mut place = Self { dir, before: Vec::new() };
        fs::write(place.path("image"), "").unwrap();
        fs::write(place.path("second"), "").unwrap();
        place.before = place.look();
        place
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn tree(&self, name: &str) -> PathBuf {
        self.path("tree").join(name)
    }

    pub(super) fn canary(&self) -> String {
        self.path("outside/canary").to_str().unwrap().to_owned()
    }

    pub(super) fn unpack(&self, image: &[u8]) -> Result<Unpacked, Error> {
        fs::write(self.path("image"), image).unwrap();
        self.run(None)
    }

    pub(super) fn unpack_split(&self, head: &[u8], rootfs: &[u8]) -> Result<Unpacked, Error> {
        fs::write(self.path("image"), head).unwrap();
        fs::write(self.path("second"), rootfs).unwrap();
        self.run(Some(&self.path("second")))
    }

    fn run(&self, rootfs: Option<&Path>) -> Result<Unpacked, Error> {
        let head = &self.path("image");
        let cancel = CancellationToken::new();
        let result =
            unpack(Source { head, rootfs }, &self.path("tree"), &Progress::default(), &cancel);
        self.untouched();
        result
    }

    /// Checks that nothing outside of the tree was written, or read.
    fn untouched(&self) {
        use std::os::unix::fs::MetadataExt;
        let names: Vec<_> = fs::read_dir(self.dir.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 4, "something was made beside the tree: {names:?}");
        for ((path, content, was), (_, now, is)) in self.before.iter().zip(self.look()) {
            assert_eq!(content, &now, "{path:?}");
            let all = |metadata: &fs::Metadata| {
                let times = (metadata.mtime(), metadata.mtime_nsec());
                let changes = (metadata.ctime(), metadata.ctime_nsec());
                (times, changes, metadata.mode(), metadata.uid(), metadata.nlink())
            };
            assert_eq!(all(was), all(&is), "{path:?} was changed");
        }
    }

    fn look(&self) -> Vec<Seen> {
        let canary = self.path("outside/canary");
        let outside = self.path("outside");
        vec![
            (canary.clone(), fs::read(&canary).unwrap(), fs::symlink_metadata(&canary).unwrap()),
            (outside.clone(), Vec::new(), fs::symlink_metadata(&outside).unwrap()),
        ]
    }
}
