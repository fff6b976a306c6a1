//! What a person or a server wants to know about an X.509 certificate, read from its DER.
//!
//! This reads names and dates; it verifies nothing.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Common name of the subject; empty where there is none.
    pub common_name: String,
    /// Organisation of the subject; empty where there is none.
    pub organization: String,
    /// Common name of the issuer; empty where there is none.
    pub issuer: String,
    /// Not valid before.
    pub not_before: Timestamp,
    /// Not valid after.
    pub not_after: Timestamp,
    /// DNS names of the subject.
    pub dns_names: Vec<String>,
    /// DER of the `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
    /// Bits of the modulus when the key is RSA.
    pub rsa_bits: Option<usize>,
}

/// The bytes are no X.509 certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no X.509 certificate")]
pub struct NotACertificate;

type Result<T> = std::result::Result<T, NotACertificate>;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// Explicit tags of the optional fields `version` and `extensions`.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// Context tag of a DNS name among alternative names.
const DNS_NAME: u8 = 0x82;

const OID_COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const OID_ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
const OID_ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// DNS names that are read of one certificate.
const MAX_NAMES: usize = 100;

impl Facts {
    /// Reads the DER of a certificate.
    pub fn read(der: &[u8]) -> Result<Self> {
        let mut certificate = Reader(Reader(der).expect(SEQUENCE)?);
        let mut body = Reader(certificate.expect(SEQUENCE)?);
        body.optional(VERSION)?;
        body.expect(INTEGER)?;
        body.expect(SEQUENCE)?;
        let issuer = body.expect(SEQUENCE)?;
        let mut validity = Reader(body.expect(SEQUENCE)?);
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        let subject = body.expect(SEQUENCE)?;
        let before_key = body.0;
        let key = body.expect(SEQUENCE)?;
        let public_key = before_key[..before_key.len() - body.0.len()].to_vec();
        let mut dns_names = Vec::new();
        while let Some((tag, value)) = body.next()? {
            if tag == EXTENSIONS {
                dns_names = alternative_names(value)?;
            }
        }
        Ok(Self {
            common_name: name(subject, OID_COMMON_NAME)?,
            organization: name(subject, OID_ORGANIZATION)?,
            issuer: name(issuer, OID_COMMON_NAME)?,
            not_before,
            not_after,
            dns_names,
            public_key,
            rsa_bits: rsa_bits(key)?,
        })
    }
}

/// The public key of a certificate with its algorithm, as DER (`SubjectPublicKeyInfo`).
///
/// # Errors
/// [`NotACertificate`] when there is none where it should be.
pub fn public_key(der: &[u8]) -> Result<&[u8]> {
    let mut certificate = Reader(Reader(der).expect(SEQUENCE)?);
    let mut body = Reader(certificate.expect(SEQUENCE)?);
    body.optional(VERSION)?;
    body.expect(INTEGER)?;
    // Algorithm, issuer, validity, subject.
    for _ in 0..4 {
        body.expect(SEQUENCE)?;
    }
    let before = body.0;
    body.expect(SEQUENCE)?;
    Ok(&before[..before.len() - body.0.len()])
}

/// Walks over the values of a DER structure.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>> {
        let Some((&tag, rest)) = self.0.split_first() else { return Ok(None) };
        let (&first, mut rest) = rest.split_first().ok_or(NotACertificate)?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            // No certificate is larger than three bytes can say.
            let digits = usize::from(first & 0x7f);
            if !(1..=3).contains(&digits) {
                return Err(NotACertificate);
            }
            let (bytes, after) = rest.split_at_checked(digits).ok_or(NotACertificate)?;
            length = bytes.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
            rest = after;
        }
        let (value, rest) = rest.split_at_checked(length).ok_or(NotACertificate)?;
        self.0 = rest;
        Ok(Some((tag, value)))
    }

    fn expect(&mut self, wanted: u8) -> Result<&'a [u8]> {
        match self.next()? {
            Some((tag, value)) if tag == wanted => Ok(value),
            _ => Err(NotACertificate),
        }
    }

    fn optional(&mut self, wanted: u8) -> Result<Option<&'a [u8]>> {
        if self.0.first() == Some(&wanted) { self.expect(wanted).map(Some) } else { Ok(None) }
    }

    fn time(&mut self) -> Result<Timestamp> {
        let (tag, text) = self.next()?.ok_or(NotACertificate)?;
        let text = std::str::from_utf8(text).map_err(|_| NotACertificate)?;
        let digits = text.strip_suffix('Z').ok_or(NotACertificate)?;
        let full = match (tag, digits.len()) {
            // Two digits of a year mean 1950 to 2049.
            (UTC_TIME, 12) => {
                let century = if digits < "5" { "20" } else { "19" };
                format!("{century}{digits}")
            }
            (GENERALIZED_TIME, 14) => digits.to_owned(),
            _ => return Err(NotACertificate),
        };
        let time = DateTime::strptime("%Y%m%d%H%M%S", full).map_err(|_| NotACertificate)?;
        TimeZone::UTC.to_timestamp(time).map_err(|_| NotACertificate)
    }
}

/// The first attribute `wanted` of a distinguished name.
fn name(distinguished: &[u8], wanted: &[u8]) -> Result<String> {
    let mut parts = Reader(distinguished);
    while let Some((SET, part)) = parts.next()? {
        let mut attributes = Reader(part);
        while let Some((SEQUENCE, attribute)) = attributes.next()? {
            let mut attribute = Reader(attribute);
            let kind = attribute.expect(OBJECT_ID)?;
            let (_, value) = attribute.next()?.ok_or(NotACertificate)?;
            if kind == wanted {
                let text = String::from_utf8_lossy(value);
                return Ok(text.chars().filter(|c| !c.is_control()).collect());
            }
        }
    }
    Ok(String::new())
}

fn alternative_names(extensions: &[u8]) -> Result<Vec<String>> {
    let mut extensions = Reader(Reader(extensions).expect(SEQUENCE)?);
    while let Some((SEQUENCE, extension)) = extensions.next()? {
        let mut extension = Reader(extension);
        let kind = extension.expect(OBJECT_ID)?;
        extension.optional(BOOLEAN)?;
        let value = extension.expect(OCTET_STRING)?;
        if kind != OID_ALTERNATIVE_NAMES {
            continue;
        }
        let mut names = Reader(Reader(value).expect(SEQUENCE)?);
        let mut found = Vec::new();
        while let Some((tag, name)) = names.next()? {
            if tag == DNS_NAME && found.len() < MAX_NAMES {
                found.push(String::from_utf8_lossy(name).into_owned());
            }
        }
        return Ok(found);
    }
    Ok(Vec::new())
}

fn rsa_bits(key: &[u8]) -> Result<Option<usize>> {
    let mut key = Reader(key);
    let algorithm = Reader(key.expect(SEQUENCE)?).expect(OBJECT_ID)?;
    if algorithm != OID_RSA {
        return Ok(None);
    }
    // A bit string begins with the count of unused bits.
    let bits = key.expect(BIT_STRING)?.get(1..).ok_or(NotACertificate)?;
    let modulus = Reader(Reader(bits).expect(SEQUENCE)?).expect(INTEGER)?;
    let start = modulus.iter().position(|&byte| byte != 0).unwrap_or(modulus.len());
    let significant = &modulus[start..];
    let leading = significant.first().map_or(0, |byte| byte.leading_zeros() as usize);
    Ok(Some(significant.len() * 8 - leading))
}
