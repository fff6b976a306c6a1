//! A secret key, and the signature of it around a document.

use std::fmt;

use jiff::Timestamp;
use pgp::armor::{self, BlockType};
use pgp::composed::{PublicOrSecret, SignedPublicKey, SignedSecretKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::errors::Error;
use pgp::packet::{
    PacketTrait, SecretKey, SecretSubkey, Signature, SignatureConfig, SignatureType, Subpacket,
    SubpacketData,
};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, KeyVersion, Password, SecretParams, SigningKey};

use super::keyring::hex_digits;
use super::keys::{self, Part};
use super::text::{self, Text};
use super::{KeyError, Unusable, file};

/// What signatures of ours hash with, and what it is called in the frame.
const HASH: (HashAlgorithm, &str) = (HashAlgorithm::Sha512, "SHA512");

/// A secret key that signs documents. Prints its fingerprint only.
pub struct Signer {
    certificate: SignedPublicKey,
    key: Secret,
}

enum Secret {
    Primary(Box<SecretKey>),
    Subkey(Box<SecretSubkey>),
}

/// Why a document could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key may not sign any more.
    #[error("the key {key} cannot sign: {reason}")]
    Unusable {
        /// Fingerprint.
        key: String,
        /// Why not.
        reason: Unusable,
    },
    /// GnuPG cuts such lines off, and then finds the signature wrong.
    #[error("it has a line of more than {max} bytes, which GnuPG does not read", max = text::MAX_LINE)]
    LongLine,
    /// Readers would see something else than was signed.
    #[error("it is no text of lines without blanks at their ends")]
    NoText,
    /// The key did not make a signature.
    #[error("signing failed: {0}")]
    Failed(String),
}

impl Signer {
    /// Reads a file with one secret key, binary or armoured, as `gpg --export-secret-keys` writes
    /// it. Of its keys the youngest subkey for signing is taken, else the main one, as `gpg` does.
    ///
    /// # Errors
    /// When there is no such key, it is protected by a passphrase, or it may not sign now.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::from_bytes_at(bytes, Timestamp::now())
    }

    /// The same as of another time.
    pub fn from_bytes_at(bytes: &[u8], now: Timestamp) -> Result<Self, KeyError> {
        let found = file::read(bytes)?;
        let mut secret: Vec<SignedSecretKey> = Vec::new();
        for key in found {
            if let PublicOrSecret::Secret(key) = key {
                secret.push(key);
            }
        }
        match secret.len() {
            1 => {}
            0 => return Err(KeyError::Public),
            several => return Err(KeyError::Several(several)),
        }
        let secret = secret.pop().ok_or(KeyError::Public)?;
        let certificate = secret.to_public_key();
        let key = choose(secret, &certificate, now)?;
        Ok(Self { certificate, key })
    }

    /// The fingerprint of the key that signs, in capital hex digits.
    pub fn fingerprint(&self) -> String {
        hex_digits(&self.details().fingerprint())
    }

    /// The public keys, as a keyring of `gpgv`'s: binary.
    pub fn public_key(&self) -> Vec<u8> {
        self.certificate.to_bytes().unwrap_or_default()
    }

    /// Signs a text of lines. The signature is of now.
    ///
    /// A line feed at its end is not part of what is signed.
    ///
    /// # Errors
    /// When the key has expired meanwhile, or the text has something that a signature of this kind
    /// does not cover or that GnuPG does not read.
    pub fn sign(&self, text: &[u8]) -> Result<Vec<u8>, SignError> {
        self.sign_at(text, Timestamp::now())
    }

    /// Signs a JSON document. Long lines are broken between two values, so that GnuPG reads it.
    ///
    /// # Errors
    /// Those of [`Signer::sign`].
    pub fn sign_json(&self, json: &[u8]) -> Result<Vec<u8>, SignError> {
        self.sign(&text::broken(json))
    }

    /// Signs as of another time.
    pub fn sign_at(&self, text: &[u8], now: Timestamp) -> Result<Vec<u8>, SignError> {
        let part = match &self.key {
            Secret::Primary(_) => Part::Primary,
            Secret::Subkey(_) => self.subkey().ok_or_else(|| self.unusable(Unusable::Absent))?,
        };
        keys::check(&self.certificate, part, now, now).map_err(|reason| self.unusable(reason))?;
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let odd = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n');
        if str::from_utf8(text).is_err() || text.iter().any(odd) {
            return Err(SignError::NoText);
        }
        for line in text.split(|byte| *byte == b'\n') {
            if line.ends_with(b" ") || line.ends_with(b"\t") {
                return Err(SignError::NoText);
            }
            if line.len() + 2 > text::MAX_LINE {
                return Err(SignError::LongLine);
            }
        }
        let signature = match &self.key {
            Secret::Primary(key) => signature(&**key, text, now),
            Secret::Subkey(key) => signature(&**key, text, now),
        };
        let failed = |error: Error| SignError::Failed(error.to_string());
        let signature = signature.map_err(failed)?;
        let mut document = Text::frame(text, HASH.1);
        armor::write(&Packet(&signature), BlockType::Signature, &mut document, None, true)
            .map_err(failed)?;
        Ok(document)
    }

    fn details(&self) -> &dyn KeyDetails {
        match &self.key {
            Secret::Primary(key) => &**key,
            Secret::Subkey(key) => &**key,
        }
    }

    fn subkey(&self) -> Option<Part<'_>> {
        let fingerprint = self.details().fingerprint();
        keys::parts(&self.certificate)
            .find(|part| part.details(&self.certificate).fingerprint() == fingerprint)
    }

    fn unusable(&self, reason: Unusable) -> SignError {
        SignError::Unusable { key: self.fingerprint(), reason }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.fingerprint()).finish()
    }
}

