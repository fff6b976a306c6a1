//! Changing an image in one step, again when somebody else was faster.

use lxd_proto::client::LxdClient;
use lxd_proto::image::ImagePut;

use crate::command::image::edit::EditableImage;
use crate::editor::Editable;
use crate::failure::Outcome;
use lxd_proto::fingerprint::Fingerprint;

/// How often a change is made anew on a newer version.
const RETRIES: usize = 5;

/// Applies `change` to the image and saves it, unless nothing changes. True when it did.
pub(crate) async fn update(
    server: &LxdClient,
    fingerprint: Fingerprint,
    change: impl Fn(&mut ImagePut),
) -> Outcome<bool> {
    let object = EditableImage { server: server.clone(), fingerprint };
    let mut tries = 0;
    loop {
        let (base, etag) = object.read().await?;
        let mut image = base.clone();
        change(&mut image);
        if image == base {
            return Ok(false);
        }
        match object.save(&image, etag.as_deref()).await {
            Err(error) if error.is_changed_meanwhile() && tries < RETRIES => tries += 1,
            saved => return Ok(saved.map(|()| true)?),
        }
    }
}
