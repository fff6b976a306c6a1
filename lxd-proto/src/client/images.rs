//! Images: list, look, edit, delete.

use reqwest::Method;

use crate::client::LxdClient;
use crate::client::server::Tagged;
use crate::client::transport::Request;
use crate::fingerprint::{Fingerprint, Prefix};
use crate::image::{Image, ImageExportPost, ImagePatch, ImagePut, ImageVersion, ImagesPost};
use crate::operation::Operation;
use crate::remote::{Error, Result, Secret};
use crate::routes::{self, query};

/// Which images to list.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// In the filter language of [`crate::filter`], applied by the server.
    pub filter: String,
    /// At most so many; only our own daemon knows it.
    pub limit: Option<usize>,
    /// Only those whose fingerprint sorts after this one; only our own daemon knows it.
    pub after: Option<Fingerprint>,
    /// Replaced versions too; only our own daemon knows it.
    pub all_versions: bool,
}

impl LxdClient {
    /// The images that `options` describes.
    pub async fn list_images(&self, options: &ListOptions) -> Result<Vec<Image>> {
        let mut request = Request::list(routes::IMAGES.url(&[]));
        if !options.filter.is_empty() {
            request = request.query(query::FILTER, options.filter.clone());
        }
        if let Some(limit) = options.limit {
            request = request.query(query::LIMIT, limit.to_string());
        }
        if let Some(after) = options.after {
            request = request.query(query::AFTER, after.to_string());
        }
        if options.all_versions {
            request = request.query(query::ALL_VERSIONS, "1");
        }
        // Go's LXD answers with null where there is nothing.
        let images: Option<Vec<Image>> = self.transport.ask(request).await?.parse()?;
        Ok(images.unwrap_or_default())
    }

    /// The image whose fingerprint begins with `id`.
    pub async fn get_image(&self, id: &Prefix, secret: Option<&Secret>) -> Result<Tagged<Image>> {
        let mut request = Request::get(routes::IMAGE.url(&[id.as_str()]));
        if let Some(secret) = secret {
            request = request.query(query::SECRET, secret.expose());
        }
        let reply = self.transport.ask(request).await?;
        let image: Image = reply.parse()?;
        if !id.matches(&image.fingerprint) {
            let what = format!("image {id}");
            let reason = format!("the server answered with {}", image.fingerprint);
            return Err(Error::Decode { what, reason });
        }
        Ok(Tagged { value: image, etag: reply.etag })
    }

    /// Replaces the editable part of an image.
    ///
    /// # Errors
    /// One with [`Error::is_changed_meanwhile`] when `etag` is not current any more.
    pub async fn put_image(
        &self,
        fingerprint: &Fingerprint,
        body: &ImagePut,
        etag: Option<&str>,
    ) -> Result<()> {
        let path = routes::IMAGE.url(&[&fingerprint.to_string()]);
        self.transport.tell(Request::new(Method::PUT, path).if_match(etag), body).await?;
        Ok(())
    }

    /// Changes some fields of an image; properties are merged key by key.
    pub async fn patch_image(
        &self,
        fingerprint: &Fingerprint,
        body: &ImagePatch,
        etag: Option<&str>,
    ) -> Result<()> {
        let path = routes::IMAGE.url(&[&fingerprint.to_string()]);
        self.transport.tell(Request::new(Method::PATCH, path).if_match(etag), body).await?;
        Ok(())
    }

    /// Starts to delete an image and its aliases; wait for the operation.
    pub async fn delete_image(&self, fingerprint: &Fingerprint) -> Result<Operation> {
        let path = routes::IMAGE.url(&[&fingerprint.to_string()]);
        self.transport.ask(Request::new(Method::DELETE, path)).await?.operation()
    }

    /// Starts to make an image from `body.source`: a copy from another server, an image behind a
    /// URL, or (mode `push`) a token for an upload by somebody else. Wait for the operation; a
    /// token's metadata has the `secret`.
    pub async fn create_image_from(&self, body: &ImagesPost) -> Result<Operation> {
        let request = Request::new(Method::POST, routes::IMAGES.url(&[]));
        self.transport.tell(request, body).await?.operation()
    }

    /// Starts to push an image to another server; wait for the operation.
    pub async fn export_to(
        &self,
        fingerprint: &Fingerprint,
        body: &ImageExportPost,
    ) -> Result<Operation> {
        let path = routes::IMAGE_EXPORT.url(&[&fingerprint.to_string()]);
        self.transport.tell(Request::new(Method::POST, path), body).await?.operation()
    }

    /// Starts to update an image from its source; wait for the operation, whose metadata has
    /// `refreshed`.
    pub async fn refresh_image(&self, fingerprint: &Fingerprint) -> Result<Operation> {
        let path = routes::IMAGE_REFRESH.url(&[&fingerprint.to_string()]);
        self.transport.ask(Request::new(Method::POST, path)).await?.operation()
    }

    /// The versions of an image, newest first; only our own daemon knows it.
    pub async fn image_history(&self, fingerprint: &Fingerprint) -> Result<Vec<ImageVersion>> {
        let path = routes::IMAGE_HISTORY.url(&[&fingerprint.to_string()]);
        self.transport.ask(Request::get(path).long()).await?.parse()
    }

    /// The version before takes the aliases back, or, when `fingerprint` is a replaced version,
    /// that one; only our own daemon knows it. Returns the image that is current now.
    pub async fn rollback_image(&self, fingerprint: &Fingerprint) -> Result<Image> {
        let path = routes::IMAGE_ROLLBACK.url(&[&fingerprint.to_string()]);
        self.transport.ask(Request::new(Method::POST, path)).await?.parse()
    }

    /// A one-time secret with which a stranger may fetch a private image.
    pub async fn create_secret(&self, fingerprint: &Fingerprint) -> Result<Secret> {
        let path = routes::IMAGE_SECRET.url(&[&fingerprint.to_string()]);
        let operation = self.transport.ask(Request::new(Method::POST, path)).await?.operation()?;
        let metadata = operation.metadata.unwrap_or_default();
        match metadata.get("secret").and_then(|secret| secret.as_str()) {
            Some(secret) => Ok(Secret::new(secret.to_owned())),
            None => Err(Error::Decode {
                what: format!("the secret of image {fingerprint}"),
                reason: "there is none in the answer".to_owned(),
            }),
        }
    }
}
