//! Public keys whose signatures count, and the check of a signed document.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use jiff::Timestamp;
use pgp::armor::{self, BlockType, Dearmor, DearmorOptions};
use pgp::composed::{PublicOrSecret, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Packet, PacketParser, Signature, SignatureType, SignatureVersion};
use pgp::ser::Serialize;
use pgp::types::{Fingerprint, KeyDetails};

use super::keys::{self, Part};
use super::text::Text;
use super::{KeyError, Refused, file};

/// Signatures of one document that are looked at.
const MOST_SIGNATURES: usize = 8;
/// Hashes whose signatures count, and what they are called in the frame.
const HASHES: &[(HashAlgorithm, &str)] = &[
    (HashAlgorithm::Sha256, "SHA256"),
    (HashAlgorithm::Sha384, "SHA384"),
    (HashAlgorithm::Sha512, "SHA512"),
];

/// Public keys whose signatures count. Cheap to clone.
#[derive(Clone)]
pub struct Keyring(Arc<Vec<SignedPublicKey>>);

/// A document whose signature is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The text that was signed, and nothing else; lines end in a line feed, the last one in
    /// nothing.
    pub payload: Vec<u8>,
    /// When it was signed.
    pub signed_at: Timestamp,
    /// When the signature or its key expires; `None` for never.
    pub until: Option<Timestamp>,
    /// Fingerprint of the key that has signed it, in capital hex digits.
    pub key: String,
}

