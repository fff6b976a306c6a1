//! What a certificate says about its keys: which of them may sign, and how long.
//!
//! The certificates are those that a person has named as the right ones, so their own signatures
//! may still use SHA-1, as those of many old keys do; MD5 counts nowhere.

use jiff::Timestamp;
use pgp::composed::{SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{Duration, KeyDetails, KeyVersion, PublicParams, Tag};

use super::Unusable;

/// How far clocks may differ, in seconds.
pub(super) const SKEW: i64 = 3600;
/// The shortest RSA key, in bytes.
const MIN_RSA: usize = 2048 / 8;
/// Signatures of one key that are looked at; honest ones have a handful.
const MOST_SIGNATURES: usize = 256;

/// One key of a certificate.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    Primary,
    Subkey(&'a SignedPublicSubKey),
}

/// The keys of a certificate, the main one first.
pub(super) fn parts(certificate: &SignedPublicKey) -> impl Iterator<Item = Part<'_>> {
    std::iter::once(Part::Primary).chain(certificate.public_subkeys.iter().map(Part::Subkey))
}

impl Part<'_> {
    /// What is known about the key itself.
    pub(super) fn details<'k>(&'k self, certificate: &'k SignedPublicKey) -> &'k dyn KeyDetails {
        match self {
            Part::Primary => &certificate.primary_key,
            Part::Subkey(subkey) => &subkey.key,
        }
    }
}

/// Checks that a key may sign `now`, and might at `signed`; says until when, if not for ever.
pub(super) fn check(
    certificate: &SignedPublicKey,
    part: Part<'_>,
    now: Timestamp,
    signed: Timestamp,
) -> Result<Option<Timestamp>, Unusable> {
    let primary = &certificate.primary_key;
    let details = part.details(certificate);
    strong(primary)?;
    strong(details)?;
    let revoked = |signature: &&Signature| {
        is_sound(signature, HASHES) && signature.verify_key(primary).is_ok()
    };
    if few(&certificate.details.revocation_signatures).any(|signature| revoked(&signature)) {
        return Err(Unusable::Revoked);
    }
    let own = own(certificate, now).ok_or(Unusable::Unbound)?;
    let end = lives(primary, own.expiry, now)?;
    let end = match part {
        Part::Primary if !own.signs => return Err(Unusable::Purpose),
        Part::Primary => end,
        Part::Subkey(subkey) => [end, bound(certificate, subkey, now)?].into_iter().flatten().min(),
    };
    let created = time(details.created_at());
    if created > later(signed, SKEW) { Err(Unusable::TooYoung(created)) } else { Ok(end) }
}

/// What the newest words of a certificate about its main key come to.
struct Own {
    /// Seconds after it was made; 0 for ever.
    expiry: u32,
    signs: bool,
}

fn own(certificate: &SignedPublicKey, now: Timestamp) -> Option<Own> {
    let primary = &certificate.primary_key;
    let direct = few(&certificate.details.direct_signatures).filter(|signature| {
        signature.typ() == Some(SignatureType::Key) && signature.verify_key(primary).is_ok()
    });
    let direct = newest(direct, now);
    let mut named: Option<&Signature> = None;
    for user in certificate.details.users.iter().take(MOST_SIGNATURES) {
        let valid = || {
            let by_itself = |signature: &&Signature| {
                signature.verify_certification(primary, Tag::UserId, &user.id).is_ok()
            };
            few(&user.signatures).filter(by_itself)
        };
        let is_revocation =
            |signature: &Signature| signature.typ() == Some(SignatureType::CertRevocation);
        let revoked = newest(valid().filter(|signature| is_revocation(signature)), now);
        let said = newest(valid().filter(|signature| !is_revocation(signature)), now);
        let said =
            said.filter(|said| revoked.is_none_or(|revoked| revoked.created() < said.created()));
        named = [named, said].into_iter().flatten().max_by_key(|signature| signature.created());
    }
    let newer = [direct, named].into_iter().flatten().max_by_key(|said| said.created())?;
    // A newer word about the key as a whole may say nothing about this.
    let expiry = newer.key_expiration_time().or_else(|| named?.key_expiration_time());
    let signs = [Some(newer), named].into_iter().flatten().find_map(may_sign);
    Some(Own {
        expiry: expiry.map_or(0, Duration::as_secs),
        // Old keys do not say what they are for.
        signs: signs.unwrap_or(true),
    })
}

