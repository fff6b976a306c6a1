//! `LxdClient`: the LXD protocol from the client's side, over a unix socket or HTTPS.

mod aliases;
mod certificates;
mod events;
mod exec;
mod export;
mod files;
mod images;
mod instances;
mod mirrors;
mod operations;
mod server;
mod transport;
mod upload;
mod websocket;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use url::Url;

use crate::alias::AliasEntry;
use crate::filter::Filter;
use crate::fingerprint::{Fingerprint, Prefix};
use crate::image::Image;
use crate::net::{self, Access};
use crate::remote::{Fetch, Protocol, Remote, RemoteSpec, Secret, Sink, Want};

use transport::Transport;

pub use crate::remote::{Error, Result};
pub use certificates::WaitingToken;
pub use events::EventStream;
pub use exec::{Controls, Execution, Input, Output, exec_metadata};
pub use files::{FileBody, FileReader, InstanceFile};
pub use images::ListOptions;
pub use server::Tagged;
pub use transport::{IDLE_SECONDS, RawReply};
pub use upload::{FilePart, Mirrored, UploadBody, UploadOptions};

/// A server that speaks LXD's REST API. Cheap to clone; making one opens no connection.
#[derive(Debug, Clone)]
pub struct LxdClient {
    spec: Arc<RemoteSpec>,
    transport: Transport,
}

impl LxdClient {
    /// The server that `spec` describes. A pinned certificate in it is the only one that is
    /// taken; otherwise an authority must vouch for the server.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another protocol than LXD's, [`Error::Address`] for an address
    /// that is neither `unix://` nor `https://`.
    pub fn new(spec: RemoteSpec, access: &Access) -> Result<Self> {
        if spec.protocol != Protocol::Lxd {
            return Err(Error::Unsupported(format!(
                "{} speaks {}, not LXD's protocol",
                spec.address, spec.protocol
            )));
        }
        let transport = if let Some(path) = socket_path(&spec.address) {
            Transport::unix(path, &spec.project, &access.user_agent)?
        } else {
            let base = https_url(&spec.address)?;
            Transport::https(base, &spec.certificate, &spec.project, access)?
        };
        Ok(Self { spec: Arc::new(spec), transport })
    }

    /// The server behind the unix socket at `path`.
    pub fn unix(path: &Path) -> Result<Self> {
        let spec = RemoteSpec::unix(path);
        let user_agent = concat!("lxd-cli/", env!("CARGO_PKG_VERSION"));
        let transport = Transport::unix(path.to_owned(), "", user_agent)?;
        Ok(Self { spec: Arc::new(spec), transport })
    }
}

/// The base of an LXD server's URLs. Nothing is ever sent in the clear.
fn https_url(address: &str) -> Result<Url> {
    let url = net::parse(address)?;
    if url.scheme() == "https" {
        Ok(url)
    } else {
        let reason = "LXD servers are reached by https:// only".to_owned();
        Err(Error::Address { address: address.to_owned(), reason })
    }
}

/// The aliases that an image's description names.
fn entries_of(image: &Image) -> impl Iterator<Item = AliasEntry> {
    image.aliases.iter().map(|alias| AliasEntry {
        description: alias.description.clone(),
        target: image.fingerprint,
        name: alias.name.clone(),
        kind: image.kind,
    })
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
        match self.list_aliases().await {
            // LXD lists aliases for those it trusts only, but shows strangers those of each image.
            Err(Error::Api { status: 403, .. }) => {
                let images = self.list_images(&ListOptions::default()).await?;
                let mut entries: Vec<_> = images.iter().flat_map(entries_of).collect();
                entries.sort_by(|a, b| a.name.cmp(&b.name));
                Ok(entries)
            }
            listed => listed,
        }
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

    async fn download(&self, image: &Image, request: &Fetch, sink: &mut dyn Sink) -> Result<()> {
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
