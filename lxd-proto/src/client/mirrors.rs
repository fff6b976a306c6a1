//! Mirrors; only our own daemon has them.

use reqwest::Method;

use crate::client::LxdClient;
use crate::client::server::Tagged;
use crate::client::transport::Request;
use crate::mirror::bundle::{Manifest, MirrorImportPost};
use crate::mirror::{Mirror, MirrorPatch, MirrorPut, MirrorRunPost, MirrorsPost};
use crate::operation::Operation;
use crate::remote::Result;
use crate::routes::{self, query};

impl LxdClient {
    /// All mirrors, by name.
    pub async fn list_mirrors(&self) -> Result<Vec<Mirror>> {
        let request = Request::list(routes::MIRRORS.url(&[]));
        let mirrors: Option<Vec<Mirror>> = self.transport.ask(request).await?.parse()?;
        Ok(mirrors.unwrap_or_default())
    }

    /// The mirror with this name.
    pub async fn get_mirror(&self, name: &str) -> Result<Tagged<Mirror>> {
        let reply = self.transport.ask(Request::get(routes::MIRROR.url(&[name]))).await?;
        Ok(Tagged { value: reply.parse()?, etag: reply.etag })
    }

    /// Makes a mirror. It does not run by that.
    pub async fn create_mirror(&self, body: &MirrorsPost) -> Result<()> {
        let request = Request::new(Method::POST, routes::MIRRORS.url(&[]));
        self.transport.tell(request, body).await?;
        Ok(())
    }

    /// Replaces what may be edited of a mirror.
    ///
    /// # Errors
    /// One with [`Error::is_changed_meanwhile`](crate::remote::Error::is_changed_meanwhile) when
    /// `etag` is not current any more.
    pub async fn put_mirror(&self, name: &str, body: &MirrorPut, etag: Option<&str>) -> Result<()> {
        let request = Request::new(Method::PUT, routes::MIRROR.url(&[name])).if_match(etag);
        self.transport.tell(request, body).await?;
        Ok(())
    }

    /// Changes some keys of a mirror.
    pub async fn patch_mirror(
        &self,
        name: &str,
        body: &MirrorPatch,
        etag: Option<&str>,
    ) -> Result<()> {
        let request = Request::new(Method::PATCH, routes::MIRROR.url(&[name])).if_match(etag);
        self.transport.tell(request, body).await?;
        Ok(())
    }

    /// Starts to delete a mirror, with its images if `images`; wait for the operation.
    pub async fn delete_mirror(&self, name: &str, images: bool) -> Result<Operation> {
        let mut request = Request::new(Method::DELETE, routes::MIRROR.url(&[name]));
        if images {
            request = request.query(query::IMAGES, "1");
        }
        self.transport.ask(request).await?.operation()
    }

    /// Starts a run of a mirror; wait for the operation, whose metadata is a
    /// [`MirrorReport`](crate::mirror::MirrorReport) under `report`.
    pub async fn run_mirror(&self, name: &str, body: &MirrorRunPost) -> Result<Operation> {
        let request = Request::new(Method::POST, routes::MIRROR_RUN.url(&[name]));
        self.transport.tell(request, body).await?.operation()
    }

    /// What a bundle of a mirror holds.
    pub async fn mirror_manifest(&self, name: &str) -> Result<Manifest> {
        let request = Request::get(routes::MIRROR_MANIFEST.url(&[name])).long();
        self.transport.ask(request).await?.parse()
    }

    /// The images of a bundle have been sent: aliases move, old versions go. Wait for the operation,
    /// whose metadata is a [`MirrorReport`](crate::mirror::MirrorReport) under `report`.
    pub async fn import_mirror(&self, name: &str, body: &MirrorImportPost) -> Result<Operation> {
        let request = Request::new(Method::POST, routes::MIRROR_IMPORT.url(&[name]));
        self.transport.tell(request, body).await?.operation()
    }
}
