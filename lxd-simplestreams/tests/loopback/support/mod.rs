//! A simplestreams tree made in code, and a web server on the loopback interface that serves
//! it, counts what it is asked and can be told to misbehave.

mod certificates;
mod keys;
mod server;
mod tree;
mod vcdiff;

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lxd_proto::net::{Access, Limits, Proxies};
use lxd_proto::remote::{FileRole, IncomingFile, Protocol, Remote, RemoteSpec, Sink};

pub(crate) use certificates::Certificates;
pub(crate) use keys::{key, signed};
pub(crate) use server::Server;
pub(crate) use tree::{Build, Tree, fingerprint};
pub(crate) use vcdiff::delta;

/// A program of its own: what it knows it has from the cache in `directory`.
pub(crate) fn access(program: &str, directory: &Path) -> Access {
    let mut access = Access::anonymous(program);
    access.proxies = Proxies::none();
    access.cache = Some(directory.to_owned());
    access.limits = Limits {
        connect: std::time::Duration::from_secs(5),
        idle: std::time::Duration::from_secs(5),
        retries: 3,
        backoff: std::time::Duration::from_millis(1),
        ..Limits::default()
    };
    access
}

/// A remote at `address`.
pub(crate) fn remote(address: &str, access: &Access) -> Arc<dyn Remote> {
    let spec = RemoteSpec {
        address: address.to_owned(),
        protocol: Protocol::Simplestreams,
        ..RemoteSpec::default()
    };
    lxd_simplestreams::connect(spec, access).unwrap()
}

/// Keeps the files of an image in memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// What has come.
    pub(crate) files: Vec<(FileRole, String, Vec<u8>)>,
    /// What was there before, by the number of the file.
    pub(crate) held: Vec<Vec<u8>>,
}

impl Memory {
    /// All bytes, in order.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.files.iter().flat_map(|(_, _, bytes)| bytes).copied().collect()
    }
}

#[async_trait]
impl Sink for Memory {
    async fn begin(&mut self, file: &IncomingFile) -> io::Result<u64> {
        let held = self.held.get(self.files.len()).cloned().unwrap_or_default();
        let length = held.len() as u64;
        self.files.push((file.role, file.filename.clone(), held));
        Ok(length)
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let (_, _, file) = self.files.last_mut().ok_or(io::ErrorKind::InvalidInput)?;
        file.extend_from_slice(&bytes);
        Ok(())
    }
}
