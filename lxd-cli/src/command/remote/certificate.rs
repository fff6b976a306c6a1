//! The certificate of a server that no authority vouches for: shown, and accepted by a person.

use clap::Args;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::net::{Access, PeerCertificate, checked_certificate, peer_certificate};
use lxd_proto::remote::Error;

use crate::failure::{Failure, Outcome};
use crate::output::{emit, note};
use crate::prompt::ask;

/// How a certificate is accepted.
#[derive(Debug, Args)]
pub(crate) struct AcceptFlags {
    /// Accept whatever certificate the server shows
    #[arg(long)]
    accept_certificate: bool,
    /// Accept this certificate and no other: its SHA-256, as the server's owner tells it
    #[arg(long, value_name = "SHA256", conflicts_with = "accept_certificate")]
    fingerprint: Option<String>,
}

impl AcceptFlags {
    /// Fails unless `shown` is the right one, which a person is asked when no flag says it.
    pub(super) async fn accept(&self, shown: &PeerCertificate) -> Outcome {
        if let Some(expected) = &self.fingerprint {
            let expected = parse(expected)?;
            if expected == shown.fingerprint {
                return Ok(());
            }
            let got = shown.fingerprint;
            return Err(Failure::new(format!(
                "the server shows another certificate: expected {expected}, got {got}"
            ))
            .hint("Somebody may stand in between. Ask the server's owner for its fingerprint."));
        }
        if self.accept_certificate {
            return Ok(());
        }
        emit(&format!("Certificate fingerprint: {}\n", shown.fingerprint))?;
        let mut question = "ok (y/n/[fingerprint])? ";
        loop {
            let Some(answer) = ask(question).await? else {
                return Err(Failure::new(
                    "the server's certificate was not accepted: there is no answer to read",
                )
                .hint("Use --fingerprint SHA256, or --accept-certificate to accept any."));
            };
            match verdict(&answer, shown.fingerprint) {
                Some(true) => return Ok(()),
                Some(false) => return Err(Failure::new("Server certificate NACKed by user")),
                None => question = "Please type 'y', 'n' or the fingerprint: ",
            }
        }
    }
}

/// What an answer means; `None` when it means nothing.
fn verdict(answer: &str, fingerprint: Fingerprint) -> Option<bool> {
    let answer = answer.trim();
    if parse(answer).is_ok_and(|typed| typed == fingerprint) {
        return Some(true);
    }
    match answer.to_ascii_lowercase().as_str() {
        "y" | "yes" => Some(true),
        "" | "n" | "no" => Some(false),
        _ => None,
    }
}

/// A fingerprint as programs print it: also in capitals, and with colons.
fn parse(text: &str) -> Outcome<Fingerprint> {
    text.replace(':', "").to_ascii_lowercase().parse().map_err(|_| {
        Failure::usage(format!("\"{text}\" is no fingerprint: it has 64 hexadecimal digits"))
    })
}

/// The certificate to pin for the server at `url`; empty when an authority vouches for it.
/// `known` is the fingerprint that a token tells: then nobody is asked.
pub(super) async fn trusted(
    url: &str,
    access: &Access,
    flags: &AcceptFlags,
    known: Option<Fingerprint>,
) -> Outcome<String> {
    let asked_for_one = known.is_some() || flags.fingerprint.is_some();
    if !asked_for_one {
        match checked_certificate(url, access, "").await {
            Ok(_) => return Ok(String::new()),
            // The certificate alone is in the way: a person may accept it.
            Err(Error::Tls { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let shown = peer_certificate(url, access).await?;
    match known {
        Some(known) if known == shown.fingerprint => {}
        Some(_) => {
            return Err(Failure::new(format!(
                "Certificate fingerprint mismatch between certificate token and server \"{url}\""
            ))
            .hint("Somebody may stand in between, or the server has a new certificate: ask for a new token."));
        }
        None => flags.accept(&shown).await?,
    }
    if let Some(facts) = &shown.facts
        && facts.not_after < jiff::Timestamp::now()
    {
        note(&format!("Warning: this certificate has expired on {}.", facts.not_after));
    }
    Ok(shown.pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_yes_no_the_fingerprint_or_asked_again() {
        let fingerprint = Fingerprint::from_bytes([0xab; 32]);
        let typed = fingerprint.to_string().to_uppercase();
        for (answer, expected) in [
            ("y", Some(true)),
            ("Yes", Some(true)),
            (typed.as_str(), Some(true)),
            ("n", Some(false)),
            ("", Some(false)),
            ("maybe", None),
            ("abab", None),
        ] {
            assert_eq!(verdict(answer, fingerprint), expected, "{answer}");
        }
        assert_eq!(verdict(&typed.replace("AB", "AC"), fingerprint), None);
    }

    #[test]
    fn fingerprints_may_have_colons() {
        let text = vec!["AB"; 32].join(":");
        assert_eq!(parse(&text).unwrap(), Fingerprint::from_bytes([0xab; 32]));
        assert!(parse("ab").is_err());
    }
}
