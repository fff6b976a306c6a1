//! Images behind two headers of a web server: `LXD-Image-URL` says where the file is and
//! `LXD-Image-Hash` what it must hash to.

use std::sync::Arc;

use async_trait::async_trait;
use lxd_proto::alias::AliasEntry;
use lxd_proto::arch::Architecture;
use lxd_proto::filter::Filter;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::image::{Image, InstanceType, Properties, Verified};
use lxd_proto::net::{DownloadOptions, Http};
use lxd_proto::remote::{
    self, Fetch, FileRole, IncomingFile, Remote, RemoteSpec, Secret, Sink, Want,
};
use lxd_proto::routes::direct;
use lxd_proto::time;

use super::{Follow, Wish, asked, origins, pulls, record};
use crate::app::App;
use crate::catalog::Entry;
use crate::error::{Error, Result};

/// Where the file is; Incus' name for it.
const IMAGE_URL: [&str; 2] = [direct::URL, direct::INCUS_URL];
/// What it hashes to.
const IMAGE_HASH: [&str; 2] = [direct::HASH, direct::INCUS_HASH];

/// Takes the image that `address` hands out, once; tells whether it is new here.
///
/// # Errors
/// [`Error::Origin`] names the server; [`Error::BadRequest`] says what its answer lacks. Nothing
/// is fetched in the clear, redirects included.
pub async fn import(
    app: &Arc<App>,
    address: &str,
    wish: &Wish,
    follow: &Follow,
) -> Result<(Arc<Entry>, bool)> {
    let address = origins::https(address)?;
    let spec = RemoteSpec { address: address.to_string(), ..RemoteSpec::default() };
    let failed = |error| origins::failed(&spec, "cannot import the image", error);
    let http = Http::new(&origins::access_now(app), "").map_err(failed)?;
    let (url, fingerprint) = asked(app, follow, ask(&http, &address, &spec)).await?;
    if app.catalog.get(&fingerprint).is_some() {
        return Ok((record::adopt(app, &fingerprint, wish, None).await?, false));
    }
    record::check_aliases(app, &fingerprint, wish)?;
    let filename = file_name(&url);
    let image = stub(fingerprint, filename);
    let remote: Arc<dyn Remote> = Arc::new(WebFile { spec, http, url });
    let (joined, arrived) = pulls::fetch(app, &remote, &image, None, None, follow).await?;
    let described = record::Described { image, whole: false };
    let recorded = record::arrived(app, &arrived, &described, wish, None).await?;
    drop(joined);
    Ok(recorded)
}

/// Asks for the two headers.
async fn ask(
    http: &Http,
    address: &::url::Url,
    spec: &RemoteSpec,
) -> Result<(::url::Url, Fingerprint)> {
    let names: Vec<&str> = match Architecture::host() {
        None => Vec::new(),
        Some(host) => {
            std::iter::once(host).chain(host.personalities().iter().copied()).map(name).collect()
        }
    };
    let architectures = names.join(", ");
    let headers = [
        (direct::ARCHITECTURES, architectures.as_str()),
        (direct::VERSION, lxd_proto::server::SPOKEN_VERSION),
        (direct::INCUS_ARCHITECTURES, architectures.as_str()),
        (direct::INCUS_VERSION, lxd_proto::server::SPOKEN_VERSION),
    ];
    let head = http
        .head(address.as_str(), &headers)
        .await
        .map_err(|error| origins::failed(spec, "cannot import the image", error))?;
    let header = |names: [&str; 2]| names.iter().find_map(|name| head.header(name));
    let missing =
        |name: &str| Error::BadRequest(format!("Missing {name} header in the answer of {address}"));
    let hash = header(IMAGE_HASH).ok_or_else(|| missing("LXD-Image-Hash"))?;
    let url = header(IMAGE_URL).ok_or_else(|| missing("LXD-Image-URL"))?;
    let fingerprint = hash
        .trim()
        .parse()
        .map_err(|error| Error::BadRequest(format!("LXD-Image-Hash: {error}")))?;
    Ok((origins::https(url.trim())?, fingerprint))
}

fn name(architecture: Architecture) -> &'static str {
    architecture.as_str()
}

/// The last part of the path.
fn file_name(url: &::url::Url) -> String {
    let last = url.path_segments().and_then(|mut segments| segments.next_back());
    last.unwrap_or_default().to_owned()
}

/// All that is known before the file is here; the rest is in its metadata.
fn stub(fingerprint: Fingerprint, filename: String) -> Image {
    Image {
        auto_update: false,
        properties: Properties::new(),
        public: false,
        expires_at: time::epoch(),
        profiles: Vec::new(),
        aliases: Vec::new(),
        architecture: Architecture::host().unwrap_or(Architecture::ALL[0]),
        cached: false,
        filename,
        fingerprint,
        size: 0,
        update_source: None,
        kind: InstanceType::Container,
        created_at: time::zero(),
        last_used_at: time::zero(),
        uploaded_at: time::zero(),
        verified: Verified::Yes,
        refresh: None,
    }
}

/// A web server as far as it hands out this one file.
#[derive(Debug)]
struct WebFile {
    spec: RemoteSpec,
    http: Http,
    url: ::url::Url,
}

impl WebFile {
    fn unsupported<T>(&self) -> remote::Result<T> {
        let text = format!("{} hands out one file and nothing else", self.spec.address);
        Err(remote::Error::Unsupported(text))
    }

    async fn send(&self, sink: &mut dyn Sink) -> remote::Result<()> {
        let local = |source| remote::Error::Io { what: "cannot store the image".into(), source };
        let mut download = self.http.open(self.url.as_str(), DownloadOptions::default()).await?;
        let file = IncomingFile {
            role: FileRole::Unified,
            filename: file_name(&self.url),
            length: download.length(),
        };
        let kept = sink.begin(&file).await.map_err(local)?;
        download.skip_to(kept);
        while let Some(bytes) = download.next().await? {
            sink.write(bytes).await.map_err(local)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Remote for WebFile {
    fn spec(&self) -> &RemoteSpec {
        &self.spec
    }

    async fn images(&self, _: &Filter) -> remote::Result<Vec<Image>> {
        self.unsupported()
    }

    async fn image(&self, _: &Prefix, _: Option<&Secret>) -> remote::Result<Image> {
        self.unsupported()
    }

    async fn aliases(&self) -> remote::Result<Vec<AliasEntry>> {
        self.unsupported()
    }

    async fn alias(&self, _: &str, _: &Want) -> remote::Result<AliasEntry> {
        self.unsupported()
    }

    async fn download(
        &self,
        _: &Image,
        request: &Fetch,
        sink: &mut dyn Sink,
    ) -> remote::Result<()> {
        tokio::select! {
            biased;
            () = request.cancel.cancelled() => Err(remote::Error::Cancelled),
            done = self.send(sink) => done,
        }
    }
}
