//! An image server made in code: counts what it is asked, and lies, stops or breaks off on order.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use lxd_proto::alias::{AliasEntry, ImageAlias};
use lxd_proto::filter::Filter;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::image::{Image, InstanceType};
use lxd_proto::remote::{
    Error, Fetch, FileRole, IncomingFile, Remote, RemoteSpec, Result, Secret, Sink, Want,
};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

const CHUNK: usize = 64 << 10;

/// An image in memory.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    image: Image,
    files: Vec<(FileRole, Bytes)>,
}

impl Made {
    fn new(files: Vec<(FileRole, Vec<u8>)>, salt: &str) -> Self {
        let all: Vec<u8> = files.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let fingerprint = Fingerprint::from_bytes(Sha256::digest(&all).into());
        let short: String = salt.chars().take(20).collect();
        let image = serde_json::json!({
            "architecture": "x86_64",
            "fingerprint": fingerprint.to_string(),
            "size": all.len(),
            "public": true,
            "created_at": "2016-03-15T11:10:00Z",
            "properties": {"os": "debian", "salt": short},
            "aliases": null,
        });
        let files = files.into_iter().map(|(role, bytes)| (role, bytes.into())).collect();
        Self { image: serde_json::from_value(image).unwrap(), files }
    }

    /// One file with these bytes.
    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Self {
        Self::new(vec![(FileRole::Unified, bytes)], "")
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.image.fingerprint
    }

    pub(crate) fn size(&self) -> u64 {
        self.image.size
    }
}

/// A unified image whose root file system holds `salt`.
pub(crate) fn unified(salt: &str) -> Made {
    let file = tarball(&[("metadata.yaml", METADATA), ("rootfs/etc/salt", salt)]);
    Made::new(vec![(FileRole::Unified, file)], salt)
}

/// A split image whose root file system holds `salt`.
pub(crate) fn split(salt: &str) -> Made {
    let metadata = tarball(&[("metadata.yaml", METADATA)]);
    let rootfs = tarball(&[("etc/salt", salt)]);
    let files =
        vec![(FileRole::Metadata, metadata), (FileRole::Rootfs(InstanceType::Container), rootfs)];
    Made::new(files, salt)
}

const METADATA: &str = "architecture: x86_64\ncreation_date: 1458040200\n";

