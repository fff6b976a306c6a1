//! A certificate in PEM: what the API takes, and what it says about itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lxd_proto::certificate::x509::Facts;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The base64 between the first pair of marks; `None` where there is no certificate.
pub(super) fn body(pem: &str) -> Option<String> {
    let (_, rest) = pem.split_once(BEGIN)?;
    let (inside, _) = rest.split_once(END)?;
    let body: String = inside.split_whitespace().collect();
    STANDARD.decode(&body).is_ok().then_some(body)
}

/// What the first certificate says about itself.
pub(super) fn facts(pem: &str) -> Option<Facts> {
    Facts::read(&STANDARD.decode(body(pem)?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_certificate_is_taken() {
        let identity = lxd_proto::net::Identity::generate("me@here").unwrap();
        let pem = format!("text before\n{}more", identity.certificate_pem());
        assert_eq!(facts(&pem).unwrap().common_name, "me@here");
        assert_eq!(body(identity.key_pem()), None);
        assert_eq!(body("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"), None);
    }
}
