//! `/1.0/certificates`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use http::HeaderMap;
use lxd_proto::certificate::{CertificatePatch, CertificatePut, CertificatesPost};
use lxd_proto::routes;

use super::Daemon;
use super::extract::{self, Query};
use super::reply::Reply;
use crate::app::{Caller, Client};
use crate::service::trust::{self, Added};

pub(super) async fn list(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let all = trust::list(&app, &caller);
    Reply::list(Query::of(&uri).recursion(), &all, |it| {
        routes::CERTIFICATE.url(&[&it.fingerprint.to_string()])
    })
}

pub(super) async fn get(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
) -> Reply {
    let found = trust::prefix(&fingerprint).and_then(|prefix| trust::get(&app, &caller, &prefix));
    match found {
        Ok(certificate) => Reply::tagged(&certificate, trust::etag(&certificate)),
        Err(error) => error.into(),
    }
}

/// Open to strangers: with the password or a token they add themselves.
pub(super) async fn create(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    client: Option<Extension<Arc<Client>>>,
    body: Body,
) -> Reply {
    let added = async {
        let post: CertificatesPost = match caller.must_be_trusted() {
            Ok(()) => extract::json(body).await?,
            Err(_) => extract::small_json(body).await?,
        };
        trust::add(&app, &caller, client.as_deref().map(|client| &**client), post).await
    };
    match added.await {
        Ok(Added::Certificate(fingerprint)) => {
            Reply::Created(routes::CERTIFICATE.url(&[&fingerprint.to_string()]))
        }
        Ok(Added::Token(operation)) => Reply::Operation(operation),
        Err(error) => error.into(),
    }
}

pub(super) async fn put(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let done = async {
        let prefix = trust::prefix(&fingerprint)?;
        let put: CertificatePut = extract::json(body).await?;
        trust::put(&app, &caller, &prefix, extract::etag(&headers), put).await
    };
    done.await.into()
}

pub(super) async fn patch(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let done = async {
        let prefix = trust::prefix(&fingerprint)?;
        let patch: CertificatePatch = extract::json(body).await?;
        trust::patch(&app, &caller, &prefix, extract::etag(&headers), patch).await
    };
    done.await.into()
}

pub(super) async fn delete(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
) -> Reply {
    let done = async { trust::remove(&app, &caller, &trust::prefix(&fingerprint)?).await };
    done.await.into()
}
