//! Image fingerprints: SHA-256 values that no string can pretend to be.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The SHA-256 of an image: of the file of a unified image, of the metadata file followed by
/// the root file system file of a split one. Shown as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// Why a string is not a fingerprint, or not the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// A fingerprint has exactly 64 digits.
    #[error("a fingerprint has 64 hexadecimal digits, \"{0}\" is not one")]
    NotFull(String),
    /// A prefix has 1 to 64 digits.
    #[error("the beginning of a fingerprint is 1 to 64 hexadecimal digits, \"{0}\" is not")]
    NotPrefix(String),
}

impl Fingerprint {
    /// The fingerprint with these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 digits, as tables show it.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) => Ok(Self(bytes)),
            Err(_) => Err(FingerprintError::NotFull(clip(text))),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        // The buffer has exactly twice the bytes, so encoding cannot fail.
        let _ = hex::encode_to_slice(self.0, &mut digits);
        f.pad(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The beginning of a fingerprint: 1 to 64 hex digits, kept in lower case.
///
/// LXD matches it with SQL `LIKE`, where `%` and `_` are wildcards (CVE-2025-54290);
/// here only digits get this far.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(String);

impl Prefix {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `fingerprint` begins with these digits.
    pub fn matches(&self, fingerprint: &Fingerprint) -> bool {
        self.lowest() <= *fingerprint && *fingerprint <= self.highest()
    }

    /// The smallest fingerprint that begins with these digits.
    pub fn lowest(&self) -> Fingerprint {
        self.padded('0')
    }

    /// The largest fingerprint that begins with these digits.
    pub fn highest(&self) -> Fingerprint {
        self.padded('f')
    }

    /// The whole fingerprint, when all 64 digits are given.
    pub fn full(&self) -> Option<Fingerprint> {
        (self.0.len() == 64).then(|| self.lowest())
    }

    fn padded(&self, digit: char) -> Fingerprint {
        let mut digits = self.0.clone();
        digits.extend(std::iter::repeat_n(digit, 64 - self.0.len()));
        let mut bytes = [0; 32];
        // 64 checked digits always decode.
        let _ = hex::decode_to_slice(&digits, &mut bytes);
        Fingerprint(bytes)
    }
}

impl FromStr for Prefix {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=64).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(FingerprintError::NotPrefix(clip(text)))
        }
    }
}

impl From<Fingerprint> for Prefix {
    fn from(fingerprint: Fingerprint) -> Self {
        Self(fingerprint.to_string())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// At most 80 characters of a stranger's text, for an error message.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "a65894de6c07f624ba0f5081f52986186dadd9ea069692e7b5b0335fd8a96d31";

    #[test]
    fn only_64_digits_are_a_fingerprint() {
        let parsed: Fingerprint = FULL.parse().unwrap();
        assert_eq!(parsed.to_string(), FULL);
        assert_eq!(parsed.short(), "a65894de6c07");
        for wrong in ["", "a6", &FULL[1..], "../../etc/passwd", &FULL.replace('a', "g")] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_prefix_matches_whole_ranges_and_knows_no_wildcards() {
        let full: Fingerprint = FULL.parse().unwrap();
        for (text, matches) in
            [("a", true), ("A6589", true), ("a6588", false), ("b", false), (FULL, true)]
        {
            assert_eq!(text.parse::<Prefix>().unwrap().matches(&full), matches, "{text}");
        }
        for wrong in ["", "%", "a_", "a65894de6c07 ", &format!("{FULL}0")] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
    }
}
