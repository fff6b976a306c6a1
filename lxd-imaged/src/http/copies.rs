//! What concerns other servers and versions: secrets, pushes, refreshes, history, rollback.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use lxd_proto::image::ImageExportPost;

use super::Daemon;
use super::extract;
use super::reply::Reply;
use crate::app::Caller;
use crate::service::{images, lineage, push, secrets, sources};

/// `POST /1.0/images/FINGERPRINT/secret`.
pub(super) async fn secret(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
) -> Reply {
    let created =
        extract::prefix(&fingerprint).and_then(|prefix| secrets::create(&app, &caller, &prefix));
    created.into()
}

/// `POST /1.0/images/FINGERPRINT/export`: sends the image to another server.
pub(super) async fn push(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
    body: Body,
) -> Reply {
    let pushed = async {
        let post: ImageExportPost = extract::json(body).await?;
        push::push(&app, &caller, &fingerprint, post).await
    };
    pushed.await.into()
}

/// `POST /1.0/images/FINGERPRINT/refresh`.
pub(super) async fn refresh(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
) -> Reply {
    let begun = extract::prefix(&fingerprint)
        .and_then(|prefix| images::get(&app, &caller, &prefix))
        .and_then(|entry| sources::refresh(&app, &entry.image.fingerprint));
    begun.into()
}

/// `GET /1.0/images/FINGERPRINT/history`.
pub(super) async fn history(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
) -> Reply {
    let versions =
        extract::prefix(&fingerprint).and_then(|prefix| lineage::history(&app, &caller, &prefix));
    match versions {
        Ok(versions) => Reply::json(&versions),
        Err(error) => error.into(),
    }
}

/// `POST /1.0/images/FINGERPRINT/rollback`: answers with the image that is current now.
pub(super) async fn rollback(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
) -> Reply {
    let rolled = async { lineage::rollback(&app, &caller, &extract::prefix(&fingerprint)?).await };
    match rolled.await {
        Ok(entry) => Reply::Json(entry.json.to_string()),
        Err(error) => error.into(),
    }
}