fn tarball(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The server.
#[derive(Debug)]
pub(crate) struct Fake {
    spec: RemoteSpec,
    images: Mutex<BTreeMap<Fingerprint, Made>>,
    aliases: Mutex<BTreeMap<String, Fingerprint>>,
    instead: Mutex<Option<Made>>,
    described: Mutex<Option<Made>>,
    announced: Mutex<Option<u64>>,
    cuts: Mutex<VecDeque<u64>>,
    corrupt: Mutex<BTreeMap<Fingerprint, Made>>,
    running: AtomicUsize,
    most: AtomicUsize,
    stop: Mutex<Option<u64>>,
    gate: Arc<Notify>,
    down: AtomicBool,
    questions: AtomicUsize,
    downloads: AtomicUsize,
    connections: AtomicUsize,
    keyrings: Mutex<Vec<Option<String>>>,
    sent: AtomicU64,
}

impl Fake {
    pub(crate) fn with(images: &[(&str, &Made)]) -> Arc<Self> {
        Self::at("https://images.example", images)
    }

    pub(crate) fn at(address: &str, images: &[(&str, &Made)]) -> Arc<Self> {
        let fake = Self {
            spec: RemoteSpec { address: address.into(), ..RemoteSpec::default() },
            images: Mutex::default(),
            aliases: Mutex::default(),
            instead: Mutex::default(),
            described: Mutex::default(),
            announced: Mutex::default(),
            cuts: Mutex::default(),
            corrupt: Mutex::default(),
            running: AtomicUsize::default(),
            most: AtomicUsize::default(),
            stop: Mutex::default(),
            gate: Arc::default(),
            down: AtomicBool::default(),
            questions: AtomicUsize::default(),
            downloads: AtomicUsize::default(),
            connections: AtomicUsize::default(),
            keyrings: Mutex::default(),
            sent: AtomicU64::default(),
        };
        for (alias, image) in images {
            fake.add(alias, image);
        }
        Arc::new(fake)
    }

    /// The keyrings of its clients.
    pub(crate) fn keyrings(&self) -> Vec<Option<String>> {
        self.keyrings.lock().clone()
    }

    /// A new client of it.
    pub(crate) fn connected(self: &Arc<Self>, spec: &RemoteSpec) -> Arc<dyn Remote> {
        self.keyrings.lock().push(spec.keyring.clone());
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.clone()
    }

    pub(crate) fn address(&self) -> String {
        self.spec.address.clone()
    }

    /// From now on the alias means this image.
    pub(crate) fn add(&self, alias: &str, image: &Made) {
        self.images.lock().insert(image.fingerprint(), image.clone());
        self.aliases.lock().insert(alias.into(), image.fingerprint());
    }

    /// The image is the build `serial` of a release of debian, under these names.
    pub(crate) fn publish(&self, image: &Made, release: &str, serial: &str, aliases: &[&str]) {
        let mut made = image.clone();
        for (key, value) in [("os", "debian"), ("release", release), ("serial", serial)] {
            made.image.properties.insert(key.into(), value.into());
        }
        let mut images = self.images.lock();
        for name in aliases {
            // A name leads to one image.
            images.values_mut().for_each(|it| it.image.aliases.retain(|it| it.name != *name));
            let alias = ImageAlias { name: (*name).into(), description: String::new() };
            made.image.aliases.push(alias);
        }
        images.insert(image.fingerprint(), made);
    }

    /// The image is not offered any more.
    pub(crate) fn withdraw(&self, image: &Made) {
        self.images.lock().remove(&image.fingerprint());
    }

    /// Bytes of another image come for this one, or its own again.
    pub(crate) fn corrupt(&self, image: &Made, other: Option<&Made>) {
        match other {
            Some(other) => self.corrupt.lock().insert(image.fingerprint(), other.clone()),
            None => self.corrupt.lock().remove(&image.fingerprint()),
        };
    }

    /// It answers again.
    pub(crate) fn come_up(&self) {
        self.down.store(false, Ordering::Relaxed);
    }

    /// How many downloads went on at once, at most.
    pub(crate) fn most_at_once(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Describes every image with this property too.
    pub(crate) fn property(&self, key: &str, value: &str) {
        for made in self.images.lock().values_mut() {
            made.image.properties.insert(key.into(), value.into());
        }
    }

    /// The next download breaks off after so many bytes.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.cuts.lock().push_back(bytes);
    }

    /// Downloads stop after so many bytes until the gate is notified.
    pub(crate) fn stop_after(&self, bytes: u64) -> Arc<Notify> {
        *self.stop.lock() = Some(bytes);
        self.gate.clone()
    }

    /// Downloads do not stop any more.
    pub(crate) fn go_on(&self) {
        *self.stop.lock() = None;
    }

    pub(crate) fn send_instead(&self, image: &Made) {
        *self.instead.lock() = Some(image.clone());
    }

    pub(crate) fn describe_instead(&self, image: &Made) {
        *self.described.lock() = Some(image.clone());
    }

    pub(crate) fn announce(&self, size: u64) {
        *self.announced.lock() = Some(size);
    }

    /// Nobody answers any more.
    pub(crate) fn go_down(&self) {
        self.down.store(true, Ordering::Relaxed);
    }

    /// How often it was asked anything but files.
    pub(crate) fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }

    pub(crate) fn downloads(&self) -> usize {
        self.downloads.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn ask(&self) -> Result<()> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        if self.down.load(Ordering::Relaxed) {
            let source = io::ErrorKind::ConnectionRefused.into();
            return Err(Error::Connect { endpoint: self.spec.address.clone(), source });
        }
        Ok(())
    }

    fn shown(&self, made: &Made) -> Image {
        let mut image = made.image.clone();
        if let Some(size) = *self.announced.lock() {
            image.size = size;
        }
        image
    }

    async fn send(&self, made: Made, cut: Option<u64>, sink: &mut dyn Sink) -> Result<()> {
        let local = |source| Error::Io { what: "sink".into(), source };
        let mut sent = 0;
        for (role, bytes) in made.files {
            let length = Some(bytes.len() as u64);
            let file = IncomingFile { role, filename: String::new(), length };
            let held = usize::try_from(sink.begin(&file).await.map_err(local)?).unwrap();
            for chunk in bytes[held..].chunks(CHUNK) {
                let stop = *self.stop.lock();
                if stop.is_some_and(|stop| sent >= stop) {
                    self.gate.notified().await;
                    self.go_on();
                }
                let left = cut.map_or(usize::MAX, |cut| usize::try_from(cut - sent).unwrap());
                let chunk = &chunk[..chunk.len().min(left)];
                sink.write(Bytes::copy_from_slice(chunk)).await.map_err(local)?;
                sent += chunk.len() as u64;
                self.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                if Some(sent) == cut {
                    let endpoint = self.spec.address.clone();
                    return Err(Error::Transport { endpoint, reason: "cut".into() });
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Remote for Fake {
    fn spec(&self) -> &RemoteSpec {
        &self.spec
    }

    async fn images(&self, _: &Filter) -> Result<Vec<Image>> {
        self.ask()?;
        Ok(self.images.lock().values().map(|made| self.shown(made)).collect())
    }

    async fn image(&self, id: &Prefix, _: Option<&Secret>) -> Result<Image> {
        self.ask()?;
        if let Some(other) = &*self.described.lock() {
            return Ok(other.image.clone());
        }
        let images = self.images.lock();
        let mut found = images.values().filter(|made| id.matches(&made.fingerprint()));
        match (found.next(), found.next()) {
            (Some(made), None) => Ok(self.shown(made)),
            (None, _) => Err(Error::NotFound { reference: id.to_string() }),
            _ => Err(Error::Api { status: 500, message: "More than one image matches".into() }),
        }
    }

    async fn aliases(&self) -> Result<Vec<AliasEntry>> {
        self.ask()?;
        Ok(Vec::new())
    }

    async fn alias(&self, name: &str, _: &Want) -> Result<AliasEntry> {
        self.ask()?;
        let missing = || Error::NotFound { reference: name.into() };
        let target = *self.aliases.lock().get(name).ok_or_else(missing)?;
        let kind = InstanceType::Container;
        Ok(AliasEntry { description: String::new(), target, name: name.into(), kind })
    }

    async fn download(&self, image: &Image, fetch: &Fetch, sink: &mut dyn Sink) -> Result<()> {
        self.downloads.fetch_add(1, Ordering::Relaxed);
        let corrupt = self.corrupt.lock().get(&image.fingerprint).cloned();
        let made = match self.instead.lock().clone().or(corrupt) {
            Some(other) => other,
            None => self.images.lock()[&image.fingerprint].clone(),
        };
        let running = Running::new(self);
        let cut = self.cuts.lock().pop_front();
        tokio::select! {
            () = fetch.cancel.cancelled() => Err(Error::Cancelled),
            done = self.send(made, cut, sink) => {
                drop(running);
                done
            }
        }
    }
}

/// Counts a download as long as it goes on.
struct Running<'a>(&'a Fake);

impl<'a> Running<'a> {
    fn new(fake: &'a Fake) -> Self {
        let now = fake.running.fetch_add(1, Ordering::Relaxed) + 1;
        fake.most.fetch_max(now, Ordering::Relaxed);
        Self(fake)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
