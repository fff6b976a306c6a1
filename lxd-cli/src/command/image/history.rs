//! `image history`: the versions that an image has had.

use clap::Args;
use lxd_proto::client::LxdClient;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::ImageVersion;
use lxd_proto::remote::Error;

use crate::command::flags::{ImageArg, ListFormat};
use crate::command::image::list::for_people;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Table, mebibytes, print_list};

/// The property in which servers put an image's version.
const SERIAL: &str = "serial";

/// Show the versions that an image has had.
#[derive(Debug, Args)]
#[command(after_help = "\
When a newer version takes the place of an image, the old one is kept: images.keep_versions says
how many (1). It has no names and is not listed, but can be shown, exported and gone back to.

Examples:
  lxd-cli image history debian/12
  lxd-cli image export a65894de6c07   # also an old version")]
pub(crate) struct History {
    #[command(flatten)]
    image: ImageArg,
    #[command(flatten)]
    format: ListFormat,
}

impl History {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let found = self.image.open(context).await?;
        let versions =
            versions(&found.server, &found.remote, &found.resolved.image.fingerprint).await?;
        let headers = ["FINGERPRINT", "SERIAL", "SIZE", "UPLOAD DATE", "REPLACED"];
        let mut table = Table::new(&headers);
        // Newest first, as the server tells them.
        table.rows = versions.iter().map(row).collect();
        print_list(self.format.format, &table, &versions)
    }
}

fn row(version: &ImageVersion) -> Vec<String> {
    let image = &version.image;
    vec![
        image.fingerprint.short(),
        image.properties.get(SERIAL).cloned().unwrap_or_default(),
        mebibytes(image.size),
        for_people(image.uploaded_at),
        version.replaced_at.map_or_else(|| "(current)".to_owned(), for_people),
    ]
}

/// The versions of an image, newest first.
pub(super) async fn versions(
    server: &LxdClient,
    remote: &str,
    fingerprint: &Fingerprint,
) -> Outcome<Vec<ImageVersion>> {
    server.image_history(fingerprint).await.map_err(|error| match error {
        Error::Api { status: 404, .. } => {
            Failure::new(format!("{remote}: keeps no versions of its images"))
                .hint("LXD deletes an image when a newer version takes its place.")
        }
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::image::list::tests::sample;

    #[test]
    fn the_current_version_is_marked() {
        let mut image = sample();
        image.properties.insert(SERIAL.into(), "20260101".into());
        let version = ImageVersion { image, replaced_at: None };
        assert_eq!(
            row(&version).join("|"),
            "a65894de6c07|20260101|0.84MiB|Nov 24, 2026 at 1:53am (UTC)|(current)"
        );
    }
}