/// The key that signs; of several failures that of the main key is told.
fn choose(
    secret: SignedSecretKey,
    certificate: &SignedPublicKey,
    now: Timestamp,
) -> Result<Secret, KeyError> {
    let usable = |part: Part<'_>, params: &SecretParams| {
        let details = part.details(certificate);
        let key = hex_digits(&details.fingerprint());
        // What other programs could not read helps nobody.
        if details.version() != KeyVersion::V4 {
            return Err(KeyError::Unusable { key, reason: Unusable::Unknown });
        }
        keys::check(certificate, part, now, now)
            .map_err(|reason| KeyError::Unusable { key: key.clone(), reason })?;
        if params.is_encrypted() { Err(KeyError::Passphrase(key)) } else { Ok(()) }
    };
    let primary = usable(Part::Primary, secret.primary_key.secret_params());
    let mut trouble = None;
    let mut subkeys = secret.secret_subkeys;
    subkeys.sort_by_key(|subkey| std::cmp::Reverse(subkey.key.created_at()));
    for subkey in subkeys {
        let fingerprint = subkey.key.fingerprint();
        let public = certificate
            .public_subkeys
            .iter()
            .find(|public| public.key.fingerprint() == fingerprint);
        let Some(public) = public else { continue };
        match usable(Part::Subkey(public), subkey.key.secret_params()) {
            Ok(()) => return Ok(Secret::Subkey(Box::new(subkey.key))),
            // One for encryption is no trouble.
            Err(KeyError::Unusable { reason: Unusable::Purpose, .. }) => {}
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    match (primary, trouble) {
        (Ok(()), _) => Ok(Secret::Primary(Box::new(secret.primary_key))),
        // The main key only certifies: what is wrong with its subkeys is the point.
        (Err(KeyError::Unusable { reason: Unusable::Purpose, .. }), Some(error))
        | (Err(error), _) => Err(error),
    }
}

fn signature(key: &impl SigningKey, text: &[u8], now: Timestamp) -> Result<Signature, Error> {
    let created = u32::try_from(now.as_second()).unwrap_or_default();
    let created = pgp::types::Timestamp::from_secs(created);
    let mut config = SignatureConfig::v4(SignatureType::Text, key.algorithm(), HASH.0);
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::SignatureCreationTime(created))?,
        Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint()))?,
    ];
    config.unhashed_subpackets =
        vec![Subpacket::regular(SubpacketData::IssuerKeyId(key.legacy_key_id()))?];
    config.sign(key, &Password::empty(), text)
}

/// A signature with its packet header.
struct Packet<'a>(&'a Signature);

impl Serialize for Packet<'_> {
    fn to_writer<W: std::io::Write>(&self, writer: &mut W) -> Result<(), Error> {
        self.0.to_writer_with_header(writer)
    }

    fn write_len(&self) -> usize {
        self.0.write_len_with_header()
    }
}
