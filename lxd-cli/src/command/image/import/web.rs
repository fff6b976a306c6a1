//! `image import https://…`: the server fetches what a web server hands out.

use lxd_proto::alias::ImageAlias;
use lxd_proto::client::LxdClient;
use lxd_proto::image::{ImageSource, ImagesPost};

use super::words::Words;
use super::{Import, Report};
use crate::command::image::claims;
use crate::command::image::fetching::{classified, request, result, wait};
use crate::context::Context;
use crate::failure::{Failure, Outcome};

impl Import {
    /// Lets the server fetch the image that `url` tells of.
    pub(super) async fn web(
        &self,
        context: &Context,
        server: &LxdClient,
        url: &str,
        words: &Words,
        names: &[ImageAlias],
    ) -> Outcome<Report> {
        if self.compression.is_some() {
            return Err(Failure::usage("--compression is for importing a directory"));
        }
        if self.verify {
            return Err(Failure::usage("--verify is for files")
                .hint("`lxd-cli image verify` checks an image that is there."));
        }
        let claims = claims::look_up(server, names).await?;
        if !self.reuse {
            claims::refuse_taken(&claims, None)?;
        }
        let source = ImageSource {
            kind: "url".to_owned(),
            mode: "pull".to_owned(),
            protocol: "direct".to_owned(),
            url: url.to_owned(),
            ..ImageSource::default()
        };
        let post = ImagesPost {
            public: self.public,
            properties: Some(words.properties.clone()).filter(|given| !given.is_empty()),
            source: Some(source),
            ..request()
        };
        let operation = server.create_image_from(&post).await.map_err(classified)?;
        let words = ("Importing the image", "the import");
        let operation = wait(context, server, operation, None, words).await?;
        let fingerprint = result(&operation, None)?;
        claims::set(server, &claims, fingerprint, self.reuse).await?;
        Ok(Report { fingerprint, status: "imported", size: None, aliases: claims })
    }
}
