//! Images that a server fetches by itself: the request, the wait, and why it failed.

use lxd_proto::client::LxdClient;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::ImagesPost;
use lxd_proto::operation::Operation;
use lxd_proto::remote::{Error, Progress};
use lxd_proto::time;

use crate::command::operation::follow;
use crate::context::Context;
use crate::failure::{Cause, Failure, Outcome};
use crate::progress::show;

/// A request for an image, without its source and without wishes.
pub(crate) fn request() -> ImagesPost {
    ImagesPost {
        auto_update: false,
        properties: None,
        public: false,
        expires_at: time::zero(),
        profiles: None,
        filename: String::new(),
        source: None,
        compression_algorithm: String::new(),
        aliases: Vec::new(),
    }
}

/// Waits for an image that a server fetches; `label` is what is shown meanwhile, `what` the same
/// for a sentence. `size` when it is known.
pub(crate) async fn wait(
    context: &Context,
    server: &LxdClient,
    operation: Operation,
    size: Option<u64>,
    (label, what): (&str, &str),
) -> Outcome<Operation> {
    let progress = Progress::default();
    if let Some(size) = size {
        progress.set_total(size);
    }
    let shown = show(context.progress, label, &progress);
    match follow(context, server, operation, &shown, what).await? {
        Ok(operation) => {
            shown.done();
            Ok(operation)
        }
        Err(error) => Err(classified(error)),
    }
}

/// A failure of the server; one that only says that a server was not reached is marked as such.
pub(crate) fn classified(error: Error) -> Failure {
    let text = error.to_string();
    let failure = Failure::from(error);
    if is_connection(&text) { failure.because(Cause::Unreachable) } else { failure }
}

/// Whether one server tells that it does not reach the other: no image byte has travelled, and
/// another way may work. Servers tell it in words only.
pub(crate) fn is_connection(text: &str) -> bool {
    const WORDS: &[&str] = &[
        "Unable to connect to",
        "Failed to connect to",
        "cannot reach",
        "cannot trust",
        "connection refused",
        "no such host",
        "i/o timeout",
        "x509:",
    ];
    WORDS.iter().any(|words| text.contains(words))
}

/// The fingerprint that an operation ended with, or the one that was asked for.
pub(crate) fn result(operation: &Operation, expected: Option<Fingerprint>) -> Outcome<Fingerprint> {
    let metadata = operation.metadata.as_ref();
    let told = metadata.and_then(|metadata| metadata.get("fingerprint")?.as_str()?.parse().ok());
    told.or(expected).ok_or_else(|| {
        Failure::new("the server has taken the image, but does not say its fingerprint")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failed_connections_are_tried_in_another_way() {
        for text in [
            "Failed to connect to LXD server \"https://127.0.0.1:1\": Get \"https://127.0.0.1:1/1.0\": \
             Unable to connect to: 127.0.0.1:1 ([dial tcp 127.0.0.1:1: connect: connection refused])",
            "cannot reach https://h:8443: the name cannot be resolved; check it, and DNS",
            "Get \"https://h\": x509: certificate signed by unknown authority",
        ] {
            assert!(is_connection(text), "{text}");
        }
        for text in [
            "Failed remote image download: unexpected EOF",
            "Image fingerprint doesn't match. Got a expected b",
            "Image not found",
        ] {
            assert!(!is_connection(text), "{text}");
        }
    }
}
