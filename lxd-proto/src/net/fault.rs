//! From what a connection died of to words that say what to do about it.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage};
use url::Url;

use crate::net::verifier::OtherCertificate;
use crate::remote::Error;

/// What messages call the server of `url`: no user, no password, no secret in a query.
pub(super) fn origin(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{}://{host}:{port}", url.scheme()),
        (Some(host), None) => format!("{}://{host}", url.scheme()),
        (None, _) => url.scheme().to_owned(),
    }
}

/// What messages call a document: as [`origin`], with the path.
pub(super) fn public_url(url: &Url) -> String {
    format!("{}{}", origin(url), url.path())
}

/// The innermost reason: the layers above only say that a request failed.
pub(crate) fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut deepest = String::new();
    each_cause(error, &mut |cause| deepest = cause.to_string());
    deepest
}

/// The failure of a request to `endpoint`.
pub(super) fn of_request(endpoint: String, error: &reqwest::Error) -> Error {
    match error.source() {
        Some(cause) => classify(endpoint, cause, error.is_connect(), error.is_timeout()),
        // Its own text holds the URL, with whatever is secret in it.
        None => Error::Transport { endpoint, reason: "the request failed".to_owned() },
    }
}

/// The failure of a connection to `endpoint` before it carried a request.
pub(super) fn of_connection(endpoint: String, error: &io::Error) -> Error {
    classify(endpoint, error, true, error.kind() == io::ErrorKind::TimedOut)
}

fn classify(
    endpoint: String,
    error: &(dyn StdError + 'static),
    opening: bool,
    slow: bool,
) -> Error {
    let mut tls = None;
    let mut handshake = None;
    let mut system = None;
    let mut names = false;
    let mut proxy = None;
    each_cause(error, &mut |cause| {
        if let Some(error) = cause.downcast_ref::<TlsError>() {
            match error {
                TlsError::InvalidCertificate(error) => tls = Some(certificate_reason(error)),
                other => handshake = Some(handshake_reason(other)),
            }
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            system = Some(copy(error));
        }
        let text = cause.to_string();
        names |= text == "dns error" || text.contains("failed to lookup address");
        if text == "tls handshake eof" {
            let reason = "it closes the connection instead; it probably does not speak TLS";
            handshake = Some(reason.to_owned());
        }
        if text.contains("tunnel") || text.contains("proxy auth") {
            proxy = Some(text);
        }
    });
    if let Some(reason) = tls {
        return Error::Tls { endpoint, reason };
    }
    if let Some(reason) = handshake {
        return Error::Handshake { endpoint, reason };
    }
    if !opening {
        return Error::Transport { endpoint, reason: deepest(error) };
    }
    if names {
        let source = io::Error::other("the name cannot be resolved; check it, and DNS");
        return Error::Connect { endpoint, source };
    }
    if let Some(reason) = proxy {
        let reason = format!("the proxy lets us not through: {reason}");
        return Error::Connect { endpoint, source: io::Error::other(reason) };
    }
    if slow {
        let reason = "no answer; is the address right, and does a firewall let us through?";
        let source = io::Error::new(io::ErrorKind::TimedOut, reason);
        return Error::Connect { endpoint, source };
    }
    match system {
        Some(source) => Error::Connect { endpoint, source },
        None => Error::Transport { endpoint, reason: deepest(error) },
    }
}

/// Visits an error and all that lies under it, into `io::Error`s too, which hide what they wrap.
fn each_cause(error: &(dyn StdError + 'static), visit: &mut dyn FnMut(&(dyn StdError + 'static))) {
    let mut next = Some(error);
    // Nothing honest is nested deeper.
    for _ in 0..32 {
        let Some(error) = next else { return };
        visit(error);
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .map(|inner| inner as &(dyn StdError + 'static));
        next = wrapped.or_else(|| error.source());
    }
}

fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

fn handshake_reason(error: &TlsError) -> String {
    match error {
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "what answers does not speak TLS; is it a plain HTTP server?".to_owned()
        }
        TlsError::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired | AlertDescription::BadCertificate => {
                "it wants another client certificate than ours, or any at all".to_owned()
            }
            AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
                "it speaks neither TLS 1.3 nor TLS 1.2 with a cipher we know".to_owned()
            }
            other => format!("it ended the TLS handshake: {other:?}"),
        },
        other => other.to_string(),
    }
}

fn certificate_reason(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        // A bad signature is an authority of the same name with another key.
        E::UnknownIssuer | E::BadSignature => {
            "nobody this machine trusts vouches for its certificate; SSL_CERT_FILE can name \
             its authority"
                .to_owned()
        }
        E::Expired | E::ExpiredContext { .. } => "its certificate has expired; it needs a new \
                                                  one, unless this machine's clock is wrong"
            .to_owned(),
        E::NotValidYet | E::NotValidYetContext { .. } => {
            "its certificate is not valid yet; check the clocks of both machines".to_owned()
        }
        E::NotValidForNameContext { expected, presented } => {
            let names = if presented.is_empty() {
                "no name at all".to_owned()
            } else {
                presented.join(", ")
            };
            format!(
                "its certificate is for {names}, not for {}; an address with such a name would do",
                expected.to_str()
            )
        }
        E::NotValidForName => "its certificate is for another name".to_owned(),
        E::Other(other) => match other.0.downcast_ref::<OtherCertificate>() {
            Some(OtherCertificate { pinned, shown }) => format!(
                "it shows the certificate {}, while {} was pinned; unless it has got a new one, \
                 somebody may be in between",
                shown.short(),
                pinned.short()
            ),
            None => other.to_string(),
        },
        other => format!("its certificate cannot be used: {other}"),
    }
}