/// Checks that a subkey belongs to its certificate, both ways, and may sign now; says until when.
fn bound(
    certificate: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    now: Timestamp,
) -> Result<Option<Timestamp>, Unusable> {
    let primary = &certificate.primary_key;
    let of = |kind: SignatureType| {
        few(&subkey.signatures).filter(move |signature| {
            signature.typ() == Some(kind)
                && is_sound(signature, HASHES)
                && signature.verify_subkey_binding(primary, &subkey.key).is_ok()
        })
    };
    if of(SignatureType::SubkeyRevocation).next().is_some() {
        return Err(Unusable::Revoked);
    }
    let binding = newest(of(SignatureType::SubkeyBinding), now).ok_or(Unusable::Unbound)?;
    if may_sign(binding) != Some(true) {
        return Err(Unusable::Purpose);
    }
    // Without it somebody could claim another's key as their own.
    let back = binding.embedded_signature().filter(|back| is_sound(back, HASHES));
    let back =
        back.is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok());
    if !back {
        return Err(Unusable::Unbound);
    }
    let expiry = binding.key_expiration_time().map_or(0, Duration::as_secs);
    lives(&subkey.key, expiry, now)
}

/// Hashes that count in a certificate.
const HASHES: &[HashAlgorithm] = &[
    HashAlgorithm::Sha1,
    HashAlgorithm::Sha224,
    HashAlgorithm::Sha256,
    HashAlgorithm::Sha384,
    HashAlgorithm::Sha512,
    HashAlgorithm::Sha3_256,
    HashAlgorithm::Sha3_512,
];

/// Whether a signature is of a kind that can be relied on.
fn is_sound(signature: &Signature, hashes: &[HashAlgorithm]) -> bool {
    signature.hash_alg().is_some_and(|hash| hashes.contains(&hash))
}

/// The newest signature that counts now.
fn newest<'a>(
    signatures: impl Iterator<Item = &'a Signature>,
    now: Timestamp,
) -> Option<&'a Signature> {
    let counts = |signature: &&Signature| {
        let Some(created) = signature.created() else { return false };
        is_sound(signature, HASHES)
            && time(created) <= later(now, SKEW)
            && expiry(signature).is_none_or(|end| end > now)
    };
    signatures.filter(counts).max_by_key(|signature| signature.created())
}

fn few(signatures: &[Signature]) -> impl Iterator<Item = &Signature> {
    signatures.iter().take(MOST_SIGNATURES)
}

/// What a signature says about signing; `None` when it says nothing.
fn may_sign(signature: &Signature) -> Option<bool> {
    signature.config()?.hashed_subpackets().find_map(|packet| match &packet.data {
        SubpacketData::KeyFlags(flags) => Some(flags.sign()),
        _ => None,
    })
}

/// When a signature stops to count; `None` when it never does.
pub(super) fn expiry(signature: &Signature) -> Option<Timestamp> {
    let lasts = signature.signature_expiration_time()?.as_secs();
    let created = time(signature.created()?);
    (lasts > 0).then(|| later(created, i64::from(lasts)))
}

/// A point in time as OpenPGP counts it.
pub(super) fn time(time: pgp::types::Timestamp) -> Timestamp {
    Timestamp::from_second(i64::from(time.as_secs())).unwrap_or_default()
}

/// So many seconds later; the end of time if that lies behind it.
pub(super) fn later(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// When a key expires that lasts so many seconds; 0 is for ever.
fn lives(key: &dyn KeyDetails, lasts: u32, now: Timestamp) -> Result<Option<Timestamp>, Unusable> {
    let end = later(time(key.created_at()), i64::from(lasts));
    match lasts {
        0 => Ok(None),
        _ if end <= now => Err(Unusable::Expired(end)),
        _ => Ok(Some(end)),
    }
}

/// Refuses keys whose signatures can be forged, or that are unknown here.
fn strong(key: &dyn KeyDetails) -> Result<(), Unusable> {
    if key.version() < KeyVersion::V4 {
        return Err(Unusable::Weak);
    }
    match key.public_params() {
        // Two numbers, each with its length before it; the second one is small.
        PublicParams::RSA(params) if params.write_len() <= 2 + MIN_RSA + 2 => Err(Unusable::Weak),
        PublicParams::RSA(_)
        | PublicParams::ECDSA(_)
        | PublicParams::EdDSALegacy(_)
        | PublicParams::Ed25519(_)
        | PublicParams::Ed448(_) => Ok(()),
        PublicParams::DSA(_) => Err(Unusable::Weak),
        PublicParams::ECDH(_)
        | PublicParams::Elgamal(_)
        | PublicParams::X25519(_)
        | PublicParams::X448(_) => Err(Unusable::Purpose),
        PublicParams::Unknown { .. } => Err(Unusable::Unknown),
    }
}
