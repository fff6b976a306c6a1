//! OpenPGP keys that have been around for a while.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use lxd_simplestreams::signed::{Keyring, Signer};
use pgp::composed::{KeyType, SecretKeyParamsBuilder, SignedSecretKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, Password, SignedUser, Tag, Timestamp as OpenpgpTime};

use super::Tree;

/// How old the keys are.
const AGE: Duration = Duration::from_hours(1000);

/// A key of somebody's, and the armoured keyring with it.
pub(crate) fn key() -> (Signer, String) {
    let mut params = SecretKeyParamsBuilder::default();
    let created = (SystemTime::now() - AGE).try_into().unwrap();
    params.key_type(KeyType::Ed25519Legacy).can_certify(true).can_sign(true).created_at(created);
    params.primary_user_id("test <test@example.org>".to_owned());
    let mut secret = params.build().unwrap().generate(rand::thread_rng()).unwrap();
    secret.details.users = vec![owner(&secret, created)];
    let signer = Signer::from_bytes(&secret.to_bytes().unwrap()).unwrap();
    let keyring = Keyring::from_bytes(&signer.public_key()).unwrap().armored();
    (signer, keyring)
}

/// The owner's own signature, as old as the key.
fn owner(secret: &SignedSecretKey, created: OpenpgpTime) -> SignedUser {
    let (key, id) = (&secret.primary_key, &secret.details.users[0].id);
    let mut flags = KeyFlags::default();
    flags.set_sign(true);
    flags.set_certify(true);
    let mut config =
        SignatureConfig::v4(SignatureType::CertPositive, key.algorithm(), HashAlgorithm::Sha512);
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::SignatureCreationTime(created)).unwrap(),
        Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint())).unwrap(),
        Subpacket::regular(SubpacketData::KeyFlags(flags)).unwrap(),
    ];
    let password = Password::empty();
    let signature =
        config.sign_certification(key, key.public_key(), &password, Tag::UserId, id).unwrap();
    SignedUser::new(id.clone(), vec![signature])
}

/// The files of a tree as it was signed so many hours ago, in place of what is not signed.
pub(crate) fn signed(tree: &Tree, signer: &Signer, hours: i64) -> BTreeMap<String, Vec<u8>> {
    let at = Timestamp::now() - SignedDuration::from_hours(hours);
    let mut files = tree.files();
    let documents: Vec<String> =
        files.keys().filter(|path| path.starts_with("streams/")).cloned().collect();
    for path in documents {
        let text = String::from_utf8(files.remove(&path).unwrap()).unwrap();
        let text = text.replace(".json\"", ".sjson\"");
        let document = signer.sign_at(text.as_bytes(), at).unwrap();
        files.insert(path.replace(".json", ".sjson"), document);
    }
    files
}
