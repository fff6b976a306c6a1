//! Keys made here and by GnuPG, and every way in which a document can be wrong.

mod gnupg;

use jiff::Timestamp;
use pgp::composed::{ArmorOptions, KeyType, SecretKeyParamsBuilder, SignedSecretKey};
use pgp::ser::Serialize;

use super::text::{self, Text};
use super::*;

const JSON: &[u8] = b"{\n  \"a\": \"- x\",\n- \"dash\": 1\n}\n";

fn secret(user: &str, change: impl Fn(&mut SecretKeyParamsBuilder)) -> SignedSecretKey {
    let mut params = SecretKeyParamsBuilder::default();
    params.key_type(KeyType::Ed25519Legacy).can_certify(true).can_sign(true);
    params.primary_user_id(user.to_owned());
    change(&mut params);
    params.build().unwrap().generate(rand::thread_rng()).unwrap()
}

/// A key for signing, and the keyring that has it alone.
pub(crate) fn ed25519() -> (Signer, Keyring) {
    let secret = secret("test <test@example.org>", |_| {});
    let signer = Signer::from_bytes(&secret.to_bytes().unwrap()).unwrap();
    let keyring = Keyring::from_bytes(&signer.public_key()).unwrap();
    (signer, keyring)
}

#[test]
fn what_is_signed_is_what_comes_back() {
    let (signer, keyring) = ed25519();
    for (text, payload) in [
        (JSON, &JSON[..JSON.len() - 1]),
        (b"", b""),
        (b"{}", b"{}"),
        (b"\n\n- \n"[..2].as_ref(), b"\n"),
        (b"-----BEGIN PGP SIGNATURE-----\nx", b"-----BEGIN PGP SIGNATURE-----\nx"),
    ] {
        let signed = signer.sign(text).unwrap();
        assert!(signed.starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n"));
        let verified = keyring.verify(&signed).unwrap();
        assert_eq!(verified.payload, payload);
        assert_eq!(verified.key, signer.fingerprint());
        assert!(verified.signed_at.duration_until(Timestamp::now()).as_secs() < 60);
        assert_eq!(verified.until, None);
        let windows = String::from_utf8(signed).unwrap().replace('\n', "\r\n");
        assert_eq!(keyring.verify(windows.as_bytes()).unwrap().payload, payload);
    }
}

#[test]
fn keys_come_armoured_or_not_and_several_at_once() {
    let (one, other) = (secret("one", |_| {}), secret("other", |_| {}));
    let armoured = one.to_armored_bytes(ArmorOptions::default()).unwrap();
    let signer = Signer::from_bytes(&armoured).unwrap();
    let other = Signer::from_bytes(&other.to_bytes().unwrap()).unwrap();
    let binary = [other.public_key(), signer.public_key()].concat();
    let both = Keyring::from_bytes(&binary).unwrap();
    assert_eq!(both.fingerprints(), [other.fingerprint(), signer.fingerprint()]);
    let again = Keyring::from_bytes(both.armored().as_bytes()).unwrap();
    assert_eq!(again.fingerprints(), both.fingerprints());
    let alone = |signer: &Signer| Keyring::from_bytes(&signer.public_key()).unwrap().armored();
    let text = format!("Two keys:\n\n{}\n{}", alone(&other), alone(&signer));
    let again = Keyring::from_bytes(text.as_bytes()).unwrap();
    assert_eq!(again.fingerprints(), both.fingerprints());
    for keyring in [both, again] {
        assert_eq!(keyring.verify(&signer.sign(JSON).unwrap()).unwrap().key, signer.fingerprint());
    }
}

#[test]
fn files_that_are_no_use_say_why() {
    let one = secret("one", |_| {});
    let bytes = one.to_bytes().unwrap();
    let public = Signer::from_bytes(&bytes).unwrap().public_key();
    assert_eq!(Keyring::from_bytes(&bytes).unwrap_err(), KeyError::Secret);
    assert_eq!(Signer::from_bytes(&public).unwrap_err(), KeyError::Public);
    let two = [bytes.clone(), secret("two", |_| {}).to_bytes().unwrap()].concat();
    assert_eq!(Signer::from_bytes(&two).unwrap_err(), KeyError::Several(2));
    assert_eq!(Keyring::from_bytes(&vec![0x99; MAX_KEYS + 1]).unwrap_err(), KeyError::TooLarge);
    let many = public.repeat(100);
    assert_eq!(Keyring::from_bytes(&many).unwrap_err(), KeyError::TooLarge);
    for bytes in [&b""[..], b"hello", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAA", &[0x99, 0, 9]]
    {
        assert!(matches!(Keyring::from_bytes(bytes), Err(KeyError::Form(_))), "{bytes:?}");
        assert!(matches!(Signer::from_bytes(bytes), Err(KeyError::Form(_))), "{bytes:?}");
    }
    for cut in 0..public.len() {
        // A part of a key may still be one, but never one whose signatures count.
        let Ok(keyring) = Keyring::from_bytes(&public[..cut]) else { continue };
        let signed = Signer::from_bytes(&bytes).unwrap().sign(JSON).unwrap();
        let refused = keyring.verify(&signed).unwrap_err();
        assert!(matches!(refused, Refused::Key { reason: Unusable::Unbound, .. }), "{refused}");
    }
}

#[test]
fn keys_that_may_not_sign_say_why() {
    let unusable = |bytes: Vec<u8>| match Signer::from_bytes(&bytes).unwrap_err() {
        KeyError::Unusable { reason, .. } => reason,
        error => panic!("{error}"),
    };
    let certifies = secret("only certifies", |params| {
        params.can_sign(false);
    });
    assert_eq!(unusable(certifies.to_bytes().unwrap()), Unusable::Purpose);
    let locked = secret("locked", |params| {
        params.passphrase(Some("secret".to_owned()));
    });
    let error = Signer::from_bytes(&locked.to_bytes().unwrap()).unwrap_err();
    assert!(matches!(error, KeyError::Passphrase(_)), "{error}");
    // Its owner's signature is missing.
    let mut naked = secret("naked", |_| {});
    naked.details.users.clear();
    naked.details.direct_signatures.clear();
    assert_eq!(unusable(naked.to_bytes().unwrap()), Unusable::Unbound);
    // Somebody else's name for it is none of its own.
    let mut stolen = secret("stolen", |_| {});
    stolen.details = secret("thief", |_| {}).details.clone();
    assert_eq!(unusable(stolen.to_bytes().unwrap()), Unusable::Unbound);
}

#[test]
fn nothing_but_one_signed_block_counts() {
    let (signer, keyring) = ed25519();
    let signed = String::from_utf8(signer.sign(JSON).unwrap()).unwrap();
    let armour = signed.find("-----BEGIN PGP SIGNATURE").unwrap();
    let form: &[(&str, String)] = &[
        ("before", format!("\n{signed}")),
        ("a byte order mark", format!("\u{feff}{signed}")),
        ("after", format!("{signed}{{}}\n")),
        ("an empty line after", format!("{signed}\n")),
        ("twice", format!("{signed}{signed}")),
        ("no end", signed[..signed.len() - 30].to_owned()),
        ("no signature", signed[..armour].to_owned()),
        ("a header", signed.replacen("Hash: SHA512", "Hash: SHA512\nComment: {}", 1)),
        ("dashes", signed.replacen("Hash: SHA512", "Hash: SHA512\nNotDashEscaped: x", 1)),
        ("a text as header", signed.replacen("Hash: SHA512\n", "Hash: SHA512\n{}\n", 1)),
        ("blanks for an empty line", signed.replacen("SHA512\n\n", "SHA512\n \n\n", 1)),
        ("no hash", signed.replacen("Hash: SHA512\n", "", 1)),
        ("another hash", signed.replacen("SHA512", "SHA256", 1)),
        ("a dash", signed.replacen("\n- - \"dash", "\n- \"dash", 1).replacen("\n- ", "\n-", 1)),
        ("a carriage return", signed.replacen("\"a\"", "\"a\"\r", 1)),
        ("a zero", signed.replacen("\"a\"", "\"a\"\0", 1)),
        ("a form feed", signed.replacen("\"a\"", "\"a\"\u{c}", 1)),
        ("another block", signed.replacen("PGP SIGNATURE", "PGP MESSAGE", 2)),
        ("a nested block", signed.replacen("\n{", "\n-----BEGIN PGP SIGNED MESSAGE-----\n{", 1)),
    ];
    for (what, document) in form {
        assert_ne!(*document, signed, "{what}");
        let refused = keyring.verify(document.as_bytes()).unwrap_err();
        assert!(matches!(refused, Refused::Form(_)), "{what}: {refused:?}");
    }
    for document in [JSON, b"", b"<html>", b"-----BEGIN PGP MESSAGE-----\n"] {
        assert_eq!(keyring.verify(document).unwrap_err(), Refused::Unsigned);
    }
    let wrong = signed.replacen("\"a\"", "\"b\"", 1);
    assert_eq!(keyring.verify(wrong.as_bytes()), Err(Refused::Wrong(signer.fingerprint())));
    let blanks = signed.replacen("\"- x\",", "\"- x\", \t", 1);
    assert_eq!(keyring.verify(blanks.as_bytes()).unwrap().payload, JSON[..JSON.len() - 1]);
}

#[test]
fn no_change_of_one_byte_is_taken_for_what_was_signed() {
    let (signer, keyring) = ed25519();
    let signed = signer.sign(JSON).unwrap();
    for at in 0..signed.len() {
        for change in [0x01, 0x20, 0x80] {
            let mut changed = signed.clone();
            changed[at] ^= change;
            if let Ok(verified) = keyring.verify(&changed) {
                assert_eq!(verified.payload, JSON[..JSON.len() - 1], "{at} {change:#x}");
            }
        }
        assert!(keyring.verify(&signed[..at]).is_err() || at == signed.len() - 1, "{at}");
    }
}

#[test]
fn another_key_and_another_time_do_not_do() {
    let (signer, keyring) = ed25519();
    let (_, other) = ed25519();
    let now = Timestamp::now();
    let hours = |hours: i64| now + jiff::SignedDuration::from_hours(hours);
    let signed = signer.sign(JSON).unwrap();
    assert_eq!(other.verify(&signed), Err(Refused::UnknownKey(signer.fingerprint())));
    let refused = keyring.verify_at(&signed, hours(-2)).unwrap_err();
    assert!(matches!(refused, Refused::Future { .. }), "{refused}");
    keyring.verify_at(&signed, hours(24 * 3650)).unwrap();
    // The key is younger than that.
    let error = signer.sign_at(JSON, hours(-2)).unwrap_err();
    assert!(error.to_string().contains("cannot sign"), "{error}");
}

#[test]
fn text_that_a_signature_does_not_cover_is_not_signed() {
    let (signer, _) = ed25519();
    for text in [&b"a \nb"[..], b"a\t", b"\xff", b"a\rb", b"a\r\nb", b"\0"] {
        let error = signer.sign(text).unwrap_err();
        assert!(matches!(error, SignError::NoText), "{text:?}: {error}");
    }
    let long = vec![b'x'; text::MAX_LINE];
    assert!(matches!(signer.sign(&long), Err(SignError::LongLine)));
}

#[test]
fn long_lines_of_json_are_broken_between_values() {
    let text = |length: usize| "x".repeat(length);
    let values: Vec<String> = (0..3000).map(|number| format!("a,\\\"{number},{{")).collect();
    for (json, whole) in [
        (serde_json::json!({ "a": values, "b": text(9000), "c": text(12_000) }), false),
        (serde_json::json!({ "a": 1 }), true),
    ] {
        let bytes = serde_json::to_vec(&json).unwrap();
        let broken = text::broken(&bytes);
        let read: serde_json::Value = serde_json::from_slice(&broken).unwrap();
        assert_eq!(read, json);
        assert_eq!(*broken == *bytes, whole);
        assert!(broken.split(|byte| *byte == b'\n').all(|line| line.len() < text::MAX_LINE - 2));
    }
    let (signer, keyring) = ed25519();
    let json = serde_json::to_vec(&serde_json::json!({ "a": values })).unwrap();
    let verified = keyring.verify(&signer.sign_json(&json).unwrap()).unwrap();
    let without: Vec<u8> = verified.payload.into_iter().filter(|byte| *byte != b'\n').collect();
    assert_eq!(without, json);
}

#[test]
fn the_frame_is_read_as_written() {
    let (signer, _) = ed25519();
    let signed = signer.sign(b"-a\n- b\n\nc").unwrap();
    let text = Text::parse(&signed).unwrap();
    assert_eq!((text.payload, text.hashes), (b"-a\n- b\n\nc".to_vec(), vec!["SHA512".to_owned()]));
    assert!(text.signature.starts_with("-----BEGIN PGP SIGNATURE-----\n"));
}
