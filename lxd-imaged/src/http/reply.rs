//! Replies: the envelope, and the one place where errors get their HTTP status.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use lxd_proto::envelope;
use lxd_proto::operation::Operation;
use serde::Serialize;

use crate::error::Error;
use crate::ops;

/// What a handler answers.
#[derive(Debug)]
pub(super) enum Reply {
    /// 200 with this JSON.
    Json(String),
    /// 200 with this JSON and an entity tag.
    Tagged(String, String),
    /// 200 with nothing to say.
    Empty,
    /// 201: something is now at this path.
    Created(String),
    /// 202: this operation runs.
    Operation(Box<Operation>),
    /// An error of this status.
    Error(StatusCode, String),
    /// Something with a body of its own.
    Raw(Response),
}

impl Reply {
    /// 200 with the value.
    pub(super) fn json(value: &impl Serialize) -> Self {
        match serde_json::to_string(value) {
            Ok(json) => Self::Json(json),
            Err(error) => Error::Internal(error.to_string()).into(),
        }
    }

    /// 200 with the value and its entity tag.
    pub(super) fn tagged(value: &impl Serialize, etag: String) -> Self {
        match Self::json(value) {
            Self::Json(json) => Self::Tagged(json, etag),
            other => other,
        }
    }

    /// A list of paths, or of the values themselves.
    pub(super) fn list<T: Serialize>(
        recursion: bool,
        values: &[T],
        path: impl Fn(&T) -> String,
    ) -> Self {
        if recursion {
            Self::json(&values)
        } else {
            Self::json(&values.iter().map(path).collect::<Vec<_>>())
        }
    }

    /// The path is known, the method is not.
    pub(super) fn not_implemented() -> Self {
        Self::Error(StatusCode::NOT_IMPLEMENTED, "not implemented".into())
    }
}

impl From<Error> for Reply {
    fn from(error: Error) -> Self {
        let status = status(&error);
        if status.is_server_error() {
            // The text may hold what the client sent.
            let error = error.to_string();
            tracing::warn!(error = %error.escape_debug(), %status, "a request failed");
        }
        Self::Error(status, error.to_string())
    }
}

/// The status of each error. No catch-all: a new error must decide.
fn status(error: &Error) -> StatusCode {
    match error {
        Error::Shared(error) => status(error),
        Error::Origin { .. } => StatusCode::BAD_GATEWAY,
        Error::NotYet(_) => StatusCode::NOT_IMPLEMENTED,
        Error::BadRequest(_)
        | Error::Config(_)
        | Error::Upload(_)
        | Error::Confined(_)
        | Error::FingerprintMismatch { .. }
        | Error::Format(_)
        | Error::Cancelled => StatusCode::BAD_REQUEST,
        Error::Forbidden | Error::Refused(_) => StatusCode::FORBIDDEN,
        Error::TooManyGuesses { .. } => StatusCode::TOO_MANY_REQUESTS,
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::AliasExists(_)
        | Error::MirrorExists(_)
        | Error::MirrorRuns(_)
        | Error::ImageExists { .. }
        | Error::CertificateExists
        | Error::InstanceExists
        | Error::ImageMade { .. }
        | Error::NameTaken(_)
        | Error::SnapshotExists(_) => StatusCode::CONFLICT,
        Error::EtagMismatch { .. } => StatusCode::PRECONDITION_FAILED,
        Error::ShuttingDown | Error::TooMany(_) | Error::NoRuntime(_) | Error::CannotSign => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Error::NoSpace(_) => StatusCode::INSUFFICIENT_STORAGE,
        // LXD answers 500 for the first six, and clients show the text.
        Error::Ambiguous
        | Error::AmbiguousCertificate
        | Error::Filter(_)
        | Error::NoWebsocket
        | Error::EventType(_)
        | Error::InvalidImagesJson
        | Error::Unpack(_)
        | Error::Rootfs(_)
        | Error::Runtime(_)
        | Error::Template(_)
        | Error::Db(_)
        | Error::Io { .. }
        | Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl<T: Into<Reply>> From<Result<T, Error>> for Reply {
    fn from(result: Result<T, Error>) -> Self {
        result.map_or_else(Self::from, Into::into)
    }
}

impl From<()> for Reply {
    fn from((): ()) -> Self {
        Self::Empty
    }
}

impl From<Operation> for Reply {
    fn from(operation: Operation) -> Self {
        Self::Operation(Box::new(operation))
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        match self {
            Self::Json(json) => json_body(StatusCode::OK, envelope::sync(&json)),
            Self::Tagged(json, etag) => {
                let mut response = json_body(StatusCode::OK, envelope::sync(&json));
                set(&mut response, header::ETAG, &format!("\"{etag}\""));
                response
            }
            Self::Empty => json_body(StatusCode::OK, envelope::sync("{}")),
            Self::Created(path) => {
                let mut response = json_body(StatusCode::CREATED, envelope::sync("null"));
                set(&mut response, header::LOCATION, &path);
                response
            }
            Self::Operation(operation) => {
                let path = ops::path(&operation);
                let json = serde_json::to_string(&operation).unwrap_or_default();
                let mut response =
                    json_body(StatusCode::ACCEPTED, envelope::operation_created(&path, &json));
                set(&mut response, header::LOCATION, &path);
                response
            }
            Self::Error(status, message) => {
                let mut response = json_body(status, envelope::error(status.as_u16(), &message));
                set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
                response
            }
            Self::Raw(response) => response,
        }
    }
}

fn json_body(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, "application/json");
    response
}

/// Sets a header whose value is ours, or percent-encoded.
pub(super) fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
