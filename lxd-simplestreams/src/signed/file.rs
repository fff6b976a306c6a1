//! Files of keys: binary or armoured, one key or several, public or secret.

use std::io::Read;

use pgp::armor::{Dearmor, DearmorOptions};
use pgp::composed::{Deserializable, PublicOrSecret, SignedPublicKey, SignedSecretKey};
use pgp::errors::Error;
use pgp::packet::{Packet, PacketParser};

use super::{KeyError, MAX_KEYS};

/// Keys of one file.
pub(super) const MOST_KEYS: usize = 64;
/// Packets of one file; a byte of it makes no more than one.
const MOST_PACKETS: usize = MAX_KEYS;
/// Where an armoured block begins.
const BEGIN: &str = "-----BEGIN PGP ";

/// The keys of a file, in its order. Those of an unknown kind are left out as long as another one
/// is there.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<PublicOrSecret>, KeyError> {
    if bytes.len() > MAX_KEYS {
        return Err(KeyError::TooLarge);
    }
    if bytes.get(8..12) == Some(b"KBXf") {
        return Err(KeyError::Keybox);
    }
    let mut keys = Vec::new();
    let mut trouble = None;
    let mut take = |binary: &[u8]| {
        for group in groups(binary, &mut trouble) {
            match key(group) {
                Ok(key) => keys.push(key),
                Err(error) => trouble = Some(form(&error)),
            }
        }
    };
    // The first bit tells a packet from text.
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        take(bytes);
    } else {
        let text = String::from_utf8_lossy(bytes);
        for block in text.split(BEGIN).skip(1) {
            take(&unarmored(&format!("{BEGIN}{block}"))?);
        }
    }
    match keys.len() {
        0 => Err(trouble.unwrap_or_else(|| KeyError::Form("there is none in it".to_owned()))),
        1..=MOST_KEYS => Ok(keys),
        _ => Err(KeyError::TooLarge),
    }
}

/// The bytes in one armoured block.
fn unarmored(block: &str) -> Result<Vec<u8>, KeyError> {
    let options = DearmorOptions::new().set_limit(MAX_KEYS);
    let mut armor = Dearmor::with_options(block.as_bytes(), options);
    armor.read_header().map_err(|error| form(&error))?;
    let mut bytes = Vec::new();
    armor.read_to_end(&mut bytes).map_err(|error| KeyError::Form(error.to_string()))?;
    Ok(bytes)
}

/// The packets that belong to one key, for each key.
fn groups(bytes: &[u8], trouble: &mut Option<KeyError>) -> Vec<Vec<Packet>> {
    let mut groups: Vec<Vec<Packet>> = Vec::new();
    for packet in PacketParser::new(bytes).take(MOST_PACKETS) {
        match packet {
            Ok(packet @ (Packet::PublicKey(_) | Packet::SecretKey(_))) => groups.push(vec![packet]),
            // What GnuPG thinks of a key, in its own files.
            Ok(Packet::Trust(_) | Packet::Marker(_) | Packet::Padding(_)) => {}
            Ok(packet) => {
                if let Some(group) = groups.last_mut() {
                    group.push(packet);
                }
            }
            Err(error) => {
                let known = !matches!(error, Error::Unsupported { .. });
                *trouble = Some(form(&error));
                if known && groups.is_empty() {
                    break;
                }
            }
        }
    }
    groups
}

fn key(packets: Vec<Packet>) -> Result<PublicOrSecret, Error> {
    let is_secret = matches!(packets.first(), Some(Packet::SecretKey(_)));
    let packets = packets.into_iter().map(Ok);
    let none = || Error::NoMatchingPacket { backtrace: None };
    if is_secret {
        let key = SignedSecretKey::from_packets(packets.peekable()).next();
        key.unwrap_or_else(|| Err(none())).map(PublicOrSecret::Secret)
    } else {
        let key = SignedPublicKey::from_packets(packets.peekable()).next();
        key.unwrap_or_else(|| Err(none())).map(PublicOrSecret::Public)
    }
}

fn form(error: &Error) -> KeyError {
    KeyError::Form(error.to_string())
}
