//! `LxdClient`: the LXD protocol from the client's side, over a unix socket.

mod aliases;
mod events;
mod export;
mod images;
mod operations;
mod server;
mod transport;
mod upload;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::alias::AliasEntry;
use crate::filter::Filter;
use crate::fingerprint::{Fingerprint, Prefix};
use crate::image::Image;
use crate::remote::{Fetch, Protocol, Remote, RemoteSpec, Secret, Sink, Want};

use transport::Transport;

pub use crate::remote::{Error, Result};
pub use events::EventStream;
pub use images::ListOptions;
pub use server::Tagged;
pub use transport::{IDLE_SECONDS, RawReply};
pub use upload::{FilePart, UploadBody, UploadOptions};

/// A server that speaks LXD's REST API. Cheap to clone; making one opens no connection.
#[derive(Debug, Clone)]
pub struct LxdClient {
    spec: Arc<RemoteSpec>,
    transport: Transport,
}

impl LxdClient {
    /// The server that `spec` describes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another protocol than LXD's, and for addresses other than
    /// `unix://`.
    pub fn new(spec: RemoteSpec) -> Result<Self> {
        if spec.protocol != Protocol::Lxd {
            return Err(Error::Unsupported(format!(
                "{} speaks {}, not LXD's protocol",
                spec.address, spec.protocol
            )));
        }
        let Some(path) = socket_path(&spec.address) else {
            return Err(Error::Unsupported(format!(
                "{}: only servers on this machine (unix:///PATH) can be reached so far; \
                 the network comes with the next release",
                spec.address
            )));
        };
        let transport = Transport::unix(path, &spec.project)?;
        Ok(Self { spec: Arc::new(spec), transport })
    }

    /// The server behind the unix socket at `path`.
    pub fn unix(path: &Path) -> Result<Self> {
        Self::new(RemoteSpec::unix(path))
    }
}

/// The path in `unix:///PATH`, `unix:/PATH` or `/PATH`.
fn socket_path(address: &str) -> Option<PathBuf> {
    let path = match address.strip_prefix("unix:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None => address,
    };
    path.starts_with('/').then(|| PathBuf::from(path))
}

#[async_trait]
impl Remote for LxdClient {
    fn spec(&self) -> &RemoteSpec {
        &self.spec
    }

    async fn images(&self, filter: &Filter) -> Result<Vec<Image>> {
        // Filtered here: LXD 5.0.2 never matches a boolean.
        let mut images = self.list_images(&ListOptions::default()).await?;
        images.retain(|image| filter.matches(image));
        Ok(images)
    }

    async fn image(&self, id: &Prefix, secret: Option<&Secret>) -> Result<Image> {
        Ok(self.get_image(id, secret).await?.value)
    }

    async fn aliases(&self) -> Result<Vec<AliasEntry>> {
        self.list_aliases().await
    }

    async fn alias(&self, name: &str, want: &Want) -> Result<AliasEntry> {
        let entry = self.get_alias(name).await?.value;
        match want.kind {
            Some(kind) if kind != entry.kind => Err(Error::NotFound { reference: name.to_owned() }),
            _ => Ok(entry),
        }
    }

    async fn secret(&self, fingerprint: &Fingerprint) -> Result<Option<Secret>> {
        self.create_secret(fingerprint).await.map(Some)
    }

    async fn fetch(&self, image: &Image, request: &Fetch, sink: &mut dyn Sink) -> Result<()> {
        self.export(image, request, sink).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_socket_is_read() {
        for address in ["unix:///run/x.socket", "unix:/run/x.socket", "/run/x.socket"] {
            assert_eq!(socket_path(address).unwrap(), Path::new("/run/x.socket"));
        }
        for address in ["unix://", "https://host:8443", "host", ""] {
            assert_eq!(socket_path(address), None, "{address}");
        }
    }
}
