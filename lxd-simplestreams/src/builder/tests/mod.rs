//! Trees as a whole, made of small images.

mod build;
mod change;
mod fetch;
mod intake;
mod naming;
mod verify;
mod withdraw;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::remote::Progress;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::convert::{self, Listed};
use crate::document::Catalog;
use crate::publish::CATALOG;

/// A directory for one test: a tree and what goes into it.
struct Home {
    directory: TempDir,
}

impl Home {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn tree(&self) -> PathBuf {
        self.path("tree")
    }

    /// Writes a file below the home.
    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Writes a container image of two tarballs; its fingerprint.
    fn image(&self, directory: &str, image: &Sample) -> Fingerprint {
        self.put(&format!("{directory}/lxd.tar.xz"), &image.metadata());
        self.put(&format!("{directory}/root.tar.xz"), &image.root());
        sha256(&[&image.metadata(), &image.root()])
    }

    /// Writes an image of a virtual machine; its fingerprint.
    fn machine(&self, directory: &str, image: &Sample, seed: u8) -> Fingerprint {
        let disk = qcow2(&image.serial, seed);
        self.put(&format!("{directory}/incus.tar.xz"), &image.metadata());
        self.put(&format!("{directory}/disk.qcow2"), &disk);
        sha256(&[&image.metadata(), &disk])
    }

    fn open(&self) -> LocalTree {
        let jobs = NonZeroUsize::new(2).unwrap();
        unlocked(|| LocalTree::open(&self.tree(), true, jobs, Progress::default()))
    }

    fn build(&self) -> BuildReport {
        self.build_with(&BuildOptions::default())
    }

    fn build_with(&self, options: &BuildOptions) -> BuildReport {
        self.open().build(options, now()).unwrap()
    }

    fn verify(&self) -> VerifyReport {
        self.verify_signed(None)
    }

    fn verify_signed(&self, keyring: Option<&crate::signed::Keyring>) -> VerifyReport {
        unlocked(|| verify_signed(&self.tree(), keyring, NonZeroUsize::MIN, &Progress::default()))
    }

    fn catalog(&self) -> Catalog {
        Catalog::parse(&fs::read(self.tree().join(CATALOG)).unwrap()).unwrap()
    }

    /// What clients find, by fingerprint.
    fn listed(&self) -> BTreeMap<Fingerprint, Listed> {
        let images = convert::images(&self.catalog()).into_iter();
        images.map(|listed| (listed.image.fingerprint, listed)).collect()
    }

    /// Every path below the tree but what is remembered, with its time.
    fn files(&self) -> BTreeMap<String, std::time::SystemTime> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.tree()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.tree()).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() {
                    open.push(path);
                } else {
                    files.insert(name, path.metadata().unwrap().modified().unwrap());
                }
            }
        }
        files
    }
}

/// What comes of it when nobody has the lock: another test's child has it, too, between its fork and
/// its exec.
fn unlocked<T>(attempt: impl Fn() -> Result<T>) -> T {
    for _ in 0..500 {
        match attempt() {
            Err(TreeError::Locked(_)) => std::thread::sleep(std::time::Duration::from_millis(10)),
            done => return done.unwrap(),
        }
    }
    attempt().unwrap()
}

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

/// `PATH: REASON` of each.
fn told(broken: &[Broken]) -> Vec<String> {
    broken.iter().map(|one| format!("{}: {}", one.path, one.reason)).collect()
}

fn sha256(parts: &[&[u8]]) -> Fingerprint {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    Fingerprint::from_bytes(hash.finalize().into())
}

/// An image of a system with a release; two of one name differ in their serial.
struct Sample {
    os: &'static str,
    serial: String,
    arch: &'static str,
    more: &'static str,
}

fn sample(os: &'static str, serial: &str) -> Sample {
    Sample { os, serial: serial.to_owned(), arch: "amd64", more: "" }
}

impl Sample {
    fn yaml(&self) -> String {
        let Self { os, serial, arch, more } = self;
        format!(
            "architecture: {arch}\ncreation_date: 1458040200\nproperties:\n  os: {os}\n  \
             release: \"1\"\n  serial: \"{serial}\"\n{more}"
        )
    }

    /// The metadata tarball: whatever its name, it is not compressed.
    fn metadata(&self) -> Vec<u8> {
        let mut tar = entry("metadata.yaml", b'0', self.yaml().as_bytes());
        tar.extend([0; 1024]);
        tar
    }

    fn root(&self) -> Vec<u8> {
        let mut tar = entry("./", b'5', b"");
        tar.extend(entry("./etc/", b'5', b""));
        tar.extend(entry("./serial", b'0', self.serial.as_bytes()));
        tar.extend([0; 1024]);
        tar
    }

    fn unified(&self) -> Vec<u8> {
        let mut tar = entry("metadata.yaml", b'0', self.yaml().as_bytes());
        tar.extend(entry("rootfs/", b'5', b""));
        tar.extend(entry("rootfs/serial", b'0', self.serial.as_bytes()));
        tar.extend([0; 1024]);
        tar
    }
}

/// One entry of a tarball.
fn entry(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000755");
    header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    header[136..147].copy_from_slice(b"14471142123");
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut entry = header.to_vec();
    entry.extend_from_slice(data);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

/// A disk of twelve clusters, eight of them noise that follows from `seed`.
fn qcow2(label: &str, seed: u8) -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    let mut disk = vec![0; 12 * CLUSTER];
    let mut head = b"QFI\xfb".to_vec();
    head.extend(2_u32.to_be_bytes());
    head.extend([0; 12]);
    head.extend(16_u32.to_be_bytes());
    head.extend((1_u64 << 20).to_be_bytes());
    head.extend(0_u32.to_be_bytes());
    head.extend(1_u32.to_be_bytes());
    head.extend((3 * CLUSTER as u64).to_be_bytes());
    head.extend((CLUSTER as u64).to_be_bytes());
    head.extend(1_u32.to_be_bytes());
    head.extend([0; 12]);
    disk[..head.len()].copy_from_slice(&head);
    disk[CLUSTER..CLUSTER + 8].copy_from_slice(&(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..12 {
        disk[2 * CLUSTER + 2 * cluster + 1] = 1;
    }
    disk[1024..1024 + label.len()].copy_from_slice(label.as_bytes());
    let mut state = (u64::from(seed) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in &mut disk[4 * CLUSTER..] {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_be_bytes()[0];
    }
    disk
}

/// The path of a version.
fn at(os: &str, serial: &str) -> String {
    format!("images/{os}/1/amd64/default/{serial}")
}

/// Of one more version of `os` in the tree.
fn version(home: &Home, os: &'static str, serial: &str) -> Fingerprint {
    home.image(&format!("tree/{}", at(os, serial)), &sample(os, serial))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