impl Keyring {
    /// Reads public keys: a binary keyring, or armoured ones, one after the other.
    ///
    /// Keys of an unknown kind are left out as long as another one is there. Whether a key may
    /// sign is looked at when it has signed something, since that changes with time.
    ///
    /// # Errors
    /// When there is no public key in it, a secret one, or too many.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let public = |key| match key {
            PublicOrSecret::Public(key) => Ok(key),
            PublicOrSecret::Secret(_) => Err(KeyError::Secret),
        };
        let keys: Result<Vec<_>, _> = file::read(bytes)?.into_iter().map(public).collect();
        Ok(Self(Arc::new(keys?)))
    }

    /// The keys as one armoured text, which `gpg --import` reads, too.
    pub fn armored(&self) -> String {
        struct All<'a>(&'a [SignedPublicKey]);
        impl Serialize for All<'_> {
            fn to_writer<W: std::io::Write>(&self, writer: &mut W) -> pgp::errors::Result<()> {
                self.0.iter().try_for_each(|key| key.to_writer(writer))
            }
            fn write_len(&self) -> usize {
                self.0.iter().map(Serialize::write_len).sum()
            }
        }
        let mut text = Vec::new();
        // Writing into memory does not fail, and armour is ASCII.
        let _ = armor::write(&All(&self.0), BlockType::PublicKey, &mut text, None, true);
        String::from_utf8(text).unwrap_or_default()
    }

    /// The fingerprints of its main keys, in capital hex digits.
    pub fn fingerprints(&self) -> Vec<String> {
        self.0.iter().map(|key| hex_digits(&key.primary_key.fingerprint())).collect()
    }

    /// Checks a signed document as of now.
    ///
    /// # Errors
    /// Says why its signature does not count.
    pub fn verify(&self, document: &[u8]) -> Result<Verified, Refused> {
        self.verify_at(document, Timestamp::now())
    }

    /// The same as of another time.
    pub fn verify_at(&self, document: &[u8], now: Timestamp) -> Result<Verified, Refused> {
        let Text { payload, hashes, signature } = Text::parse(document)?;
        let mut refused = None;
        for signature in signatures(&signature)? {
            match self.check(&signature, &hashes, &payload, now) {
                Ok(Good { key, signed_at, until }) => {
                    return Ok(Verified { payload, signed_at, until, key });
                }
                // What is wrong with a known key is told rather than that another is unknown.
                Err(unknown @ Refused::UnknownKey(_)) => refused = refused.or(Some(unknown)),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or(Refused::Unsigned))
    }

    /// Who has signed it and when, if the signature is good and its key's word counts.
    fn check(
        &self,
        signature: &Signature,
        announced: &[String],
        payload: &[u8],
        now: Timestamp,
    ) -> Result<Good, Refused> {
        let form = |reason: &str| Refused::Form(reason.to_owned());
        let Some(hash) = signature.hash_alg() else {
            return Err(form("its signature is of an unknown version"));
        };
        if !matches!(signature.version(), SignatureVersion::V4 | SignatureVersion::V6)
            || signature.typ() != Some(SignatureType::Text)
        {
            return Err(form("its signature is of another kind than those of texts"));
        }
        let Some((_, name)) = HASHES.iter().find(|(known, _)| *known == hash) else {
            return Err(Refused::WeakHash(hash.to_string()));
        };
        if !announced.iter().any(|announced| announced == name) {
            return Err(form("its signature uses another hash than it announces"));
        }
        let (certificate, part) = self.issuer(signature)?;
        let key = hex_digits(&part.details(certificate).fingerprint());
        let good = match part {
            Part::Primary => signature.verify(&certificate.primary_key, payload),
            Part::Subkey(subkey) => signature.verify(&subkey.key, payload),
        };
        if good.is_err() {
            return Err(Refused::Wrong(key));
        }
        let Some(signed_at) = signature.created().map(keys::time) else {
            return Err(form("its signature does not say when it was made"));
        };
        if signed_at > keys::later(now, keys::SKEW) {
            return Err(Refused::Future { key, at: signed_at });
        }
        let end = keys::expiry(signature);
        if let Some(at) = end.filter(|end| *end <= now) {
            return Err(Refused::Expired { key, at });
        }
        let until = keys::check(certificate, part, now, signed_at)
            .map_err(|reason| Refused::Key { key: key.clone(), reason })?;
        Ok(Good { key, signed_at, until: [until, end].into_iter().flatten().min() })
    }

    /// The key that a signature says it is by.
    fn issuer(&self, signature: &Signature) -> Result<(&SignedPublicKey, Part<'_>), Refused> {
        let (fingerprints, ids) = (signature.issuer_fingerprint(), signature.issuer_key_id());
        let is_issuer = |key: &dyn KeyDetails| {
            if fingerprints.is_empty() {
                ids.iter().any(|id| **id == key.legacy_key_id())
            } else {
                fingerprints.iter().any(|fingerprint| **fingerprint == key.fingerprint())
            }
        };
        for certificate in self.0.iter() {
            for part in keys::parts(certificate) {
                if is_issuer(part.details(certificate)) {
                    return Ok((certificate, part));
                }
            }
        }
        let named = fingerprints.first().map(|fingerprint| hex_digits(fingerprint));
        let named = named.or_else(|| ids.first().map(|id| id.to_string().to_uppercase()));
        Err(Refused::UnknownKey(named.unwrap_or_else(|| "nobody in particular".to_owned())))
    }
}

/// A signature that counts.
struct Good {
    key: String,
    signed_at: Timestamp,
    until: Option<Timestamp>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.fingerprints()).finish()
    }
}

/// The fingerprint in capital hex digits.
pub(super) fn hex_digits(fingerprint: &Fingerprint) -> String {
    hex::encode_upper(fingerprint.as_bytes())
}

/// The signatures in an armoured block.
fn signatures(block: &str) -> Result<Vec<Signature>, Refused> {
    let damaged = || Refused::Form("its signature is damaged".to_owned());
    let options = DearmorOptions::new().set_limit(block.len().max(1024));
    let mut armor = Dearmor::with_options(block.as_bytes(), options);
    armor.read_header().map_err(|_| damaged())?;
    let mut bytes = Vec::new();
    armor.read_to_end(&mut bytes).map_err(|_| damaged())?;
    let mut signatures = Vec::new();
    for packet in PacketParser::new(&*bytes) {
        match packet {
            Ok(Packet::Signature(signature)) if signatures.len() < MOST_SIGNATURES => {
                signatures.push(signature);
            }
            _ => return Err(damaged()),
        }
    }
    if signatures.is_empty() { Err(damaged()) } else { Ok(signatures) }
}
